//! Counts the bytes that the program has allocated, exactly. Only memory jobs switch it on; otherwise it costs the load
//! of one flag. It also controls what the C library's allocator does with freed memory.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};

pub struct Counting;

static ON: AtomicBool = AtomicBool::new(false);
static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// Starts counting. Memory that was allocated before and is freed later would make the count negative, so a memory job
/// calls this first.
pub fn start_counting() {
    ON.store(true, Relaxed);
}

/// Bytes allocated and not freed since [`start_counting`].
pub fn now() -> u64 {
    NOW.load(Relaxed) as u64
}

/// The highest value of [`now`] so far.
pub fn peak() -> u64 {
    PEAK.load(Relaxed) as u64
}

/// While a model is loaded, weights are allocated and freed whose sizes do not recur: large blocks go back to the
/// system at once. While it runs, activations of the same sizes recur: nothing goes back, because every new page costs
/// a page fault. Left to itself the C library adapts to the largest block it has seen, which leaves holes as large as
/// weights.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn is_loading(loading: bool) {
    const LARGE: i32 = 256 << 10;
    // The largest value that the library allows.
    const NEVER: i32 = 32 << 20;
    let (mapped, kept) = if loading { (LARGE, LARGE) } else { (NEVER, i32::MAX) };
    // SAFETY: these calls only change settings of the allocator, or free unused memory.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, mapped);
        libc::mallopt(libc::M_TRIM_THRESHOLD, kept);
        if !loading {
            libc::malloc_trim(0);
        }
    }
}

/// Other C libraries return large blocks to the system anyway.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn is_loading(_: bool) {}

fn add(bytes: usize) {
    let now = NOW.fetch_add(bytes, Relaxed) + bytes;
    PEAK.fetch_max(now, Relaxed);
}

fn remove(bytes: usize) {
    // Saturating, because the block may be older than the count.
    let _ = NOW.fetch_update(Relaxed, Relaxed, |now| Some(now.saturating_sub(bytes)));
}

// SAFETY: every call goes to the system's allocator unchanged; only counters are added.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract.
        let block = unsafe { System.alloc(layout) };
        if ON.load(Relaxed) && !block.is_null() {
            add(layout.size());
        }
        block
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract. Not `alloc` and a fill: that would touch pages and change the peak.
        let block = unsafe { System.alloc_zeroed(layout) };
        if ON.load(Relaxed) && !block.is_null() {
            add(layout.size());
        }
        block
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller keeps the contract.
        let moved = unsafe { System.realloc(block, layout, size) };
        if ON.load(Relaxed) && !moved.is_null() {
            remove(layout.size());
            add(size);
        }
        moved
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(block, layout) };
        if ON.load(Relaxed) {
            remove(layout.size());
        }
    }
}
