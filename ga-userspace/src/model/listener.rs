//! Listeners (specification §1.2, §1.3).

use std::time::Duration;

use super::{Block, ClientIp, CustomGroup, EndpointGroup, ListenerAcl, Name, PortMapping, Ports};

/// What clients speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// The TOML word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// IANA protocol number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
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
    /// TCP 10–900 s (900), UDP 10–20 s (20).
    pub idle_timeout: Duration,
    /// New flows a second that are admitted; 0 is the automatic bound, which follows from the size of flow memory.
    pub max_new_flows_per_second: u32,
    /// Who may open flows; everybody without.
    pub acl: Option<ListenerAcl>,
    /// What happens to new flows when no endpoint is healthy.
    pub all_unhealthy: AllUnhealthy,
    /// Groups with a traffic ratio of 0 take over when all others fail (true).
    pub failover_to_zero_ratio: bool,
    /// The default endpoint groups, at least one, in file order; each is in a region of its own and has a name of its own. None of
    /// a custom routing listener.
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
