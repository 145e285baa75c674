//! One change of the maps.

use std::{fmt, sync::Arc};

use ga_common::abi::{
    active::{Active, Before},
    entry::{Address, AddressKey, Egress, Endpoint, Listener, Service, ServiceKey},
    id::{EndpointId, Generation, InstanceId, ListenerId, TableId},
};

use super::{Family, Sheet, SheetId, SheetInfo, State, TableInfo, Violation};

/// What the applier does next. Each is one map write, except filling a table.
#[derive(Clone, PartialEq, Eq)]
pub enum Step {
    /// Sets the key of the hash.
    SetSeed([u64; 2]),
    /// Adds or changes one of our addresses.
    PutAddress(AddressKey, Address),
    /// Adds or changes the egress addresses of an instance.
    PutEgress(InstanceId, Egress),
    /// Adds or changes a listener.
    PutListener(ListenerId, Listener),
    /// Adds an endpoint or brings it back.
    PutEndpoint(EndpointId, Endpoint),
    /// Writes a table that is not there yet.
    FillTable {
        /// Which one.
        id: TableId,
        /// What it was made from.
        digest: u64,
        /// Its content.
        slots: Arc<[EndpointId]>,
    },
    /// Writes a sheet that is not there yet.
    FillSheet {
        /// Which one.
        id: SheetId,
        /// Its content.
        content: Sheet,
    },
    /// Lets new flows of a listener choose from a table.
    Activate {
        /// Whose.
        listener: ListenerId,
        /// Of the clients.
        family: Family,
        /// From now on.
        active: Active,
    },
    /// Opens a port, or gives it to another listener.
    PutService(ServiceKey, Service),
    /// Closes a port.
    RemoveService(ServiceKey),
    /// Frees a table that nobody reads.
    ReleaseTable(TableId),
    /// Frees a sheet that nobody names.
    ReleaseSheet(SheetId),
    /// Keeps an endpoint's entry for its flows only.
    RetireEndpoint(EndpointId),
    /// Removes a listener and its empty tables.
    RemoveListener(ListenerId),
    /// Removes the egress addresses of an instance.
    RemoveEgress(InstanceId),
    /// Removes one of our addresses.
    RemoveAddress(AddressKey),
    /// The plan is done.
    SetGeneration(Generation),
}

impl State {
    /// What the maps hold after `step`; an error, and no change, when the step itself is not allowed.
    pub fn apply(&mut self, step: &Step) -> Result<(), Violation> {
        self.allows(step)?;
        match step {
            Step::SetSeed(seed) => self.seed = *seed,
            Step::PutAddress(key, address) => drop(self.addresses.insert(*key, *address)),
            Step::PutEgress(id, egress) => drop(self.egress.insert(*id, *egress)),
            Step::PutListener(id, listener) => drop(self.listeners.insert(*id, *listener)),
            Step::PutEndpoint(id, endpoint) => drop(self.endpoints.insert(*id, *endpoint)),
            Step::FillTable { id, digest, slots } => {
                let info = TableInfo { digest: *digest, slots: Some(Arc::clone(slots)) };
                drop(self.tables.insert(*id, info));
            }
            Step::Activate { listener, family, active } => drop(self.active.insert((*listener, *family), *active)),
            Step::PutService(key, service) => drop(self.services.insert(*key, *service)),
            Step::RemoveService(key) => drop(self.services.remove(key)),
            Step::ReleaseTable(id) => drop(self.tables.remove(id)),
            Step::FillSheet { id, content } => {
                let info = SheetInfo { digest: content.digest(), content: Some(content.clone()) };
                drop(self.sheets.insert(*id, info));
            }
            Step::ReleaseSheet(id) => drop(self.sheets.remove(id)),
            Step::RetireEndpoint(id) => {
                if let Some(endpoint) = self.endpoints.get_mut(id) {
                    *endpoint = endpoint.retired();
                }
            }
            Step::RemoveListener(id) => {
                self.listeners.remove(id);
                self.active.retain(|(listener, _), active| listener != id || *active != Active::EMPTY);
            }
            Step::RemoveEgress(id) => drop(self.egress.remove(id)),
            Step::RemoveAddress(key) => drop(self.addresses.remove(key)),
            Step::SetGeneration(generation) => self.generation = *generation,
        }
        Ok(())
    }

    /// What [`check`](Self::check) cannot see afterwards: a table written twice, an id given away.
    fn allows(&self, step: &Step) -> Result<(), Violation> {
        match step {
            Step::FillTable { id, .. } if *id == TableId::EMPTY || self.tables.contains_key(id) => Err(Violation::Refill(*id)),
            Step::PutListener(id, new) if self.listeners.get(id).is_some_and(|old| old.identity != new.identity) => {
                Err(Violation::ListenerTaken(*id))
            }
            Step::PutEndpoint(id, new)
                if self.endpoints.get(id).is_some_and(|old| old.is_in_use() && old.identity != new.identity) =>
            {
                Err(Violation::EndpointTaken(*id))
            }
            Step::Activate { listener, .. } | Step::RemoveListener(listener) if !self.listeners.contains_key(listener) => {
                Err(Violation::Absent("listener", u32::from(listener.0)))
            }
            Step::RetireEndpoint(id) if !self.endpoints.contains_key(id) => Err(Violation::Absent("endpoint", u32::from(id.0))),
            Step::FillSheet { id, .. } if id.number == 0 || self.sheets.contains_key(id) => Err(Violation::SheetTaken(*id)),
            Step::ReleaseSheet(id) if !self.sheets.contains_key(id) => Err(Violation::SheetAbsent(*id)),
            Step::ReleaseTable(id) if !self.tables.contains_key(id) => Err(Violation::Absent("table", id.0)),
            Step::SetSeed(_)
            | Step::PutAddress(..)
            | Step::PutEgress(..)
            | Step::PutListener(..)
            | Step::PutEndpoint(..)
            | Step::FillTable { .. }
            | Step::Activate { .. }
            | Step::PutService(..)
            | Step::RemoveService(_)
            | Step::ReleaseTable(_)
            | Step::FillSheet { .. }
            | Step::ReleaseSheet(_)
            | Step::RetireEndpoint(_)
            | Step::RemoveListener(_)
            | Step::RemoveEgress(_)
            | Step::RemoveAddress(_)
            | Step::SetGeneration(_) => Ok(()),
        }
    }
}

impl fmt::Display for Step {
    /// For logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ip = |key: &AddressKey| std::net::IpAddr::from(*key).to_canonical();
        let port = |key: &ServiceKey| u16::from_be_bytes(key.port);
        match self {
            Self::SetSeed(_) => write!(f, "set the hash seed"),
            Self::PutAddress(key, _) => write!(f, "put address {}", ip(key)),
            Self::PutEgress(id, egress) => write!(f, "put {} egress addresses of instance {id}", egress.count4 + egress.count6),
            Self::PutListener(id, _) => write!(f, "put listener {id}"),
            Self::PutEndpoint(id, endpoint) => write!(f, "put endpoint {id} at {}", ip(&endpoint.addr)),
            Self::FillTable { id, digest, .. } => write!(f, "fill table {id} ({digest:016x})"),
            Self::FillSheet { id, content } => write!(f, "fill {id} ({:016x})", content.digest()),
            Self::ReleaseSheet(id) => write!(f, "release {id}"),
            Self::Activate { listener, family, active } => {
                write!(f, "point listener {listener} {family} to table {}", active.table())?;
                match active.before() {
                    Before::Same => Ok(()),
                    Before::Remembered => f.write_str(", older flows being remembered"),
                    Before::Table(table) => write!(f, ", older flows to table {table}"),
                }
            }
            Self::PutService(key, service) => {
                write!(f, "open {} port {} protocol {} for listener {}", ip(&key.addr), port(key), key.protocol, service.listener)
            }
            Self::RemoveService(key) => write!(f, "close {} port {} protocol {}", ip(&key.addr), port(key), key.protocol),
            Self::ReleaseTable(id) => write!(f, "release table {id}"),
            Self::RetireEndpoint(id) => write!(f, "retire endpoint {id}"),
            Self::RemoveListener(id) => write!(f, "remove listener {id}"),
            Self::RemoveEgress(id) => write!(f, "remove the egress addresses of instance {id}"),
            Self::RemoveAddress(key) => write!(f, "remove address {}", ip(key)),
            Self::SetGeneration(generation) => write!(f, "set generation {generation}"),
        }
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_use_is_never_overwritten() {
        let listener = |identity| Step::PutListener(ListenerId(1), Listener { identity, ..Listener::default() });
        let endpoint = |identity, flags| Step::PutEndpoint(EndpointId(1), Endpoint { identity, flags, ..Endpoint::default() });
        let fill = |id| Step::FillTable { id, digest: 0, slots: Arc::new([]) };
        let mut state = State::default();
        for step in [listener(1), endpoint(1, Endpoint::IN_USE), fill(TableId(1))] {
            assert_eq!(state.apply(&step), Ok(()));
        }
        let before = state.clone();
        assert_eq!(state.apply(&listener(2)), Err(Violation::ListenerTaken(ListenerId(1))));
        assert_eq!(state.apply(&endpoint(2, Endpoint::IN_USE)), Err(Violation::EndpointTaken(EndpointId(1))));
        assert_eq!(state.apply(&fill(TableId(1))), Err(Violation::Refill(TableId(1))));
        assert_eq!(state.apply(&fill(TableId::EMPTY)), Err(Violation::Refill(TableId::EMPTY)));
        assert_eq!(state.apply(&Step::ReleaseTable(TableId(2))), Err(Violation::Absent("table", 2)));
        assert_eq!(state, before);
        assert_eq!(state.apply(&Step::RetireEndpoint(EndpointId(1))), Ok(()));
        assert_eq!(state.apply(&endpoint(2, Endpoint::IN_USE)), Ok(()), "a retired entry may be given away");
    }
}
