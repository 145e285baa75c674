//! Flow memory: one half of a NAT pair in one slot, slots in array maps, claimed by compare-and-swap and aged in place.
//!
//! A slot is one cache line for IPv4 and two for IPv6. All cells are shared words, so kernel and agent share
//! the memory without data races; what a reader copied counts only if `state` has not changed meanwhile.

use super::{
    entry::Hop,
    id::EndpointId,
    limits::{GRACE_TICKS, MAX_IFINDEX, RETRY_TICKS},
};
use crate::word::Word;

/// Unit of the clock of a slot: 2^22 ns, about 4.2 ms; wraps after 208 days, and differences are taken modulo that.
pub const TICK_SHIFT: u32 = 22;

/// Ticks in `seconds`.
#[inline(always)]
pub const fn ticks(seconds: u16) -> u32 {
    // 2^30 ns are 256 ticks; 1 s is 238.4 of them. 2441 / 10.24 keeps the error below 0.01 %.
    (seconds as u32) * 23_842 / 100
}

/// Ticks, about a second, by which another CPU's clock may be ahead of ours.
const AHEAD: u32 = 256;

/// One slot; `K` words hold a (source, destination) pair of addresses, `W` words (at least `2 * K + 4`) hold everything.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct FlowSlot<const K: usize, const W: usize> {
    /// See [`State`].
    state: Word,
    /// Low half: tick of the last packet; high half: last TCP acknowledgement number. One store a packet.
    clock: Word,
    words: [Word; W],
}

/// What a slot is: two bits of kind, 30 bits of version that differ from one tenant to the next, 32 bits of peer, the highest of
/// which says that the peer is a slot of the other family's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State(pub u64);

impl State {
    /// Never used.
    pub const NEVER: Self = Self(0);
    const KIND: u64 = 3;
    const BUSY: u64 = 1;
    const LIVE: u64 = 2;
    const VERSION: u64 = 0xffff_fffc;
    const ONE: u64 = 4;
    /// No table has this many slots: whoever looks for such a peer in the wrong table finds none.
    const ACROSS: u32 = 1 << 31;

    /// Somebody is writing.
    #[inline(always)]
    pub const fn is_busy(self) -> bool {
        self.0 & Self::KIND == Self::BUSY
    }

    /// A flow.
    #[inline(always)]
    pub const fn is_live(self) -> bool {
        self.0 & Self::KIND == Self::LIVE
    }

    /// Slot of the other half; a number that no slot has when the other half [is across](Self::is_across).
    #[inline(always)]
    pub const fn peer(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Whether the other half is in the other family's table.
    #[inline(always)]
    pub const fn is_across(self) -> bool {
        self.0 >> 63 != 0
    }

    /// Slot of the other half in the other family's table; a number that no slot has when it is in the same table.
    #[inline(always)]
    pub const fn peer_across(self) -> u32 {
        self.peer() ^ Self::ACROSS
    }

    /// The next tenant, still writing.
    #[inline(always)]
    pub const fn claimed(self) -> Self {
        let version = self.0.wrapping_add(Self::ONE) & Self::VERSION;
        // Version 0 is kept for slots that were never used.
        Self(if version == 0 { Self::ONE } else { version } | Self::BUSY)
    }

    /// The same tenant, alive, without a peer: what is remembered is whom its packets go to.
    #[inline(always)]
    pub const fn live_alone(self) -> Self {
        self.live(Self::ACROSS - 1)
    }

    /// The same tenant, alive, with its peer.
    #[inline(always)]
    pub const fn live(self, peer: u32) -> Self {
        Self((peer as u64) << 32 | self.0 & Self::VERSION | Self::LIVE)
    }

    /// The same with a peer in the other family's table.
    #[inline(always)]
    pub const fn live_across(self, peer: u32) -> Self {
        self.live(peer | Self::ACROSS)
    }

    /// Nobody, but not [`State::NEVER`].
    #[inline(always)]
    pub const fn freed(self) -> Self {
        Self(self.0 & Self::VERSION)
    }
}

/// An IPv4 slot: 64 bytes.
pub type FlowSlot4 = FlowSlot<1, 6>;
/// An IPv6 slot: 128 bytes (two words spare).
pub type FlowSlot6 = FlowSlot<4, 14>;

const _: () = {
    assert!(size_of::<FlowSlot4>() == 64);
    assert!(size_of::<FlowSlot6>() == 128);
};

/// What packets of one direction look like on arrival.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple<const K: usize> {
    /// Source and destination address, packed by [`pack4`] or [`pack6`].
    pub addrs: [u64; K],
    /// Source and destination port in network byte order, side by side.
    pub ports: [u8; 4],
    /// IANA protocol number.
    pub protocol: u8,
}

impl<const K: usize> Tuple<K> {
    /// Set in [`Self::protocol`] of what is remembered of flows whose packets stay as they are: whoever looks for a half of a pair
    /// does not find it, nor the other way round.
    pub const ALONE: u8 = 0x80;

    /// The same for what is remembered of such a flow.
    #[inline(always)]
    pub const fn alone(self) -> Self {
        Self { protocol: self.protocol | Self::ALONE, ..self }
    }
}

/// One half of a pair: how to recognise a packet and what to make of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow<const K: usize> {
    /// What to recognise.
    pub tuple: Tuple<K>,
    /// [`Flow::RETURN`], [`Flow::ESTABLISHED`], [`Flow::FIN`], [`Flow::CLOSED`], [`Flow::ANSWERED`], [`Flow::AGAIN`].
    pub flags: u8,
    /// Whose counters.
    pub endpoint: u16,
    /// New source and destination address. In a half whose packets become the other family's: both IPv4 addresses in the first
    /// word of an IPv6 slot, nothing in an IPv4 slot, whose other half has them in its tuple.
    pub new_addrs: [u64; K],
    /// New source and destination port.
    pub new_ports: [u8; 4],
    /// Where the client's packets come from, in both halves: the return half sends there, the forward half notices when it
    /// changes (its own way is the endpoint's next hop). At most [`MAX_IFINDEX`].
    pub ifindex: u32,
    /// The client's MAC address or its router's.
    pub dst_mac: [u8; 6],
    /// Ours.
    pub src_mac: [u8; 6],
    /// VLAN tags of the client's packets, packed into 28 bits.
    pub tags: u32,
    /// Seconds of silence after which this half is over.
    pub timeout_s: u16,
}

impl<const K: usize> Flow<K> {
    /// Towards the client.
    pub const RETURN: u8 = 1;
    /// Both sides want it: the client went on after an answer (TCP), or there was an answer (UDP). Nothing evicts it.
    pub const ESTABLISHED: u8 = 2;
    /// A FIN was seen in this direction.
    pub const FIN: u8 = 4;
    /// A RST, or a FIN in each direction, was seen: a new SYN starts a new flow.
    pub const CLOSED: u8 = 8;
    /// The endpoint answered (return half only).
    pub const ANSWERED: u8 = 16;
    /// The client had to ask again, or somebody said that the endpoint is unreachable (forward half only).
    pub const AGAIN: u8 = 32;

    /// Whether a new flow may have its place under pressure.
    #[inline(always)]
    pub const fn is_evictable(flags: u8) -> bool {
        flags & Self::ESTABLISHED == 0 || flags & Self::CLOSED != 0
    }
}

/// The way to a neighbour, its MAC addresses packed by [`mac`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The neighbour's MAC address.
    pub dst: u64,
    /// The MAC address of our interface.
    pub src: u64,
    /// Our interface.
    pub ifindex: u32,
    /// VLAN tags, packed.
    pub tags: u32,
}

impl Way {
    /// The way that a next hop names.
    #[inline(always)]
    pub fn by(hop: &Hop) -> Self {
        Self { dst: mac(hop.dst_mac), src: mac(hop.src_mac), ifindex: hop.ifindex, tags: hop.tags }
    }
}

/// A MAC address in one word, two bytes of which are zero.
#[inline(always)]
pub const fn mac(b: [u8; 6]) -> u64 {
    u64::from_ne_bytes([b[0], b[1], b[2], b[3], b[4], b[5], 0, 0])
}

/// The MAC address in a word.
#[inline(always)]
pub const fn unpack_mac(word: u64) -> [u8; 6] {
    let [a, b, c, d, e, f, _, _] = word.to_ne_bytes();
    [a, b, c, d, e, f]
}

/// Both IPv4 addresses in one word.
#[inline(always)]
pub fn pack4(src: [u8; 4], dst: [u8; 4]) -> [u64; 1] {
    [u64::from_ne_bytes([src[0], src[1], src[2], src[3], dst[0], dst[1], dst[2], dst[3]])]
}

/// Source and destination of [`pack4`].
#[inline(always)]
pub fn unpack4(addrs: [u64; 1]) -> ([u8; 4], [u8; 4]) {
    let [a, b, c, d, e, f, g, h] = addrs[0].to_ne_bytes();
    ([a, b, c, d], [e, f, g, h])
}

/// Both IPv6 addresses in four words.
#[inline(always)]
pub fn pack6(src: [u8; 16], dst: [u8; 16]) -> [u64; 4] {
    let (s, d) = (halves(src), halves(dst));
    [s[0], s[1], d[0], d[1]]
}

/// Source and destination of [`pack6`].
#[inline(always)]
pub fn unpack6(addrs: [u64; 4]) -> ([u8; 16], [u8; 16]) {
    (whole([addrs[0], addrs[1]]), whole([addrs[2], addrs[3]]))
}

#[inline(always)]
fn halves(b: [u8; 16]) -> [u64; 2] {
    [
        u64::from_ne_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]),
        u64::from_ne_bytes([b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]]),
    ]
}

#[inline(always)]
fn whole(w: [u64; 2]) -> [u8; 16] {
    let ([a, b, c, d, e, f, g, h], [i, j, k, l, m, n, o, p]) = (w[0].to_ne_bytes(), w[1].to_ne_bytes());
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}

/// The part of the meta word that belongs to the key.
const META_KEY: u64 = u64::from_ne_bytes([0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0]);

#[inline(always)]
fn meta(ports: [u8; 4], protocol: u8, flags: u8, endpoint: u16) -> u64 {
    let e = endpoint.to_ne_bytes();
    u64::from_ne_bytes([ports[0], ports[1], ports[2], ports[3], protocol, flags, e[0], e[1]])
}

/// A slot's word of ports, protocol, flags and endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta(pub u64);

impl Meta {
    /// [`Flow::flags`].
    #[inline(always)]
    pub const fn flags(self) -> u8 {
        self.0.to_ne_bytes()[5]
    }

    /// IANA protocol number.
    #[inline(always)]
    pub const fn protocol(self) -> u8 {
        self.0.to_ne_bytes()[4]
    }

    /// Whose counters.
    #[inline(always)]
    pub const fn endpoint(self) -> EndpointId {
        let [.., e0, e1] = self.0.to_ne_bytes();
        EndpointId(u16::from_ne_bytes([e0, e1]))
    }

    /// The same of a flow that goes to `endpoint`.
    #[inline(always)]
    pub const fn to(self, endpoint: EndpointId) -> Self {
        let ([a, b, c, d, e, f, ..], [e0, e1]) = (self.0.to_ne_bytes(), endpoint.0.to_ne_bytes());
        Self(u64::from_ne_bytes([a, b, c, d, e, f, e0, e1]))
    }

    /// The same with `flags` set too.
    #[inline(always)]
    pub const fn with(self, flags: u8) -> Self {
        Self(self.0 | u64::from_ne_bytes([0, 0, 0, 0, 0, flags, 0, 0]))
    }
}

#[inline(always)]
fn mac_word(mac: [u8; 6], tail: u16) -> u64 {
    let t = tail.to_ne_bytes();
    u64::from_ne_bytes([mac[0], mac[1], mac[2], mac[3], mac[4], mac[5], t[0], t[1]])
}

/// Says what the addresses and ports of a packet become.
pub trait Becomes<const K: usize> {
    /// One word of the addresses, as [`pack4`] and [`pack6`] pack them.
    fn addr(&self, word: usize) -> u64;
    /// Source and destination port.
    fn ports(&self) -> [u8; 4];
}

impl<const K: usize> Becomes<K> for Tuple<K> {
    #[inline(always)]
    fn addr(&self, word: usize) -> u64 {
        self.addrs[word]
    }

    #[inline(always)]
    fn ports(&self) -> [u8; 4] {
        self.ports
    }
}

/// What is read counts only if the slot is the same flow's before and after.
impl<const K: usize, const W: usize> Becomes<K> for FlowSlot<K, W> {
    #[inline(always)]
    fn addr(&self, word: usize) -> u64 {
        self.words[Self::NEW + word].load()
    }

    #[inline(always)]
    fn ports(&self) -> [u8; 4] {
        ports_parts(self.words[Self::PORTS].load()).0
    }
}

/// The part of a word that holds a MAC address.
const MAC: u64 = u64::from_ne_bytes([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]);

#[inline(always)]
fn ports_word(ports: [u8; 4], tail: u32) -> u64 {
    let ([a, b, c, d], [e, f, g, h]) = (ports, tail.to_ne_bytes());
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

#[inline(always)]
fn ports_parts(word: u64) -> ([u8; 4], u32) {
    let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
    ([a, b, c, d], u32::from_ne_bytes([e, f, g, h]))
}

#[inline(always)]
fn mac_parts(word: u64) -> ([u8; 6], u16) {
    let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
    ([a, b, c, d, e, f], u16::from_ne_bytes([g, h]))
}

impl<const K: usize, const W: usize> FlowSlot<K, W> {
    const META: usize = K;
    const NEW: usize = K + 1;
    const PORTS: usize = 2 * K + 1;
    const DST_MAC: usize = 2 * K + 2;
    const SRC_MAC: usize = 2 * K + 3;

    /// A free slot.
    #[cfg(any(test, feature = "sim"))]
    pub fn free() -> Self {
        Self { state: Word::new(State::NEVER.0), clock: Word::new(0), words: [const { Word::new(0) }; W] }
    }

    /// Whether the slot, if live, is for `tuple`.
    #[inline(always)]
    pub fn is_for(&self, tuple: &Tuple<K>) -> bool {
        let mut difference = (self.words[Self::META].load() ^ meta(tuple.ports, tuple.protocol, 0, 0)) & META_KEY;
        for (word, want) in self.words.iter().zip(tuple.addrs) {
            difference |= word.load() ^ want;
        }
        difference == 0
    }

    /// Everything, copied.
    #[inline(always)]
    pub fn load(&self) -> Flow<K> {
        let (mut addrs, mut new_addrs) = ([0; K], [0; K]);
        for i in 0..K {
            addrs[i] = self.words[i].load();
            new_addrs[i] = self.words[Self::NEW + i].load();
        }
        let [p0, p1, p2, p3, protocol, flags, e0, e1] = self.words[Self::META].load().to_ne_bytes();
        let (new_ports, word) = ports_parts(self.words[Self::PORTS].load());
        let (dst_mac, timeout_s) = mac_parts(self.words[Self::DST_MAC].load());
        let (src_mac, low_tags) = mac_parts(self.words[Self::SRC_MAC].load());
        Flow {
            tuple: Tuple { addrs, ports: [p0, p1, p2, p3], protocol },
            flags,
            endpoint: u16::from_ne_bytes([e0, e1]),
            new_addrs,
            new_ports,
            ifindex: word & MAX_IFINDEX,
            dst_mac,
            src_mac,
            tags: word >> 20 << 16 | u32::from(low_tags),
            timeout_s,
        }
    }

    /// Writes everything; the caller owns the slot (it is busy).
    #[inline(always)]
    pub fn store(&self, flow: &Flow<K>) {
        for i in 0..K {
            self.words[i].store(flow.tuple.addrs[i]);
            self.words[Self::NEW + i].store(flow.new_addrs[i]);
        }
        self.words[Self::META].store(meta(flow.tuple.ports, flow.tuple.protocol, flow.flags, flow.endpoint));
        self.words[Self::DST_MAC].store(mac_word(flow.dst_mac, flow.timeout_s));
        self.words[Self::PORTS].store(ports_word(flow.new_ports, flow.ifindex | flow.tags >> 16 << 20));
        self.words[Self::SRC_MAC].store(mac_word(flow.src_mac, flow.tags as u16));
    }

    /// Flags, endpoint, protocol and ports, in one look.
    #[inline(always)]
    pub fn meta(&self) -> Meta {
        Meta(self.words[Self::META].load())
    }

    /// The cell of [`Self::meta`].
    #[inline(always)]
    pub fn meta_cell(&self) -> &Word {
        &self.words[Self::META]
    }

    /// What the slot, if live, is for: source and destination address.
    #[inline(always)]
    pub fn addrs(&self) -> [u64; K] {
        let mut addrs = [0; K];
        for (addr, word) in addrs.iter_mut().zip(&self.words) {
            *addr = word.load();
        }
        addrs
    }

    /// What a packet's addresses and ports become. Of a half whose packets become the other family's only the ports count.
    #[inline(always)]
    pub fn translation(&self, protocol: u8) -> Tuple<K> {
        let mut addrs = [0; K];
        for (i, addr) in addrs.iter_mut().enumerate() {
            *addr = self.words[Self::NEW + i].load();
        }
        let (ports, _) = ports_parts(self.words[Self::PORTS].load());
        Tuple { addrs, ports, protocol }
    }

    /// The way to the client.
    #[inline(always)]
    pub fn client_way(&self) -> Way {
        let (dst, src) = (self.words[Self::DST_MAC].load(), self.words[Self::SRC_MAC].load());
        let (_, word) = ports_parts(self.words[Self::PORTS].load());
        let (_, low_tags) = mac_parts(src);
        Way { dst: dst & MAC, src: src & MAC, ifindex: word & MAX_IFINDEX, tags: word >> 20 << 16 | u32::from(low_tags) }
    }

    /// Whether the client's packets still come by that interface, with those tags, from that MAC address to ours.
    #[inline(always)]
    pub fn is_client(&self, way: &Way) -> bool {
        let other_mac = (self.words[Self::DST_MAC].load() ^ way.dst) & MAC;
        let other_src = self.words[Self::SRC_MAC].load() ^ (way.src | mac_word([0; 6], way.tags as u16));
        let (_, word) = ports_parts(self.words[Self::PORTS].load());
        other_mac | other_src | u64::from(word ^ (way.ifindex | way.tags >> 16 << 20)) == 0
    }

    /// Which cell changes from what to what when the client's packets come from another MAC address; [`Self::set_client_link`]
    /// writes the rest.
    #[inline(always)]
    pub fn client_change(&self, way: &Way) -> (&Word, u64, u64) {
        let old = self.words[Self::DST_MAC].load();
        (&self.words[Self::DST_MAC], old, old & !MAC | way.dst)
    }

    /// Our side of the way to the client.
    #[inline(always)]
    pub fn set_client_link(&self, way: &Way) {
        let (ports, _) = ports_parts(self.words[Self::PORTS].load());
        self.words[Self::PORTS].store(ports_word(ports, way.ifindex | way.tags >> 16 << 20));
        self.words[Self::SRC_MAC].store(way.src | mac_word([0; 6], way.tags as u16));
    }

    /// Which cell changes from what to what when the half's timeout becomes `timeout_s`.
    #[inline(always)]
    pub fn timeout_change(&self, timeout_s: u16) -> (&Word, u64, u64) {
        let old = self.words[Self::DST_MAC].load();
        (&self.words[Self::DST_MAC], old, old & MAC | mac_word([0; 6], timeout_s))
    }

    /// What the slot is.
    #[inline(always)]
    pub fn state(&self) -> State {
        State(self.state.load())
    }

    /// Changes what the slot is; the caller owns it.
    #[inline(always)]
    pub fn set_state(&self, state: State) {
        self.state.store(state.0);
    }

    /// The cell that is claimed by compare-and-swap.
    #[inline(always)]
    pub fn state_cell(&self) -> &Word {
        &self.state
    }

    /// Tick of the last packet, and the last TCP acknowledgement number: what the other side must send next.
    #[inline(always)]
    pub fn clock(&self) -> (u32, u32) {
        let clock = self.clock.load();
        (clock as u32, (clock >> 32) as u32)
    }

    /// Notes a packet.
    #[inline(always)]
    pub fn set_clock(&self, seen: u32, ack: u32) {
        self.clock.store(u64::from(ack) << 32 | u64::from(seen));
    }

    /// Whether nothing was seen for this half's timeout at tick `now`.
    #[inline(always)]
    pub fn is_silent(&self, now: u32) -> bool {
        let (_, timeout_s) = mac_parts(self.words[Self::DST_MAC].load());
        let silence = self.silence(now);
        // A tick slightly ahead of ours is not silence. No more than slightly: a pair that nobody swept would come back to life,
        // while its NAT port is somebody else's.
        silence > ticks(timeout_s) && silence < u32::MAX - AHEAD
    }

    /// Ticks since anything was seen; a number near the largest one when another CPU's clock is ahead of ours.
    #[inline(always)]
    fn silence(&self, now: u32) -> u32 {
        now.wrapping_sub(self.clock().0)
    }

    /// Whether the last packet is so long ago that one like it is no copy but a retry: an endpoint would have answered since.
    #[inline(always)]
    pub fn is_retried(&self, now: u32) -> bool {
        (RETRY_TICKS..u32::MAX - AHEAD).contains(&self.silence(now))
    }

    /// Whether a new flow may have this half's place, and its other half's.
    #[inline(always)]
    pub fn is_evictable(&self, now: u32) -> bool {
        let silence = self.silence(now);
        Flow::<K>::is_evictable(self.meta().flags()) && (GRACE_TICKS..u32::MAX - AHEAD).contains(&silence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow<const K: usize>() -> Flow<K> {
        Flow {
            tuple: Tuple { addrs: [0x0102_0304_0506_0708; K], ports: [1, 2, 3, 4], protocol: 6 },
            flags: Flow::<K>::RETURN,
            endpoint: 513,
            new_addrs: [0x1112_1314_1516_1718; K],
            new_ports: [5, 6, 7, 8],
            ifindex: 70_000,
            dst_mac: [2, 0, 0, 0, 0, 1],
            src_mac: [2, 0, 0, 0, 0, 2],
            tags: 0x0abc_def1,
            timeout_s: 900,
        }
    }

    #[test]
    fn a_flow_survives_the_way_through_a_slot() {
        let slot = FlowSlot4::free();
        slot.store(&flow());
        assert_eq!(slot.load(), flow());
        let slot = FlowSlot6::free();
        slot.store(&flow());
        assert_eq!(slot.load(), flow());
    }

    #[test]
    fn flags_and_endpoint_are_no_part_of_the_key() {
        let slot = FlowSlot4::free();
        slot.store(&flow());
        assert!(slot.is_for(&flow().tuple));
        for change in 0..5 {
            let mut tuple: Tuple<1> = flow().tuple;
            match change {
                0 => tuple.protocol = 17,
                1 => tuple.addrs[0] ^= 1 << 63,
                n => tuple.ports[n - 1] ^= 1,
            }
            assert!(!slot.is_for(&tuple));
        }
    }

    #[test]
    fn silence_is_counted_across_the_wrap_of_the_tick() {
        let slot = FlowSlot4::free();
        slot.store(&flow());
        slot.set_clock(u32::MAX - 10, 7);
        assert_eq!(slot.clock(), (u32::MAX - 10, 7));
        assert!(!slot.is_silent(ticks(900) - 11));
        assert!(slot.is_silent(ticks(900) - 9));
        assert!(!slot.is_silent(u32::MAX - 20));
    }

    #[test]
    fn a_slot_that_nobody_swept_stays_silent_until_its_clock_has_gone_round() {
        let slot = FlowSlot4::free();
        slot.store(&flow());
        slot.set_clock(0, 7);
        for silence in [ticks(900) + 1, u32::MAX / 2, u32::MAX / 2 + 1, u32::MAX / 4 * 3, u32::MAX - 2 * AHEAD] {
            assert!(slot.is_silent(silence), "{silence}");
        }
        slot.set_clock(1000 + AHEAD, 7);
        assert!(!slot.is_silent(1000));
    }

    #[test]
    fn a_slot_goes_from_tenant_to_tenant_and_never_back_to_never() {
        let claimed = State::NEVER.claimed();
        let live = claimed.live(0xdead_beef);
        assert!(claimed.is_busy() && !claimed.is_live() && live.is_live() && live.peer() == 0xdead_beef);
        let freed = live.freed();
        assert!(!freed.is_busy() && !freed.is_live() && freed != State::NEVER);
        assert_ne!(freed.claimed(), claimed);
        assert_ne!(State(u64::from(u32::MAX)).claimed().freed(), State::NEVER);
    }

    #[test]
    fn a_peer_across_is_none_in_the_same_table() {
        let (near, far) = (State::NEVER.claimed().live(7), State::NEVER.claimed().live_across(7));
        assert!(!near.is_across() && far.is_across() && far.is_live());
        assert_eq!((near.peer(), far.peer_across()), (7, 7));
        assert_ne!((near.peer_across(), far.peer()), (7, 7));
    }

    #[test]
    fn a_second_is_a_second() {
        let exact = 900.0 * 1e9 / f64::from(1u32 << TICK_SHIFT);
        assert!((f64::from(ticks(900)) - exact).abs() < 20.0);
    }
}
