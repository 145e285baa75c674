//! What the kernel knows about interfaces, neighbours and routes, by netlink. Reads, and asks the kernel to resolve.
//!
//! A picture of interfaces and neighbours is kept from what the kernel reports and drawn anew now and then; routes are asked for
//! one by one, because only the kernel knows its rules, and kept until something could have changed them.

#![expect(clippy::wildcard_enum_match_arm, reason = "the kernel's attributes are many and grow; we read a few")]

mod link;
mod neighbour;
mod own;
mod picture;
mod route;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    time::Duration,
};

use futures_util::{
    FutureExt as _, StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};
use ga_common::{abi::entry::Hop, wire::vlan::Tags};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    neighbour::{NeighbourFlags, NeighbourState},
};
use rtnetlink::{Handle, MulticastGroup};
use tokio::time::sleep;

pub use link::{Exit, Interface, MAX_TAGS, Tag, Vlan, XdpState, exit};

use self::{
    neighbour::{Asking, Key},
    picture::{News, Picture},
    route::Routes,
};

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

/// How to get to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By this next hop.
    Known(Hop),
    /// Out of the interface with this index, but the neighbour there is not known or does not answer.
    Through(u32),
    /// There is no route.
    Nowhere,
}

/// Neighbours that the kernel is asked to resolve in one go.
const RESOLVED_AT_ONCE: usize = 256;
/// Requests about neighbours that are on their way at once.
const AT_ONCE: usize = 32;
/// How long to wait before the kernel's reports are asked for again.
const DEAF: Duration = Duration::from_secs(1);

type Report = NetlinkMessage<RouteNetlinkMessage>;

/// A connection to the kernel.
pub struct Net {
    handle: Handle,
    reports: BoxStream<'static, Report>,
    picture: Picture,
    /// The picture was drawn, and no report was lost since.
    whole: bool,
    /// Something came that was not looked at yet.
    news: bool,
    routes: Routes,
    in_use: BTreeSet<Key>,
    asking: Asking,
    /// The last neighbour that the kernel was asked to resolve: the next ones come after it.
    resolved: Option<Key>,
}

impl Net {
    /// Connects; must be called in a tokio runtime.
    pub fn connect() -> Result<Self, Error> {
        let (connection, handle, _no_reports) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self {
            handle,
            reports: listen()?,
            picture: Picture::default(),
            whole: false,
            news: true,
            routes: Routes::default(),
            in_use: BTreeSet::new(),
            asking: Asking::default(),
            resolved: None,
        })
    }

    /// Waits for a change of interfaces, neighbours or routes that could matter.
    pub async fn changed(&mut self) {
        while !self.news {
            match self.reports.next().await {
                Some(report) => self.take_note(&report),
                None => self.listen_again().await,
            }
        }
    }

    /// Whether something changed that [`ways`](Self::ways) was not asked about yet.
    pub fn has_news(&mut self) -> bool {
        self.catch_up();
        self.news || !self.whole || self.routes.are_doubtful()
    }

    async fn listen_again(&mut self) {
        (self.whole, self.news) = (false, true);
        sleep(DEAF).await;
        match listen() {
            Ok(reports) => self.reports = reports,
            Err(error) => tracing::error!("the kernel's reports cannot be heard, so changes are seen late: {error}"),
        }
    }

    /// Takes note of what was reported already.
    fn catch_up(&mut self) {
        while let Some(Some(report)) = self.reports.next().now_or_never() {
            self.take_note(&report);
        }
    }

    fn take_note(&mut self, report: &Report) {
        let message = match &report.payload {
            NetlinkPayload::InnerMessage(message) => message,
            NetlinkPayload::Overrun(_) => {
                (self.whole, self.news) = (false, true);
                return;
            }
            _ => return,
        };
        match message {
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => self.news |= self.routes.doubt(route),
            RouteNetlinkMessage::NewRule(_) | RouteNetlinkMessage::DelRule(_) => {
                self.routes.doubt_all();
                self.news = true;
            }
            other => {
                let news = self.picture.note(other);
                self.take_news(news);
            }
        }
    }

    /// Routes over a link that goes away or comes back are not always reported.
    fn take_news(&mut self, news: News) {
        if news == News::Link {
            self.routes.doubt_all();
        }
        self.news |= news != News::None;
    }

    /// Looks at everything again, whatever was reported: some routes, and all interfaces and neighbours.
    pub async fn review(&mut self) -> Result<(), Error> {
        self.routes.review();
        self.draw().await
    }

    async fn draw(&mut self) -> Result<(), Error> {
        let drawn = Picture { interfaces: self.all_interfaces().await?, neighbours: self.all_neighbours().await? };
        let news = self.picture.compare(&drawn);
        self.picture = drawn;
        self.whole = true;
        self.take_news(news);
        Ok(())
    }

    async fn all_interfaces(&self) -> Result<BTreeMap<u32, Interface>, Error> {
        let mut links = self.handle.link().get().execute();
        let mut interfaces = BTreeMap::new();
        while let Some(message) = links.try_next().await? {
            interfaces.extend(link::interface(&message).map(|interface| (interface.ifindex, interface)));
        }
        Ok(interfaces)
    }

    async fn all_neighbours(&self) -> Result<BTreeMap<Key, neighbour::Neighbour>, Error> {
        let mut dump = self.handle.neighbours().get().execute();
        let mut neighbours = BTreeMap::new();
        while let Some(message) = dump.try_next().await? {
            neighbours.extend(neighbour::neighbour(&message));
        }
        Ok(neighbours)
    }

    /// All interfaces by name, as they are now.
    pub async fn interfaces(&self) -> Result<BTreeMap<String, Interface>, Error> {
        let all = self.all_interfaces().await?;
        Ok(all.into_values().map(|interface| (interface.name.clone(), interface)).collect())
    }

    /// One interface, as it is now; none when there is none of that name.
    pub async fn interface(&self, name: &str) -> Result<Option<Interface>, Error> {
        let mut links = self.handle.link().get().match_name(name.to_owned()).execute();
        match links.try_next().await {
            Ok(message) => Ok(message.as_ref().and_then(link::interface)),
            Err(rtnetlink::Error::NetlinkError(error)) if is_absent(&error.to_io()) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// An interface of the picture, by its index.
    pub fn known_interface(&self, ifindex: u32) -> Option<&Interface> {
        self.picture.interfaces.get(&ifindex)
    }

    /// The MTU of every way out: interfaces that are no VLANs, and VLANs on them.
    pub fn mtus(&self) -> BTreeMap<(u32, Tags), u32> {
        let mtu = |interface: &Interface| {
            let exit = exit(&self.picture.interfaces, interface.ifindex)?;
            Some(((exit.ifindex, exit.packed()), interface.mtu?))
        };
        self.picture.interfaces.values().filter_map(mtu).collect()
    }

    /// How to get to each of `addresses`. The kernel is asked to resolve neighbours that are not known; what comes of it is a
    /// change.
    pub async fn ways(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<BTreeMap<IpAddr, Way>, Error> {
        self.catch_up();
        self.news = false;
        if !self.whole {
            self.draw().await?;
            self.news = false;
        }
        self.routes.ask(&self.handle, addresses).await;
        self.in_use.clear();
        let mut ways = BTreeMap::new();
        for &address in addresses {
            let way = match self.routes.of(address) {
                None => Way::Nowhere,
                Some(route) => {
                    self.in_use.insert((route.ifindex, route.via));
                    self.picture.way(route)
                }
            };
            ways.insert(address, way);
        }
        self.resolve_some().await;
        // Doubtful routes that are left are asked for in the next go.
        self.news |= self.routes.are_doubtful();
        Ok(ways)
    }

    /// Whether a router is between us and `address`, as far as the way was asked for.
    pub fn is_off_link(&self, address: IpAddr) -> bool {
        self.routes.of(address).is_some_and(|route| route.via != address)
    }

    /// Neighbours in use that are not known, some at a time in turn.
    async fn resolve_some(&mut self) {
        let missing = |key: &&Key| {
            let carries = self.picture.interfaces.get(&key.0).is_some_and(|interface| interface.carries);
            carries && self.picture.neighbours.get(*key).is_none_or(|known| known.mac.is_none() && !known.is_sought())
        };
        let some = neighbour::turn(&self.in_use, self.resolved, RESOLVED_AT_ONCE, missing);
        self.resolved = some.last().copied().or(self.resolved);
        self.tell(&some, NeighbourState::None, NeighbourFlags::Use).await;
    }

    /// Asks some of the neighbours in use whether they are still there, and has those sought anew that did not answer since they
    /// were asked last.
    pub async fn ask_neighbours(&mut self) {
        self.catch_up();
        let round = self.asking.round(&self.in_use, &self.picture.neighbours);
        self.tell(&round.seek, NeighbourState::Failed, NeighbourFlags::empty()).await;
        self.tell(&round.seek, NeighbourState::None, NeighbourFlags::Use).await;
        self.tell(&round.ask, NeighbourState::Probe, NeighbourFlags::empty()).await;
    }

    /// Gives neighbours a state, or uses them; what the kernel does not want is logged only, because it is tried again.
    async fn tell(&self, neighbours: &[Key], state: NeighbourState, flags: NeighbourFlags) {
        let tell = |&(ifindex, address): &Key| {
            let is_router = self.picture.neighbours.get(&(ifindex, address)).is_some_and(|neighbour| neighbour.is_router);
            let flags = if is_router { flags | NeighbourFlags::Router } else { flags };
            let request = self.handle.neighbours().add(ifindex, address).state(state).flags(flags).replace();
            async move {
                if let Err(error) = request.execute().await {
                    tracing::debug!(%address, ifindex, ?state, "the kernel does not do it: {error}");
                }
            }
        };
        stream::iter(neighbours).map(tell).buffer_unordered(AT_ONCE).collect::<()>().await;
    }
}

fn is_absent(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

/// Reports of the kernel, on a socket of their own: an answer is not lost among them.
fn listen() -> Result<BoxStream<'static, Report>, Error> {
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Neigh,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
        MulticastGroup::Ipv4Rule,
        MulticastGroup::Ipv6Rule,
    ];
    let (connection, _no_requests, messages) = rtnetlink::new_multicast_connection(&groups)?;
    tokio::spawn(connection);
    Ok(messages.map(|(message, _from)| message).boxed())
}
