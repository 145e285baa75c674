//! A pair of flows: a client's connection and what the endpoint sees of it, and how long both are remembered.

use std::net::{IpAddr, SocketAddr};

use ga_common::abi::{
    id::EndpointId,
    limits::{CLOSING_TIMEOUT_S, SYN_TIMEOUT_S},
};

use super::{
    link::Vlans,
    segment::{Segment, TCP},
};

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
    /// What it acknowledged last.
    acked: u32,
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
    /// MAC addresses of the client's last packet, destination first.
    pub macs: [[u8; 6]; 2],
    /// Its VLAN tags.
    pub vlans: Vlans,
    /// Seconds that both directions may be silent.
    patience_s: u64,
    /// The endpoint has acknowledged something.
    answered: bool,
    /// The client had to ask again, or somebody said that the endpoint cannot be reached.
    pub again: bool,
    /// The client went on after an answer; of UDP: there was an answer.
    established: bool,
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
/// Silence before a SYN that comes again is no copy.
const RETRY_MS: u64 = 500;

impl Pair {
    /// A pair that `segment` opens.
    pub fn open(segment: &Segment, endpoint: SocketAddr, id: EndpointId, idle_s: u64, now_ms: u64) -> Self {
        let patience_s = if segment.protocol == TCP { SYN_TIMEOUT_S.into() } else { idle_s };
        let half = Half { heard_ms: now_ms, acked: 0, fin: false };
        Self {
            protocol: segment.protocol,
            client: segment.src,
            vip: segment.dst,
            egress: None,
            choice: (Vec::new(), (0, 0)),
            endpoint,
            id,
            macs: segment.macs,
            vlans: segment.vlans.clone(),
            patience_s,
            answered: false,
            again: false,
            established: false,
            closed: false,
            halves: [half; 2],
        }
    }

    /// Silence is judged over both directions: one that was heard keeps both.
    pub fn alive(&self, now_ms: u64) -> Alive {
        self.alive_within(now_ms, GRAIN_MS)
    }

    /// The same for a clock of any grain.
    pub fn alive_within(&self, now_ms: u64, grain_ms: u64) -> Alive {
        let end = self.halves.iter().map(|half| half.heard_ms).max().unwrap_or(0) + self.patience_s * 1000;
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

    /// Whether its NAT port may be given away where ports are short: it is closed, or was never more than half open.
    pub fn is_weak(&self) -> bool {
        self.closed || !self.established
    }

    /// Neither answered nor over.
    pub fn is_waiting(&self) -> bool {
        !(self.answered || self.established || self.closed)
    }

    /// Whether a SYN of the client at `now_ms` asks again, and is no copy of one just before.
    pub fn is_asked_again(&self, now_ms: u64) -> bool {
        self.is_waiting() && now_ms.saturating_sub(self.halves[0].heard_ms) >= RETRY_MS
    }

    /// Whether that is so close that the grain of the clock decides.
    pub fn is_barely_asked_again(&self, now_ms: u64) -> bool {
        self.is_waiting() && now_ms.saturating_sub(self.halves[0].heard_ms).abs_diff(RETRY_MS) <= 300
    }

    /// Takes note of a packet (RFC 5382 section 5, RFC 4787 section 4.3): what it says, and what it ends. A half-open connection is
    /// established when the client goes on after an answer of the endpoint: neither side can make it so alone. Replies follow the
    /// client when its packets come from another place.
    pub fn note(&mut self, way: Way, segment: &Segment, idle_s: u64, now_ms: u64) {
        let (mine, other) = match way {
            Way::There => (0, 1),
            Way::Back => (1, 0),
        };
        let flags = segment.flags;
        if segment.speaks || !self.established && !self.closed {
            self.halves[mine].heard_ms = now_ms;
            // Halves in tables of two families are not looked at together: each is told when the other is heard.
            if self.client.is_ipv4() != self.endpoint.is_ipv4() {
                self.halves[other].heard_ms = now_ms;
            }
        }
        if flags.ack {
            self.halves[mine].acked = segment.ack;
        }
        if way == Way::There && (segment.macs, &segment.vlans) != (self.macs, &self.vlans) {
            self.macs = segment.macs;
            self.vlans.clone_from(&segment.vlans);
        }
        if self.closed {
            return;
        }
        if flags.fin || flags.rst {
            self.halves[mine].fin |= flags.fin;
            let is_reset = flags.rst && is_near(segment.seq, self.halves[other].acked);
            if is_reset || flags.fin && self.halves[other].fin {
                self.closed = true;
                self.patience_s = CLOSING_TIMEOUT_S.into();
            }
        } else if !self.established {
            let is_udp = segment.protocol != TCP;
            match way {
                Way::There => self.established = !is_udp && !flags.syn && self.answered,
                Way::Back => {
                    self.answered |= flags.ack;
                    self.established = is_udp;
                }
            }
            if self.established {
                self.patience_s = idle_s;
            }
        }
    }
}

/// Whether a RST's sequence number may be what its receiver waits for (RFC 5961 section 3.2), which is about what it acknowledged
/// last; a receiver that acknowledged nothing yet takes any.
fn is_near(seq: u32, acked: u32) -> bool {
    const WINDOW: u32 = 1 << 20;
    let ahead = seq.wrapping_sub(acked);
    acked == 0 || ahead < WINDOW || ahead >= WINDOW.wrapping_neg()
}
