//! Answers as HTTP/1 has them.

use std::{
    io::{self, IoSlice, Write as _},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, BufMut, BytesMut};
use http::{HeaderMap, StatusCode, header};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    super::answer::{Fields, Head},
    Wire,
};

/// How an answer's body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Ending {
    /// There is none.
    None,
    /// After as many bytes as the head says.
    Length,
    /// RFC 9112 §7.1.
    Chunked,
    /// With the connection.
    Close,
}

/// What an answer is for.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Request {
    /// HTTP/1.0.
    pub(in super::super) is_old: bool,
    /// `HEAD`.
    pub(in super::super) is_head: bool,
    /// Another may follow on the connection.
    pub(in super::super) keeps: bool,
}

/// Writes the head of an answer of which so many bytes are to come; `date` gives the time as RFC 9110 §5.6.7 has it.
pub(in super::super) fn write_head(
    out: &mut BytesMut,
    head: &Head,
    left: Option<u64>,
    request: Request,
    date: impl FnOnce(&mut BytesMut),
) -> Ending {
    let status = head.status;
    out.reserve(256);
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(status.as_str().as_bytes());
    out.put_slice(b" ");
    out.put_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.put_slice(b"\r\n");
    let (has_length, has_date, closes) = match &head.fields {
        Fields::Lines(lines) => {
            out.put_slice(&lines.text);
            (lines.has_length, lines.has_date, false)
        }
        Fields::Map(map) => {
            write_fields(out, map);
            let has_length = map.contains_key(header::CONTENT_LENGTH);
            (has_length, map.contains_key(header::DATE), map.contains_key(header::CONNECTION))
        }
    };
    if !has_date {
        out.put_slice(b"date: ");
        date(out);
        out.put_slice(b"\r\n");
    }
    let has_none = status.is_informational() || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
    let ending = match left {
        _ if has_none => Ending::None,
        Some(_) if has_length => Ending::Length,
        Some(0) if request.is_head => Ending::None,
        Some(left) => {
            // Writing to memory does not fail.
            write!(out.writer(), "content-length: {left}\r\n").unwrap_or_default();
            Ending::Length
        }
        None if has_length => Ending::Length,
        None if request.is_old => Ending::Close,
        None => {
            out.put_slice(b"transfer-encoding: chunked\r\n");
            Ending::Chunked
        }
    };
    if status != StatusCode::SWITCHING_PROTOCOLS && !closes {
        if !request.keeps || ending == Ending::Close {
            out.put_slice(b"connection: close\r\n");
        } else if request.is_old {
            out.put_slice(b"connection: keep-alive\r\n");
        }
    }
    out.put_slice(b"\r\n");
    if request.is_head { Ending::None } else { ending }
}

fn write_fields(out: &mut BytesMut, fields: &HeaderMap) {
    for (name, value) in fields {
        for piece in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            out.put_slice(piece);
        }
    }
}

/// So much is collected before it is written.
const COPIED: usize = 4 * 1024;

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Where heads are written to, before what follows them.
    pub(in super::super) fn out(&mut self) -> &mut BytesMut {
        &mut self.write
    }

    /// Nothing is left to be written.
    pub(in super::super) fn is_written(&self) -> bool {
        self.write.is_empty()
    }

    /// So much is left to be written that the client has to take some of it first.
    pub(in super::super) fn is_full(&self) -> bool {
        self.write.len() > COPIED
    }

    /// Writes a piece of a body behind what is to be written; what the client does not take at once is kept, and so are small pieces.
    pub(in super::super) fn put(&mut self, cx: &mut Context<'_>, piece: &[u8], ending: Ending) -> io::Result<()> {
        if ending == Ending::None || piece.is_empty() {
            return Ok(());
        }
        let suffix = if ending == Ending::Chunked {
            // Writing to memory does not fail.
            write!((&mut self.write).writer(), "{:x}\r\n", piece.len()).unwrap_or_default();
            &b"\r\n"[..]
        } else {
            &[]
        };
        if self.write.len() + piece.len() + suffix.len() <= COPIED {
            self.write.put_slice(piece);
            self.write.put_slice(suffix);
            return Ok(());
        }
        let pieces = [IoSlice::new(&self.write), IoSlice::new(piece), IoSlice::new(suffix)];
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(cx, &pieces);
        let mut count = match self.timed(wrote)? {
            Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(count) => count,
            Poll::Pending => 0,
        };
        let first = count.min(self.write.len());
        self.write.advance(first);
        count -= first;
        for piece in [piece, suffix] {
            let taken = count.min(piece.len());
            count -= taken;
            self.write.put_slice(piece.get(taken..).unwrap_or_default());
        }
        Ok(())
    }

    /// Writes what ends a body.
    pub(in super::super) fn put_end(&mut self, trailers: Option<&HeaderMap>, ending: Ending) {
        if ending == Ending::Chunked {
            self.write.put_slice(b"0\r\n");
            if let Some(trailers) = trailers {
                write_fields(&mut self.write, trailers);
            }
            self.write.put_slice(b"\r\n");
        }
    }
}
