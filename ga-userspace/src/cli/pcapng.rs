//! Capture files: pcapng (draft-ietf-opsawg-pcapng) as little as is needed to write it; both formats are read by a library.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
};

use anyhow::{Context as _, bail};
use pcap_parser::{PcapBlockOwned, PcapError, create_reader};

use crate::status::{Frame, PacketEvent};

/// Which of the file's interfaces a frame is shown on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Before,
    After,
}

impl Side {
    const ALL: [(Self, &'static str, &'static str); 2] =
        [(Self::Before, "before", "frames as they came"), (Self::After, "after", "frames as ga sent them")];
}

/// LINKTYPE_ETHERNET.
const ETHERNET: u32 = 1;
/// Options (section 3.5 of the draft): of every block, of an interface.
const OPT_END: u16 = 0;
const OPT_COMMENT: u16 = 1;
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_DESCRIPTION: u16 = 3;
const IF_TSRESOL: u16 = 9;

/// Writes a capture file.
pub(super) struct Writer<W> {
    out: W,
    /// Frames written.
    pub(super) frames: u64,
}

impl<W: Write> Writer<W> {
    /// Begins the file: who wrote it, and two interfaces.
    pub(super) fn new(out: W, snap: u32) -> io::Result<Self> {
        let mut writer = Self { out, frames: 0 };
        let mut head = Vec::new();
        // Byte order, version 1.0, a section of unknown length.
        head.extend(0x1a2b_3c4d_u32.to_le_bytes());
        head.extend([1, 0, 0, 0]);
        head.extend([0xff; 8]);
        option(&mut head, SHB_USERAPPL, concat!("ga ", env!("CARGO_PKG_VERSION")).as_bytes());
        writer.block(0x0a0d_0d0a, head)?;
        for (_, name, description) in Side::ALL {
            let mut body = Vec::new();
            body.extend(ETHERNET.to_le_bytes());
            body.extend(snap.to_le_bytes());
            option(&mut body, IF_NAME, name.as_bytes());
            option(&mut body, IF_DESCRIPTION, description.as_bytes());
            // Nanoseconds.
            option(&mut body, IF_TSRESOL, &[9]);
            writer.block(1, body)?;
        }
        Ok(writer)
    }

    /// Writes a packet: its frame as it came and, if it was sent, as it was sent, with what became of it as comment.
    pub(super) fn packet(&mut self, packet: &PacketEvent, comment: &str) -> io::Result<()> {
        for (side, frame) in [(Side::Before, &packet.frame), (Side::After, &packet.frame_after)] {
            if let Some(frame) = frame {
                self.frame(side, packet.at_ns, frame, comment)?;
                self.frames += 1;
            }
        }
        Ok(())
    }

    fn frame(&mut self, side: Side, at_ns: u64, frame: &Frame, comment: &str) -> io::Result<()> {
        let bytes = frame.bytes().ok_or_else(|| io::Error::other("a frame is not in hex digits"))?;
        let length = bytes.len() as u32;
        let mut body = Vec::new();
        for word in [side as u32, (at_ns >> 32) as u32, at_ns as u32, length, frame.length.max(length)] {
            body.extend(word.to_le_bytes());
        }
        padded(&mut body, &bytes);
        option(&mut body, OPT_COMMENT, comment.as_bytes());
        self.block(6, body)
    }

    /// Options end, and the length stands at both ends (section 3.1).
    fn block(&mut self, kind: u32, mut body: Vec<u8>) -> io::Result<()> {
        body.extend([OPT_END.to_le_bytes(), [0; 2]].concat());
        let length = (body.len() as u32 + 12).to_le_bytes();
        self.out.write_all(&[&kind.to_le_bytes()[..], &length, &body, &length].concat())
    }

    /// Ends the file.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        self.out.flush()?;
        Ok(self.frames)
    }
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    // No text of ours is that long.
    let value = value.get(..usize::from(u16::MAX)).unwrap_or(value);
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    padded(body, value);
}

/// To whole 32-bit words.
fn padded(body: &mut Vec<u8>, bytes: &[u8]) {
    body.extend(bytes);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// Frame number `nth`, from 1, of a pcap or pcapng file.
pub(super) fn frame(path: &Path, nth: usize) -> anyhow::Result<Vec<u8>> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    nth_frame(file, nth).with_context(|| format!("{}", path.display()))
}

fn nth_frame(file: impl io::Read + Send + 'static, nth: usize) -> anyhow::Result<Vec<u8>> {
    let broken = |error: PcapError<&[u8]>| anyhow::anyhow!("not a capture file that can be read: {error}");
    let mut reader = create_reader(1 << 20, file).map_err(broken)?;
    let mut links: Vec<i32> = Vec::new();
    let mut seen = 0;
    loop {
        let (used, found) = match reader.next() {
            Ok((used, block)) => (used, of_block(block, &mut links)),
            Err(PcapError::Eof) => bail!("it has {seen} frames, and number {nth} is wanted"),
            Err(PcapError::Incomplete(_)) => {
                reader.refill().map_err(broken)?;
                continue;
            }
            Err(error) => return Err(broken(error)),
        };
        if let Some((link, bytes)) = found {
            seen += 1;
            if seen == nth {
                anyhow::ensure!(link == Some(ETHERNET as i32), "frame {nth} is not an Ethernet frame");
                return Ok(bytes);
            }
        }
        reader.consume(used);
    }
}

/// The frame of a block and its link type; interfaces are noted.
fn of_block(block: PcapBlockOwned<'_>, links: &mut Vec<i32>) -> Option<(Option<i32>, Vec<u8>)> {
    use pcap_parser::pcapng::Block;
    match block {
        PcapBlockOwned::LegacyHeader(header) => {
            links.push(header.network.0);
            None
        }
        PcapBlockOwned::Legacy(packet) => Some((links.first().copied(), packet.data.to_vec())),
        PcapBlockOwned::NG(Block::SectionHeader(_)) => {
            links.clear();
            None
        }
        PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
            links.push(interface.linktype.0);
            None
        }
        PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
            // The library leaves the padding in.
            let bytes = packet.data.get(..packet.caplen as usize).unwrap_or(packet.data);
            Some((links.get(packet.if_id as usize).copied(), bytes.to_vec()))
        }
        PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
            let bytes = packet.data.get(..packet.origlen as usize).unwrap_or(packet.data);
            Some((links.first().copied(), bytes.to_vec()))
        }
        // Blocks of names, statistics and decryption hold no frames.
        PcapBlockOwned::NG(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::cli::packets::tests::{dropped, sent};

    fn file() -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, 2048).expect("memory");
        writer.packet(&sent(), "sent on").expect("memory");
        writer.packet(&dropped(), "dropped").expect("memory");
        assert_eq!(writer.finish().expect("memory"), 3);
        bytes
    }

    #[test]
    fn what_is_written_is_read_by_the_library() {
        let file_bytes = file();
        let (rest, capture) = pcap_parser::parse_pcapng(&file_bytes).expect("a file");
        let blocks = capture.sections.iter().flat_map(|section| &section.blocks);
        let sides: Vec<_> = blocks
            .filter_map(|block| if let pcap_parser::Block::EnhancedPacket(packet) = block { Some(packet.if_id) } else { None })
            .collect();
        assert!(rest.is_empty() && sides == [0, 1, 0], "{sides:?}");
        for (nth, expected) in [(1, vec![1; 60]), (2, vec![2; 60]), (3, vec![3; 61])] {
            assert_eq!(nth_frame(Cursor::new(file()), nth).expect("a frame"), expected, "frame {nth}");
        }
        let end = nth_frame(Cursor::new(file()), 4).expect_err("there are three");
        assert!(end.to_string().contains("3 frames"), "{end}");
    }

    #[test]
    fn an_old_pcap_file_is_read_too_and_rubbish_is_refused() {
        let mut bytes = [0xa1b2_c3d4_u32.to_le_bytes(), [2, 0, 4, 0], [0; 4], [0; 4], [0xff, 0xff, 0, 0], [1, 0, 0, 0]].concat();
        bytes.extend([[0; 4], [0; 4], 3u32.to_le_bytes(), 60u32.to_le_bytes()].concat());
        bytes.extend([7, 8, 9]);
        assert_eq!(nth_frame(Cursor::new(bytes), 1).expect("a frame"), [7, 8, 9]);
        assert!(nth_frame(Cursor::new(b"GET / HTTP/1.1".repeat(9)), 1).is_err());
        assert!(nth_frame(Cursor::new(Vec::new()), 1).is_err());
    }
}
