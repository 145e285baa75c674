//! Where frames of HTTP/3 begin and end (RFC 9114 §7.1), watched as their bytes pass to the library.
//!
//! The library keeps a frame that is not data until all of it is there, whatever length it claims, and takes a stream that ends within
//! its data for one that ended well. Neither happens to streams that were watched.

use thiserror::Error;

/// Types of frames (RFC 9114 §7.2).
const DATA: u64 = 0;
const HEADERS: u64 = 1;

/// Why a stream is not read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum Fault {
    #[error("a frame claims to be {0} bytes long")]
    TooLong(u64),
    #[error("the stream ended within a frame")]
    Unfinished,
}

/// The frames of a stream.
#[derive(Debug)]
pub(super) struct Frames {
    /// The most bytes of a frame that is not data.
    most: u64,
    part: Part,
    /// Bytes of a number of which the rest is to come.
    number: Number,
    /// Frames that carry nothing: all but a request's head, its data and its trailers.
    idle: u32,
    is_request: bool,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// The type of a unidirectional stream, which tells whether frames follow (RFC 9114 §6.2).
    Stream,
    Type,
    Length {
        is_data: bool,
        is_head: bool,
    },
    /// So many bytes.
    Payload {
        is_data: bool,
        left: u64,
    },
    /// No frames.
    Other,
}

impl Frames {
    /// Those of a request, in which the longest that is not data is `most` bytes.
    pub(super) fn of_request(most: u64) -> Self {
        Self { most, part: Part::Type, number: Number::default(), idle: 0, is_request: true }
    }

    /// Those of a unidirectional stream.
    pub(super) fn of_unidirectional(most: u64) -> Self {
        Self { most, part: Part::Stream, number: Number::default(), idle: 0, is_request: false }
    }

    /// How many frames that carry nothing came since this was asked.
    pub(super) fn take_idle(&mut self) -> u32 {
        std::mem::take(&mut self.idle)
    }

    /// Looks at the next bytes of the stream: how many of them are data of a body.
    ///
    /// # Errors
    /// [`Fault::TooLong`].
    pub(super) fn pass(&mut self, mut bytes: &[u8]) -> Result<u64, Fault> {
        let mut data = 0;
        loop {
            match self.part {
                Part::Other => return Ok(data),
                Part::Payload { left: 0, .. } => self.part = Part::Type,
                Part::Payload { is_data, left } => {
                    let here = left.min(bytes.len() as u64);
                    if here == 0 {
                        return Ok(data);
                    }
                    data += if is_data { here } else { 0 };
                    bytes = bytes.get(usize::try_from(here).unwrap_or(usize::MAX)..).unwrap_or_default();
                    self.part = Part::Payload { is_data, left: left - here };
                }
                Part::Stream | Part::Type | Part::Length { .. } => {
                    let Some((first, rest)) = bytes.split_first() else { return Ok(data) };
                    bytes = rest;
                    let Some(number) = self.number.add(*first) else { continue };
                    self.part = match self.part {
                        // The control stream; those of field compression have no frames.
                        Part::Stream if number == 0 => Part::Type,
                        Part::Stream => Part::Other,
                        Part::Length { is_data, is_head } if is_data || number <= self.most => {
                            let is_idle = !self.is_request || if is_data { number == 0 } else { !is_head };
                            self.idle = self.idle.saturating_add(is_idle.into());
                            Part::Payload { is_data, left: number }
                        }
                        Part::Length { .. } => return Err(Fault::TooLong(number)),
                        Part::Type | Part::Payload { .. } | Part::Other => {
                            Part::Length { is_data: number == DATA, is_head: number == HEADERS }
                        }
                    };
                }
            }
        }
    }

    /// The stream has ended.
    ///
    /// # Errors
    /// [`Fault::Unfinished`] when a frame has not.
    pub(super) fn end(&self) -> Result<(), Fault> {
        match self.part {
            Part::Type if self.number.is_empty() => Ok(()),
            Part::Payload { left: 0, .. } | Part::Stream | Part::Other => Ok(()),
            Part::Type | Part::Length { .. } | Part::Payload { .. } => Err(Fault::Unfinished),
        }
    }
}

/// A variable-length integer (RFC 9000 §16), of which bytes come one after the other.
#[derive(Debug, Default)]
struct Number {
    value: u64,
    left: u8,
}

impl Number {
    /// The number, with its last byte.
    fn add(&mut self, byte: u8) -> Option<u64> {
        if self.left == 0 {
            (self.value, self.left) = (u64::from(byte & 0x3f), 1 << (byte >> 6));
        } else {
            self.value = self.value << 8 | u64::from(byte);
        }
        self.left -= 1;
        (self.left == 0).then_some(self.value)
    }

    fn is_empty(&self) -> bool {
        self.left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// HEADERS of three bytes, DATA of five, an unknown frame of none with a type of two bytes, DATA of one.
    const REQUEST: [u8; 17] = [1, 3, 9, 9, 9, 0, 0x40, 5, 7, 7, 7, 7, 7, 0x40, 0x21, 0, 0];

    #[test]
    fn data_is_counted_wherever_the_bytes_are_cut() {
        let whole: Vec<u8> = REQUEST.iter().copied().chain([1, 7]).collect();
        for cut in 0..whole.len() {
            let mut frames = Frames::of_request(3);
            let (first, second) = whole.split_at(cut);
            assert_eq!(frames.pass(first).and_then(|data| Ok(data + frames.pass(second)?)), Ok(6), "{cut}");
            assert_eq!(frames.end(), Ok(()));
        }
    }

    #[test]
    fn what_ends_within_a_frame_is_told_from_what_ends_between_two() {
        let ends: Vec<usize> = (0..=REQUEST.len())
            .filter(|length| {
                let mut frames = Frames::of_request(3);
                frames.pass(&REQUEST[..*length]).expect("no long frame");
                frames.end().is_ok()
            })
            .collect();
        assert_eq!(ends, [0, 5, 13, 16]);
    }

    #[test]
    fn frames_that_carry_nothing_are_counted() {
        let mut frames = Frames::of_request(3);
        // Behind the last DATA one that is empty, and two unknown frames.
        assert_eq!(frames.pass(&[&REQUEST[..], &[1, 7], &[0, 0, 0x21, 1, 7, 0x21, 0]].concat()), Ok(5 + 1));
        assert_eq!((frames.take_idle(), frames.take_idle()), (4, 0));
        // On the control stream all of them: none is needed twice.
        let mut frames = Frames::of_unidirectional(9);
        assert_eq!(frames.pass(&[0, 4, 0, 13, 1, 7, 0x21, 0]), Ok(0));
        assert_eq!(frames.take_idle(), 3);
    }

    #[test]
    fn no_frame_but_data_may_be_long() {
        assert_eq!(Frames::of_request(3).pass(&[1, 4]), Err(Fault::TooLong(4)));
        assert_eq!(
            Frames::of_request(3).pass(&[0x21, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            Err(Fault::TooLong((1 << 62) - 1))
        );
        assert_eq!(Frames::of_request(3).pass(&[0, 0xbf, 0xff, 0xff, 0xff]), Ok(0));
        // The control stream begins with its type; other streams have no frames.
        assert_eq!(Frames::of_unidirectional(3).pass(&[0, 4, 4]), Err(Fault::TooLong(4)));
        assert_eq!(Frames::of_unidirectional(3).pass(&[2, 4, 4]), Ok(0));
    }
}
