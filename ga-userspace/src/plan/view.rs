//! The plan: the maps' target content, and the same with names.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use ga_common::abi::id::{EndpointId, Generation, InstanceId, ListenerId, TableId};

use super::{AclView, CustomView, Family, Missing, Selection, Sheet, SheetId, State, TargetView};
use crate::{
    health::Belief,
    model::{
        Affinity, AllUnhealthy, ClientIp, EndpointName, GroupKind, Name, Part, PortMapping, Ports, Protocol, Target,
        TrafficRatio, Weight,
    },
};

/// An immutable, numbered answer to "what shall the data path hold". Listeners and endpoints are in the order of their names.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// One more than the running one's, or the same when there is nothing to do.
    pub generation: Generation,
    /// What the maps hold when all steps are done.
    pub target: State,
    /// Instances with names.
    pub instances: Vec<InstanceView>,
    /// Listeners with names.
    pub listeners: Vec<ListenerView>,
    /// What an operator may have overlooked.
    pub notes: Vec<Note>,
    /// The contents of all sheets.
    pub sheets: BTreeMap<SheetId, Sheet>,
    pub(super) noop: bool,
    pub(super) table_size: usize,
}

impl Plan {
    /// The maps hold all of it already.
    pub fn is_noop(&self) -> bool {
        self.noop
    }

    /// The content of a table, made anew, because nobody keeps all tables in memory; none when this plan has no such table of
    /// that digest.
    pub fn slots(&self, table: TableId, digest: u64) -> Option<Arc<[EndpointId]>> {
        self.former(table, digest)?.slots(digest)
    }

    /// How to make it anew when this plan does not run any more.
    pub fn former(&self, table: TableId, digest: u64) -> Option<Former> {
        let owner = self.listeners.iter().find_map(|listener| {
            let view = listener.tables.values().find(|view| view.id == table && view.digest == digest)?;
            Some((listener, view))
        });
        let (listener, view) = owner.filter(|_| table != TableId::EMPTY)?;
        let ids = listener.endpoints.iter().map(|endpoint| (endpoint.claim, endpoint.id)).collect();
        Some(Former { digest, selection: view.selection.clone(), ids, table_size: self.table_size })
    }

    /// Who has `id`, if this plan uses it.
    pub fn endpoint(&self, id: EndpointId) -> Option<&EndpointView> {
        self.listeners.iter().flat_map(|listener| &listener.endpoints).find(|endpoint| endpoint.id == id)
    }
}

/// What a table was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Former {
    digest: u64,
    selection: Selection,
    /// Endpoints by the number by which they claim slots.
    ids: BTreeMap<u64, EndpointId>,
    table_size: usize,
}

impl Former {
    /// The content of the table, made anew, if that is the one with `digest`.
    pub fn slots(&self, digest: u64) -> Option<Arc<[EndpointId]>> {
        let id = |claim: u64| self.ids.get(&claim).copied().unwrap_or(EndpointId::NONE);
        (digest == self.digest).then(|| self.selection.owners(self.table_size, id))
    }
}

/// An instance of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceView {
    /// Its name.
    pub name: Name,
    /// Its number in the maps.
    pub id: InstanceId,
    /// What clients reach, in order.
    pub vips: Vec<IpAddr>,
    /// What endpoints see, in order.
    pub egress_ips: Vec<IpAddr>,
}

/// A listener of the plan.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerView {
    /// The instance's name.
    pub instance: Name,
    /// Its own name.
    pub name: Name,
    /// Its number in the maps.
    pub id: ListenerId,
    /// What clients speak.
    pub protocol: Protocol,
    /// Where clients connect.
    pub ports: Ports,
    /// Whether clients stick.
    pub affinity: Affinity,
    /// In seconds.
    pub idle_timeout_s: u16,
    /// New flows a second that are admitted; 0 is the automatic bound.
    pub max_new_flows_per_second: u32,
    /// Whether endpoints see the client's address, and how they answer then.
    pub client_ip: ClientIp,
    /// Who may open flows; everybody without.
    pub acl: Option<AclView>,
    /// What happens to new flows when no endpoint is healthy.
    pub all_unhealthy: AllUnhealthy,
    /// Groups with a traffic ratio of 0 take over when all others fail.
    pub failover_to_zero_ratio: bool,
    /// Listener port to endpoint port.
    pub port_mapping: PortMapping,
    /// In the order of their scheduling priority.
    pub groups: Vec<GroupView>,
    /// Which port leads where, of a custom routing listener.
    pub custom: Option<CustomView>,
    /// Of all groups, in the order of their names.
    pub endpoints: Vec<EndpointView>,
    /// What new flows of each family choose from.
    pub tables: BTreeMap<Family, TableView>,
    /// What the agent chooses from when it serves the listener itself, the default groups first; none of others.
    pub targets: Vec<TargetView>,
}

impl ListenerView {
    /// What clients speak, as a word.
    pub fn protocol_word(&self) -> &'static str {
        if self.custom.is_some() { "custom" } else { self.protocol.word() }
    }

    /// The kernel only lets its packets in: the agent serves it.
    pub fn is_served(&self) -> bool {
        !self.targets.is_empty()
    }

    /// `instance/listener`.
    pub fn path(&self) -> String {
        format!("{}/{}", self.instance, self.name)
    }

    /// The endpoints of `group`, in the order of their names.
    pub fn of_group(&self, group: &GroupView) -> impl Iterator<Item = &EndpointView> {
        self.endpoints.iter().filter(move |endpoint| endpoint.name.group == group.name)
    }
}

/// An endpoint group of the plan.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupView {
    /// Its name.
    pub name: Name,
    /// Who reaches it.
    pub kind: GroupKind,
    /// Its region.
    pub region: String,
    /// The part of the traffic that reaches it.
    pub traffic_ratio: TrafficRatio,
    /// Its endpoints are probed.
    pub checked: bool,
    /// Where it stands in the scheduling priority: 1 is asked first.
    pub priority: usize,
    /// How far away the file says it is. What is measured changes all the time, and only an order that follows from it is planned.
    pub latency: Option<Duration>,
    /// Its part of the listener's new flows of each family that it has endpoints of, 0 to 1.
    pub shares: BTreeMap<Family, f64>,
}

/// An endpoint of the plan.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointView {
    /// Its name.
    pub name: EndpointName,
    /// Its number in the maps.
    pub id: EndpointId,
    /// Its stable number.
    pub identity: u64,
    /// The number by which it claims slots.
    pub claim: u64,
    /// The file's.
    pub configured: Weight,
    /// The one in force.
    pub weight: Weight,
    /// How much of the weight is its own.
    pub part: Part,
    /// What it was found by; none when the file has its address.
    pub found_by: Option<Target>,
    /// By hand.
    pub drained: bool,
    /// What is believed of it.
    pub belief: Belief,
    /// The families whose clients it is for.
    pub serves: BTreeSet<Family>,
    /// Its part of the new flows of those, 0 to 1.
    pub share: f64,
}

impl EndpointView {
    /// Whether new flows of `family` may be given to it.
    pub fn is_of(&self, family: Family) -> bool {
        self.serves.contains(&family)
    }
}

/// A selection of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableView {
    /// The table, or [`TableId::EMPTY`].
    pub id: TableId,
    /// Equal on all edges that choose alike.
    pub digest: u64,
    /// Who takes part.
    pub selection: Selection,
}

/// Something that is allowed but hardly meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// Set for an endpoint that the file does not have.
    OverrideUnmatched(EndpointName),
    /// Clients of that family reach the listener, and nobody can be chosen for them.
    NoEndpoint {
        /// `instance/listener`.
        listener: String,
        /// Of the clients.
        family: Family,
    },
    /// An endpoint that stands for others, and for nobody who can be used.
    Missing(Missing),
    /// Flows to endpoints of that family have no address to leave by.
    NoEgress {
        /// The instance.
        instance: Name,
        /// Of the endpoints.
        family: Family,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OverrideUnmatched(name) => write!(f, "an override is set for {name}, which is not in the file"),
            Self::Missing(missing) => missing.fmt(f),
            Self::NoEndpoint { listener, family } => {
                write!(f, "{listener} has no {family} endpoint with a weight; new {family} flows are dropped")
            }
            Self::NoEgress { instance, family } => {
                write!(f, "{instance} has {family} endpoints but no {family} egress address; their new flows are dropped")
            }
        }
    }
}
