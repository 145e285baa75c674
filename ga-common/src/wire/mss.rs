//! The maximum segment size that a SYN tells (RFC 9293 section 3.7.1), lowered to what fits the way between the two ends.

use super::{checksum::Delta, frame::Frame};

/// Length of a TCP header without options.
const TCP_LEN: usize = 20;
/// Offset of the checksum in a TCP header.
const CHECK: usize = 16;
/// Options of a TCP header, in bytes (RFC 9293 section 3.1).
#[cfg(test)]
const MAX_OPTIONS: usize = 40;
/// Options that are looked at: those of a SYN are fewer, and its size is told first.
const LOOKS: usize = 12;
/// Kinds of options (RFC 9293 section 3.2).
const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;

/// Lowers the maximum segment size that the TCP header at `l4` tells to `mss`, its checksum with it. A header that tells none among
/// its first twelve options, or whose options make no sense up to there, stays as it is; so does one whose frame is shorter than it says.
#[inline(always)]
pub fn clamp<F: Frame>(frame: &mut F, l4: usize, mss: u16) {
    let _: Option<()> = lower(frame, l4, mss);
}

#[inline(always)]
fn lower<F: Frame>(frame: &mut F, l4: usize, mss: u16) -> Option<()> {
    let &mut [first, _] = frame.window::<2>(l4 + 12)?;
    let end = usize::from(first >> 4) * 4;
    let mut at = TCP_LEN;
    for _ in 0..LOOKS {
        if at + 4 > end {
            return None;
        }
        let length = match byte(frame, l4, at)? {
            END => return None,
            NOP => 1,
            MSS => return set(frame, l4, at + 2, mss),
            _ => usize::from(byte(frame, l4, at + 1)?),
        };
        if length == 0 {
            return None;
        }
        at += length;
    }
    None
}

/// A byte of the header. Windows begin at even offsets.
#[inline(always)]
fn byte<F: Frame>(frame: &mut F, l4: usize, at: usize) -> Option<u8> {
    let pair = u16::from_be_bytes(*frame.window::<2>(l4 + (at & !1))?);
    // A shift, and no choice of bytes: the compiler would make an odd offset of that.
    Some((pair >> ((at as u16 & 1 ^ 1) * 8)) as u8)
}

/// Lowers the two bytes `at` in the header to `mss`.
#[inline(always)]
fn set<F: Frame>(frame: &mut F, l4: usize, at: usize, mss: u16) -> Option<()> {
    let [high, low] = [byte(frame, l4, at)?, byte(frame, l4, at + 1)?];
    if u16::from_be_bytes([high, low]) <= mss {
        return None;
    }
    let [new_high, new_low] = mss.to_be_bytes();
    let delta = if at & 1 == 0 {
        *frame.window::<2>(l4 + at)? = [new_high, new_low];
        Delta::default().bytes2([high, low], [new_high, new_low])
    } else {
        frame.window::<2>(l4 + at - 1)?[1] = new_high;
        frame.window::<2>(l4 + at + 1)?[0] = new_low;
        // Each is half of another word.
        Delta::default().bytes2([0, high], [0, new_high]).bytes2([low, 0], [new_low, 0])
    };
    let check = frame.window::<2>(l4 + CHECK)?;
    *check = delta.apply(*check);
    Some(())
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use etherparse::TcpHeader;
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::sim::Bytes;

    /// Where the header is.
    const AT: usize = 34;

    fn header(options: &[u8]) -> TcpHeader {
        let mut tcp = TcpHeader::new(40_000, 80, 7, 1024);
        tcp.syn = true;
        tcp.set_options_raw(options).unwrap();
        tcp.checksum = tcp.calc_checksum_ipv4_raw([192, 0, 2, 1], [198, 51, 100, 1], b"").unwrap();
        tcp
    }

    fn clamped(tcp: &TcpHeader, mss: u16) -> Vec<u8> {
        let mut bytes = Bytes { bytes: [std::vec![0xff; AT], tcp.to_bytes().to_vec()].concat(), ifindex: 1 };
        clamp(&mut bytes, AT, mss);
        bytes.bytes.split_off(AT)
    }

    /// Options that are not about segments: padding, or of some kind and length.
    fn other() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            Just(std::vec![NOP]),
            (3u8..=255, 2u8..12).prop_map(|(kind, length)| {
                let mut option = std::vec![kind, length];
                option.resize(length.into(), 2);
                option
            })
        ]
    }

    proptest! {
        #[test]
        fn a_size_is_lowered_wherever_it_stands(
            before in vec(other(), 0..LOOKS), told in any::<u16>(), after in vec(other(), 0..3), mss in any::<u16>()
        ) {
            let before = before.concat();
            prop_assume!(before.len() <= MAX_OPTIONS - 4);
            let with = |told: u16| {
                let mut options = [&before[..], &[MSS, 4], &told.to_be_bytes(), &after.concat()].concat();
                options.truncate(MAX_OPTIONS);
                header(&options)
            };
            prop_assert_eq!(clamped(&with(told), mss), with(told.min(mss)).to_bytes().to_vec());
        }

        #[test]
        fn whatever_else_stands_there_stays(options in vec(any::<u8>(), 0..=MAX_OPTIONS), cut in 0usize..60) {
            let whole = header(&options).to_bytes().to_vec();
            let cut = cut.min(whole.len());
            let mut bytes = Bytes { bytes: [std::vec![0xff; AT], whole[..cut].to_vec()].concat(), ifindex: 1 };
            clamp(&mut bytes, AT, 0);
            let changed = whole.iter().zip(&bytes.bytes[AT..]).filter(|(a, b)| a != b).count();
            prop_assert!(changed <= 4, "a checksum and a size, and nothing else: {} bytes", changed);
        }
    }

    #[test]
    fn a_header_without_a_size_or_with_nonsense_stays() {
        for options in [&[][..], &[1, 1, 1, 0], &[0, 2, 4, 5, 0, 0, 0, 0], &[8, 0, 2, 4, 5, 0, 1, 1], &[1, 1, 2, 4]] {
            let tcp = header(options);
            assert_eq!(clamped(&tcp, 1), tcp.to_bytes().to_vec(), "{options:?}");
        }
    }
}
