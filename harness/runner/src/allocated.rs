//! Counts the bytes the program has allocated, exactly. Off unless a memory job switches it on: then a load of one flag is all it costs. And what the
//! C library's allocator does with what is freed.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};

pub struct Counting;

static ON: AtomicBool = AtomicBool::new(false);
static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// Counts from here on. What was allocated before and is freed later would make the count negative, so this comes first in a memory job.
pub fn start_counting() {
    ON.store(true, Relaxed);
}

/// Bytes allocated and not freed since [`start_counting`].
pub fn now() -> u64 {
    NOW.load(Relaxed) as u64
}

/// The most there ever was at once.
pub fn peak() -> u64 {
    PEAK.load(Relaxed) as u64
}

/// While a model is loaded, weights come and go that are not wanted again in that size: whatever is large goes back to the system at once. While it runs,
/// activations of the same sizes come again and again: nothing goes back, since every page that comes anew costs a fault. The C library adapts to the
/// largest it has seen, which while loading leaves holes as large as weights.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn is_loading(loading: bool) {
    const LARGE: i32 = 256 << 10;
    // As large as the library allows.
    const NEVER: i32 = 32 << 20;
    let (mapped, kept) = if loading { (LARGE, LARGE) } else { (NEVER, i32::MAX) };
    // SAFETY: both only change settings of the allocator, and what it refuses stays as it was.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, mapped);
        libc::mallopt(libc::M_TRIM_THRESHOLD, kept);
        if !loading {
            libc::malloc_trim(0);
        }
    }
}

/// Other C libraries give back what is large anyway.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn is_loading(_: bool) {}

fn add(bytes: usize) {
    let now = NOW.fetch_add(bytes, Relaxed) + bytes;
    PEAK.fetch_max(now, Relaxed);
}

fn remove(bytes: usize) {
    // Saturating: a block from before counting began may be freed now.
    let _ = NOW.fetch_update(Relaxed, Relaxed, |now| Some(now.saturating_sub(bytes)));
}

// SAFETY: every call goes to the system's allocator unchanged; only counters are kept beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are passed on.
        let block = unsafe { System.alloc(layout) };
        if ON.load(Relaxed) && !block.is_null() {
            add(layout.size());
        }
        block
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are passed on. Not `alloc` and a fill: that would touch pages and change the peak.
        let block = unsafe { System.alloc_zeroed(layout) };
        if ON.load(Relaxed) && !block.is_null() {
            add(layout.size());
        }
        block
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promises are passed on.
        let moved = unsafe { System.realloc(block, layout, size) };
        if ON.load(Relaxed) && !moved.is_null() {
            remove(layout.size());
            add(size);
        }
        moved
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(block, layout) };
        if ON.load(Relaxed) {
            remove(layout.size());
        }
    }
}
