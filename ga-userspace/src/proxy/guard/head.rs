//! The head of a request, line by line as it comes: nothing is read twice, nothing is copied.

use memchr::{memchr, memrchr};

use super::{
    Limits, Refusal,
    bytes::{is_target, is_token, is_token_byte, is_value, trim},
    host,
};

/// Longest method, with what stands around the target.
const AROUND_TARGET: usize = 64;

/// How much follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// So many bytes; mostly none.
    Length(u64),
    /// RFC 9112 §7.1.
    Chunked,
}

/// A head that is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Bytes of it, with the empty line at its end.
    pub(super) len: usize,
    pub(super) body: Body,
    /// The client asks to speak another protocol afterwards, and has said all it may say before the answer.
    pub(super) upgrade: bool,
}

/// A part of the head, by its place.
type Part = (usize, usize);

/// How far the head is read. Places are bytes from its beginning.
#[derive(Clone, Debug, Default)]
pub(super) struct Scan {
    /// Where the line begins that is read now.
    line: usize,
    /// No line ends between there and here.
    searched: usize,
    /// The first line is read.
    begun: bool,
    is_http_10: bool,
    fields: usize,
    /// Of the target, with the port that it means without saying.
    authority: Option<(Part, u32)>,
    host: Option<Part>,
    length: Option<u64>,
    chunked: bool,
    /// `Connection: upgrade`.
    may_upgrade: bool,
    /// `Upgrade`, and whether it names HTTP/2, which is not spoken that way.
    upgrade: Option<bool>,
}

impl Scan {
    /// Reads on in the head that `bytes` begin with; what was given before is given again, with more behind it. None when it is not
    /// whole yet.
    pub(super) fn feed(&mut self, bytes: &[u8], limits: &Limits) -> Result<Option<Head>, Refusal> {
        if !self.begun && bytes.first().is_some_and(|byte| !is_token_byte(*byte) && *byte != b'\r' && *byte != b'\n') {
            return Err(Refusal::RequestLine);
        }
        while let Some(rest) = bytes.get(self.searched..) {
            let Some(found) = memchr(b'\n', rest) else { break };
            let end = self.searched + found;
            self.check_size(end, limits)?;
            if end >= limits.head {
                return Err(Refusal::HeadTooLarge);
            }
            let line = bytes.get(self.line..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(Refusal::LineEnd)?;
            let start = self.line;
            (self.line, self.searched) = (end + 1, end + 1);
            match (self.begun, line.is_empty()) {
                // One empty line may come before a request (RFC 9112 §2.2).
                (false, true) if start == 0 => {}
                (false, _) => self.request_line(start, line, limits)?,
                (true, true) => return self.end(bytes, end + 1).map(Some),
                (true, false) => self.field(start, line, limits)?,
            }
        }
        self.searched = bytes.len();
        self.check_size(bytes.len(), limits)?;
        if bytes.len() >= limits.head { Err(Refusal::HeadTooLarge) } else { Ok(None) }
    }

    /// Whom a head that is whole asks for, in the target or in `Host`, without a port.
    pub(super) fn asked<'b>(&self, bytes: &'b [u8]) -> Option<&'b [u8]> {
        let (start, end) = self.authority.map(|(part, _)| part).or(self.host)?;
        bytes.get(start..end).map(host::name)
    }

    /// The line that is read now reaches to `end` at least.
    fn check_size(&self, end: usize, limits: &Limits) -> Result<(), Refusal> {
        let is_long = !self.begun && end.saturating_sub(self.line) > limits.target + AROUND_TARGET;
        if is_long { Err(Refusal::TargetTooLong) } else { Ok(()) }
    }

    fn request_line(&mut self, start: usize, line: &[u8], limits: &Limits) -> Result<(), Refusal> {
        let first = memchr(b' ', line).ok_or(Refusal::RequestLine)?;
        let last = memrchr(b' ', line).filter(|last| *last > first + 1).ok_or(Refusal::RequestLine)?;
        let (method, target, version) = (&line[..first], &line[first + 1..last], &line[last + 1..]);
        if !is_token(method) {
            return Err(Refusal::RequestLine);
        }
        match version {
            b"HTTP/1.1" => {}
            b"HTTP/1.0" => self.is_http_10 = true,
            [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
                return Err(Refusal::Version);
            }
            _ => return Err(Refusal::RequestLine),
        }
        if method.eq_ignore_ascii_case(b"CONNECT") || method.eq_ignore_ascii_case(b"TRACE") {
            return Err(Refusal::Method);
        }
        if target.len() > limits.target {
            return Err(Refusal::TargetTooLong);
        }
        if !is_target(target) {
            return Err(Refusal::Target);
        }
        self.target(start + first + 1, method, target)?;
        self.begun = true;
        Ok(())
    }

    fn target(&mut self, start: usize, method: &[u8], target: &[u8]) -> Result<(), Refusal> {
        if target.first() == Some(&b'/') {
            return Ok(());
        }
        if target == b"*" {
            return if method == b"OPTIONS" { Ok(()) } else { Err(Refusal::Target) };
        }
        let begins = |scheme: &[u8]| target.get(..scheme.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(scheme));
        let (skip, port) = match () {
            () if begins(b"http://") => (7, 80),
            () if begins(b"https://") => (8, 443),
            () => return Err(Refusal::Target),
        };
        let rest = &target[skip..];
        let len = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
        if !host::is_host(&rest[..len]) {
            return Err(Refusal::Target);
        }
        self.authority = Some(((start + skip, start + skip + len), port));
        Ok(())
    }

    fn field(&mut self, start: usize, line: &[u8], limits: &Limits) -> Result<(), Refusal> {
        self.fields += 1;
        if self.fields > limits.fields {
            return Err(Refusal::HeadTooLarge);
        }
        let colon = memchr(b':', line).ok_or(Refusal::Field)?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if !is_token(name) || !is_value(value) {
            // A CR that no LF follows is a line end to some servers.
            return Err(if value.contains(&b'\r') { Refusal::LineEnd } else { Refusal::Field });
        }
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        match name.len() {
            4 if is(b"host") => self.host(start + colon + 1, value),
            6 if is(b"expect") => {
                let known = trim(value).eq_ignore_ascii_case(b"100-continue");
                if known { Ok(()) } else { Err(Refusal::Expectation) }
            }
            7 if is(b"upgrade") => {
                let names_http = words(value).any(|word| word.get(..2).is_some_and(|begin| begin.eq_ignore_ascii_case(b"h2")));
                self.upgrade = Some(names_http || self.upgrade == Some(true));
                Ok(())
            }
            10 if is(b"connection") => {
                self.may_upgrade |= words(value).any(|word| word.eq_ignore_ascii_case(b"upgrade"));
                Ok(())
            }
            14 if is(b"content-length") => self.length(trim(value)),
            17 if is(b"transfer-encoding") => self.transfer_encoding(value),
            _ => Ok(()),
        }
    }

    fn host(&mut self, start: usize, value: &[u8]) -> Result<(), Refusal> {
        let host = trim(value);
        if self.host.is_some() || !host::is_host(host) {
            return Err(Refusal::Host);
        }
        let before = value.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        self.host = Some((start + before, start + before + host.len()));
        Ok(())
    }

    fn length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        // 18 digits cannot overflow; more, and zeros before the number, nobody sends.
        let is_number = !value.is_empty() && value.len() <= 18 && value.iter().all(u8::is_ascii_digit);
        if self.length.is_some() || !is_number || (value.len() > 1 && value.first() == Some(&b'0')) {
            return Err(Refusal::Length);
        }
        self.length = Some(value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')));
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.chunked {
            return Err(Refusal::Framing);
        }
        let is_chunked = |word: &[u8]| word.eq_ignore_ascii_case(b"chunked");
        if is_chunked(trim(value)) {
            self.chunked = true;
            return Ok(());
        }
        // What a server that knows more codings could read is told apart from what none can.
        let is_coding = |word: &&[u8]| is_token(word) && !word.eq_ignore_ascii_case(b"identity");
        let codings = words(value).filter(is_coding).count();
        let chunked = words(value).filter(|word| is_chunked(word)).count();
        let ends_well = chunked == 0 || (chunked == 1 && words(value).last().is_some_and(is_chunked));
        Err(if codings == words(value).count() && ends_well { Refusal::Coding } else { Refusal::Framing })
    }

    fn end(&self, bytes: &[u8], len: usize) -> Result<Head, Refusal> {
        if self.chunked && (self.is_http_10 || self.length.is_some()) {
            return Err(Refusal::Framing);
        }
        if self.host.is_none() && !self.is_http_10 {
            return Err(Refusal::Host);
        }
        let part = |(start, end): Part| bytes.get(start..end).unwrap_or_default();
        if let (Some((authority, port)), Some(host)) = (self.authority, self.host)
            && !host::same(part(authority), part(host), port)
        {
            return Err(Refusal::Host);
        }
        let body = if self.chunked { Body::Chunked } else { Body::Length(self.length.unwrap_or(0)) };
        let upgrade = self.may_upgrade && self.upgrade == Some(false) && !self.is_http_10 && body == Body::Length(0);
        Ok(Head { len, body, upgrade })
    }
}

/// The members of a list.
fn words(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trim)
}
