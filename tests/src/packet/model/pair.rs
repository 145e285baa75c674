//! A pair of flows: a client's connection and what the endpoint sees of it, and how long both are remembered.

use std::net::{IpAddr, SocketAddr};

use ga_common::abi::{
    id::EndpointId,
    limits::{CLOSING_TIMEOUT_S, SYN_TIMEOUT_S},
};

use super::segment::{Segment, TCP};

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// From the client to the endpoint.
    There,
    /// From the endpoint to the client.
    Back,
}

/// What is known of one direction.
#[derive(Clone, Copy, Debug)]
struct Half {
    /// When it was last heard of, in milliseconds.
    heard_ms: u64,
    /// Seconds it may be silent.
    patience_s: u64,
    /// It has had a packet that opens and ends nothing.
    talks: bool,
    /// It has said that it is done.
    fin: bool,
}

/// A pair.
#[derive(Clone, Debug)]
pub struct Pair {
    /// IANA protocol number.
    pub protocol: u8,
    /// Who opened it.
    pub client: SocketAddr,
    /// What it was opened to.
    pub vip: SocketAddr,
    /// What the endpoint sees; none as long as nobody has seen a packet of it leave.
    pub egress: Option<SocketAddr>,
    /// What that may be: addresses, first and last port.
    pub choice: (Vec<IpAddr>, (u16, u16)),
    /// Where it goes.
    pub endpoint: SocketAddr,
    /// The endpoint's number.
    pub id: EndpointId,
    /// MAC addresses of the client's first packet, destination first.
    pub macs: [[u8; 6]; 2],
    closed: bool,
    halves: [Half; 2],
}

/// Whether a pair is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alive {
    /// Surely.
    Yes,
    /// Surely not.
    No,
    /// So close to its end that the grain of the clock decides.
    Barely,
}

/// Clocks of the data path are this coarse, in milliseconds: its tick, and what is lost when seconds become ticks.
const GRAIN_MS: u64 = 120;

impl Pair {
    /// A pair that `segment` opens.
    pub fn open(segment: &Segment, endpoint: SocketAddr, id: EndpointId, idle_s: u64, now_ms: u64) -> Self {
        let patience_s = if segment.protocol == TCP { SYN_TIMEOUT_S.into() } else { idle_s };
        let half = Half { heard_ms: now_ms, patience_s, talks: false, fin: false };
        Self {
            protocol: segment.protocol,
            client: segment.src,
            vip: segment.dst,
            egress: None,
            choice: (Vec::new(), (0, 0)),
            endpoint,
            id,
            macs: segment.macs,
            closed: false,
            halves: [half; 2],
        }
    }

    /// Silence is judged over both directions: each has its patience, and one that has any left keeps both.
    pub fn alive(&self, now_ms: u64) -> Alive {
        self.alive_within(now_ms, GRAIN_MS)
    }

    /// The same for a clock of any grain.
    pub fn alive_within(&self, now_ms: u64, grain_ms: u64) -> Alive {
        let left = |half: &Half| half.heard_ms + half.patience_s * 1000;
        let end = self.halves.iter().map(left).max().unwrap_or(0);
        if now_ms + grain_ms < end {
            Alive::Yes
        } else if now_ms > end + grain_ms {
            Alive::No
        } else {
            Alive::Barely
        }
    }

    /// Whether a SYN may put a new pair in this one's place: it has been reset, or both sides are done.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Takes note of a packet (RFC 5382 section 5, RFC 4787 section 4.3): what it says, and what it ends.
    pub fn note(&mut self, way: Way, segment: &Segment, idle_s: u64, now_ms: u64) {
        let (mine, other) = match way {
            Way::There => (0, 1),
            Way::Back => (1, 0),
        };
        if segment.speaks {
            self.halves[mine].heard_ms = now_ms;
        }
        if self.closed {
            return;
        }
        let flags = segment.flags;
        if flags.fin || flags.rst {
            self.halves[mine].fin |= flags.fin;
            if flags.rst || flags.fin && self.halves[other].fin {
                self.closed = true;
                self.halves.iter_mut().for_each(|half| half.patience_s = CLOSING_TIMEOUT_S.into());
            }
        } else if !flags.syn && !self.halves[mine].talks {
            self.halves[mine].talks = true;
            self.halves[mine].patience_s = idle_s;
        }
    }
}
