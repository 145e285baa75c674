//! Buffers of one thread that wait for the next connection which has something to say: who is silent holds none.

use std::cell::RefCell;

use bytes::BytesMut;

/// Bytes of a buffer.
pub(super) const SIZE: usize = 16 * 1024;
/// The most that are kept.
const MOST: usize = 64;

thread_local! {
    static SPARE: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer with room for [`SIZE`] bytes.
pub(super) fn take() -> BytesMut {
    SPARE.with_borrow_mut(Vec::pop).unwrap_or_else(|| BytesMut::with_capacity(SIZE))
}

/// Gives back a buffer whose content nobody needs. One that others still read from, or that has grown, is dropped.
pub(super) fn give(mut buffer: BytesMut) {
    buffer.clear();
    if buffer.try_reclaim(SIZE) && buffer.capacity() <= 2 * SIZE {
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < MOST {
                spare.push(buffer);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_back_is_taken_again_unless_somebody_reads_it() {
        let mut buffer = take();
        buffer.extend_from_slice(b"head and body");
        let place = buffer.as_ptr();
        give(buffer);
        let mut buffer = take();
        assert_eq!((buffer.as_ptr(), buffer.len()), (place, 0));
        buffer.extend_from_slice(b"kept");
        let kept = buffer.split().freeze();
        give(buffer);
        assert_ne!(take().as_ptr(), place);
        assert_eq!(kept, "kept");
    }
}
