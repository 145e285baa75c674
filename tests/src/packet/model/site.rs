//! A world as the model sees it: who we are, who listens where, which endpoints there are.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use ga::plan::{Family, Sheet, Step};
use ga_common::abi::{
    entry::{Address, AddressKey, Endpoint, Hop, Listener},
    id::{EndpointId, InstanceId, ListenerId, TableId},
    sheet::AclWord,
};

use crate::packet::world::{World, tables};

/// What one of our addresses is for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Role {
    /// Clients send to it.
    pub vip: bool,
    /// Some port of it has a TCP listener.
    pub tcp: bool,
    /// Some port of it has a UDP listener.
    pub udp: bool,
    /// The agent serves some TCP port of it.
    pub serves_tcp: bool,
    /// The agent serves some UDP port of it.
    pub serves_udp: bool,
}

/// A listener.
#[derive(Clone, Copy, Debug)]
pub struct Listens {
    /// Whose egress addresses its flows take.
    pub instance: InstanceId,
    /// Seconds of silence after which a flow is forgotten.
    pub idle_s: u64,
    /// One endpoint for all flows of a client.
    pub by_source: bool,
    /// New flows a second that are admitted; 0 is no bound.
    pub admits: u64,
    /// The agent serves it.
    pub is_served: bool,
    /// Who may not come loses established connections too.
    pub is_strict: bool,
    /// Numbers of the IPv4 and the IPv6 access list, 0 for none, and whether only who is listed may come; none lets all come.
    pub acl: Option<([u32; 2], bool)>,
}

/// Everything the model asks for.
#[derive(Clone, Debug, Default)]
pub struct Site {
    /// Our addresses.
    pub ours: BTreeMap<IpAddr, Role>,
    /// Listener and port at the endpoint, by VIP, protocol and port.
    pub services: BTreeMap<(IpAddr, u8, u16), (ListenerId, u16)>,
    /// Listeners.
    pub listeners: BTreeMap<ListenerId, Listens>,
    /// Endpoints: where, whose, and the port they have of their own, or 0.
    pub endpoints: BTreeMap<EndpointId, (IpAddr, ListenerId, u16)>,
    /// Egress addresses of both families.
    pub egress: BTreeMap<InstanceId, Vec<IpAddr>>,
    /// Selection table by listener, and whether of IPv6.
    pub active: BTreeMap<(ListenerId, bool), TableId>,
    /// What is in selection tables.
    pub tables: BTreeMap<TableId, Arc<[EndpointId]>>,
    /// Next hops.
    pub hops: BTreeMap<EndpointId, Hop>,
    /// Key of the hash.
    pub seed: [u64; 2],
    /// First and last NAT port.
    pub nat_ports: (u16, u16),
    /// Where being listed begins and ends, in turn, by number and whether of IPv6.
    pub lists: BTreeMap<(u32, bool), Vec<u128>>,
}

impl Site {
    /// Whether `source` may open a flow of a listener.
    pub fn lets_in(&self, listens: &Listens, source: IpAddr) -> bool {
        let Some(([v4, v6], white)) = listens.acl else { return true };
        let (number, is_v6, bits) = match source {
            IpAddr::V4(addr) => (v4, false, u128::from(addr.to_bits())),
            IpAddr::V6(addr) => (v6, true, addr.to_bits()),
        };
        let is_listed = self
            .lists
            .get(&(number, is_v6))
            .is_some_and(|borders| borders.chunks(2).any(|range| range[0] <= bits && range.get(1).is_none_or(|end| bits < *end)));
        if number == 0 { !white } else { is_listed == white }
    }

    /// With the contents of all tables.
    pub fn new() -> Self {
        let mut site = Self::default();
        tables().iter().for_each(|step| site.apply(step));
        site
    }

    /// Goes over to another world.
    pub fn install(&mut self, world: &World) {
        world.steps.iter().for_each(|step| self.apply(step));
        self.nat_ports = (world.fixed.nat_first, world.fixed.nat_last);
        for (id, hop) in &world.hops {
            match hop {
                Some(hop) => self.hops.insert(*id, *hop),
                None => self.hops.remove(id),
            };
        }
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::SetSeed(seed) => self.seed = *seed,
            Step::PutAddress(key, address) => {
                let role = Role {
                    vip: address.roles & Address::VIP != 0,
                    tcp: address.protocols & Address::TCP != 0,
                    udp: address.protocols & Address::UDP != 0,
                    serves_tcp: address.protocols & Address::HOST_TCP != 0,
                    serves_udp: address.protocols & Address::HOST_UDP != 0,
                };
                self.ours.insert(ip(key), role);
            }
            Step::RemoveAddress(key) => drop(self.ours.remove(&ip(key))),
            Step::PutService(key, service) => {
                let port = u16::from_be_bytes(key.port);
                let to = (service.listener, u16::from_be_bytes(service.endpoint_port));
                self.services.insert((ip(&key.addr), key.protocol, port), to);
            }
            Step::RemoveService(key) => {
                self.services.remove(&(ip(&key.addr), key.protocol, u16::from_be_bytes(key.port)));
            }
            Step::PutEgress(id, egress) => {
                let v4 = egress.v4[..usize::from(egress.count4)].iter().map(|addr| IpAddr::from(*addr));
                let v6 = egress.v6[..usize::from(egress.count6)].iter().map(|addr| IpAddr::from(*addr));
                self.egress.insert(*id, v4.chain(v6).collect());
            }
            Step::RemoveEgress(id) => drop(self.egress.remove(id)),
            Step::PutListener(id, listener) => {
                let has = |flag| listener.flags & flag != 0;
                let (by_source, is_served, is_strict) = (has(Listener::SOURCE_IP), has(Listener::HOST), has(Listener::STRICT));
                let (idle_s, admits) = (listener.idle_timeout_s.into(), listener.admission.into());
                let word = AclWord(listener.acl);
                let acl = (word != AclWord::NONE).then(|| ([word.v4(), word.v6()], word.is_white()));
                let listens = Listens { instance: listener.instance, idle_s, by_source, admits, is_served, is_strict, acl };
                self.listeners.insert(*id, listens);
            }
            Step::RemoveListener(id) => drop(self.listeners.remove(id)),
            Step::PutEndpoint(id, Endpoint { addr, listener, port, .. }) => {
                self.endpoints.insert(*id, (ip(addr), *listener, u16::from_be_bytes(*port)));
            }
            Step::FillTable { id, slots, .. } => drop(self.tables.insert(*id, Arc::clone(slots))),
            Step::Activate { listener, family, active } => {
                self.active.insert((*listener, *family == Family::V6), active.table());
            }
            Step::ReleaseTable(id) => drop(self.tables.remove(id)),
            Step::FillSheet { id, content } => {
                let borders: Vec<u128> = match content {
                    Sheet::Acl4(borders) => borders.iter().map(|border| u128::from(*border)).collect(),
                    Sheet::Acl6(borders) => borders.iter().map(|b| u128::from(b.high) << 64 | u128::from(b.low)).collect(),
                    // The model's worlds have no custom routing.
                    Sheet::Custom(_) => return,
                };
                self.lists.insert((id.number.into(), matches!(content, Sheet::Acl6(_))), borders);
            }
            Step::SetGeneration(_) | Step::RetireEndpoint(_) | Step::ReleaseSheet(_) => {}
        }
    }
}

/// The address of a map key: IPv4 addresses are mapped there.
fn ip(key: &AddressKey) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from(*key)).to_canonical()
}
