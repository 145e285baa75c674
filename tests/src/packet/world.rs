//! Named worlds: the tables a case runs in, as the steps by which the agent would write them.
//!
//! All worlds share addresses, listeners and services; they differ in tables, endpoints, egress addresses, next hops and
//! settings, so that a case may go from one to another while flows live.

use std::{net::IpAddr, sync::Arc};

use anyhow::bail;
use ga::{
    maps::Fixed,
    model::{Allowed, Block, Destination, Policy, Protocols},
    plan::{CustomPart as Part, CustomTable, CustomView, Family, Sheet, SheetId, SheetKind, Step},
};
use ga_common::abi::{
    active::{Active, Before},
    entry::{Address, AddressKey, Egress, Endpoint, Hop, Listener, Service, ServiceKey, mapped},
    id::{EndpointId, InstanceId, ListenerId, TableId},
    limits::{MAX_EGRESS, TABLE_SIZE},
    sheet::{AclWord, Wide},
};
use ga_common::wire::{
    frame::{TCP, UDP},
    vlan::{CUSTOMER, Tags},
};

/// Slots that the flow tables have in memory; a world may use fewer.
pub const SLOTS: u32 = 1024;
/// The interface packets come in by: the loopback, which is what `BPF_PROG_TEST_RUN` says.
pub const INGRESS: u32 = 1;
/// The interface endpoints are behind, in most worlds.
pub const BEHIND: u32 = 7;
/// MAC of the client's router.
pub const CLIENT_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0xc1];
/// Our MAC on the client's side.
pub const OUR_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
/// Our MAC on the endpoints' side.
pub const INNER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];

/// Names that corpus files may use for addresses.
const NAMES: [(&str, &str); 19] = [
    ("client4", "192.0.2.7"),
    ("other4", "192.0.2.200"),
    ("client6", "2001:db8:c::7"),
    ("other6", "2001:db8:c::ffff"),
    ("vip4", "198.51.100.1"),
    ("vip6", "2001:db8:1::1"),
    ("tcp_only4", "198.51.100.2"),
    ("tcp_only6", "2001:db8:1::2"),
    ("both4", "198.51.100.3"),
    ("rooms4", "198.51.100.4"),
    ("shop4", "198.51.100.5"),
    ("shop6", "2001:db8:1::5"),
    ("stranger4", "198.51.100.99"),
    ("stranger6", "2001:db8:1::99"),
    ("egress4", "203.0.113.1"),
    ("egress6", "2001:db8:e::1"),
    ("second_egress4", "203.0.113.2"),
    ("a4", "10.0.0.1"),
    ("b4", "10.0.0.2"),
];
/// IPv6 endpoints.
const NAMES6: [(&str, &str); 2] = [("a6", "2001:db8:b::1"), ("b6", "2001:db8:b::2")];

/// TCP: 80 to 8080, 443 as it is, 1000 to 2000 as they are.
pub const WEB: ListenerId = ListenerId(0);
/// UDP: 53 to 5353, 123 as it is.
pub const DNS: ListenerId = ListenerId(1);
/// TCP and UDP 7000: affinity by source address.
pub const STICKY: ListenerId = ListenerId(2);

/// A TCP listener that admits two new flows at a time.
pub const GUARDED: ListenerId = ListenerId(3);
/// TCP and UDP 7100: endpoints on the link answer clients themselves.
pub const L2: ListenerId = ListenerId(7);
/// TCP and UDP 7200: endpoints get IP in IP, and answer clients themselves.
pub const IPIP: ListenerId = ListenerId(8);
/// TCP and UDP 7300: the same, endpoints are of the other family.
pub const CROSS: ListenerId = ListenerId(9);
/// TCP and UDP 7400 and 7401, to 8400: endpoints see the client's address and answer by way of this edge.
pub const GATEWAY: ListenerId = ListenerId(11);
/// More than can come: what follows from the size of flow memory is not meant here.
const ALL: u32 = u32::MAX;
/// TCP 7002: only 192.0.2.0/25 and 2001:db8:c::/64 but for their tenth addresses may come.
pub const INVITED: ListenerId = ListenerId(4);
/// UDP 7003: 192.0.2.200 and 2001:db8:c::ffff may not come.
pub const BANNED: ListenerId = ListenerId(5);
/// TCP 7004: only 2001:db8:c::/64, so no IPv4 at all.
pub const SIX_ONLY: ListenerId = ListenerId(6);
/// TCP and UDP 7500: the agent serves it.
pub const SHOP: ListenerId = ListenerId(12);
/// TCP and UDP 7501: the same, and only who may come to [`INVITED`] may come.
pub const CLUB: ListenerId = ListenerId(13);
/// TCP 7502: the same, and two new connections are admitted at a time.
pub const DOOR: ListenerId = ListenerId(14);
/// TCP 7503: the same, and who may not come to [`BANNED`] loses established connections too.
pub const STRICT: ListenerId = ListenerId(15);
const LISTENERS: [ListenerId; 11] = [WEB, DNS, STICKY, GUARDED, INVITED, BANNED, SIX_ONLY, L2, IPIP, CROSS, GATEWAY];
/// Listeners that have counters of their own.
pub const LISTENER_COUNT: u16 = STRICT.0 + 1;

/// Custom routing, on a VIP and in a world of its own: 101 to 196 to the ports 81 to 85 and, for UDP only, 53 of 10.0.0.16/28. Who
/// may be reached: .17, 82 and 83 of .18, and 81 of .19, to which no way is known.
const ROOMS: ListenerId = ListenerId(10);
const ROOM: EndpointId = EndpointId(900);

/// The address a name stands for, or the address itself.
pub fn address(text: &str) -> anyhow::Result<IpAddr> {
    let known = NAMES.iter().chain(&NAMES6).find(|(name, _)| *name == text).map_or(text, |(_, addr)| addr);
    match known.trim_start_matches('[').trim_end_matches(']').parse() {
        Ok(addr) => Ok(addr),
        Err(_) => bail!("{text:?} is neither an address nor the name of one"),
    }
}

/// What a map has for an address.
pub fn key(addr: IpAddr) -> AddressKey {
    match addr {
        IpAddr::V4(v4) => mapped(v4.octets()),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The number of an endpoint's address, if it is one: 1 for `a`, 2 for `b`.
fn endpoint_number(addr: IpAddr) -> Option<u8> {
    match addr {
        IpAddr::V4(v4) if v4.octets()[..3] == [10, 0, 0] => Some(v4.octets()[3]),
        IpAddr::V6(v6) if v6.segments()[..7] == [0x2001, 0xdb8, 0xb, 0, 0, 0, 0] => Some(v6.octets()[15]),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

/// The MAC that frames to `addr` must go to, and the one they must come from.
pub fn macs_to(addr: IpAddr) -> ([u8; 6], [u8; 6]) {
    match endpoint_number(addr) {
        Some(number) => (endpoint_mac(number), INNER_MAC),
        None => (CLIENT_MAC, OUR_MAC),
    }
}

/// Whether `addr` is an endpoint's, or a host's behind custom routing.
pub fn is_endpoint(addr: IpAddr) -> bool {
    endpoint_number(addr).is_some_and(|number| (1..=2).contains(&number) || (16..32).contains(&number))
}

/// Whether `addr` is one of our egress addresses.
pub fn is_egress(addr: IpAddr) -> bool {
    let key = key(addr);
    [mapped([203, 0, 113, 1]), mapped([203, 0, 113, 2]), v6("egress6")].contains(&key)
}

const fn endpoint_mac(number: u8) -> [u8; 6] {
    [0x02, 0, 0, 0, 0x0a, number]
}

fn v6(name: &str) -> [u8; 16] {
    // Names in this file parse: `every_name_is_an_address` proves it.
    address(name).map_or([0; 16], key)
}

/// The id of a listener's endpoint: ten a listener, two a family.
const fn endpoint_id(listener: ListenerId, family: Family, number: u8) -> EndpointId {
    EndpointId(listener.0 * 10 + 10 + family as u16 * 2 + number as u16 - 1)
}

/// The family of the endpoints that clients of `family` get.
const fn behind(listener: ListenerId, family: Family) -> Family {
    match (listener, family) {
        (CROSS, Family::V4) => Family::V6,
        (CROSS, Family::V6) => Family::V4,
        (_, family) => family,
    }
}

/// Every endpoint id in use.
pub fn endpoints() -> impl Iterator<Item = EndpointId> {
    each_endpoint().map(|(id, ..)| id)
}

fn each_endpoint() -> impl Iterator<Item = (EndpointId, ListenerId, Family, u8)> {
    LISTENERS.into_iter().flat_map(|listener| {
        Family::ALL.into_iter().flat_map(move |family| [1, 2].map(|n| (endpoint_id(listener, family, n), listener, family, n)))
    })
}

const fn other(family: Family) -> Family {
    match family {
        Family::V4 => Family::V6,
        Family::V6 => Family::V4,
    }
}

/// What a selection table holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    /// The two endpoints in turn.
    Turns,
    /// Endpoint `a` only.
    OnlyA,
    /// Endpoint `b` only.
    OnlyB,
    /// The two endpoints of the other family in turn.
    Across,
    /// Every entry names nobody.
    Nobody,
    /// Every entry names an endpoint that was never put.
    Ghost,
}

const CONTENTS: [Content; 6] = [Content::Turns, Content::OnlyA, Content::OnlyB, Content::Across, Content::Nobody, Content::Ghost];
/// An id that no world puts.
const GHOST: EndpointId = EndpointId(999);

impl Content {
    fn table(self, listener: ListenerId, family: Family) -> TableId {
        TableId(1 + (u32::from(listener.0) * 2 + family as u32) * CONTENTS.len() as u32 + self as u32)
    }

    fn slots(self, listener: ListenerId, family: Family) -> Arc<[EndpointId]> {
        let of = |n| endpoint_id(listener, behind(listener, family), n);
        let at = |slot: usize| match self {
            Self::Turns => of((slot % 2) as u8 + 1),
            Self::OnlyA => of(1),
            Self::OnlyB => of(2),
            Self::Across => endpoint_id(listener, other(family), (slot % 2) as u8 + 1),
            Self::Nobody => EndpointId::NONE,
            Self::Ghost => GHOST,
        };
        (0..TABLE_SIZE).map(at).collect()
    }
}

/// Tables, as steps, next hops and settings.
#[derive(Clone, Debug)]
pub struct World {
    /// Its name in corpus files.
    pub name: &'static str,
    /// Whether the settings are written at all.
    pub ready: bool,
    /// Settings that do not come from a plan.
    pub fixed: Fixed,
    /// Everything that does.
    pub steps: Vec<Step>,
    /// Next hops.
    pub hops: Vec<(EndpointId, Option<Hop>)>,
    /// What fits, by interface and VLAN tags on it.
    pub mtus: Vec<((u32, Tags), u32)>,
    /// Next hops of hosts behind custom routing.
    pub hosts: Vec<([u8; 4], Hop)>,
}

struct Recipe {
    ready: bool,
    content: Option<Content>,
    hop_ifindex: Option<u32>,
    hop_tags: Tags,
    /// The port that endpoint `b` of every listener has of its own.
    port_of_b: u16,
    egress: [u16; 2],
    slots: u32,
    nat_last: u16,
    /// What fits on the clients' side, tagged with VLAN 10 too, and on the endpoints'; 0 where nobody knows.
    mtus: [u32; 2],
    is_custom: bool,
    /// Listeners whose endpoints see the client's address are open.
    is_transparent: bool,
    /// [`Listener::HOST`] where the agent serves [`WEB`] and [`DNS`] too, [`Listener::FORMER`] where it did.
    of_agent: u32,
    /// What is known of their older flows.
    past: Past,
}

/// What is known of the flows that began before the table in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Past {
    Same,
    Remembered,
    Table(Content),
}

const STANDARD: Recipe = Recipe {
    ready: true,
    content: Some(Content::Turns),
    hop_ifindex: Some(BEHIND),
    hop_tags: Tags::NONE,
    port_of_b: 0,
    egress: [2, 1],
    slots: SLOTS,
    nat_last: 32_767,
    mtus: [0, 0],
    is_custom: false,
    is_transparent: false,
    of_agent: 0,
    past: Past::Same,
};

/// Endpoints see the client's address; all flows go to `a`.
const TRANSPARENT: Recipe = Recipe { is_transparent: true, content: Some(Content::OnlyA), ..STANDARD };

/// The endpoints' VLAN in worlds where they are on one.
const TAG: Tags = Tags::NONE.with(CUSTOMER, 30);

/// A VLAN that clients are on in some cases.
const CLIENT_TAG: Tags = Tags::NONE.with(CUSTOMER, 10);

/// First NAT port of all worlds.
pub const NAT_FIRST: u16 = 1024;

/// The key of the hash in all worlds.
pub const SEED: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];

/// The world called `name`.
pub fn world(name: &str) -> anyhow::Result<World> {
    let (name, recipe) = match name {
        "standard" => ("standard", STANDARD),
        "one_armed" => ("one_armed", Recipe { hop_ifindex: Some(INGRESS), ..STANDARD }),
        "tagged" => ("tagged", Recipe { hop_tags: TAG, ..STANDARD }),
        "one_armed_tagged" => ("one_armed_tagged", Recipe { hop_ifindex: Some(INGRESS), hop_tags: TAG, ..STANDARD }),
        "served" => ("served", Recipe { of_agent: Listener::HOST, content: None, ..STANDARD }),
        "former" => ("former", Recipe { of_agent: Listener::FORMER, ..STANDARD }),
        "custom" => ("custom", Recipe { is_custom: true, ..STANDARD }),
        "only_a" => ("only_a", Recipe { content: Some(Content::OnlyA), ..STANDARD }),
        "only_b" => ("only_b", Recipe { content: Some(Content::OnlyB), ..STANDARD }),
        "across" => ("across", Recipe { content: Some(Content::Across), ..STANDARD }),
        "one_armed_across" => {
            ("one_armed_across", Recipe { content: Some(Content::Across), hop_ifindex: Some(INGRESS), ..STANDARD })
        }
        "across_tagged" => ("across_tagged", Recipe { content: Some(Content::Across), hop_tags: TAG, ..STANDARD }),
        "across_tiny" => ("across_tiny", Recipe { content: Some(Content::Across), slots: 8, ..STANDARD }),
        "across_no_hop" => ("across_no_hop", Recipe { content: Some(Content::Across), hop_ifindex: None, ..STANDARD }),
        "across_no_egress" => ("across_no_egress", Recipe { content: Some(Content::Across), egress: [0, 0], ..STANDARD }),
        "across_narrow" => ("across_narrow", Recipe { content: Some(Content::Across), mtus: [1500, 1400], ..STANDARD }),
        "across_narrow_tagged" => {
            ("across_narrow_tagged", Recipe { content: Some(Content::Across), mtus: [1500, 1400], hop_tags: TAG, ..STANDARD })
        }
        "across_even" => ("across_even", Recipe { content: Some(Content::Across), mtus: [1500, 1500], ..STANDARD }),
        "across_least" => ("across_least", Recipe { content: Some(Content::Across), mtus: [1500, 1200], ..STANDARD }),
        "transparent_narrow" => ("transparent_narrow", Recipe { mtus: [1500, 1500], ..TRANSPARENT }),
        "transparent_narrow_tagged" => ("transparent_narrow_tagged", Recipe { mtus: [1500, 1500], hop_tags: TAG, ..TRANSPARENT }),
        "own_port" => ("own_port", Recipe { port_of_b: 9_090, ..STANDARD }),
        "only_b_own_port" => ("only_b_own_port", Recipe { port_of_b: 9_090, content: Some(Content::OnlyB), ..STANDARD }),
        "empty" => ("empty", Recipe { content: None, ..STANDARD }),
        "nobody" => ("nobody", Recipe { content: Some(Content::Nobody), ..STANDARD }),
        "ghost" => ("ghost", Recipe { content: Some(Content::Ghost), ..STANDARD }),
        "no_egress" => ("no_egress", Recipe { egress: [0, 0], ..STANDARD }),
        "no_hop" => ("no_hop", Recipe { hop_ifindex: None, ..STANDARD }),
        "two_ports" => {
            ("two_ports", Recipe { nat_last: NAT_FIRST + 1, egress: [1, 1], content: Some(Content::OnlyA), ..STANDARD })
        }
        "tiny" => ("tiny", Recipe { slots: 8, ..STANDARD }),
        "transparent" => ("transparent", TRANSPARENT),
        "moving" => ("moving", Recipe { content: Some(Content::OnlyB), past: Past::Table(Content::OnlyA), ..TRANSPARENT }),
        "moving_tiny" => {
            ("moving_tiny", Recipe { content: Some(Content::OnlyB), past: Past::Table(Content::OnlyA), slots: 8, ..TRANSPARENT })
        }
        "moving_away" => ("moving_away", Recipe { content: None, past: Past::Table(Content::OnlyA), ..TRANSPARENT }),
        "moving_nowhere" => ("moving_nowhere", Recipe { past: Past::Table(Content::OnlyA), ..TRANSPARENT }),
        "moved" => ("moved", Recipe { content: Some(Content::OnlyB), past: Past::Remembered, ..TRANSPARENT }),
        "moved_back" => ("moved_back", Recipe { past: Past::Remembered, ..TRANSPARENT }),
        "gone" => ("gone", Recipe { content: None, past: Past::Remembered, ..TRANSPARENT }),
        "transparent_b" => ("transparent_b", Recipe { content: Some(Content::OnlyB), ..TRANSPARENT }),
        "ghosts" => ("ghosts", Recipe { past: Past::Table(Content::Ghost), ..TRANSPARENT }),
        "transparent_tagged" => ("transparent_tagged", Recipe { hop_tags: TAG, ..TRANSPARENT }),
        "transparent_empty" => ("transparent_empty", Recipe { content: None, ..TRANSPARENT }),
        "transparent_no_hop" => ("transparent_no_hop", Recipe { hop_ifindex: None, ..TRANSPARENT }),
        "transparent_no_egress" => ("transparent_no_egress", Recipe { egress: [0, 0], ..TRANSPARENT }),
        "not_ready" => ("not_ready", Recipe { ready: false, ..STANDARD }),
        _ => bail!("there is no world {name:?}"),
    };
    Ok(recipe.build(name))
}

impl Recipe {
    fn build(self, name: &'static str) -> World {
        let fixed = Fixed { flows4: self.slots, flows6: self.slots, cpus: 1, nat_first: NAT_FIRST, nat_last: self.nat_last };
        let mut steps = vec![Step::SetSeed(SEED)];
        addresses(&mut steps);
        steps.push(Step::PutEgress(InstanceId(0), egress(self.egress)));
        listeners(self.of_agent, &mut steps);
        if self.is_transparent {
            transparent(&mut steps);
        }
        let mut hops = Vec::new();
        for (id, listener, family, number) in each_endpoint() {
            let addr = match family {
                Family::V4 => mapped([10, 0, 0, number]),
                Family::V6 => v6(if number == 1 { "a6" } else { "b6" }),
            };
            let identity = u64::from(id.0);
            let port = if number == 2 { self.port_of_b.to_be_bytes() } else { [0; 2] };
            let gateway = if self.is_transparent && listener == GATEWAY { Endpoint::GATEWAY } else { 0 };
            let flags = Endpoint::IN_USE | gateway;
            steps.push(Step::PutEndpoint(id, Endpoint { addr, listener, port, flags, identity }));
            let hop = |ifindex| Hop { dst_mac: endpoint_mac(number), src_mac: INNER_MAC, ifindex, tags: self.hop_tags.0 };
            hops.push((id, self.hop_ifindex.map(hop)));
        }
        for listener in LISTENERS {
            for family in Family::ALL {
                let table = self.content.map_or(TableId::EMPTY, |content| content.table(listener, family));
                let past = if [L2, IPIP, CROSS].contains(&listener) { self.past } else { Past::Same };
                let before = match past {
                    Past::Same => Before::Same,
                    Past::Remembered => Before::Remembered,
                    Past::Table(content) => Before::Table(content.table(listener, family)),
                };
                steps.push(Step::Activate { listener, family, active: Active::of(table, before) });
            }
        }
        let [outside, inside] = self.mtus;
        let outside = [Tags::NONE, CLIENT_TAG].map(|tags| ((INGRESS, tags), outside));
        let mtus = outside.into_iter().chain([((BEHIND, self.hop_tags), inside)]).collect();
        let mut hosts = Vec::new();
        if self.is_custom {
            rooms(&mut steps);
            let hop = |number| Hop { dst_mac: endpoint_mac(number), src_mac: INNER_MAC, ifindex: BEHIND, tags: 0 };
            hosts.extend([16, 17, 18].map(|number| ([10, 0, 0, number], hop(number))));
        }
        World { name, ready: self.ready, fixed, steps, hops, mtus, hosts }
    }
}

/// Every table and list of every world; they are filled once and never changed.
pub fn tables() -> Vec<Step> {
    let mut steps = lists();
    for listener in LISTENERS {
        for family in Family::ALL {
            for content in CONTENTS {
                let id = content.table(listener, family);
                steps.push(Step::FillTable { id, digest: u64::from(id.0), slots: content.slots(listener, family) });
            }
        }
    }
    steps
}

/// Number 1 is white, number 2 is black.
fn lists() -> Vec<Step> {
    let wide = |name: &str, more: u64| {
        let number = u128::from_be_bytes(v6(name));
        Wide { high: (number >> 64) as u64, low: number as u64 + more }
    };
    let v4 = |last: u32| 0xc000_0200 + last;
    let fill = |kind, number, content| Step::FillSheet { id: SheetId { kind, number }, content };
    let subnet = Wide { high: wide("client6", 0).high, low: 0 };
    let after = Wide { high: subnet.high + 1, low: 0 };
    vec![
        fill(SheetKind::Acl4, 1, Sheet::Acl4([v4(0), v4(10), v4(11), v4(128)].into())),
        fill(SheetKind::Acl6, 1, Sheet::Acl6([subnet, Wide { low: 10, ..subnet }, Wide { low: 11, ..subnet }, after].into())),
        fill(SheetKind::Acl4, 2, Sheet::Acl4([v4(200), v4(201)].into())),
        fill(SheetKind::Custom, 1, Sheet::Custom(Arc::new(mapping()))),
        fill(SheetKind::Acl6, 2, Sheet::Acl6([wide("other6", 0), wide("other6", 1)].into())),
    ]
}

/// What [`ROOMS`] leads to.
fn mapping() -> CustomTable {
    let allowed = |last, ports: &[(u16, u16)]| Allowed { address: [10, 0, 0, last].into(), ports: ports.to_vec() };
    let policy = Policy::AllowCustom(vec![allowed(17, &[]), allowed(18, &[(82, 83)]), allowed(19, &[(81, 81)])]);
    let destination = |first, last, protocols| Destination { first, last, protocols };
    let destinations = vec![destination(81, 85, Protocols::Both), destination(53, 53, Protocols::Udp)];
    let net = "10.0.0.16/28".parse().expect("a network");
    let taken = vec![(101, 196)];
    let block = Block { group: "eu".to_owned(), net, destinations: destinations.clone(), taken };
    let view = CustomView::of(vec![Part { block, region: "eu".to_owned(), policy, destinations, endpoint: ROOM }]);
    CustomTable::new([&view].into_iter()).expect("it fits")
}

fn rooms(steps: &mut Vec<Step>) {
    let instance = InstanceId(1);
    let roles = Address::VIP | Address::CUSTOM;
    steps.push(Step::PutAddress(v6("rooms4"), Address { roles, protocols: Address::TCP | Address::UDP, instance }));
    let flags = Listener::IN_USE | Listener::CUSTOM;
    let identity = u64::from(ROOMS.0);
    steps.push(Step::PutListener(ROOMS, Listener { instance, idle_timeout_s: 900, flags, identity, admission: ALL, acl: 0 }));
    let room = Endpoint { addr: [0; 16], listener: ROOMS, port: [0; 2], flags: Endpoint::IN_USE, identity };
    steps.push(Step::PutEndpoint(ROOM, room));
    steps.push(Step::PutEgress(instance, Egress { custom: 1, ..egress([1, 0]) }));
}

fn addresses(steps: &mut Vec<Step>) {
    let (vip, egress, tcp, udp) = (Address::VIP, Address::EGRESS, Address::TCP, Address::UDP);
    for (name, roles, protocols) in [
        ("vip4", vip, tcp | udp),
        ("vip6", vip, tcp | udp),
        ("tcp_only4", vip, tcp),
        ("tcp_only6", vip, tcp),
        ("both4", vip | egress, tcp | udp),
        ("shop4", vip, tcp | udp | Address::HOST_TCP | Address::HOST_UDP),
        ("shop6", vip, tcp | udp | Address::HOST_TCP | Address::HOST_UDP),
        ("egress4", egress, 0),
        ("second_egress4", egress, 0),
        ("egress6", egress, 0),
    ] {
        steps.push(Step::PutAddress(v6(name), Address { roles, protocols, instance: InstanceId(0) }));
    }
}

fn egress(counts: [u16; 2]) -> Egress {
    let mut egress =
        Egress { count4: counts[0], count6: counts[1], custom: 0, v4: [[0; 4]; MAX_EGRESS], v6: [[0; 16]; MAX_EGRESS] };
    egress.v4[..2].copy_from_slice(&[[203, 0, 113, 1], [203, 0, 113, 2]]);
    egress.v6[0] = v6("egress6");
    egress
}

fn listeners(maybe: u32, steps: &mut Vec<Step>) {
    const ALL_IN: AclWord = AclWord::NONE;
    for (id, idle_timeout_s, kind, admission, AclWord(acl)) in [
        (WEB, 900, maybe, ALL, ALL_IN),
        (DNS, 20, maybe, ALL, ALL_IN),
        (STICKY, 60, Listener::SOURCE_IP, ALL, ALL_IN),
        (GUARDED, 900, 0, 8, ALL_IN),
        (INVITED, 900, 0, ALL, AclWord::new(1, 1, true)),
        (BANNED, 20, 0, ALL, AclWord::new(2, 2, false)),
        (SIX_ONLY, 900, 0, ALL, AclWord::new(0, 1, true)),
        (L2, 60, Listener::L2, ALL, ALL_IN),
        (IPIP, 60, Listener::IPIP, ALL, ALL_IN),
        (CROSS, 60, Listener::IPIP | Listener::SOURCE_IP, ALL, ALL_IN),
        (GATEWAY, 60, Listener::GATEWAY, ALL, ALL_IN),
        (SHOP, 15, Listener::HOST, 0, ALL_IN),
        (CLUB, 15, Listener::HOST, ALL, AclWord::new(1, 1, true)),
        (DOOR, 15, Listener::HOST, 8, ALL_IN),
        (STRICT, 15, Listener::HOST | Listener::STRICT, ALL, AclWord::new(2, 2, false)),
    ] {
        let flags = Listener::IN_USE | kind;
        let listener = Listener { instance: InstanceId(0), idle_timeout_s, flags, identity: u64::from(id.0), admission, acl };
        steps.push(Step::PutListener(id, listener));
    }
    let mut open = |name, listener, protocol, port: u16, to: u16| {
        let key = ServiceKey { addr: v6(name), port: port.to_be_bytes(), protocol, pad: 0 };
        steps.push(Step::PutService(key, Service { listener, endpoint_port: to.to_be_bytes() }));
    };
    for vip in ["vip4", "vip6", "tcp_only4", "tcp_only6", "both4"] {
        open(vip, WEB, TCP, 80, 8080);
        open(vip, WEB, TCP, 443, 443);
    }
    for vip in ["vip4", "vip6"] {
        for port in [1000, 1001, 1500, 1999, 2000] {
            open(vip, WEB, TCP, port, port);
        }
        open(vip, DNS, UDP, 123, 123);
        open(vip, STICKY, TCP, 7000, 7000);
        open(vip, STICKY, UDP, 7000, 7000);
        open(vip, GUARDED, TCP, 7001, 7001);
        open(vip, INVITED, TCP, 7002, 7002);
        open(vip, BANNED, UDP, 7003, 7003);
        open(vip, SIX_ONLY, TCP, 7004, 7004);
        open(vip, SHOP, TCP, 7500, 7500);
        open(vip, SHOP, UDP, 7500, 7500);
        open(vip, CLUB, TCP, 7501, 7501);
        open(vip, CLUB, UDP, 7501, 7501);
        open(vip, DOOR, TCP, 7502, 7502);
        open(vip, STRICT, TCP, 7503, 7503);
    }
    for vip in ["vip4", "vip6", "both4", "shop4", "shop6"] {
        open(vip, DNS, UDP, 53, 5353);
    }
    for vip in ["shop4", "shop6"] {
        open(vip, WEB, TCP, 80, 8080);
        open(vip, SHOP, TCP, 7500, 7500);
        open(vip, SHOP, UDP, 7500, 7500);
        open(vip, CLUB, TCP, 7501, 7501);
        open(vip, CLUB, UDP, 7501, 7501);
        open(vip, DOOR, TCP, 7502, 7502);
    }
}

/// Opens the listeners whose endpoints see the client's address.
fn transparent(steps: &mut Vec<Step>) {
    let mut open = |name, listener, protocol, port: u16, to: u16| {
        let key = ServiceKey { addr: v6(name), port: port.to_be_bytes(), protocol, pad: 0 };
        steps.push(Step::PutService(key, Service { listener, endpoint_port: to.to_be_bytes() }));
    };
    for vip in ["vip4", "vip6"] {
        for protocol in [TCP, UDP] {
            for (listener, port, to) in
                [(L2, 7100, 0), (IPIP, 7200, 0), (CROSS, 7300, 0), (GATEWAY, 7400, 8400), (GATEWAY, 7401, 8400)]
            {
                open(vip, listener, protocol, port, to);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_an_address() {
        for (name, _) in NAMES.iter().chain(&NAMES6) {
            assert!(address(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn tables_are_apart() {
        let ids: std::collections::BTreeSet<u32> =
            tables().iter().filter_map(|step| if let Step::FillTable { id, .. } = step { Some(id.0) } else { None }).collect();
        assert_eq!(ids.len(), LISTENERS.len() * Family::ALL.len() * CONTENTS.len());
        assert!(!ids.contains(&0));
    }
}
