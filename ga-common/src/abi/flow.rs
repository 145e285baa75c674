//! Flow memory: one half of a NAT pair in one slot, slots in array maps, claimed by compare-and-swap and aged in place.
//!
//! A slot is one cache line for IPv4 and two for IPv6. All cells are shared words, so kernel and agent share
//! the memory without data races; what a reader copied counts only if `state` has not changed meanwhile.

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

/// What a slot is: two bits of kind, 30 bits of version that differ from one tenant to the next, 32 bits of peer.
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

    /// Slot of the other half.
    #[inline(always)]
    pub const fn peer(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The next tenant, still writing.
    #[inline(always)]
    pub const fn claimed(self) -> Self {
        let version = self.0.wrapping_add(Self::ONE) & Self::VERSION;
        // Version 0 is kept for slots that were never used.
        Self(if version == 0 { Self::ONE } else { version } | Self::BUSY)
    }

    /// The same tenant, alive, with its peer.
    #[inline(always)]
    pub const fn live(self, peer: u32) -> Self {
        Self((peer as u64) << 32 | self.0 & Self::VERSION | Self::LIVE)
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple<const K: usize> {
    /// Source and destination address, packed by [`pack4`] or [`pack6`].
    pub addrs: [u64; K],
    /// Source and destination port in network byte order, side by side.
    pub ports: [u8; 4],
    /// IANA protocol number.
    pub protocol: u8,
}

/// One half of a pair: how to recognise a packet and what to make of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow<const K: usize> {
    /// What to recognise.
    pub tuple: Tuple<K>,
    /// [`Flow::RETURN`], [`Flow::ESTABLISHED`], [`Flow::FIN`], [`Flow::CLOSED`].
    pub flags: u8,
    /// Whose counters.
    pub endpoint: u16,
    /// New source and destination address.
    pub new_addrs: [u64; K],
    /// New source and destination port.
    pub new_ports: [u8; 4],
    /// Where to send (return half only; the forward half asks for the endpoint's next hop).
    pub ifindex: u32,
    /// New destination MAC (return half only).
    pub dst_mac: [u8; 6],
    /// New source MAC (return half only).
    pub src_mac: [u8; 6],
    /// Seconds of silence after which this half is over.
    pub timeout_s: u16,
}

impl<const K: usize> Flow<K> {
    /// Towards the client.
    pub const RETURN: u8 = 1;
    /// A segment without SYN was seen.
    pub const ESTABLISHED: u8 = 2;
    /// A FIN was seen in this direction.
    pub const FIN: u8 = 4;
    /// A RST, or a FIN in each direction, was seen: a new SYN starts a new flow.
    pub const CLOSED: u8 = 8;
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

#[inline(always)]
fn mac_word(mac: [u8; 6], tail: u16) -> u64 {
    let t = tail.to_ne_bytes();
    u64::from_ne_bytes([mac[0], mac[1], mac[2], mac[3], mac[4], mac[5], t[0], t[1]])
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
        let [n0, n1, n2, n3, i0, i1, i2, i3] = self.words[Self::PORTS].load().to_ne_bytes();
        let (dst_mac, timeout_s) = mac_parts(self.words[Self::DST_MAC].load());
        let (src_mac, _) = mac_parts(self.words[Self::SRC_MAC].load());
        Flow {
            tuple: Tuple { addrs, ports: [p0, p1, p2, p3], protocol },
            flags,
            endpoint: u16::from_ne_bytes([e0, e1]),
            new_addrs,
            new_ports: [n0, n1, n2, n3],
            ifindex: u32::from_ne_bytes([i0, i1, i2, i3]),
            dst_mac,
            src_mac,
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
        let [n0, n1, n2, n3] = flow.new_ports;
        let [i0, i1, i2, i3] = flow.ifindex.to_ne_bytes();
        self.words[Self::PORTS].store(u64::from_ne_bytes([n0, n1, n2, n3, i0, i1, i2, i3]));
        self.words[Self::SRC_MAC].store(mac_word(flow.src_mac, 0));
        self.set_meta(flow);
        self.set_timeout(flow, flow.timeout_s);
    }

    #[inline(always)]
    fn set_meta(&self, flow: &Flow<K>) {
        self.words[Self::META].store(meta(flow.tuple.ports, flow.tuple.protocol, flow.flags, flow.endpoint));
    }

    #[inline(always)]
    fn set_timeout(&self, flow: &Flow<K>, timeout_s: u16) {
        self.words[Self::DST_MAC].store(mac_word(flow.dst_mac, timeout_s));
    }

    /// Which cell changes from what to what when the flags of the half whose copy is `flow` become `flags`.
    #[inline(always)]
    pub fn flags_change(&self, flow: &Flow<K>, flags: u8) -> (&Word, u64, u64) {
        let word = |flags| meta(flow.tuple.ports, flow.tuple.protocol, flags, flow.endpoint);
        (&self.words[Self::META], word(flow.flags), word(flags))
    }

    /// The same for its timeout.
    #[inline(always)]
    pub fn timeout_change(&self, flow: &Flow<K>, timeout_s: u16) -> (&Word, u64, u64) {
        let word = |timeout_s| mac_word(flow.dst_mac, timeout_s);
        (&self.words[Self::DST_MAC], word(flow.timeout_s), word(timeout_s))
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
        let silence = now.wrapping_sub(self.clock().0);
        // A tick slightly ahead of ours is not silence. No more than slightly: a pair that nobody swept would come back to life,
        // while its NAT port is somebody else's.
        silence > ticks(timeout_s) && silence < u32::MAX - AHEAD
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
    fn a_second_is_a_second() {
        let exact = 900.0 * 1e9 / f64::from(1u32 << TICK_SHIFT);
        assert!((f64::from(ticks(900)) - exact).abs() < 20.0);
    }
}
