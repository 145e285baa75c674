//! What the watching program is told, and what it tells.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    sync::mpsc::{SyncSender, TrySendError},
};

use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray, RingBuf},
};
use aya_log::EbpfLogger;
use ga_common::watch::{EVENT_LEN, Event, Seen, Watch};
use tokio::io::{Interest, unix::AsyncFd};

use super::{Cells, Error, on, take};

/// An event and the beginning of the frame it is about, if that was asked for.
pub type Told = (Event, Vec<u8>);

/// The maps of the watching program.
pub struct WatchMaps {
    watch: Cells<Watch>,
    seen: PerCpuArray<MapData, Seen>,
}

/// Where it writes, one for each way of telling.
pub enum WatchRing {
    /// Lines of aya-log.
    Lines(EbpfLogger<Lines>),
    /// Captured frames.
    Frames(RingBuf<MapData>),
}

impl WatchMaps {
    /// Takes the maps out of the loaded object.
    pub fn open(ebpf: &mut Ebpf) -> Result<Self, Error> {
        Ok(Self { watch: Cells::take(ebpf, "WATCH")?, seen: take(ebpf, "SEEN")? })
    }

    /// Says what to tell of.
    pub fn set(&mut self, watch: Watch) -> Result<(), Error> {
        self.watch.set(0, watch)
    }

    /// What was seen, on all CPUs.
    pub fn seen(&self) -> Result<Seen, Error> {
        let values = on("SEEN", self.seen.get(&0, 0))?;
        Ok(values.iter().fold(Seen::default(), |sum, cpu| Seen {
            matched: sum.matched + cpu.matched,
            limited: sum.limited + cpu.limited,
            lost: sum.lost + cpu.lost,
        }))
    }
}

impl WatchRing {
    /// The ring of captured frames.
    pub fn frames(ebpf: &mut Ebpf) -> Result<Self, Error> {
        Ok(Self::Frames(take(ebpf, "CAPTURE")?))
    }

    /// The ring of lines; events go to `to`.
    pub fn lines(ebpf: &mut Ebpf, to: SyncSender<Event>) -> Result<Self, Error> {
        EbpfLogger::init_with_logger(ebpf, Lines(to)).map(Self::Lines).map_err(|_no_ring| Error::Missing("AYA_LOGS"))
    }

    /// To be waited for; in a tokio runtime.
    pub fn waiting(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: the descriptor is the map's, which is ours and stays open and the same until we are dropped.
        Ok(unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) }?)
    }

    /// Reads everything that is there; lines come by the channel, frames are shown to `told`.
    pub fn read(&mut self, mut told: impl FnMut(Told)) {
        match self {
            Self::Lines(logger) => logger.flush(),
            Self::Frames(ring) => {
                while let Some(item) = ring.next() {
                    if let Some(event) = Event::from_bytes(&item) {
                        let frame = item.get(EVENT_LEN..).unwrap_or_default();
                        told((event, frame.get(..event.snapped as usize).unwrap_or(frame).to_vec()));
                    }
                }
            }
        }
    }
}

impl AsFd for WatchRing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Lines(logger) => logger.as_fd(),
            Self::Frames(ring) => ring.as_fd(),
        }
    }
}

impl AsRawFd for WatchRing {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// Takes the watching program's lines for what they are: events in hex digits.
pub struct Lines(SyncSender<Event>);

impl log::Log for Lines {
    fn enabled(&self, _metadata: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if let Some(event) = event(&record.args().to_string()) {
            match self.0.try_send(event) {
                // The reader empties the channel after every look at the ring, which is smaller.
                Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
            }
        }
    }

    fn flush(&self) {}
}

fn event(line: &str) -> Option<Event> {
    let digits = line.strip_prefix("event ")?;
    let bytes: Option<Vec<u8>> =
        (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()).collect();
    Event::from_bytes(&bytes?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_no_event_is_none() {
        let digits: String = (0..EVENT_LEN).map(|at| format!("{:02x}", if at == 8 { 7 } else { 0 })).collect();
        assert_eq!(event(&format!("event {digits}")).map(|event| event.ifindex), Some(7));
        for line in ["", "event ", "event 0", "event zz", &digits, &format!("event {}", &digits[2..])] {
            assert_eq!(event(line), None, "{line}");
        }
    }
}
