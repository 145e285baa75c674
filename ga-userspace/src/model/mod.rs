//! Validated nouns: what the operator wants, in a form in which wrong values cannot be built.
//!
//! Nothing here reads a clock, a file or a socket, and nothing here knows TOML.

mod acl;
mod bounds;
mod custom;
mod endpoint;
mod full_name;
mod health_check;
mod http;
mod instance;
mod inventory;
mod limits;
mod listener;
mod name;
mod node;
mod pool;
mod port;
mod rule;
mod target;
mod template;
mod tls;
mod unicast;

pub use acl::{Acl, AclEntry, AclMode, ListenerAcl};
pub use bounds::{Circuit, MAX_CONNECTIONS, PROXY_CONNECTIONS};
pub use custom::{Allowed, Block, CustomGroup, Destination, Policy, Protocols, RESERVED_PORTS, Subnet, addresses, usable};
pub use endpoint::{BackendIpVersion, ClientIp, Endpoint, EndpointGroup, EndpointKind, GroupKind, TrafficRatio, Weight};
pub use full_name::{EndpointName, EndpointNameError, GroupName};
pub use health_check::{HEALTH_TIMEOUT, HealthCheck, HealthProtocol, PROBE_PORTS, StatusRange};
pub use http::{Backend, BackendTls, ForwardedHeaders, Http, HttpLimits, HttpVersion, Timeouts, Xff};
pub use instance::Instance;
pub use inventory::{Hosts, Inventory};
pub use limits::{Limits, NameRule, Profile};
pub use listener::{Affinity, AllUnhealthy, Listener, Protocol};
pub use name::{Name, NameError};
pub use node::{AccessLog, LogFormat, Node, Seed, XdpMode};
pub use pool::{Pool, PoolWeight, Server, ServerPlace};
pub use port::{Port, PortError, PortMapping, Ports};
pub use rule::{Action, Condition, FixedResponse, HeaderValue, Modifier, Pattern, Redirect, Rule};
pub use target::{NamedEndpoint, Part, Target};
pub use template::{MAX_CAPTURES, Piece, Template, TemplateError, Variable};
pub use tls::{Certificate, Tls, TlsPolicy};
pub use unicast::unusable;

/// Everything one file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// This host.
    pub node: Node,
    /// The limits in force when the file was checked.
    pub limits: Limits,
    /// Where names of hosts are looked up.
    pub inventory: Inventory,
    /// Server groups, in file order.
    pub pools: Vec<Pool>,
    /// In file order.
    pub instances: Vec<Instance>,
}

impl Intent {
    /// Every listener with its instance, in file order.
    pub fn listeners(&self) -> impl Iterator<Item = (&Instance, &Listener)> {
        self.instances.iter().flat_map(|instance| instance.listeners.iter().map(move |listener| (instance, listener)))
    }
}
