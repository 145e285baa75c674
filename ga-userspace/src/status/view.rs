//! The views. Fields are only ever added; a change of meaning raises [`SCHEMA_VERSION`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Certificate, Name, Origin, Proxied, ProxiedEndpoint};

/// Version of every view, in its field `schema_version`.
pub const SCHEMA_VERSION: u32 = 1;

/// Everything `ga status` knows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The agent's version.
    pub version: String,
    /// `node.ap`.
    pub access_point: String,
    /// The plan that packets see; 0 before the first.
    pub generation: u64,
    /// Short hash of the configuration behind the plan.
    #[serde(default)]
    pub config_hash: String,
    /// The file that a reload reads, with its full path.
    #[serde(default)]
    pub config_file: String,
    /// Seconds since the agent started, with fractions: rates are computed from it.
    pub uptime_s: f64,
    /// When the agent started, in Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<u64>,
    /// How the latest configuration fared.
    pub last_reload: LastReload,
    /// The configured interfaces, in file order.
    pub interfaces: Vec<Interface>,
    /// Flow memory.
    pub flows: Flows,
    /// Maps of a fixed capacity, by name.
    #[serde(default)]
    pub maps: Vec<MapFill>,
    /// What happened in flow memory beside the verdicts (retries, evictions), by the word of the event.
    #[serde(default)]
    pub flow_events: BTreeMap<String, u64>,
    /// What the agent put right.
    #[serde(default)]
    pub repairs: Repairs,
    /// Names whose addresses are found out, and where.
    #[serde(default)]
    pub names: Vec<Name>,
    /// Probes.
    #[serde(default)]
    pub probes: Probes,
    /// In file order.
    pub instances: Vec<Instance>,
    /// Dropped packets, one row for each reason and owner.
    pub drops: Vec<DropCount>,
    /// Packets given to the host untouched.
    pub passes: Vec<PassCount>,
    /// Certificates of HTTPS listeners.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<Certificate>,
    /// Lines of the access log that were lost since it was opened.
    #[serde(default)]
    pub access_log_lost: u64,
    /// What an operator should know, in sentences.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// How the latest configuration fared; the start counts as a reload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LastReload {
    /// Whether the latest attempt was applied.
    pub successful: bool,
    /// When one was last applied, in Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success_at: Option<u64>,
    /// Attempts refused since the agent started.
    #[serde(default)]
    pub failures: u64,
    /// Why the latest attempt was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index; 0 when it does not exist.
    pub ifindex: u32,
    /// How the program is attached, or was to be.
    pub mode: AttachMode,
    /// Whether it is attached.
    pub attached: bool,
    /// How often it was attached again since the agent started.
    #[serde(default)]
    pub reattached: u64,
    /// Why it is not attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// What the agent put right since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repairs {
    /// Entries that somebody else had changed, by map.
    pub maps: BTreeMap<String, u64>,
    /// Pins that somebody had removed.
    pub pins: u64,
    /// Changes of the way to an endpoint.
    pub next_hops: u64,
}

/// XDP mode of an attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttachMode {
    /// In the driver.
    Native,
    /// In the network stack.
    Generic,
}

/// Flow memory of both families.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flows {
    /// IPv4 clients.
    pub ipv4: FlowTable,
    /// IPv6 clients.
    pub ipv6: FlowTable,
}

/// One flow table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowTable {
    /// Flows that have not expired.
    pub live: u64,
    /// Flows that fit.
    pub capacity: u64,
}

/// How full a map is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapFill {
    /// The map's name.
    pub name: String,
    /// Entries in use.
    pub entries: u64,
    /// Entries that fit.
    pub capacity: u64,
}

/// One accelerator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// Its id.
    pub id: String,
    /// What clients reach.
    pub vips: Vec<String>,
    /// What endpoints see.
    pub egress_ips: Vec<String>,
    /// In file order.
    pub listeners: Vec<Listener>,
}

/// One listener.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listener {
    /// Its number in the maps.
    pub id: u16,
    /// Its name.
    pub name: String,
    /// `tcp`, `udp`, `http`, `https` or `custom`.
    pub protocol: String,
    /// The port list, as short as possible.
    pub ports: String,
    /// `none` or `source_ip`.
    pub client_affinity: String,
    /// Seconds.
    pub idle_timeout_s: u64,
    /// Traffic, retired endpoints included.
    pub counters: Counters,
    /// Flows that have not expired.
    pub active_flows: u64,
    /// Its table changed lately, and flows that began before go where they began: those are remembered. Only of listeners that do
    /// not remember their flows otherwise.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_transition: bool,
    /// Packets dropped here; [`Status::attribute_drops`] fills it.
    #[serde(default)]
    pub drops: Vec<ReasonCount>,
    /// What the agent did for it, when it serves it itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxied: Option<Proxied>,
    /// Endpoint groups, in the order of their scheduling priority.
    pub groups: Vec<Group>,
}

/// One endpoint group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// `default`, or `virtual`: only forwarding rules lead there.
    #[serde(default)]
    pub kind: String,
    /// The region's label.
    pub region: String,
    /// Where it stands in the scheduling priority of its listener; 1 is the nearest.
    pub priority: usize,
    /// Percent of the traffic that reaches it in the order of priority, as in the file.
    pub traffic_ratio: u8,
    /// Milliseconds to its endpoints, measured or as in the file; none when nobody knows.
    pub latency_ms: Option<f64>,
    /// The part of the listener's new IPv4 flows it gets, 0 to 1; none without IPv4 endpoints.
    pub share_ipv4: Option<f64>,
    /// The same of IPv6.
    pub share_ipv6: Option<f64>,
    /// In the order of their addresses.
    pub endpoints: Vec<Endpoint>,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its number in the maps.
    pub id: u16,
    /// Its address, with the port if it has one of its own.
    pub address: String,
    /// The word of `type`.
    pub kind: String,
    /// Where the address is from.
    #[serde(default)]
    pub origin: Origin,
    /// The weight in the file.
    pub configured_weight: u8,
    /// The weight in force.
    pub weight: u8,
    /// Why the weight is what it is.
    pub state: EndpointState,
    /// The part of new flows it gets, 0 to 1, as the selection table has it.
    pub share: f64,
    /// What probes say; none when it is not probed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// What it did for the agent, when that serves the listener itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxied: Option<ProxiedEndpoint>,
    /// Whether packets can be sent to it without asking the kernel.
    pub next_hop: NextHop,
    /// Traffic.
    pub counters: Counters,
    /// Flows that have not expired.
    pub active_flows: u64,
}

/// What probes say of an endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// The verdict: whether new flows may go there.
    pub healthy: bool,
    /// Seconds since it last changed; since the agent's start when it never did.
    pub for_s: u64,
    /// It counts as healthy, and the latest probe says otherwise.
    pub suspect: bool,
    /// Why the latest probe that failed did: `refused`, `timeout`, `status 500`, ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Smoothed time to connect, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_trip_ms: Option<f64>,
    /// The part of its weight that counts, in per cent: less than 100 while it starts slowly.
    pub share_percent: u8,
    /// It flaps: seconds that it stays unhealthy at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_for_s: Option<u64>,
}

/// Probes of this agent since its start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Probes {
    /// Checks: different ones, however many endpoints each judges.
    pub checks: u64,
    /// Probes by what came of them.
    pub results: BTreeMap<String, u64>,
    /// 99 of 100 probes began at most so many milliseconds after they were due.
    pub late_ms: u64,
    /// Most probes that began at once.
    pub largest_bunch: u64,
    /// By instance: whether so many endpoints fail at once that the agent's own host is suspected, and nobody is taken out.
    pub panic: BTreeMap<String, bool>,
}

/// Why an endpoint's weight is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointState {
    /// New flows may come.
    Active,
    /// An operator said drain: no new flows, known ones stay.
    Drained,
    /// The weight is zero: no new flows.
    Zero,
    /// Probes say that it is down: no new flows while others are well.
    Unhealthy,
    /// Nobody probes it, and it did not answer clients: no new flows for a while, unless all of its group are paused.
    Paused,
}

impl EndpointState {
    /// The word in tables and JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Drained => "drained",
            Self::Zero => "zero",
            Self::Unhealthy => "unhealthy",
            Self::Paused => "paused",
        }
    }
}

/// Whether the next hop's MAC address is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NextHop {
    /// It is.
    Resolved,
    /// Not yet.
    Unresolved,
    /// The endpoint is behind a router, where packets that keep the VIP cannot reach it (`return = "l2"`): none are sent.
    OffLink,
    /// It was; the neighbour does not answer now, or the way to it is lost, and packets still go where they went.
    Stale,
}

/// Traffic since the maps were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Packets from clients.
    pub forward_packets: u64,
    /// Bytes from clients.
    pub forward_bytes: u64,
    /// Packets to clients.
    pub return_packets: u64,
    /// Bytes to clients.
    pub return_bytes: u64,
    /// Flows begun.
    pub new_flows: u64,
}

/// Packets of one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonCount {
    /// The word.
    pub reason: String,
    /// How many.
    pub packets: u64,
}

/// Packets dropped for one reason on behalf of one owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropCount {
    /// The word.
    pub reason: String,
    /// One sentence.
    pub explanation: String,
    /// The listener's instance; none when no listener was found yet.
    #[serde(default)]
    pub instance: Option<String>,
    /// The listener.
    #[serde(default)]
    pub listener: Option<String>,
    /// How many.
    pub packets: u64,
}

/// Packets passed to the host for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassCount {
    /// The word.
    pub reason: String,
    /// One sentence.
    pub explanation: String,
    /// How many.
    pub packets: u64,
}
