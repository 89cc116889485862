//! An allocator that counts what is held, for the whole of a test program.

use std::{
    alloc::{GlobalAlloc, Layout as Block, System},
    sync::atomic::{AtomicUsize, Ordering},
};

/// Bytes that are held.
pub(crate) static NOW: AtomicUsize = AtomicUsize::new(0);
/// The most that was held at once.
pub(crate) static PEAK: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call is handed to the system allocator unchanged; only sizes are counted.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, block: Block) -> *mut u8 {
        let now = NOW.fetch_add(block.size(), Ordering::Relaxed) + block.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: as the caller of this function promises.
        unsafe { System.alloc(block) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, block: Block) {
        NOW.fetch_sub(block.size(), Ordering::Relaxed);
        // SAFETY: as the caller of this function promises.
        unsafe { System.dealloc(memory, block) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
