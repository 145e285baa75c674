//! What comes on a connection of HTTP/2, frame by frame: enough to see who never acknowledges settings (RFC 9113 §6.5.3), and who sends
//! frames that carry nothing by the thousand. The library reads the same bytes and judges everything else: heads and DATA without an end,
//! resets.

use std::{
    cell::RefCell,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

/// Bytes of what every connection begins with (RFC 9113 §3.4).
const PREFACE: usize = 24;
/// Bytes of a frame's head.
const HEAD: usize = 9;
/// What frames that carry nothing may cost in [`SECOND`]: 10,000 PING, 1,000 others. A client that measures its way by a PING for
/// everything that comes stays far below.
const MOST: u32 = 10_000;
const PING: u32 = 1;
const OTHER: u32 = 10;
const SECOND: Duration = Duration::from_secs(1);

/// What who sends too much is told: GOAWAY, whatever was processed, with ENHANCE_YOUR_CALM (RFC 9113 §6.8, §7).
const CALM: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 11];

/// What came so far.
#[derive(Debug)]
pub(super) struct Frames {
    /// Bytes to pass over: the preface, then what a frame carries.
    skip: usize,
    head: [u8; HEAD],
    /// Of it.
    have: usize,
    is_acknowledged: bool,
    cost: u32,
    since: Instant,
    /// Its sender knows that it is too much.
    is_told: bool,
}

impl Frames {
    pub(super) fn new(now: Instant) -> Self {
        Self { skip: PREFACE, head: [0; HEAD], have: 0, is_acknowledged: false, cost: 0, since: now, is_told: false }
    }

    /// The edge's settings were acknowledged.
    pub(super) const fn is_acknowledged(&self) -> bool {
        self.is_acknowledged
    }

    /// More frames came that carry nothing than a client can need.
    pub(super) const fn is_flood(&self) -> bool {
        self.cost > MOST
    }

    /// More bytes came.
    fn read(&mut self, mut bytes: &[u8], now: impl Fn() -> Instant) {
        let mut cost = 0;
        while !bytes.is_empty() {
            let passed = self.skip.min(bytes.len());
            self.skip -= passed;
            bytes = bytes.get(passed..).unwrap_or_default();
            let wanted = (HEAD - self.have).min(bytes.len());
            if let (Some(to), Some(from)) = (self.head.get_mut(self.have..self.have + wanted), bytes.get(..wanted)) {
                to.copy_from_slice(from);
            }
            self.have += wanted;
            bytes = bytes.get(wanted..).unwrap_or_default();
            if self.have == HEAD {
                self.have = 0;
                cost += self.frame();
            }
        }
        if cost > 0 && !self.is_flood() {
            let now = now();
            if now - self.since > SECOND {
                (self.since, self.cost) = (now, 0);
            }
            self.cost += cost;
        }
    }

    /// Reads the head of a frame; returns what the frame costs.
    fn frame(&mut self) -> u32 {
        const PRIORITY: u8 = 2;
        const SETTINGS: u8 = 4;
        const PING_KIND: u8 = 6;
        const LAST_KNOWN: u8 = 9;
        const ACK: u8 = 1;
        let [a, b, c, kind, flags, ..] = self.head;
        self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
        match kind {
            SETTINGS if flags & ACK != 0 && !self.is_acknowledged => {
                self.is_acknowledged = true;
                0
            }
            PING_KIND => PING,
            PRIORITY | SETTINGS => OTHER,
            0..=LAST_KNOWN => 0,
            _ => OTHER,
        }
    }
}

/// A connection whose frames are looked at as they come.
#[derive(Debug)]
pub(super) struct Framed<S> {
    pub(super) stream: S,
    pub(super) frames: Rc<RefCell<Frames>>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Framed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.frames.borrow().is_flood() {
            // The connection ends.
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.frames.borrow_mut().read(buffer.filled().get(before..).unwrap_or_default(), Instant::now);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Framed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_flood = self.frames.borrow().is_flood();
        if is_flood && !std::mem::replace(&mut self.frames.borrow_mut().is_told, true) {
            // The library has written all it has: this stands between two frames. Who takes nothing is told nothing.
            drop(Pin::new(&mut self.stream).poll_write(cx, &CALM));
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn after(bytes: &[u8], piece: usize) -> Frames {
        let now = Instant::now();
        let mut frames = Frames::new(now);
        frames.read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", || now);
        bytes.chunks(piece).for_each(|piece| frames.read(piece, || now));
        frames
    }

    #[test]
    fn frames_are_told_apart_however_they_are_cut() {
        let bytes = [
            frame(4, 0, &[0; 6]),
            frame(1, 4, b"head"),
            frame(0, 0, &[4; 300]),
            frame(0, 1, &[]),
            frame(8, 0, &[0, 0, 0, 1]),
            frame(4, 1, &[]),
            frame(6, 0, &[0; 8]),
        ]
        .concat();
        for piece in [1, 2, 9, 10, 1000] {
            let frames = after(&bytes, piece);
            assert_eq!((frames.is_acknowledged(), frames.cost), (true, OTHER + PING), "{piece}");
        }
        assert!(!after(&bytes[..bytes.len() - 27], 7).is_acknowledged());
    }

    #[test]
    fn what_carries_nothing_is_a_flood_in_a_second_and_none_in_ten() {
        for (kind, payload) in [(2, &[0; 5][..]), (4, &[]), (77, &[1])] {
            let frame = frame(kind, 0, payload);
            assert!(!after(&frame.repeat(1000), 4096).is_flood(), "{kind}");
            assert!(after(&frame.repeat(1001), 4096).is_flood(), "{kind}");
        }
        let useful =
            [frame(0, 0, b"x"), frame(1, 4, b"x"), frame(9, 4, b"x"), frame(8, 0, &[0; 4]), frame(3, 0, &[0; 4])].concat();
        assert!(!after(&useful.repeat(100_000), 16_384).is_flood());
        let begun = Instant::now();
        let mut frames = Frames::new(begun);
        frames.read(&[0; PREFACE], || begun);
        for at in 0..10 {
            frames.read(&frame(2, 0, &[0; 5]).repeat(900), || begun + Duration::from_millis(1100) * at);
        }
        assert!(!frames.is_flood());
    }
}
