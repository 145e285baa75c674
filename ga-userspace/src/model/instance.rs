//! Instances: accelerated addresses, egress addresses and listeners (specification §1.1).

use std::net::IpAddr;

use super::{Listener, Name};

/// One accelerator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its id, unique in the file.
    pub id: Name,
    /// What clients reach; no address belongs to two instances.
    pub vips: Vec<IpAddr>,
    /// What endpoints see; no address belongs to two instances.
    pub egress_ips: Vec<IpAddr>,
    /// In file order.
    pub listeners: Vec<Listener>,
}
