//! A chunked body, byte by byte and to the letter of RFC 9112 §7.1.

use super::{
    Refusal,
    bytes::{is_token_byte, is_value_byte},
};

/// 60 bits: no sum of sizes that a connection lives to see overflows.
const MAX_DIGITS: u8 = 15;
/// Bytes of extensions, and of trailers, in one body.
const MAX_EXTENSIONS: u16 = 4096;
const MAX_TRAILERS: u16 = 8192;

/// Where in the body we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Before or in the size, of so many digits.
    Size(u8),
    Extension,
    /// LF has to come after a size; then so many bytes.
    SizeEnd,
    Data,
    /// CR and LF have to come after data.
    DataCr,
    DataLf,
    /// A trailer or the end begins here.
    Line,
    Name,
    Value,
    ValueLf,
    EndLf,
}

/// A body that is being read.
#[derive(Clone, Debug)]
pub(super) struct Chunks {
    at: At,
    /// Of the chunk: what is left of it.
    size: u64,
    extensions: u16,
    trailers: u16,
}

impl Chunks {
    pub(super) const fn new() -> Self {
        Self { at: At::Size(0), size: 0, extensions: 0, trailers: 0 }
    }

    /// How many of `bytes` belong to the body and are good, and whether it is at its end with them.
    ///
    /// # Errors
    /// The first byte is wrong.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<(usize, bool), Refusal> {
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            if self.at == At::Data {
                let left = bytes.len() - at;
                let taken = usize::try_from(self.size).map_or(left, |size| size.min(left));
                self.size -= taken as u64;
                at += taken;
                if self.size == 0 {
                    self.at = At::DataCr;
                }
                continue;
            }
            match self.step(*byte) {
                Ok(false) => at += 1,
                Ok(true) => return Ok((at + 1, true)),
                Err(refusal) if at == 0 => return Err(refusal),
                // What is before it is good; it comes again and is refused then.
                Err(_) => return Ok((at, false)),
            }
        }
        Ok((at, false))
    }

    /// Whether the body ends with `byte`. Nothing changes when it is wrong.
    fn step(&mut self, byte: u8) -> Result<bool, Refusal> {
        self.at = match (self.at, byte) {
            (At::Size(digits), byte) if byte.is_ascii_hexdigit() && digits < MAX_DIGITS => {
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                self.size = (self.size << 4) | u64::from(digit);
                At::Size(digits + 1)
            }
            (At::Size(1..), b';') => At::Extension,
            (At::Size(1..) | At::Extension, b'\r') => At::SizeEnd,
            (At::Extension, byte) if is_value_byte(byte) && self.extensions < MAX_EXTENSIONS => {
                self.extensions += 1;
                At::Extension
            }
            (At::SizeEnd, b'\n') if self.size > 0 => At::Data,
            (At::SizeEnd, b'\n') => At::Line,
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => At::Size(0),
            (At::Size(_) | At::Extension | At::SizeEnd | At::Data | At::DataCr | At::DataLf, _) => return Err(Refusal::Chunk),
            (At::Line, b'\r') => At::EndLf,
            (At::EndLf, b'\n') => return Ok(true),
            (At::ValueLf, b'\n') => At::Line,
            (At::Line | At::Name, byte) if is_token_byte(byte) => self.trailer(At::Name)?,
            (At::Name, b':') => At::Value,
            (At::Value, b'\r') => At::ValueLf,
            (At::Value, byte) if is_value_byte(byte) => self.trailer(At::Value)?,
            (At::Line | At::Name | At::Value | At::ValueLf | At::EndLf, _) => return Err(Refusal::Trailer),
        };
        Ok(false)
    }

    fn trailer(&mut self, at: At) -> Result<At, Refusal> {
        if self.trailers >= MAX_TRAILERS {
            return Err(Refusal::Trailer);
        }
        self.trailers += 1;
        Ok(at)
    }
}
