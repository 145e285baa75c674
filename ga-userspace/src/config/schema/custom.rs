//! The keys of custom routing.

use schemars::JsonSchema;
use serde::Serialize;

use super::{PreserveClientIp, default_name, empty, preserve_none};

/// Subnets, and the ports of their hosts.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
pub struct CustomGroup {
    /// Its name, unique in the listener; the second group without one is `default-2`.
    #[schemars(default = "default_name", regex(pattern = r"^[A-Za-z][A-Za-z0-9._-]{0,127}$"))]
    pub name: String,
    /// Free text of at most 200 characters that is not a link.
    #[schemars(default = "empty", length(max = 200))]
    pub description: String,
    /// Where the hosts are; a label.
    #[schemars(regex(pattern = r"^[A-Za-z0-9._-]{1,64}$"))]
    pub region: String,
    /// Ports of the hosts, at most `limits.custom_destinations_per_group`. Every port of every address has a listener port.
    #[schemars(length(min = 1, max = 64))]
    pub destinations: Vec<Destination>,
    /// Whether hosts see the client's address. `none`: they see the egress address.
    #[schemars(default = "preserve_none")]
    pub preserve_client_ip: PreserveClientIp,
    /// Subnets, at most `limits.custom_endpoints_per_group`.
    #[schemars(length(min = 1, max = 20))]
    pub endpoint: Vec<CustomEndpoint>,
}

/// Ports of hosts behind custom routing.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
pub struct Destination {
    /// A port or a range: `81~85`.
    #[schemars(regex(pattern = r"^\s*[0-9]{1,5}\s*([~-]\s*[0-9]{1,5}\s*)?$"))]
    pub ports: String,
    /// What is forwarded there. Both use one listener port.
    #[schemars(length(min = 1, max = 2))]
    pub protocols: Vec<TransportProtocol>,
}

/// A transport protocol.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TransportProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A subnet behind custom routing.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
pub struct CustomEndpoint {
    /// Always `vswitch`.
    #[schemars(default = "vswitch")]
    pub r#type: CustomEndpointType,
    /// An IPv4 network, /17 to /28.
    pub cidr: String,
    /// Which hosts packets may reach.
    #[schemars(default = "deny_all")]
    pub policy: Policy,
    /// The hosts that `allow_custom` allows, at most `limits.custom_policy_addresses_per_endpoint`.
    #[schemars(default = "nobody")]
    pub allow: Vec<Allowed>,
}

/// Type of an endpoint of custom routing.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CustomEndpointType {
    /// A subnet.
    Vswitch,
}

/// Which hosts packets may reach.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// None.
    DenyAll,
    /// All.
    AllowAll,
    /// Those of `allow`.
    AllowCustom,
}

/// A host that packets may reach.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
pub struct Allowed {
    /// An address of the subnet.
    pub address: String,
    /// Ports of the group's destinations: `81~82,90`; without the key all of them. At most
    /// `limits.custom_policy_ranges_per_address` items.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "String")]
    pub ports: Option<String>,
}

fn vswitch() -> CustomEndpointType {
    CustomEndpointType::Vswitch
}

fn deny_all() -> Policy {
    Policy::DenyAll
}

fn nobody() -> Vec<Allowed> {
    Vec::new()
}
