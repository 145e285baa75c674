//! Endpoint groups and endpoints (specification §1.4, §1.7, §1.11, §1.16).

use std::{fmt, net::IpAddr, time::Duration};

use super::{Backend, Circuit, HealthCheck, Name, NamedEndpoint, Part, PortMapping, Target};

/// 0–255, 255 by default; the share of an endpoint is its weight over the sum of the group's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weight(pub u8);

impl Default for Weight {
    fn default() -> Self {
        Self(255)
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// 0–100 %, 100 by default: the part that a group takes of the traffic that reaches it in the order of priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TrafficRatio(pub u8);

impl Default for TrafficRatio {
    fn default() -> Self {
        Self(100)
    }
}

impl fmt::Display for TrafficRatio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What an endpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndpointKind {
    /// `ip`: a public address off the cloud.
    Ip,
    /// `public_ip`: a public address of the cloud; the same to a self-hosted edge.
    PublicIp,
    /// `private_ip`: any address, treated as private.
    PrivateIp,
    /// `ecs`: a host, by address or by a name of the inventory.
    Ecs,
    /// `eni`: a network interface, by address or by a name of the inventory.
    Eni,
    /// `clb`: a classic load balancer, or a server group of this edge.
    Clb,
    /// `alb`: a load balancer for HTTP.
    Alb,
    /// `nlb`: a load balancer for TCP and UDP.
    Nlb,
    /// `oss`: an object store.
    Oss,
    /// `domain`: all addresses of a domain.
    Domain,
    /// `vswitch`: the hosts of a subnet, of custom routing only; its address is the lowest.
    Vswitch,
}

impl EndpointKind {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Ip,
        Self::PublicIp,
        Self::PrivateIp,
        Self::Ecs,
        Self::Eni,
        Self::Clb,
        Self::Alb,
        Self::Nlb,
        Self::Oss,
        Self::Domain,
        Self::Vswitch,
    ];

    /// The TOML word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::PublicIp => "public_ip",
            Self::PrivateIp => "private_ip",
            Self::Ecs => "ecs",
            Self::Eni => "eni",
            Self::Clb => "clb",
            Self::Alb => "alb",
            Self::Nlb => "nlb",
            Self::Oss => "oss",
            Self::Domain => "domain",
            Self::Vswitch => "vswitch",
        }
    }
}

/// Where new flows may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// What it is.
    pub kind: EndpointKind,
    /// Where it is.
    pub address: IpAddr,
    /// The port that it serves, whatever the listener's; none for all but servers of a server group.
    pub port: Option<u16>,
    /// Its part of the traffic.
    pub weight: Weight,
    /// How much of the weight is its own: the rest is that of others that the same endpoint of the file stands for.
    pub part: Part,
    /// What it was found by; none when the file has its address.
    pub found_by: Option<Target>,
}

/// Which family the edge speaks to endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendIpVersion {
    /// IPv4 only.
    #[default]
    Ipv4,
    /// IPv6 only.
    Ipv6,
    /// The family of the client.
    Affinity,
}

/// What endpoints see of clients, and how their answers come back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClientIp {
    /// They see the egress address, and answer to it.
    #[default]
    Hidden,
    /// They are on a link of this edge, have the VIP too, and answer clients themselves.
    L2,
    /// They get packets within IP packets, have the VIP too, and answer clients themselves.
    Ipip,
    /// They answer to the client's address, and their routes lead to this edge.
    Gateway,
    /// A header of the PROXY protocol, version 1, in front of each TCP connection tells them.
    ProxyV1,
    /// The same with version 2.
    ProxyV2,
}

impl ClientIp {
    /// The TOML word of `return`; "none" where the address is hidden.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Hidden => "none",
            Self::L2 => "l2",
            Self::Ipip => "ipip",
            Self::Gateway => "gateway",
            Self::ProxyV1 => "proxy_v1",
            Self::ProxyV2 => "proxy_v2",
        }
    }

    /// Whether endpoints are told by the PROXY protocol, which the agent writes.
    pub const fn is_proxy(self) -> bool {
        matches!(self, Self::ProxyV1 | Self::ProxyV2)
    }

    /// Whether endpoints get the client's packets: they are of the client's family then.
    pub const fn is_kept(self) -> bool {
        matches!(self, Self::L2 | Self::Ipip | Self::Gateway)
    }

    /// Whether endpoints answer clients without this edge.
    pub const fn is_direct(self) -> bool {
        matches!(self, Self::L2 | Self::Ipip)
    }
}

/// Who reaches a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupKind {
    /// Everything that no forwarding rule applies to, and rules that name it.
    #[default]
    Default,
    /// Forwarding rules that name it.
    Virtual,
}

/// The endpoints of one region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointGroup {
    /// Its name, unique in the listener.
    pub name: Name,
    /// Who reaches it.
    pub kind: GroupKind,
    /// What the endpoints of HTTP and HTTPS listeners are spoken to with.
    pub backend: Backend,
    /// What they are asked at a time where the agent serves.
    pub circuit: Circuit,
    /// The region's label.
    pub region: String,
    /// Free text.
    pub description: String,
    /// How much of the traffic that reaches it the group takes.
    pub traffic_ratio: TrafficRatio,
    /// Latency to the region; `None` measures it.
    pub latency: Option<Duration>,
    /// How the endpoints are probed; `None` believes all of them to be healthy.
    pub health_check: Option<HealthCheck>,
    /// Family towards the endpoints.
    pub backend_ip_version: BackendIpVersion,
    /// Whether endpoints see the client's address, and how they answer then.
    pub client_ip: ClientIp,
    /// Listener port to endpoint port.
    pub port_mapping: PortMapping,
    /// Those whose address is known, in file order, each address and port once.
    pub endpoints: Vec<Endpoint>,
    /// Those whose addresses are found out, in file order. Together they are 1 to `limits.endpoints_per_group`.
    pub named: Vec<NamedEndpoint>,
}
