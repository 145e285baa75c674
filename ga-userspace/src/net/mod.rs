//! What the kernel knows about interfaces, neighbours and routes, by netlink. Reads only, and asks the kernel to resolve.

#![expect(clippy::wildcard_enum_match_arm, reason = "the kernel's attributes are many and grow; we read a few")]

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::{StreamExt as _, TryStreamExt as _};
use ga_common::abi::entry::Hop;
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage, LinkXdp, XdpAttached},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute},
};
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder};
use tokio::sync::mpsc;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No netlink socket.
    #[error("netlink socket: {0}")]
    Socket(#[from] io::Error),
    /// The kernel said no.
    #[error("netlink: {0}")]
    Netlink(#[from] rtnetlink::Error),
}

/// A program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpState {
    /// Its kernel id.
    pub program: u32,
    /// Whether the driver runs it.
    pub native: bool,
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// Its MAC address; zero where it has none.
    pub mac: [u8; 6],
    /// What runs on it.
    pub xdp: Option<XdpState>,
}

/// A connection to the kernel.
#[derive(Debug)]
pub struct Net {
    handle: Handle,
    changes: mpsc::Receiver<()>,
    /// Routes that were asked for; dropped whenever a link or a route changes.
    routes: BTreeMap<IpAddr, (u32, IpAddr)>,
    routes_changed: Arc<AtomicBool>,
}

impl Net {
    /// Connects; must be called in a tokio runtime.
    pub fn connect() -> Result<Self, Error> {
        let groups = [MulticastGroup::Link, MulticastGroup::Neigh, MulticastGroup::Ipv4Route, MulticastGroup::Ipv6Route];
        let (connection, handle, mut messages) = rtnetlink::new_multicast_connection(&groups)?;
        tokio::spawn(connection);
        let (tell, changes) = mpsc::channel(1);
        let routes_changed = Arc::new(AtomicBool::new(false));
        let note = Arc::clone(&routes_changed);
        tokio::spawn(async move {
            while let Some((message, _)) = messages.next().await {
                let is_neighbour = matches!(
                    message.payload,
                    NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(_) | RouteNetlinkMessage::DelNeighbour(_))
                );
                if !is_neighbour {
                    note.store(true, Ordering::Release);
                }
                // One pending note is enough: whoever reads it looks at everything.
                if let Err(mpsc::error::TrySendError::Closed(())) = tell.try_send(()) {
                    break;
                }
            }
        });
        Ok(Self { handle, changes, routes: BTreeMap::new(), routes_changed })
    }

    /// Waits for a change of links, neighbours or routes.
    pub async fn changed(&mut self) {
        if self.changes.recv().await.is_none() {
            // The connection is gone; whoever waits is served by the periodic look.
            std::future::pending::<()>().await;
        }
    }

    /// All interfaces by name.
    pub async fn interfaces(&self) -> Result<BTreeMap<String, Interface>, Error> {
        let mut links = self.handle.link().get().execute();
        let mut interfaces = BTreeMap::new();
        while let Some(link) = links.try_next().await? {
            let interface = interface(link);
            interfaces.insert(interface.name.clone(), interface);
        }
        Ok(interfaces)
    }

    /// The next hop of each of `addresses` that has one; the kernel is asked to resolve the neighbours of the others.
    pub async fn next_hops(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<BTreeMap<IpAddr, Hop>, Error> {
        let macs: BTreeMap<u32, [u8; 6]> =
            self.interfaces().await?.into_values().map(|interface| (interface.ifindex, interface.mac)).collect();
        let mut neighbours = BTreeMap::new();
        let mut dump = self.handle.neighbours().get().execute();
        while let Some(message) = dump.try_next().await? {
            if let Some((key, mac)) = resolved(&message) {
                neighbours.insert(key, mac);
            }
        }
        if self.routes_changed.swap(false, Ordering::AcqRel) {
            self.routes.clear();
        }
        let mut hops = BTreeMap::new();
        for &address in addresses {
            let (ifindex, via) = match self.routes.get(&address) {
                Some(&route) => route,
                None => {
                    // No route is not an error: the endpoint is unreachable for now.
                    let Ok(Some(route)) = self.route(address).await else { continue };
                    self.routes.insert(address, route);
                    route
                }
            };
            match (neighbours.get(&(ifindex, via)), macs.get(&ifindex)) {
                (Some(&dst_mac), Some(&src_mac)) => {
                    hops.insert(address, Hop { dst_mac, src_mac, ifindex, tags: 0 });
                }
                _ => self.resolve(ifindex, via).await,
            }
        }
        Ok(hops)
    }

    /// Interface and gateway (or the address itself, when it is on the link) towards `address`.
    async fn route(&self, address: IpAddr) -> Result<Option<(u32, IpAddr)>, Error> {
        let length = if address.is_ipv4() { 32 } else { 128 };
        let builder = RouteMessageBuilder::<IpAddr>::new();
        let Ok(builder) = builder.destination_prefix(address, length) else { return Ok(None) };
        let mut routes = Box::pin(self.handle.route().get(builder.build()).execute());
        let Some(route) = routes.try_next().await? else { return Ok(None) };
        let (mut ifindex, mut via) = (None, address);
        for attribute in route.attributes {
            match attribute {
                RouteAttribute::Oif(index) => ifindex = Some(index),
                RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => via = gateway.into(),
                RouteAttribute::Gateway(RouteAddress::Inet6(gateway)) => via = gateway.into(),
                _ => {}
            }
        }
        Ok(ifindex.map(|index| (index, via)))
    }

    /// Asks the kernel to find a neighbour's MAC address (`NTF_USE`); what comes of it is a change.
    async fn resolve(&self, ifindex: u32, address: IpAddr) {
        let request = self.handle.neighbours().add(ifindex, address).state(NeighbourState::None).flags(NeighbourFlags::Use);
        if let Err(error) = request.replace().execute().await {
            tracing::debug!(%address, ifindex, "the kernel does not resolve: {error}");
        }
    }
}

fn interface(link: LinkMessage) -> Interface {
    let mut interface = Interface { name: String::new(), ifindex: link.header.index, mac: [0; 6], xdp: None };
    for attribute in link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => interface.name = name,
            LinkAttribute::Address(mac) => interface.mac = mac.as_slice().try_into().unwrap_or_default(),
            LinkAttribute::Xdp(xdp) => interface.xdp = xdp_state(&xdp),
            _ => {}
        }
    }
    interface
}

fn xdp_state(attributes: &[LinkXdp]) -> Option<XdpState> {
    let program = attributes.iter().find_map(|xdp| if let LinkXdp::ProgId(id) = xdp { Some(*id) } else { None })?;
    let native = attributes.iter().any(|xdp| matches!(xdp, LinkXdp::Attached(XdpAttached::Driver | XdpAttached::Hardware)));
    (program != 0).then_some(XdpState { program, native })
}

/// Interface, address and MAC of a neighbour that packets may be sent to.
fn resolved(message: &NeighbourMessage) -> Option<((u32, IpAddr), [u8; 6])> {
    if matches!(message.header.state, NeighbourState::Failed | NeighbourState::Incomplete | NeighbourState::None) {
        return None;
    }
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => address = Some(IpAddr::from(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => address = Some(IpAddr::from(*v6)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
            _ => {}
        }
    }
    Some(((message.header.ifindex, address?), mac?))
}
