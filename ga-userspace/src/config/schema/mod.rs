//! The keys of the document as JSON Schema, for editors. The types here are documentation: nothing is read into them, the rules
//! between keys are [`parse`](super::parse)'s, and a test holds both to the same keys.

mod acl;
mod bounds;
mod custom;
mod health_check;
mod http;
mod http_waits;
mod limits;
mod places;
mod rule;
mod tls;

use schemars::{JsonSchema, Schema, generate::SchemaSettings};
use serde::Serialize;

use self::{
    acl::{Acl, ListenerAcl},
    bounds::Circuit,
    custom::CustomGroup,
    health_check::HealthCheck,
    http::{ForwardedHeader, HttpVersion, ProxyProtocol, Xff},
    limits::Limits,
    places::{Inventory, VserverGroup},
    rule::Rule,
    tls::{Certificates, SecurityPolicy},
};
pub use super::client_ip::{PreserveClientIp, Return};
use super::{group, node};
use crate::model;

/// The schema of the document, draft-07: the newest that TOML editors agree on.
pub fn generate() -> Schema {
    SchemaSettings::draft07().into_generator().into_root_schema_for::<Document>()
}

/// The schema as it is shipped.
pub fn text() -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(&generate()).map(|text| text + "\n")
}

/// Configuration of the global accelerator `ga`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, title = "ga")]
pub struct Document {
    /// Version of the file's format.
    #[schemars(default = "one", range(min = 1, max = 1))]
    pub version: u32,
    /// This host.
    pub node: Node,
    /// Limits and the rules that a profile chooses; every one has its documented default.
    #[schemars(default)]
    pub limits: Limits,
    /// What names of hosts and interfaces stand for, or where that is found out.
    #[schemars(default)]
    pub inventory: Inventory,
    /// Server groups, for listeners and `clb` endpoints.
    #[schemars(default = "no_pools")]
    pub vserver_group: Vec<VserverGroup>,
    /// Accelerators: accelerated addresses, egress addresses and listeners.
    #[schemars(length(min = 1))]
    pub instance: Vec<Instance>,
    /// Access lists that listeners name.
    #[schemars(default = "no_acls")]
    pub acl: Vec<Acl>,
}

/// This host.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Node {
    /// Name of the access point, a label in metrics and status.
    #[schemars(default = "ap", regex(pattern = r"^[A-Za-z0-9._-]{1,64}$"))]
    pub ap: String,
    /// Interfaces that carry client or endpoint traffic.
    #[schemars(length(min = 1), inner(length(min = 1, max = 15)))]
    pub interfaces: Vec<String>,
    /// How the program is attached: `native` or nothing, `generic`, or `auto`: native where the driver can.
    #[schemars(default = "auto")]
    pub xdp_mode: XdpMode,
    /// Flows of each family that fit. 65,536 flows take 16 MiB for IPv4 and 32 MiB for IPv6.
    #[schemars(default = "flows", range(min = 1_024, max = 16_777_216))]
    pub flows: u32,
    /// Source ports towards endpoints. The agent's own connections take others.
    #[schemars(default = "nat_ports", regex(pattern = r"^\s*[0-9]{1,5}\s*[~-]\s*[0-9]{1,5}\s*$"))]
    pub nat_ports: String,
    /// Key of the hash, 32 hexadecimal digits; random when absent. Edges that must choose alike need the same one.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "String", regex(pattern = r"^[0-9a-fA-F]{32}$"))]
    pub hash_seed: Option<String>,
    /// Where Prometheus scrapes, or `off`.
    #[schemars(default = "metrics")]
    pub metrics: String,
    /// DNS servers to ask for domains, at most 8; those of the host when empty. `10.0.0.53`, `10.0.0.53:5353`.
    #[schemars(default = "no_texts", length(max = 8))]
    pub resolvers: Vec<String>,
    /// When more than this part of an instance's probed endpoints, in per cent, begin to fail at once, the fault is taken to be this
    /// host's: nobody is taken out, and an alarm is raised. Without the key any number may fail.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "u8", range(min = 1, max = 99))]
    pub panic_threshold: Option<u8>,
    /// Where requests of http and https listeners are written to when they have ended. Without the key: nowhere.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "http_waits::AccessLog")]
    pub access_log: Option<http_waits::AccessLog>,
    /// Threads of the proxy for http and https listeners; without the key as many as the host has CPUs.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "u16", range(min = 1, max = 1_024))]
    pub proxy_threads: Option<u16>,
    /// Connections of clients that the proxy has at a time, over all listeners; further ones are refused as those of a listener's
    /// `max_connections`. Never more than half of the files that the process may have open.
    #[schemars(default = "proxy_connections", range(min = 1, max = 10_000_000))]
    pub proxy_connections: u32,
    /// Seconds that connections of listeners which the agent serves may take to end when it stops, or when another agent has taken
    /// over; then they are cut.
    #[schemars(default = "drain_timeout", range(min = 0, max = 86_400))]
    pub drain_timeout: u32,
}

/// How the program is attached.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum XdpMode {
    /// Native where the driver can, else generic.
    Auto,
    /// Native or nothing.
    Native,
    /// In the network stack, on any driver.
    Generic,
}

/// An accelerator.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Instance {
    /// Its id, unique in the file.
    #[schemars(regex(pattern = r"^[A-Za-z][A-Za-z0-9._-]{0,127}$"))]
    pub id: String,
    /// Accelerated addresses, IPv4 and IPv6: what clients reach. No address belongs to two instances.
    #[schemars(length(min = 1))]
    pub vips: Vec<String>,
    /// What endpoints see as source: at least one of each family that endpoints have, at most 8 of a family. Never shared between
    /// instances.
    #[schemars(length(min = 1, max = 16))]
    pub egress_ips: Vec<String>,
    /// What clients can connect to.
    #[schemars(length(min = 1))]
    pub listener: Vec<Listener>,
}

/// What clients can connect to.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Listener {
    /// Its name, unique in the instance.
    #[schemars(regex(pattern = r"^[A-Za-z][A-Za-z0-9._-]{0,127}$"))]
    pub name: String,
    /// Free text of at most 200 characters that is not a link.
    #[schemars(default = "empty", length(max = 200))]
    pub description: String,
    /// `standard`: traffic is balanced over endpoints. `custom_routing`: every port leads to one port of one host. All listeners of
    /// an instance are of one type.
    #[schemars(default = "standard")]
    pub r#type: ListenerType,
    /// `tcp`, `udp`, `http` or `https`, in any case.
    #[schemars(default = "tcp", regex(pattern = r"^([tT][cC][pP]|[uU][dD][pP]|[hH][tT][tT][pP][sS]?)$"))]
    pub protocol: String,
    /// Ports 1–65499: `80,90~92,8080`. At most `limits.ports_per_l4_listener`; one of `http` and `https`.
    #[schemars(regex(pattern = r"^\s*[0-9]{1,5}\s*([~-]\s*[0-9]{1,5}\s*)?(,\s*[0-9]{1,5}\s*([~-]\s*[0-9]{1,5}\s*)?)*$"))]
    pub ports: String,
    /// `source_ip`: all flows of a client's address go to one endpoint.
    #[schemars(default = "no_affinity")]
    pub client_affinity: Affinity,
    /// How long a flow without packets is remembered: seconds, or `"30s"`, `"2m"`. TCP 10–900 (900), UDP 10–20 (20).
    /// `http` and `https`: how long a connection waits for the next request, 1 to `limits.http_idle_timeout_max` (15).
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "Time")]
    pub idle_timeout: Option<Time>,
    /// New flows a second that are admitted, 1–100,000,000; the rest is dropped and counted. Without the key a bound follows from
    /// the size of flow memory.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "u32", range(min = 1, max = 100_000_000))]
    pub max_new_flows_per_second: Option<u32>,
    /// Connections of clients at a time, where the agent serves: `http`, `https`, and `tcp` with rules or the PROXY protocol. A
    /// further one of `http` gets 503, others are closed at once.
    #[schemars(default = "max_connections", range(min = 1, max = 10_000_000))]
    pub max_connections: u32,
    /// The server group that gets all traffic, instead of endpoint groups.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "String")]
    pub vserver_group: Option<String>,
    /// Who may open flows; everybody without it.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "ListenerAcl")]
    pub acl: Option<ListenerAcl>,
    /// What happens to new flows when no endpoint of any group is healthy. `fail_closed`: TCP is refused by a RST, UDP dropped.
    /// `fail_open`: they go to the group of the highest priority, by weight.
    #[schemars(default = "fail_closed")]
    pub all_unhealthy: AllUnhealthy,
    /// Groups with a traffic ratio of 0 take over when all others fail.
    #[schemars(default = "yes")]
    pub failover_to_zero_ratio: bool,
    /// The default endpoint groups, at most `limits.default_groups_per_listener`, each in a region of its own. At least one of a
    /// standard listener without a `vserver_group`.
    #[schemars(default = "no_groups", length(min = 1, max = 10))]
    pub endpoint_group: Vec<EndpointGroup>,
    /// The groups of a custom routing listener, at most `limits.custom_groups_per_listener`.
    #[schemars(default = "no_custom_groups", length(min = 1, max = 5))]
    pub custom_group: Vec<CustomGroup>,
    /// `http` and `https`: seconds from the end of a request to the first byte of its answer; then the client gets 504.
    #[schemars(default = "request_timeout", range(min = 1, max = 180))]
    pub request_timeout: u32,
    /// `https`: the newest version of HTTP that clients may speak.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "HttpVersion")]
    pub http_version: Option<HttpVersion>,
    /// `http` and `https`: headers that endpoints get beside `X-Forwarded-For`. Those that clients send are removed.
    #[schemars(default = "no_headers")]
    pub forwarded_headers: Vec<ForwardedHeader>,
    /// `http` and `https`: what becomes of an `X-Forwarded-For` that clients send.
    #[schemars(default = "append")]
    pub xff: Xff,
    /// `http` and `https`: networks of proxies in front of this edge, whose `X-Forwarded-For` is kept with `xff = "replace"` too.
    #[schemars(default = "no_networks")]
    pub trusted_proxies: Vec<String>,
    /// `http` and `https`: header names with an underscore are forwarded. Servers may take `X_Real_IP` for `X-Real-IP`.
    #[schemars(default)]
    pub underscores_in_headers: bool,
    /// `http` and `https`: how long clients and endpoints are waited for.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "http_waits::Timeouts")]
    pub timeouts: Option<http_waits::Timeouts>,
    /// `http` and `https`: how much clients may ask for.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "http_waits::HttpLimits")]
    pub http_limits: Option<http_waits::HttpLimits>,
    /// `https`: versions of TLS and cipher suites; `tls_cipher_policy_1_2_strict_with_1_3` without it.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "SecurityPolicy")]
    pub security_policy: Option<SecurityPolicy>,
    /// The same as `security_policy`.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "SecurityPolicy")]
    pub security_policy_id: Option<SecurityPolicy>,
    /// `https`, which needs it: what clients are shown.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "Certificates")]
    pub certificates: Option<Certificates>,
    /// Forwarding rules, at most `limits.rules_per_listener`, with at most `limits.rule_condition_items_per_listener` values; none of
    /// udp listeners. What no rule applies to goes to the default endpoint groups.
    #[schemars(default = "no_rules")]
    pub rule: Vec<Rule>,
    /// Proxies in front of this edge whose connections begin with a header of the PROXY protocol, version 1 or 2. Not of `udp`.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "ProxyProtocol")]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// `tcp` with rules: `host` is the host of an HTTP request too, where a client does not speak TLS. The first request of a
    /// connection decides for all of them.
    #[schemars(default)]
    pub http_sniff: bool,
}

/// Type of a listener.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ListenerType {
    /// Traffic is balanced over endpoints.
    Standard,
    /// Every port leads to one port of one host.
    CustomRouting,
}

/// Whether clients stick to an endpoint.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Affinity {
    /// Each flow by its 5-tuple.
    None,
    /// All flows of one source address go to one endpoint.
    SourceIp,
}

/// What happens to new flows when no endpoint is healthy.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AllUnhealthy {
    /// They are refused.
    FailClosed,
    /// They go to the group of the highest priority.
    FailOpen,
}

/// A time: seconds, or text with a unit.
#[derive(JsonSchema, Serialize)]
#[serde(untagged)]
pub enum Time {
    /// Seconds.
    Seconds(#[schemars(range(min = 1, max = 900))] u32),
    /// `30s` or `2m`.
    Text(#[schemars(regex(pattern = r"^[0-9]+[sm]$"))] String),
}

/// The endpoints of one region.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct EndpointGroup {
    /// Its name, unique in the listener; the second group without one is `default-2`.
    #[schemars(default = "default_name", regex(pattern = r"^[A-Za-z][A-Za-z0-9._-]{0,127}$"))]
    pub name: String,
    /// Free text of at most 200 characters that is not a link.
    #[schemars(default = "empty", length(max = 200))]
    pub description: String,
    /// `default`: it gets the traffic that no rule takes. `virtual`: only what a forwarding rule sends there; not of `udp`.
    #[schemars(default = "default_kind")]
    pub kind: GroupKind,
    /// Where the endpoints are; a label.
    #[schemars(regex(pattern = r"^[A-Za-z0-9._-]{1,64}$"))]
    pub region: String,
    /// Whether the region is a point of presence: `backend_ip_version` may not be set then.
    #[schemars(default = "no")]
    pub pop: bool,
    /// Percent of the traffic that reaches the group in the order of priority; what no group takes goes to the last one. 0: no
    /// traffic.
    #[schemars(default = "all_traffic", range(min = 0, max = 100))]
    pub traffic_ratio: u8,
    /// Milliseconds to the region, in place of a measured latency. The nearest group has the highest priority; groups of unknown
    /// latency follow in file order.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "u32", range(min = 0, max = 60_000))]
    pub latency_ms: Option<u32>,
    /// Which family the edge speaks to endpoints, whatever the client speaks; `affinity`: that of the client.
    #[schemars(default = "ipv4")]
    pub backend_ip_version: BackendIpVersion,
    /// Whether endpoints see the client's address. `none`: they see the egress address.
    #[schemars(default = "preserve_none")]
    pub preserve_client_ip: PreserveClientIp,
    /// How answers come back when endpoints see the client's address; only with `preserve_client_ip = "transparent"`, which needs
    /// it.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "Return")]
    pub r#return: Option<Return>,
    /// Ports that endpoints serve under another number; a port without mapping keeps its number.
    #[schemars(default = "no_mappings")]
    pub port_mapping: Vec<PortMapping>,
    /// How the endpoints are probed. Without it nobody is, and all endpoints count as healthy.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "HealthCheck")]
    pub health_check: Option<HealthCheck>,
    /// What endpoints of an `https` listener are spoken to with; those of an `http` listener by `http`.
    #[schemars(default = "plain_http")]
    pub backend_protocol: BackendProtocol,
    /// `http2` only with `backend_protocol = "https"`.
    #[schemars(default = "http1")]
    pub backend_protocol_version: HttpVersion,
    /// With `backend_protocol = "https"`: whether endpoints must have a certificate that somebody vouches for.
    #[schemars(default = "yes")]
    pub verify: bool,
    /// With `backend_protocol = "https"`: the file of certificates (PEM) that vouch for endpoints, instead of the system's.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "String", length(min = 1, max = 4_095))]
    pub ca: Option<String>,
    /// What the endpoints of the group are asked at a time, where the agent serves; more is refused at once.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "Circuit")]
    pub circuit: Option<Circuit>,
    /// 1 to `limits.endpoints_per_group` endpoints.
    #[schemars(length(min = 1, max = 30))]
    pub endpoint: Vec<Endpoint>,
}

/// What endpoints are spoken to with.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BackendProtocol {
    /// HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

/// Kind of an endpoint group.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupKind {
    /// It gets the traffic that no rule takes.
    Default,
    /// It gets what forwarding rules send there.
    Virtual,
}

/// Which family the edge speaks to endpoints.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BackendIpVersion {
    /// IPv4 only.
    Ipv4,
    /// IPv6 only.
    Ipv6,
    /// The family of the client.
    Affinity,
}

/// A listener port that endpoints serve under another number.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
pub struct PortMapping {
    /// One of the listener's ports, mapped once.
    #[schemars(range(min = 1, max = 65_499))]
    pub listener: u16,
    /// The endpoint's port.
    #[schemars(range(min = 1, max = 65_535))]
    pub endpoint: u16,
}

/// Where new flows may go.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Endpoint {
    /// What it is.
    pub r#type: EndpointType,
    /// An IP address, none of our own; for `ecs` and `eni` also a name of the inventory, for `domain`, `clb`, `alb`, `nlb` and `oss`
    /// a domain. Each once in a group.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "String")]
    pub address: Option<String>,
    /// `eni` only: the address that is meant, instead of the primary one.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "String")]
    pub sub_address: Option<String>,
    /// `clb` only, instead of an address: the server group that is meant.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "String")]
    pub vserver_group: Option<String>,
    /// Its share is its weight over the sum of the group's; 0: no new flows.
    #[schemars(default = "full_weight", range(min = 0, max = 255))]
    pub weight: u8,
}

/// What an endpoint is.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointType {
    /// A public address off the cloud.
    Ip,
    /// A public address of the cloud.
    PublicIp,
    /// Any address, treated as private.
    PrivateIp,
    /// A host, by address or by a name of the inventory.
    Ecs,
    /// A network interface, by address or by a name of the inventory.
    Eni,
    /// A classic load balancer by address or domain, or a server group.
    Clb,
    /// A load balancer for HTTP; not under UDP.
    Alb,
    /// A load balancer for TCP and UDP.
    Nlb,
    /// An object store, reached by IPv4; not under UDP.
    Oss,
    /// All addresses of a domain; they share the weight.
    Domain,
}

fn request_timeout() -> u32 {
    super::http::DEFAULT_REQUEST_TIMEOUT_S
}

fn no_headers() -> Vec<ForwardedHeader> {
    Vec::new()
}

fn no_networks() -> Vec<String> {
    Vec::new()
}

fn append() -> Xff {
    Xff::Append
}

fn plain_http() -> BackendProtocol {
    BackendProtocol::Http
}

fn http1() -> HttpVersion {
    HttpVersion::Http1
}

fn one() -> u32 {
    1
}

fn ap() -> String {
    node::DEFAULT_AP.to_owned()
}

fn auto() -> XdpMode {
    XdpMode::Auto
}

fn flows() -> u32 {
    node::DEFAULT_FLOWS
}

fn nat_ports() -> String {
    format!("{}~{}", node::DEFAULT_NAT_PORTS.start(), node::DEFAULT_NAT_PORTS.end())
}

fn metrics() -> String {
    node::DEFAULT_METRICS.to_string()
}

fn no_acls() -> Vec<Acl> {
    Vec::new()
}

fn empty() -> String {
    String::new()
}

fn no_groups() -> [(); 0] {
    []
}

fn no_rules() -> Vec<Rule> {
    Vec::new()
}

fn no_custom_groups() -> Vec<CustomGroup> {
    Vec::new()
}

fn standard() -> ListenerType {
    ListenerType::Standard
}

fn tcp() -> String {
    "tcp".to_owned()
}

fn no_affinity() -> Affinity {
    Affinity::None
}

fn fail_closed() -> AllUnhealthy {
    AllUnhealthy::FailClosed
}

fn all_traffic() -> u8 {
    model::TrafficRatio::default().0
}

fn default_name() -> String {
    group::DEFAULT_NAME.to_owned()
}

fn default_kind() -> GroupKind {
    GroupKind::Default
}

fn no() -> bool {
    false
}

fn ipv4() -> BackendIpVersion {
    BackendIpVersion::Ipv4
}

fn preserve_none() -> PreserveClientIp {
    PreserveClientIp::None
}

fn no_mappings() -> Vec<PortMapping> {
    Vec::new()
}

fn no_texts() -> Vec<String> {
    Vec::new()
}

fn no_pools() -> Vec<VserverGroup> {
    Vec::new()
}

fn proxy_connections() -> u32 {
    model::PROXY_CONNECTIONS
}

fn drain_timeout() -> u32 {
    node::DEFAULT_DRAIN_TIMEOUT_S
}

fn max_connections() -> u32 {
    model::MAX_CONNECTIONS
}

fn yes() -> bool {
    true
}

fn full_weight() -> u8 {
    model::Weight::default().0
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::{super::keys, *};

    const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/ga.schema.json");

    #[test]
    fn the_shipped_schema_is_the_generated_one() {
        let generated = text().unwrap();
        let shipped = std::fs::read_to_string(SHIPPED).unwrap_or_default();
        assert!(generated == shipped, "write it anew: `ga config schema > config/ga.schema.json`");
    }

    #[test]
    fn the_parser_and_the_schema_have_the_same_keys() {
        let schema = serde_json::to_value(generate()).unwrap();
        let of = |name: &str| match name {
            "" => properties(&schema),
            name => properties(&schema["definitions"][name]),
        };
        for (name, keys) in [
            ("", &keys::DOCUMENT),
            ("Node", &keys::NODE),
            ("Limits", &keys::LIMITS),
            ("Instance", &keys::INSTANCE),
            ("Listener", &keys::LISTENER),
            ("EndpointGroup", &keys::GROUP),
            ("Acl", &keys::ACL),
            ("AclDescribed", &keys::ACL_ENTRY),
            ("ListenerAcl", &keys::LISTENER_ACL),
            ("PortMapping", &keys::PORT_MAPPING),
            ("AccessLog", &keys::ACCESS_LOG),
            ("Timeouts", &keys::TIMEOUTS),
            ("HttpLimits", &keys::HTTP_LIMITS),
            ("Circuit", &keys::CIRCUIT),
            ("HealthCheck", &keys::HEALTH_CHECK),
            ("Endpoint", &keys::ENDPOINT),
            ("Inventory", &keys::INVENTORY),
            ("VserverGroup", &keys::VSERVER_GROUP),
            ("Server", &keys::SERVER),
            ("CustomGroup", &keys::CUSTOM_GROUP),
            ("Destination", &keys::DESTINATION),
            ("CustomEndpoint", &keys::CUSTOM_ENDPOINT),
            ("Allowed", &keys::ALLOWED),
            ("Rule", &keys::RULE),
            ("Condition", &keys::CONDITION),
            ("HeaderCondition", &keys::HEADER_CONDITION),
            ("Pair", &keys::PAIR),
            ("Action", &keys::ACTION),
            ("Redirect", &keys::REDIRECT),
            ("FixedResponse", &keys::FIXED_RESPONSE),
            ("Rewrite", &keys::REWRITE),
            ("AddHeader", &keys::ADD_HEADER),
        ] {
            let known: BTreeSet<String> = keys.known.iter().map(|key| (*key).to_owned()).collect();
            assert_eq!(of(name), known, "{}", keys.table);
        }
    }

    #[test]
    fn every_key_has_a_description_and_no_key_may_be_null() {
        let schema = serde_json::to_value(generate()).unwrap();
        let text = schema.to_string();
        assert!(!text.contains("\"null\""), "TOML has no null");
        let tables = schema["definitions"].as_object().unwrap().values().chain([&schema]);
        for (key, value) in tables.filter_map(|table| table["properties"].as_object()).flatten() {
            assert!(value["description"].is_string(), "{key} has no description");
        }
    }

    #[test]
    fn ranges_and_words_of_the_schema_are_the_parsers() {
        use super::super::{acl, bounds, custom, endpoint, health_check, http_waits as http_waits_of, limits, listener};
        let schema = serde_json::to_value(generate()).unwrap();
        let range = |table: &str, key: &str| {
            let property = &schema["definitions"][table]["properties"][key];
            (property["minimum"].as_u64().unwrap(), property["maximum"].as_u64().unwrap())
        };
        for (key, expected) in [
            ("instances", limits::INSTANCES),
            ("listeners_per_instance", limits::LISTENERS_PER_INSTANCE),
            ("ports_per_l4_listener", limits::PORTS_PER_L4_LISTENER),
            ("default_groups_per_listener", limits::DEFAULT_GROUPS_PER_LISTENER),
            ("endpoints_per_group", limits::ENDPOINTS_PER_GROUP),
            ("port_mappings_per_group", limits::PORT_MAPPINGS_PER_GROUP),
            ("addresses_per_domain", limits::ADDRESSES_PER_DOMAIN),
            ("vsg_servers_total", limits::VSG_SERVERS_TOTAL),
            ("vsg_server_attachments", limits::VSG_SERVER_ATTACHMENTS),
            ("acl_entries_per_listener", limits::ACL_ENTRIES_PER_LISTENER),
            ("acl_entries_per_instance", limits::ACL_ENTRIES_PER_INSTANCE),
            ("listeners_per_acl", limits::LISTENERS_PER_ACL),
            ("custom_groups_per_listener", limits::CUSTOM_GROUPS_PER_LISTENER),
            ("custom_destinations_per_group", limits::CUSTOM_DESTINATIONS_PER_GROUP),
            ("custom_endpoints_per_group", limits::CUSTOM_ENDPOINTS_PER_GROUP),
            ("custom_policy_addresses_per_endpoint", limits::CUSTOM_POLICY_ADDRESSES_PER_ENDPOINT),
            ("custom_policy_ranges_per_address", limits::CUSTOM_POLICY_RANGES_PER_ADDRESS),
        ] {
            assert_eq!(range("Limits", key), (u64::from(*expected.start()), u64::from(*expected.end())), "{key}");
        }
        assert_eq!(range("Node", "flows"), (u64::from(*node::FLOWS.start()), u64::from(*node::FLOWS.end())));
        for (key, expected) in [
            ("interval", health_check::INTERVAL),
            ("threshold", health_check::THRESHOLD),
            ("fast_interval_ms", health_check::FAST_INTERVAL_MS),
            ("slow_start", health_check::LONG),
            ("hold_down", health_check::LONG),
        ] {
            assert_eq!(range("HealthCheck", key), (u64::from(*expected.start()), u64::from(*expected.end())), "{key}");
        }
        for (table, key, expected) in [
            ("AccessLog", "sample", node::LOG_SAMPLE),
            ("Timeouts", "first_byte", http_waits_of::WAIT_S),
            ("Timeouts", "tunnel", http_waits_of::TUNNEL_S),
            ("Timeouts", "min_rate", http_waits_of::MIN_RATE),
            ("HttpLimits", "head", http_waits_of::HEAD),
            ("HttpLimits", "target", http_waits_of::TARGET),
            ("HttpLimits", "fields", http_waits_of::FIELDS),
            ("HttpLimits", "streams", http_waits_of::STREAMS),
            ("Node", "proxy_connections", bounds::CONNECTIONS),
            ("Node", "drain_timeout", node::DRAIN_TIMEOUT_S),
            ("Listener", "max_connections", bounds::CONNECTIONS),
            ("Circuit", "connections", bounds::CIRCUIT),
            ("Circuit", "requests", bounds::CIRCUIT),
        ] {
            assert_eq!(range(table, key), (u64::from(*expected.start()), u64::from(*expected.end())), "{key}");
        }
        assert_eq!(range("Node", "panic_threshold"), (1, 99));
        assert_eq!(range("Node", "proxy_threads"), (1, 1_024));
        for (key, expected) in [("traffic_ratio", group::TRAFFIC_RATIO), ("latency_ms", group::LATENCY_MS)] {
            assert_eq!(range("EndpointGroup", key), (u64::from(*expected.start()), u64::from(*expected.end())), "{key}");
        }
        let words = |name: &str| enum_words(&schema["definitions"][name]);
        assert_eq!(words("XdpMode"), node::XDP_MODES.map(|(word, _)| word.to_owned()));
        assert_eq!(words("Profile"), limits::PROFILES.map(|(word, _)| word.to_owned()));
        assert_eq!(words("NameRule"), limits::NAME_RULES.map(|(word, _)| word.to_owned()));
        assert_eq!(words("Affinity"), listener::AFFINITIES.map(|(word, _)| word.to_owned()));
        assert_eq!(words("AclMode"), acl::MODES.map(|(word, _)| word.to_owned()));
        assert_eq!(words("AllUnhealthy"), listener::ALL_UNHEALTHY.map(|(word, _)| word.to_owned()));
        assert_eq!(words("ListenerType"), listener::ROUTINGS.map(|(word, _)| word.to_owned()));
        assert_eq!(words("Policy"), custom::POLICIES.map(|(word, _)| word.to_owned()));
        assert_eq!(words("BackendIpVersion"), group::BACKEND_IP_VERSIONS.map(|(word, _)| word.to_owned()));
        assert_eq!(words("Initial"), health_check::INITIAL.map(|(word, _)| word.to_owned()));
        assert_eq!(words("EndpointType"), endpoint::KINDS.map(|(word, _)| word.to_owned()));
    }

    fn properties(table: &Value) -> BTreeSet<String> {
        table["properties"].as_object().unwrap().keys().cloned().collect()
    }

    /// A documented enum is a list of constants.
    fn enum_words(schema: &Value) -> Vec<String> {
        let word = |value: &Value| value["const"].as_str().or(value["enum"][0].as_str()).unwrap().to_owned();
        schema["oneOf"].as_array().unwrap().iter().map(word).collect()
    }
}
