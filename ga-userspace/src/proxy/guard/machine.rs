//! The way of a connection's bytes: head, body, head, body, and perhaps another protocol at last.

use super::{
    Limits, Refusal,
    chunks::Chunks,
    head::{Body, Scan},
};

#[derive(Clone, Debug)]
enum At {
    Head(Scan),
    Length(u64),
    Chunked(Chunks),
    /// Behind a request that asks for another protocol: nobody knows yet what the bytes are.
    Undecided,
    Refused(Refusal),
}

/// What became of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fed {
    /// The first so many are a whole and good head.
    Head(usize),
    /// The first so many are good and go on with the message whose head passed before.
    Body(usize),
    /// Nothing can be said before more comes. All are to be given again, with more behind them.
    More,
    /// They may neither pass nor be judged before it is known what they are: more of this, when it is [declined](Machine::decline).
    Held,
    /// The message is refused, and with it everything behind it.
    Refused(Refusal),
}

/// Follows the framing of requests.
#[derive(Clone, Debug)]
pub struct Machine {
    at: At,
    limits: Limits,
}

impl Machine {
    /// At the beginning of a connection.
    pub fn new(limits: Limits) -> Self {
        Self { at: At::Head(Scan::default()), limits }
    }

    /// Judges `bytes`, which are not empty and begin where those that passed ended.
    pub fn feed(&mut self, bytes: &[u8]) -> Fed {
        self.try_feed(bytes).unwrap_or_else(|refusal| {
            self.at = At::Refused(refusal);
            Fed::Refused(refusal)
        })
    }

    fn try_feed(&mut self, bytes: &[u8]) -> Result<Fed, Refusal> {
        match &mut self.at {
            At::Head(scan) => {
                let Some(head) = scan.feed(bytes, &self.limits)? else { return Ok(Fed::More) };
                self.at = match head.body {
                    Body::Length(0) if head.upgrade => At::Undecided,
                    Body::Length(0) => At::Head(Scan::default()),
                    Body::Length(length) => At::Length(length),
                    Body::Chunked => At::Chunked(Chunks::new()),
                };
                Ok(Fed::Head(head.len))
            }
            At::Length(left) => {
                let taken = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *left -= taken as u64;
                if *left == 0 {
                    self.at = At::Head(Scan::default());
                }
                Ok(Fed::Body(taken))
            }
            At::Chunked(chunks) => {
                let (taken, is_end) = chunks.feed(bytes)?;
                if is_end {
                    self.at = At::Head(Scan::default());
                }
                Ok(Fed::Body(taken))
            }
            At::Undecided => Ok(Fed::Held),
            At::Refused(refusal) => Err(*refusal),
        }
    }

    /// A request is answered: if it asked for another protocol, that is not spoken.
    pub fn decline(&mut self) {
        if self.is_undecided() {
            self.at = At::Head(Scan::default());
        }
    }

    /// No message is begun and not at its end; bytes that are [not judged](Fed::More) aside.
    pub const fn is_between(&self) -> bool {
        matches!(self.at, At::Head(_))
    }

    /// How much of the message is to come whose head passed last.
    pub const fn body(&self) -> Body {
        match self.at {
            At::Length(left) => Body::Length(left),
            At::Chunked(_) => Body::Chunked,
            At::Head(_) | At::Undecided | At::Refused(_) => Body::Length(0),
        }
    }

    /// It waits for the answer to a request for another protocol.
    pub const fn is_undecided(&self) -> bool {
        matches!(self.at, At::Undecided)
    }

    /// Why nothing more passes.
    pub const fn refused(&self) -> Option<Refusal> {
        match self.at {
            At::Refused(refusal) => Some(refusal),
            At::Head(_) | At::Length(_) | At::Chunked(_) | At::Undecided => None,
        }
    }
}
