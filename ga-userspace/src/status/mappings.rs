//! The mapping of custom routing listeners, asked for both ways and page by page (specification §1.17).

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// Rows of a page unless somebody says otherwise.
pub const PAGE_SIZE: u32 = 10;
/// Rows that a page may have.
pub const MAX_PAGE_SIZE: u32 = 50;

/// Which rows. What is not said does not narrow them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MappingQuery {
    /// Name of a listener, or `instance/listener`.
    pub listener: Option<String>,
    /// Name of an endpoint group.
    pub group: Option<String>,
    /// A subnet.
    pub endpoint: Option<Ipv4Net>,
    /// A host.
    pub ip: Option<Ipv4Addr>,
    /// A port of hosts.
    pub port: Option<u16>,
    /// From 1; 0 is the first too.
    pub page_number: u32,
    /// 1 to [`MAX_PAGE_SIZE`]; 0 is [`PAGE_SIZE`].
    pub page_size: u32,
}

/// A page of rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MappingList {
    /// Version of this format.
    pub schema_version: u32,
    /// Rows of all pages.
    pub total_count: u64,
    /// From 1.
    pub page_number: u32,
    /// Rows of a page.
    pub page_size: u32,
    /// By instance, listener and accelerator port.
    pub port_mappings: Vec<Mapping>,
}

/// One row: a port and where it leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// The instance.
    pub accelerator_id: String,
    /// The listener.
    pub listener_id: String,
    /// The endpoint group.
    pub endpoint_group_id: String,
    /// Its region.
    pub endpoint_group_region: String,
    /// `instance/listener/group/vswitch/address` of the subnet.
    pub endpoint_id: String,
    /// The subnet.
    pub vswitch: String,
    /// The listener port.
    pub accelerator_port: u16,
    /// `TCP` and `UDP`.
    pub protocols: Vec<String>,
    /// Where it leads.
    pub destination_socket_address: SocketAddress,
    /// `allow` or `deny`.
    pub destination_traffic_state: String,
}

/// A host and its port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketAddress {
    /// The host.
    pub ip_address: Ipv4Addr,
    /// Its port.
    pub port: u16,
}
