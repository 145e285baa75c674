//! What must hold of the maps at every moment, also between two steps.

use std::collections::BTreeSet;

use ga_common::abi::{
    active::{Active, Before},
    entry::{Address, Egress, Endpoint, Listener, Service, ServiceKey, mapped},
    id::{EndpointId, InstanceId, ListenerId, TableId},
    sheet::AclWord,
};

use super::{Family, SheetId, SheetKind, State, TableInfo};

/// What is wrong with a state, or with a step towards it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Packets would find a listener that is not there.
    #[error("a service points to listener {0}, which is absent")]
    ServiceWithoutListener(ListenerId),
    /// Packets would find a listener that has not been told where to choose.
    #[error("a service points to listener {0}, which has no {1} table, not even the empty one")]
    ServiceNotReady(ListenerId, Family),
    /// The service could not be reached, or would be reached by surprise.
    #[error("a service of listener {0} is on an address that is not a VIP for its protocol")]
    ServiceWithoutAddress(ListenerId),
    /// A listener whose flows could not leave.
    #[error("listener {0} belongs to instance {1}, whose egress addresses are not set")]
    ListenerWithoutEgress(ListenerId, InstanceId),
    /// Answers to that address would not be recognised.
    #[error("instance {0} uses an egress address that is not marked as one")]
    EgressWithoutAddress(InstanceId),
    /// A listener that is not there has a table.
    #[error("listener {0} is absent but has an active table")]
    ActiveWithoutListener(ListenerId),
    /// Packets would read a table that is not filled.
    #[error("listener {0} chooses from table {1}, which is not filled")]
    ActiveNotFilled(ListenerId, TableId),
    /// Packets of older flows would read a table that is not filled.
    #[error("older flows of listener {0} go by table {1}, which is not filled")]
    BeforeNotFilled(ListenerId, TableId),
    /// Packets would choose an endpoint that is not there, retired, or of somebody else.
    #[error("table {1} of listener {0} names endpoint {2}, which cannot be chosen there")]
    ActiveNamesWrongEndpoint(ListenerId, TableId, EndpointId),
    /// An endpoint in use without its listener.
    #[error("endpoint {0} belongs to listener {1}, which is absent")]
    EndpointWithoutListener(EndpointId, ListenerId),
    /// The step would write a table that exists: packets may be reading it.
    #[error("table {0} is filled already")]
    Refill(TableId),
    /// Packets would look for an access list that is not there, and be kept out.
    #[error("listener {0} names {1}, which is not filled")]
    SheetNotFilled(ListenerId, SheetId),
    /// Packets would ask for a mapping that is not there.
    #[error("instance {0} names {1}, which is not filled")]
    MappingNotFilled(InstanceId, SheetId),
    /// The step would write a sheet that exists: packets may be reading it.
    #[error("{0} is filled already")]
    SheetTaken(SheetId),
    /// The step gives up a sheet that is not there.
    #[error("{0} is absent")]
    SheetAbsent(SheetId),
    /// The step would give the id of a live listener to another one.
    #[error("listener {0} is in use by another one")]
    ListenerTaken(ListenerId),
    /// The step would give the id of a live endpoint to another one.
    #[error("endpoint {0} is in use by another one")]
    EndpointTaken(EndpointId),
    /// The step names something that is not there.
    #[error("{0} {1} is absent")]
    Absent(&'static str, u32),
}

impl State {
    /// All that is wrong; empty when packets are safe.
    pub fn check(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        found.extend(self.services.iter().flat_map(|(key, service)| self.check_service(key, *service)));
        found.extend(self.listeners.iter().filter_map(|(id, listener)| self.check_listener(*id, listener)));
        found.extend(self.listeners.iter().flat_map(|(id, listener)| self.check_acl(*id, listener)));
        found.extend(self.egress.iter().filter_map(|(id, egress)| self.check_egress(*id, egress)));
        found.extend(self.egress.iter().filter_map(|(id, egress)| self.check_custom(*id, egress)));
        found.extend(self.active.iter().flat_map(|(&(listener, _), active)| self.check_active(listener, *active)));
        found.extend(self.endpoints.iter().filter_map(|(id, endpoint)| self.check_endpoint(*id, endpoint)));
        found
    }

    fn check_service(&self, key: &ServiceKey, Service { listener, .. }: Service) -> Vec<Violation> {
        let mut found = Vec::new();
        if !self.listeners.contains_key(&listener) {
            found.push(Violation::ServiceWithoutListener(listener));
        }
        let unready = Family::ALL.into_iter().filter(|family| !self.active.contains_key(&(listener, *family)));
        found.extend(unready.map(|family| Violation::ServiceNotReady(listener, family)));
        let protocol = protocol_bit(key.protocol);
        let open = |address: &Address| address.roles & Address::VIP != 0 && address.protocols & protocol != 0;
        if !self.addresses.get(&key.addr).is_some_and(open) {
            found.push(Violation::ServiceWithoutAddress(listener));
        }
        found
    }

    fn check_listener(&self, id: ListenerId, listener: &Listener) -> Option<Violation> {
        let known = self.egress.contains_key(&listener.instance);
        (!known).then_some(Violation::ListenerWithoutEgress(id, listener.instance))
    }

    fn check_custom(&self, id: InstanceId, egress: &Egress) -> Option<Violation> {
        let sheet = SheetId { kind: SheetKind::Custom, number: u16::try_from(egress.custom).ok()? };
        let is_there = egress.custom == 0 || self.sheets.contains_key(&sheet);
        (!is_there).then_some(Violation::MappingNotFilled(id, sheet))
    }

    fn check_acl(&self, id: ListenerId, listener: &Listener) -> Vec<Violation> {
        let word = AclWord(listener.acl);
        let named = [(SheetKind::Acl4, word.v4()), (SheetKind::Acl6, word.v6())];
        let sheets =
            named.into_iter().filter(|(_, number)| *number != 0).map(|(kind, number)| SheetId { kind, number: number as u16 });
        sheets.filter(|sheet| !self.sheets.contains_key(sheet)).map(|sheet| Violation::SheetNotFilled(id, sheet)).collect()
    }

    fn check_egress(&self, id: InstanceId, egress: &Egress) -> Option<Violation> {
        let v4 = egress.v4.iter().take(usize::from(egress.count4)).map(|v4| mapped(*v4));
        let v6 = egress.v6.iter().take(usize::from(egress.count6)).copied();
        let marked = |key| self.addresses.get(&key).is_some_and(|address| address.roles & Address::EGRESS != 0);
        (!v4.chain(v6).all(marked)).then_some(Violation::EgressWithoutAddress(id))
    }

    fn check_active(&self, listener: ListenerId, active: Active) -> Vec<Violation> {
        if !self.listeners.contains_key(&listener) {
            return vec![Violation::ActiveWithoutListener(listener)];
        }
        let before = match active.before() {
            Before::Table(table) if !self.tables.contains_key(&table) => Some(Violation::BeforeNotFilled(listener, table)),
            Before::Same | Before::Remembered | Before::Table(_) => None,
        };
        self.check_choice(listener, active.table()).into_iter().chain(before).collect()
    }

    fn check_choice(&self, listener: ListenerId, table: TableId) -> Option<Violation> {
        if table == TableId::EMPTY {
            return None;
        }
        let Some(TableInfo { slots, .. }) = self.tables.get(&table) else {
            return Some(Violation::ActiveNotFilled(listener, table));
        };
        let chosen: BTreeSet<EndpointId> = slots.iter().flat_map(|slots| slots.iter().copied()).collect();
        // Of whichever family: headers are translated where it is not the clients'.
        let right = |endpoint: &Endpoint| endpoint.is_in_use() && endpoint.listener == listener;
        let wrong = chosen.into_iter().find(|id| !self.endpoints.get(id).is_some_and(right));
        wrong.map(|id| Violation::ActiveNamesWrongEndpoint(listener, table, id))
    }

    fn check_endpoint(&self, id: EndpointId, endpoint: &Endpoint) -> Option<Violation> {
        let orphan = endpoint.is_in_use() && !self.listeners.contains_key(&endpoint.listener);
        orphan.then_some(Violation::EndpointWithoutListener(id, endpoint.listener))
    }
}

/// The bit of an IANA protocol number in [`Address::protocols`].
pub(super) fn protocol_bit(number: u8) -> u8 {
    match number {
        6 => Address::TCP,
        17 => Address::UDP,
        _ => 0,
    }
}
