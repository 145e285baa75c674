//! Listeners (specification §1.2, §1.3).

use std::time::Duration;

use ipnet::IpNet;

use super::{
    Action, Block, ClientIp, CustomGroup, EndpointGroup, GroupKind, Http, ListenerAcl, Name, PortMapping, Ports, Rule, Tls,
};

/// What clients speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// HTTP over TCP.
    Http,
    /// HTTP over TLS over TCP.
    Https,
}

impl Protocol {
    /// The TOML word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The word of the transport protocol.
    pub const fn transport(self) -> &'static str {
        match self {
            Self::Tcp | Self::Http | Self::Https => "tcp",
            Self::Udp => "udp",
        }
    }

    /// IANA protocol number of the transport protocol.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp | Self::Http | Self::Https => 6,
            Self::Udp => 17,
        }
    }

    /// HTTP or HTTPS.
    pub const fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Https)
    }
}

/// Whether flows of one client go to one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Affinity {
    /// Each flow by its 5-tuple.
    #[default]
    None,
    /// All flows of one source address, whatever port or protocol.
    SourceIp,
}

/// What happens to new flows when no endpoint of any group is healthy (specification §1.7.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AllUnhealthy {
    /// They are refused: TCP by a RST, UDP by silence.
    #[default]
    FailClosed,
    /// They go to the group of the highest priority, by weight.
    FailOpen,
}

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its name, unique in the instance.
    pub name: Name,
    /// Free text.
    pub description: String,
    /// What clients speak.
    pub protocol: Protocol,
    /// Where clients connect.
    pub ports: Ports,
    /// Whether clients stick.
    pub affinity: Affinity,
    /// TCP 10–900 s (900), UDP 10–20 s (20), HTTP and HTTPS 1–60 s (15): between requests.
    pub idle_timeout: Duration,
    /// New flows a second that are admitted; 0 is the automatic bound, which follows from the size of flow memory.
    pub max_new_flows_per_second: u32,
    /// Connections of clients at a time where the agent serves (100,000).
    pub max_connections: u32,
    /// Who may open flows; everybody without.
    pub acl: Option<ListenerAcl>,
    /// What happens to new flows when no endpoint is healthy.
    pub all_unhealthy: AllUnhealthy,
    /// Groups with a traffic ratio of 0 take over when all others fail (true).
    pub failover_to_zero_ratio: bool,
    /// What clients of HTTP and HTTPS listeners may ask and endpoints get; none of others.
    pub http: Option<Http>,
    /// What HTTPS listeners show their clients; none of others.
    pub tls: Option<Tls>,
    /// Networks whose connections begin with a header of the PROXY protocol, which says who the client is.
    pub proxy_from: Vec<IpNet>,
    /// Rules of a TCP listener see the host of an HTTP request where a client does not speak TLS.
    pub http_sniff: bool,
    /// The forwarding rules, in the order in which they are tried. What no rule applies to goes to the default groups.
    pub rules: Vec<Rule>,
    /// The endpoint groups, at least one default one, in file order; each has a name of its own, and each default one is in a region
    /// of its own. None of a custom routing listener.
    pub groups: Vec<EndpointGroup>,
    /// The groups of a custom routing listener, in file order; none of any other listener.
    pub custom: Vec<CustomGroup>,
    /// Which ports of a custom routing listener lead where; none before they are given away, which is the agent's to do.
    pub blocks: Vec<Block>,
}

impl Listener {
    /// Whether its ports lead to hosts each of its own: nothing is balanced, and the destinations say which protocols.
    pub fn is_custom(&self) -> bool {
        !self.custom.is_empty()
    }

    /// The kernel only lets its packets in: the agent serves it.
    pub fn is_proxied(&self) -> bool {
        self.protocol.is_http() || !self.rules.is_empty() || !self.proxy_from.is_empty() || self.client_ip().is_proxy()
    }

    /// Who new requests or connections go to: the default groups, and then the groups of each rule that forwards, in the order of
    /// the rules.
    pub fn targets(&self) -> Vec<(Option<&Name>, Vec<&EndpointGroup>)> {
        let defaults = self.groups.iter().filter(|group| group.kind == GroupKind::Default).collect();
        let mut targets = vec![(None, defaults)];
        targets.extend(self.rules.iter().filter_map(|rule| {
            let Action::Forward(names) = &rule.action else { return None };
            Some((Some(&rule.name), self.groups.iter().filter(|group| names.contains(&group.name)).collect()))
        }));
        targets
    }

    /// Listener port to endpoint port: all groups of a listener map alike.
    pub fn port_mapping(&self) -> &PortMapping {
        static NONE: PortMapping = PortMapping::NONE;
        self.groups.first().map_or(&NONE, |group| &group.port_mapping)
    }

    /// What endpoints see of clients: all groups of a listener agree.
    pub fn client_ip(&self) -> ClientIp {
        self.groups.first().map_or(ClientIp::Hidden, |group| group.client_ip)
    }
}
