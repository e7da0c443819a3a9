//! The peak memory of unpacking. A program of its own, because all of its allocations count. `--features encode`.

use std::{
    alloc::{GlobalAlloc, Layout as Memory, System},
    sync::atomic::{AtomicUsize, Ordering},
};

use espalier_weights::{
    Channels, WeightsError,
    pack::{Choice, Pack, Span, pack},
};

/// Counts the peak of allocated bytes.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Memory) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Memory) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Memory) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Memory is bounded by the size of the file and an encoded section.
#[test]
fn a_bomb_takes_no_more_than_it_is_allowed() {
    // As many zeros as are allowed, and far more.
    for (megabytes, allowed) in [(15, true), (40, false)] {
        let file = vec![0; megabytes << 20];
        let span = Span {
            name: "zeros".into(),
            shape: vec![megabytes as u64, 1 << 18],
            rows: megabytes as u64,
            channels: Channels::Rows,
            offset: 0,
        };
        for form in ["bitmap", "csr", "dense", "block-csr-256x256"] {
            match pack(&file, &[(span.clone(), Choice::Form(form.parse().unwrap()))]) {
                Ok(packed) => {
                    assert!(allowed);
                    let before = LIVE.load(Ordering::Relaxed);
                    PEAK.store(before, Ordering::Relaxed);
                    let back = Pack::open(&packed.bytes).unwrap().unpack().unwrap();
                    assert!(back == file, "{form}");
                    let taken = PEAK.load(Ordering::Relaxed) - before;
                    println!("{form}: {} bytes, {taken} at most", packed.bytes.len());
                    assert!(taken < 5 * file.len(), "{form}: {taken}");
                }
                Err(WeightsError::Bomb { .. }) => assert!(!allowed),
                Err(error) => panic!("{error}"),
            }
        }
    }
}
