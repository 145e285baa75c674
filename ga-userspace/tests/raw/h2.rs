//! A client of HTTP/2 that sends what it is told to, right or wrong (RFC 9113, RFC 7541).

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use super::super::lab::Lab;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// A frame.
#[derive(Clone, Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// What a request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// An answer; zero where its status is spelled in a way that is not read here.
    Status(u16),
    /// The stream was reset, with that code.
    Reset(u32),
    /// The connection ends, with that code.
    Goaway(u32),
    /// The connection has ended.
    End,
}

impl Came {
    /// The request was refused: its stream, its connection, or by 4xx.
    pub fn is_refusal(self) -> bool {
        matches!(self, Self::Status(400..=499) | Self::Reset(_) | Self::Goaway(1..) | Self::End)
    }
}

/// A connection.
pub struct Http2 {
    pub stream: TcpStream,
}

impl Http2 {
    /// With the preface and empty settings; the proxy's settings are acknowledged.
    pub fn new(lab: &Lab) -> Self {
        let mut client = Self::bare(lab);
        client.send(SETTINGS, 0, 0, &[]);
        client.send(SETTINGS, 1, 0, &[]);
        client
    }

    /// With the preface only.
    pub fn bare(lab: &Lab) -> Self {
        let mut stream = lab.client().stream;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        Self { stream }
    }

    /// Sends a frame; says whether the connection took it.
    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        self.stream.write_all(&frame(kind, flags, stream, payload)).is_ok()
    }

    /// The next frame; none at the end, or when there is none for so long as is waited.
    pub fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// What becomes of `stream`.
    pub fn outcome(&mut self, stream: u32) -> Came {
        while let Some(frame) = self.next() {
            match frame.kind {
                HEADERS if frame.stream == stream => return Came::Status(status(&frame.payload)),
                RST_STREAM if frame.stream == stream => return Came::Reset(number(&frame.payload, 0)),
                GOAWAY => return Came::Goaway(number(&frame.payload, 4)),
                _ => {}
            }
        }
        Came::End
    }

    /// The code that the connection ends with; none when it ends without one.
    pub fn goaway(&mut self) -> Option<u32> {
        while let Some(frame) = self.next() {
            if frame.kind == GOAWAY {
                return Some(number(&frame.payload, 4));
            }
        }
        None
    }

    /// Waits no longer than that for frames.
    pub fn patience(&mut self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).unwrap();
    }
}

/// A frame's bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Fields, none of which is remembered.
pub fn fields<'f>(fields: impl IntoIterator<Item = (&'f str, &'f str)>) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.extend(integer(text.len(), 7, 0));
            block.extend(text.as_bytes());
        }
    }
    block
}

/// A request of a method to a path, and more fields.
pub fn request<'f>(method: &'f str, path: &'f str, more: &[(&'f str, &'f str)]) -> Vec<u8> {
    let usual = [(":method", method), (":scheme", "http"), (":authority", "a.example"), (":path", path)];
    fields(usual.into_iter().chain(more.iter().copied()))
}

/// RFC 7541 §5.1.
pub fn integer(mut value: usize, prefix: u32, pattern: u8) -> Vec<u8> {
    let most = (1 << prefix) - 1;
    if value < most {
        return vec![pattern | value as u8];
    }
    let mut bytes = vec![pattern | most as u8];
    value -= most;
    while value >= 128 {
        bytes.push((value % 128) as u8 | 128);
        value /= 128;
    }
    bytes.push(value as u8);
    bytes
}

/// The status at the beginning of a head: by its number in the static table, or spelled, where only its first digit is read.
fn status(block: &[u8]) -> u16 {
    // Updates of the table's size may come first.
    let start = block.iter().position(|byte| byte & 0xe0 != 0x20).unwrap_or(block.len());
    match block[start..] {
        [0x88, ..] => 200,
        [0x89, ..] => 204,
        [0x8c, ..] => 400,
        [0x8d, ..] => 404,
        [0x8e, ..] => 500,
        // `4`, as it is or by the code of RFC 7541 Appendix B.
        [0x48 | 0x18 | 0x08, length, digit, ..]
            if (length & 0x80 == 0 && digit == b'4') || (length & 0x80 != 0 && digit >> 2 == 0b01_1010) =>
        {
            499
        }
        _ => 0,
    }
}

fn number(payload: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(payload[at..at + 4].try_into().unwrap())
}
