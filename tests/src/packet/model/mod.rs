//! A second opinion: the way of a packet written down once more, from the specification and in the plainest form, to judge what
//! a data path did. Packets are read by etherparse, flows are kept in ordered maps, checksums are full sums; with the code under test
//! it has ids, reasons and limits in common and nothing else.
//!
//! What the specification leaves open is read from the outcome and judged: the egress address and the NAT port of a new pair must be
//! ours, in range and nobody else's. Places in flow memory are not modelled: a full table is counted, not predicted.
//!
//! Reading order: [`site`] (a world), [`segment`] (bytes), [`pair`] (life of flows), [`mod@sip`] (the keyed hash), and the order of
//! things here.

mod across;
pub mod icmp;
pub mod link;
pub mod pair;
mod piece;
pub mod refusal;
pub mod segment;
pub mod sip;
pub mod site;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use anyhow::{bail, ensure};
use ga_common::abi::{
    entry::Hop,
    id::{EndpointId, ListenerId, TableId},
    limits::TABLE_SIZE,
    reason::{Drop, Pass},
};

use self::{
    across::identified,
    icmp::Message,
    pair::{Alive, Pair, Way},
    piece::Piece,
    refusal::refusal,
    segment::{Flags, Out, Segment, TCP, ends, read, rewritten},
    sip::sip,
    site::Site,
};
use super::{
    dataplane::{Action, Seen},
    show::difference,
    world::{INGRESS, World},
};

/// What becomes of a packet that is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The host's.
    Pass(Pass),
    /// Gone, on some listener's account.
    Drop(Drop, ListenerId),
}

/// What ought to happen.
enum Expected {
    /// The packet is not sent.
    Not(Fate),
    /// The agent is to serve it.
    Served(ListenerId),
    /// A pair takes note of it, and it goes nowhere all the same.
    Noted(u64, Pair, Fate),
    /// It is sent as this.
    Sent(u64, Pair, Way, Box<Away>),
    /// It opens a pair.
    Opens(Box<Pair>, Option<Hop>),
}

struct Away {
    bytes: Vec<u8>,
    ifindex: u32,
}

/// What was counted for an endpoint: packets and bytes from clients, packets and bytes to clients, pairs, failures.
pub type Counts = [u64; 6];

type Ends = (u8, SocketAddr, SocketAddr);

/// The model.
pub struct Model {
    site: Site,
    pairs: BTreeMap<u64, Pair>,
    by_ends: BTreeMap<Ends, (u64, Way)>,
    next: u64,
    /// What endpoints ought to have counted.
    pub counts: BTreeMap<EndpointId, Counts>,
    /// How often a data path said that it had no room, where the model cannot know.
    pub full: u64,
    /// Packets for listeners that bound their new flows, since all flows were forgotten.
    asked: BTreeMap<ListenerId, u64>,
}

impl Default for Model {
    fn default() -> Self {
        Self::new()
    }
}

impl Model {
    /// Without a world.
    pub fn new() -> Self {
        Self {
            site: Site::new(),
            pairs: BTreeMap::new(),
            by_ends: BTreeMap::new(),
            next: 0,
            counts: BTreeMap::new(),
            full: 0,
            asked: BTreeMap::new(),
        }
    }

    /// Goes over to another world; flows stay.
    pub fn install(&mut self, world: &World) {
        self.site.install(world);
    }

    /// Forgets all flows.
    pub fn forget(&mut self) {
        self.pairs.clear();
        self.by_ends.clear();
        self.asked.clear();
    }

    /// Some pair that has not been found dead: `n` draws it, and recent ones are drawn more often.
    pub fn some_pair(&self, n: u64) -> Option<&Pair> {
        let oldest = *self.pairs.keys().next()?;
        let span = self.next - oldest;
        let back = (n % span.max(1)).min(n >> 32 & 0xff);
        self.pairs.range(self.next.saturating_sub(back + 1)..).next().map(|(_, pair)| pair)
    }

    /// Whether a packet meets a pair so close to its end that nobody can say from outside whether it still lives: it may open a
    /// pair that looks just like the old one.
    pub fn is_close_call(&self, frame: &[u8], now_ms: u64) -> bool {
        let Ok(segment) = read(frame, &self.site) else { return false };
        let found = self.by_ends.get(&(segment.protocol, segment.src, segment.dst));
        let is_close = |pair: &Pair| pair.alive_within(now_ms, 400) == Alive::Barely || pair.is_barely_asked_again(now_ms);
        found.and_then(|(id, _)| self.pairs.get(id)).is_some_and(is_close)
    }

    /// Whether nobody can tell what `frame` is: an error, or a reply that must not go on, that may be of a pair whose egress address
    /// nobody has seen.
    pub fn is_doubtful(&self, frame: &[u8]) -> bool {
        let endpoint = match read(frame, &self.site) {
            Ok(segment) if !segment.role.vip && segment.ttl <= 1 => (segment.protocol, segment.src),
            Err(Fate::Pass(Pass::OtherProtocol)) => match icmp::read(frame) {
                Message::Error(_, quote) => (quote.protocol, quote.dst),
                Message::Other | Message::Echo(_) | Message::Vague(_) => return false,
            },
            Ok(_) | Err(_) => return false,
        };
        self.pairs.values().any(|pair| pair.egress.is_none() && (pair.protocol, pair.endpoint) == endpoint)
    }

    /// Judges what a data path made of `frame` at `now_ms`.
    pub fn judge(&mut self, frame: &[u8], seen: &Seen, now_ms: u64) -> anyhow::Result<()> {
        let segment = match read(frame, &self.site) {
            Ok(segment) => segment,
            Err(Fate::Pass(Pass::OtherProtocol)) => return self.message(frame, seen, now_ms),
            Err(fate @ Fate::Drop(Drop::Fragment, _)) => {
                return match piece::read(frame, &self.site) {
                    Some(piece) => self.piece(&piece, frame, seen),
                    None => unsent(fate, frame, seen),
                };
            }
            Err(fate) => return unsent(fate, frame, seen),
        };
        self.adopt(&segment, seen, now_ms);
        self.ask(&segment);
        let known = self.by_ends.get(&(segment.protocol, segment.src, segment.dst)).copied();
        let alive = known.and_then(|(id, _)| self.pairs.get(&id)).map_or(Alive::No, |pair| pair.alive(now_ms));
        // Where the clock's grain decides, either is right: the data path's own opinion is taken.
        let opinions: &[bool] = match alive {
            Alive::Yes => &[true],
            Alive::No => &[false],
            Alive::Barely => &[true, false],
        };
        let mut refused = Ok(());
        for &is_known in opinions {
            let (expected, ended) = self.expect(frame, &segment, known.filter(|_| is_known), now_ms);
            let failed = self.failed(ended, &segment, now_ms);
            let ended = ended.or(known.filter(|_| !is_known).map(|(id, _)| id));
            match self.compare(&expected, ended, frame, &segment, seen, now_ms) {
                Ok(()) => {
                    if let Some(id) = failed {
                        self.counts.entry(id).or_default()[5] += 1;
                    }
                    if let Some(id) = ended {
                        self.end(id);
                    }
                    self.commit(expected, frame, &segment, seen, now_ms);
                    return Ok(());
                }
                Err(error) => refused = refused.and(Err(error)),
            }
        }
        refused
    }

    /// A fragment to a VIP on which the agent serves some listener of its protocol.
    fn piece(&mut self, piece: &Piece, frame: &[u8], seen: &Seen) -> anyhow::Result<()> {
        let nobodys = Fate::Drop(Drop::Fragment, ListenerId::NONE);
        let (protocol, src, dst, opens) = match *piece {
            Piece::Later => return unsent(Fate::Pass(Pass::Served), frame, seen),
            Piece::Hidden => return unsent(nobodys, frame, seen),
            Piece::First { protocol, src, dst, opens } => (protocol, src, dst, opens),
        };
        let service = self.site.services.get(&(dst.ip(), protocol, dst.port())).copied();
        let served = service.and_then(|(id, _)| Some((id, *self.site.listeners.get(&id).filter(|it| it.is_served)?)));
        let Some((id, listens)) = served else { return unsent(nobodys, frame, seen) };
        if self.site.ours.contains_key(&src) || !can_be_answered(src) {
            return unsent(Fate::Pass(Pass::Martian), frame, seen);
        }
        if (protocol != TCP || opens || listens.is_strict) && !self.site.lets_in(&listens, src) {
            return unsent(Fate::Drop(Drop::Acl, id), frame, seen);
        }
        *self.asked.entry(id).or_default() += 1;
        if seen.action == Action::Drop(Drop::Admission, id) {
            ensure!(opens && self.is_sated(id), "listener {id} has no reason to refuse");
            return unchanged(frame, seen);
        }
        unsent(Fate::Pass(Pass::Served), frame, seen)
    }

    /// What is neither TCP nor UDP.
    fn message(&mut self, frame: &[u8], seen: &Seen, now_ms: u64) -> anyhow::Result<()> {
        let passed = |reason| unsent(Fate::Pass(reason), frame, seen);
        let (place, quote) = match icmp::read(frame) {
            Message::Other => return passed(Pass::OtherProtocol),
            Message::Echo(place) | Message::Vague(place) => (place, None),
            Message::Error(place, quote) => (place, Some(quote)),
        };
        if self.site.ours.contains_key(&place.src) || !can_be_answered(place.src) {
            return passed(Pass::Martian);
        }
        if place.is_echo(frame) {
            let is_answered = matches!(icmp::read(frame), Message::Echo(_));
            let is_vip = self.site.ours.get(&place.dst).is_some_and(|role| role.vip);
            return if is_answered && is_vip {
                sent(&icmp::answer(frame, &place), INGRESS, seen)
            } else {
                passed(Pass::OtherProtocol)
            };
        }
        // An error goes to whom the quoted packet came from, and so is about the half whose packets come the other way.
        let Some(quote) = quote.filter(|quote| quote.src.ip() == place.dst) else { return passed(Pass::IcmpUnknown) };
        let found = self.by_ends.get(&(quote.protocol, quote.dst, quote.src)).copied();
        let Some((pair, way)) = found.and_then(|(id, way)| Some((self.pairs.get(&id)?.clone(), way))) else {
            return passed(Pass::IcmpUnknown);
        };
        let alive = pair.alive(now_ms);
        if alive == Alive::No || alive == Alive::Barely && passed(Pass::IcmpUnknown).is_ok() {
            return passed(Pass::IcmpUnknown);
        }
        let dropped = |reason| unsent(Fate::Drop(reason, self.owner(&pair)), frame, seen);
        if place.ttl <= 1 {
            return dropped(Drop::TtlExpired);
        }
        let is_tcp = pair.protocol == TCP;
        let blames = place.says_unreachable(frame) && (is_tcp || place.src == pair.endpoint.ip() && place.is_about_port(frame));
        if way == Way::Back && blames && pair.is_waiting() && !pair.again {
            if is_tcp {
                dropped(Drop::Unreachable)?;
            }
            if let Some((id, _)) = found
                && let Some(pair) = self.pairs.get_mut(&id)
            {
                pair.again = true;
            }
            if is_tcp {
                return Ok(());
            }
            self.counts.entry(pair.id).or_default()[5] += 1;
        }
        if pair.client.is_ipv4() != pair.endpoint.is_ipv4() {
            return self.message_across(&pair, way, frame, seen);
        }
        let dropped = |reason| unsent(Fate::Drop(reason, self.owner(&pair)), frame, seen);
        let (out, ends, quoted) = match (way, self.site.hops.get(&pair.id), pair.egress) {
            // RFC 5508 REQ-5: what is behind us shows itself as the VIP.
            (Way::Back, ..) => (home(&pair), (pair.vip.ip(), pair.client.ip()), (pair.client, pair.vip)),
            (Way::There, None, _) => return dropped(Drop::NoNextHop),
            // Where nobody has seen the egress address, nobody can tell.
            (Way::There, Some(_), None) => {
                if matches!(seen.action, Action::Tx | Action::Redirect) {
                    self.count(pair.id, way, frame.len());
                }
                return Ok(());
            }
            (Way::There, Some(hop), Some(egress)) => {
                // REQ-4: a router's address stays, the client's does not.
                let src = if place.src == pair.client.ip() { egress.ip() } else { place.src };
                (out_by(hop), (src, pair.endpoint.ip()), (pair.endpoint, egress))
            }
        };
        let mut bytes = link::retagged(&icmp::translated(frame, &place, &quote, ends, quoted), &out.vlans);
        bytes[..12].copy_from_slice(&out.macs.concat());
        sent(&bytes, out.ifindex, seen)?;
        self.count(pair.id, way, frame.len());
        Ok(())
    }

    /// An error about a pair between families. What it is translated to the corpus says, type by type; here it goes the right way, or
    /// nowhere for a reason that there is.
    fn message_across(&mut self, pair: &Pair, way: Way, frame: &[u8], seen: &Seen) -> anyhow::Result<()> {
        let owner = self.owner(pair);
        let reasons = [Drop::NoNextHop, Drop::Malformed];
        match seen.action {
            Action::Pass(Pass::IcmpUnknown) => unchanged(frame, seen),
            Action::Drop(reason, id) if reasons.contains(&reason) && id == owner => unchanged(frame, seen),
            Action::Tx | Action::Redirect => {
                let (to, ifindex) = match way {
                    Way::Back => (pair.client.ip(), INGRESS),
                    Way::There => (pair.endpoint.ip(), self.site.hops.get(&pair.id).map_or(0, |hop| hop.ifindex)),
                };
                let at = link::tags(&seen.bytes).1 + 2;
                let dst = seen.bytes.get(at..).filter(|ip| ip.len() >= 40).map(|ip| match ip[0] >> 4 {
                    4 => segment::ip_at(ip, 16, true),
                    _ => segment::ip_at(ip, 24, false),
                });
                ensure!(dst == Some(to), "an error about {pair:?} goes to {dst:?}");
                ensure!(seen.ifindex.is_none_or(|seen| seen == ifindex), "sent by interface {:?}, not {ifindex}", seen.ifindex);
                self.count(pair.id, way, frame.len());
                Ok(())
            }
            Action::Pass(_) | Action::Drop(..) | Action::Refuse(..) => {
                bail!("an error about a pair between families: {:?}", seen.action)
            }
        }
    }

    fn ask(&mut self, segment: &Segment) {
        let service = self.site.services.get(&(segment.dst.ip(), segment.protocol, segment.dst.port()));
        if let Some((id, _)) = service.filter(|(id, _)| self.site.listeners.get(id).is_some_and(|it| it.admits > 0)) {
            *self.asked.entry(*id).or_default() += 1;
        }
    }

    /// Whether a listener may say that it has admitted enough for now: how long a moment is, is not modelled.
    fn is_sated(&self, id: ListenerId) -> bool {
        let admits = self.site.listeners.get(&id).map_or(0, |listens| listens.admits);
        // What a second admits, of the quarter of a second that is counted together, and never less than one.
        let at_once = (admits * 268 / 1000).max(1);
        admits > 0 && self.asked.get(&id).is_some_and(|asked| *asked > at_once)
    }

    /// What ought to happen, and the pair that ends by it.
    fn expect(&self, frame: &[u8], segment: &Segment, known: Option<(u64, Way)>, now_ms: u64) -> (Expected, Option<u64>) {
        let Some((id, way)) = known else { return (self.opening(segment, now_ms, None), None) };
        let Some(pair) = self.pairs.get(&id) else { return (self.opening(segment, now_ms, None), None) };
        if pair.is_closed() && way == Way::There && opens(segment.flags) {
            return (self.opening(segment, now_ms, None), Some(id));
        }
        let listener = self.site.endpoints.get(&pair.id).map_or(ListenerId::NONE, |(_, listener, _)| *listener);
        if segment.ttl <= 1 {
            return (Expected::Not(Fate::Drop(Drop::TtlExpired, listener)), None);
        }
        let is_udp = segment.protocol != TCP;
        let asks_again =
            way == Way::There && (is_udp && pair.is_waiting() || opens(segment.flags) && pair.is_asked_again(now_ms));
        if asks_again && pair.again {
            return (self.opening(segment, now_ms, Some(pair.id)), Some(id));
        }
        let mut pair = pair.clone();
        pair.again |= asks_again && !is_udp;
        let idle_s = self.site.listeners.get(&listener).map_or(0, |listens| listens.idle_s);
        pair.note(way, segment, idle_s, now_ms);
        let (src, dst, out) = match way {
            Way::Back => (pair.vip, pair.client, home(&pair)),
            Way::There => match self.site.hops.get(&pair.id) {
                // A pair whose first packet was never sent shows its egress address now.
                Some(hop) => (pair.egress.unwrap_or(segment.src), pair.endpoint, out_by(hop)),
                None => return (Expected::Noted(id, pair, Fate::Drop(Drop::NoNextHop, listener)), None),
            },
        };
        let away = Away { bytes: rewritten(frame, segment, src, dst, &out), ifindex: out.ifindex };
        (Expected::Sent(id, pair, way, Box::new(away)), None)
    }

    /// Whose failure it is that a pair made way for another: that of an endpoint that did not answer SYNs.
    fn failed(&self, ended: Option<u64>, segment: &Segment, now_ms: u64) -> Option<EndpointId> {
        let pair = self.pairs.get(&ended?)?;
        let is_failure = segment.protocol == TCP && pair.again && pair.is_waiting() && pair.alive(now_ms) != Alive::No;
        is_failure.then_some(pair.id)
    }

    /// A packet of no known flow, or of one that is to be tried with somebody else than `avoid`.
    fn opening(&self, segment: &Segment, now_ms: u64, avoid: Option<EndpointId>) -> Expected {
        let site = &self.site;
        let not = |reason| Expected::Not(Fate::Pass(reason));
        if !segment.role.vip {
            return not(Pass::NoReturnFlow);
        }
        let Some((id, port)) = site.services.get(&(segment.dst.ip(), segment.protocol, segment.dst.port())).copied() else {
            return not(Pass::NoListener);
        };
        let Some(listens) = site.listeners.get(&id) else { return not(Pass::NoListener) };
        if site.ours.contains_key(&segment.src.ip()) || !can_be_answered(segment.src.ip()) {
            return not(Pass::Martian);
        }
        let dropped = |reason| Expected::Not(Fate::Drop(reason, id));
        if listens.is_served {
            let is_asked = segment.protocol != TCP || opens(segment.flags) || listens.is_strict;
            let may_come = !is_asked || site.lets_in(listens, segment.src.ip());
            return if may_come { Expected::Served(id) } else { dropped(Drop::Acl) };
        }
        if !site.lets_in(listens, segment.src.ip()) {
            return dropped(Drop::Acl);
        }
        if segment.protocol == TCP && !opens(segment.flags) {
            return dropped(Drop::NoFlow);
        }
        if segment.ttl <= 1 {
            return dropped(Drop::TtlExpired);
        }
        let Some(endpoint) = self.choose(segment, id, listens.by_source, avoid) else { return dropped(Drop::NoEndpoint) };
        let Some((address, _, own_port)) = site.endpoints.get(&endpoint) else { return dropped(Drop::NoEndpoint) };
        let egress = self.egress_of(id, *address);
        if egress.is_empty() {
            return dropped(Drop::NoEgress);
        }
        let port = if *own_port == 0 { port } else { *own_port };
        let mut pair = Pair::open(segment, SocketAddr::new(*address, port), endpoint, listens.idle_s, now_ms);
        pair.choice = (egress, site.nat_ports);
        pair.again = avoid == Some(endpoint);
        Expected::Opens(Box::new(pair), site.hops.get(&endpoint).copied())
    }

    /// The endpoint by the keyed hash over all ends, or over the two addresses.
    fn choose(&self, segment: &Segment, listener: ListenerId, by_source: bool, avoid: Option<EndpointId>) -> Option<EndpointId> {
        let table = self.site.active.get(&(listener, segment.dst.is_ipv6())).filter(|table| **table != TableId::EMPTY)?;
        let mut bytes = Vec::new();
        for ip in [segment.src.ip(), segment.dst.ip()] {
            match ip {
                IpAddr::V4(v4) => bytes.extend(v4.octets()),
                IpAddr::V6(v6) => bytes.extend(v6.octets()),
            }
        }
        let mut words: Vec<u64> = bytes.chunks(8).map(little).collect();
        if !by_source {
            let [s0, s1] = segment.src.port().to_be_bytes();
            let [d0, d1] = segment.dst.port().to_be_bytes();
            words.push(little(&[segment.protocol, s0, s1, d0, d1]));
        }
        let hash = sip::<1, 3>(self.site.seed, &words);
        // The upper half of the hash as a fraction of the table.
        let at = |hash: u64| {
            let slot = ((u128::from(hash >> 32) * TABLE_SIZE as u128) >> 32) as usize;
            self.site.tables.get(table)?.get(slot).copied().filter(|id| *id != EndpointId::NONE)
        };
        let Some(avoid) = avoid else { return at(hash) };
        let next = |draw: &u64| Some(draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(u64::from(avoid.0) * 2 + 1));
        let draws = std::iter::successors(next(&hash), next).take(16);
        draws.filter_map(at).find(|id| *id != avoid).or_else(|| at(hash))
    }

    fn egress_of(&self, listener: ListenerId, endpoint: IpAddr) -> Vec<IpAddr> {
        let instance = self.site.listeners.get(&listener).map(|listens| listens.instance);
        let all = instance.and_then(|instance| self.site.egress.get(&instance));
        all.into_iter().flatten().copied().filter(|ip| ip.is_ipv4() == endpoint.is_ipv4()).collect()
    }

    fn compare(
        &self,
        expected: &Expected,
        ended: Option<u64>,
        frame: &[u8],
        segment: &Segment,
        seen: &Seen,
        now_ms: u64,
    ) -> anyhow::Result<()> {
        match expected {
            // Admission is asked before the endpoint is chosen.
            Expected::Not(Fate::Drop(Drop::NoEndpoint | Drop::NoEgress, id))
                if seen.action == Action::Drop(Drop::Admission, *id) && self.is_sated(*id) =>
            {
                unchanged(frame, seen)
            }
            Expected::Not(Fate::Drop(Drop::NoEndpoint, id)) if let Some(bytes) = refusal(frame) => refused(*id, &bytes, seen),
            Expected::Served(id) if seen.action == Action::Drop(Drop::Admission, *id) => {
                ensure!(segment.protocol == TCP && opens(segment.flags), "listener {id} admits what opens nothing");
                ensure!(self.is_sated(*id), "listener {id} has no reason to refuse");
                unchanged(frame, seen)
            }
            Expected::Served(_) => unsent(Fate::Pass(Pass::Served), frame, seen),
            Expected::Not(fate) | Expected::Noted(_, _, fate) => unsent(*fate, frame, seen),
            Expected::Sent(_, pair, way, away) => {
                if *way == Way::There && pair.egress.is_none() {
                    let egress = self.legal(segment, pair, ended, seen, now_ms)?;
                    let Some(hop) = self.site.hops.get(&pair.id) else { bail!("sent without a next hop") };
                    let bytes = rewritten(frame, segment, egress, pair.endpoint, &out_by(hop));
                    return translated(bytes, away.ifindex, pair, seen);
                }
                translated(away.bytes.clone(), away.ifindex, pair, seen)
            }
            Expected::Opens(pair, hop) => match (seen.action, hop) {
                (Action::Drop(Drop::FlowTableFull, _), _) => unchanged(frame, seen),
                (Action::Drop(Drop::Admission, id), _) => {
                    ensure!(id == self.owner(pair) && self.is_sated(id), "listener {id} has no reason to refuse");
                    unchanged(frame, seen)
                }
                (Action::Drop(Drop::NoPort, _), _) => {
                    ensure!(self.is_crowded(pair, now_ms), "no NAT port, but there must be plenty");
                    unchanged(frame, seen)
                }
                (_, None) => unsent(Fate::Drop(Drop::NoNextHop, self.owner(pair)), frame, seen),
                (_, Some(hop)) => {
                    let egress = self.legal(segment, pair, ended, seen, now_ms)?;
                    ensure!(
                        egress.port() == pair.client.port() || !self.could_keep_port(pair, ended),
                        "NAT port {} in the place of the client's own, which is free",
                        egress.port()
                    );
                    translated(rewritten(frame, segment, egress, pair.endpoint, &out_by(hop)), hop.ifindex, pair, seen)
                }
            },
        }
    }

    /// The egress address and NAT port that a sent frame shows, if the pair may have them.
    fn legal(&self, segment: &Segment, pair: &Pair, ended: Option<u64>, seen: &Seen, now_ms: u64) -> anyhow::Result<SocketAddr> {
        ensure!(
            matches!(seen.action, Action::Tx | Action::Redirect),
            "{:?}, but it is to be sent to {}",
            seen.action,
            pair.endpoint
        );
        let Some((src, _)) = ends(&seen.bytes, segment) else { bail!("what was sent is too short") };
        let holder = self.by_ends.get(&(pair.protocol, pair.endpoint, src)).filter(|(id, _)| Some(*id) != ended);
        if let Some(other) = holder.and_then(|(id, _)| self.pairs.get(id)) {
            let may_have = other.alive(now_ms) != Alive::Yes || other.is_weak() && self.is_crowded(pair, now_ms);
            ensure!(may_have, "NAT port {src} towards {} is taken by {other:?}", pair.endpoint);
        }
        if pair.egress.is_none() {
            let (addresses, (first, last)) = &pair.choice;
            ensure!(addresses.contains(&src.ip()), "{src} is none of the egress addresses {addresses:?}");
            ensure!((first..=last).contains(&&src.port()), "NAT port {} is not in {first}-{last}", src.port());
        }
        Ok(src)
    }

    /// Whether the client's own port is surely free at every egress address: it is to be kept then (RFC 4787 section 4.2.1).
    fn could_keep_port(&self, pair: &Pair, ended: Option<u64>) -> bool {
        let (addresses, (first, last)) = &pair.choice;
        let own = pair.client.port();
        let is_held = |ip: &IpAddr| {
            let holder = self.by_ends.get(&(pair.protocol, pair.endpoint, SocketAddr::new(*ip, own)));
            holder.is_some_and(|(id, _)| Some(*id) != ended)
        };
        let is_hidden = |other: &Pair| other.egress.is_none() && other.endpoint == pair.endpoint;
        (first..=last).contains(&&own) && !addresses.iter().any(is_held) && !self.pairs.values().any(is_hidden)
    }

    /// Whether so many NAT ports towards an endpoint may be taken that a bounded number of tries finds none.
    fn is_crowded(&self, pair: &Pair, now_ms: u64) -> bool {
        let same = |other: &&Pair| other.endpoint == pair.endpoint && other.protocol == pair.protocol;
        let taken = self.pairs.values().filter(same).filter(|other| other.alive(now_ms) != Alive::No).count();
        let (first, last) = self.site.nat_ports;
        taken * 4 >= usize::from(last - first + 1)
    }

    fn owner(&self, pair: &Pair) -> ListenerId {
        self.site.endpoints.get(&pair.id).map_or(ListenerId::NONE, |(_, listener, _)| *listener)
    }

    /// A reply to a pair whose egress address nobody has seen: if the data path knows it, it is that pair's.
    fn adopt(&mut self, segment: &Segment, seen: &Seen, now_ms: u64) {
        let ends_of = (segment.protocol, segment.src, segment.dst);
        let is_free =
            self.by_ends.get(&ends_of).and_then(|(id, _)| self.pairs.get(id)).is_none_or(|p| p.alive(now_ms) == Alive::No);
        if segment.role.vip || !is_free || !matches!(seen.action, Action::Tx | Action::Redirect) {
            return;
        }
        let Some((src, dst)) = ends(&seen.bytes, segment) else { return };
        let found = self.by_ends.get(&(segment.protocol, dst, src)).copied();
        if let Some((id, Way::There)) = found
            && let Some(pair) = self.pairs.get_mut(&id)
            && pair.egress.is_none()
            && pair.endpoint == segment.src
        {
            pair.egress = Some(segment.dst);
            self.by_ends.insert(ends_of, (id, Way::Back));
        }
    }

    fn commit(&mut self, expected: Expected, frame: &[u8], segment: &Segment, seen: &Seen, now_ms: u64) {
        match expected {
            Expected::Not(_) | Expected::Served(_) => {}
            Expected::Noted(id, pair, _) => drop(self.pairs.insert(id, pair)),
            Expected::Sent(id, mut pair, way, _) => {
                self.count(pair.id, way, frame.len());
                if way == Way::There && pair.egress.is_none() {
                    self.settle(id, &mut pair, segment, seen);
                }
                self.pairs.insert(id, pair);
            }
            Expected::Opens(_, _)
                if matches!(seen.action, Action::Drop(Drop::FlowTableFull | Drop::NoPort | Drop::Admission, _)) =>
            {
                self.full += u64::from(matches!(seen.action, Action::Drop(Drop::FlowTableFull, _)));
            }
            Expected::Opens(mut pair, hop) => {
                let id = self.next;
                self.next += 1;
                self.counts.entry(pair.id).or_default()[4] += 1;
                self.by_ends.insert((pair.protocol, pair.client, pair.vip), (id, Way::There));
                if hop.is_some() {
                    self.count(pair.id, Way::There, frame.len());
                    self.settle(id, &mut pair, segment, seen);
                }
                self.pairs.insert(id, *pair);
            }
        }
        if self.next.is_multiple_of(4096) {
            self.sweep(now_ms);
        }
    }

    /// Takes the egress address that a sent frame shows as the pair's.
    fn settle(&mut self, id: u64, pair: &mut Pair, segment: &Segment, seen: &Seen) {
        let Some((src, _)) = ends(&seen.bytes, segment) else { return };
        pair.egress = Some(src);
        if let Some((other, _)) = self.by_ends.insert((pair.protocol, pair.endpoint, src), (id, Way::Back)) {
            // Its port is another's: it is dead, or had to give way.
            if other != id {
                self.end(other);
            }
        }
    }

    fn count(&mut self, id: EndpointId, way: Way, bytes: usize) {
        let at = if way == Way::There { 0 } else { 2 };
        let counts = self.counts.entry(id).or_default();
        counts[at] += 1;
        counts[at + 1] += bytes as u64;
    }

    /// Forgets a pair; its ends may be another's by now.
    fn end(&mut self, id: u64) {
        let Some(pair) = self.pairs.remove(&id) else { return };
        let back = pair.egress.map(|egress| (pair.protocol, pair.endpoint, egress));
        for ends in [Some((pair.protocol, pair.client, pair.vip)), back].into_iter().flatten() {
            if self.by_ends.get(&ends).is_some_and(|(owner, _)| *owner == id) {
                self.by_ends.remove(&ends);
            }
        }
    }

    fn sweep(&mut self, now_ms: u64) {
        let dead: Vec<u64> = self.pairs.iter().filter(|(_, pair)| pair.alive(now_ms) == Alive::No).map(|(id, _)| *id).collect();
        dead.into_iter().for_each(|id| self.end(id));
    }
}

/// Only a bare SYN opens a connection.
fn opens(flags: Flags) -> bool {
    flags == Flags { syn: true, ..Flags::default() }
}

/// Addresses that a host may have: not "this network", loopback, multicast, reserved or broadcast (RFC 1122 section 3.2.1.3), nor
/// unspecified, loopback, multicast or mapped ones (RFC 4291 sections 2.5 and 2.7). What lies below ::/80 is nobody's.
fn can_be_answered(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.octets()[0] != 0 && !v4.is_loopback() && v4.octets()[0] < 224,
        IpAddr::V6(v6) => !v6.is_multicast() && v6.segments()[..5] != [0; 5],
    }
}

/// Up to eight bytes, the first the least.
fn little(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// By an endpoint's next hop.
fn out_by(hop: &Hop) -> Out {
    Out { macs: [hop.dst_mac, hop.src_mac], vlans: link::of_hop(hop), ifindex: hop.ifindex }
}

/// Back to where the client's packets come from.
fn home(pair: &Pair) -> Out {
    Out { macs: [pair.macs[1], pair.macs[0]], vlans: pair.vlans.clone(), ifindex: INGRESS }
}

/// A packet of `pair` is sent as these `bytes`, but for what is the data path's to choose when it comes from the other family.
fn translated(bytes: Vec<u8>, ifindex: u32, pair: &Pair, seen: &Seen) -> anyhow::Result<()> {
    let is_across = pair.client.is_ipv4() != pair.endpoint.is_ipv4();
    sent(&if is_across { identified(bytes, &seen.bytes) } else { bytes }, ifindex, seen)
}

fn unsent(fate: Fate, frame: &[u8], seen: &Seen) -> anyhow::Result<()> {
    let want = match fate {
        Fate::Pass(reason) => Action::Pass(reason),
        Fate::Drop(reason, listener) => Action::Drop(reason, listener),
    };
    ensure!(seen.action == want, "the model says {want:?}, the data path {:?}", seen.action);
    unchanged(frame, seen)
}

fn refused(id: ListenerId, bytes: &[u8], seen: &Seen) -> anyhow::Result<()> {
    let want = Action::Refuse(Drop::NoEndpoint, id);
    ensure!(seen.action == want, "the model says {want:?}, the data path {:?}", seen.action);
    ensure!(seen.bytes == bytes, "not the RST of the model:\n{}", difference(bytes, &seen.bytes));
    Ok(())
}

fn unchanged(frame: &[u8], seen: &Seen) -> anyhow::Result<()> {
    ensure!(seen.bytes == frame, "not sent, but changed:\n{}", difference(frame, &seen.bytes));
    Ok(())
}

fn sent(bytes: &[u8], ifindex: u32, seen: &Seen) -> anyhow::Result<()> {
    let want = if ifindex == INGRESS { Action::Tx } else { Action::Redirect };
    ensure!(seen.action == want, "the model says {want:?}, the data path {:?}", seen.action);
    ensure!(seen.bytes == bytes, "not the frame of the model:\n{}", difference(bytes, &seen.bytes));
    ensure!(seen.ifindex.is_none_or(|seen| seen == ifindex), "sent by interface {:?}, not {ifindex}", seen.ifindex);
    Ok(())
}
