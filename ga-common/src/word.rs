//! A 64-bit cell that kernel and agent share: relaxed atomic loads and stores.

#[cfg(not(target_arch = "bpf"))]
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// One shared word.
#[cfg(not(target_arch = "bpf"))]
#[repr(transparent)]
#[derive(Debug)]
pub struct Word(AtomicU64);

#[cfg(not(target_arch = "bpf"))]
impl Word {
    /// A word that holds `value`.
    pub const fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    /// What it holds.
    pub fn load(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Makes it hold `value`.
    pub fn store(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Turns the bits that are set in `bits`.
    pub fn turn(&self, bits: u64) {
        self.0.fetch_xor(bits, Relaxed);
    }

    /// Compare-and-swap; true when the word held `old` and now holds `new`.
    pub fn swap(&self, old: u64, new: u64) -> bool {
        self.0.compare_exchange(old, new, Relaxed, Relaxed).is_ok()
    }
}

/// One shared word. LLVM cannot select atomic loads for the BPF target before its version 4; a volatile access of an aligned
/// word is one instruction there, which is the same thing.
#[cfg(target_arch = "bpf")]
#[repr(transparent)]
#[derive(Debug)]
pub struct Word(core::cell::UnsafeCell<u64>);

// SAFETY: every access is one aligned 64-bit load, store or compare-and-swap instruction.
#[cfg(target_arch = "bpf")]
unsafe impl Sync for Word {}

#[cfg(target_arch = "bpf")]
impl Word {
    /// What it holds.
    #[inline(always)]
    pub fn load(&self) -> u64 {
        // SAFETY: the reference is valid and aligned.
        unsafe { self.0.get().read_volatile() }
    }

    /// Makes it hold `value`.
    #[inline(always)]
    pub fn store(&self, value: u64) {
        // SAFETY: as above; sharing is the purpose of the type.
        unsafe { self.0.get().write_volatile(value) }
    }

    /// Where it lies, for the compare-and-swap instruction.
    #[inline(always)]
    pub fn as_ptr(&self) -> *mut u64 {
        self.0.get()
    }
}
