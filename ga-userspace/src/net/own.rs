//! Addresses that this host answers to although no interface has them: one route of type `local` each, marked as ours.
//!
//! The egress addresses of an instance are routed to this host, and the kernel program takes what belongs to a flow. Probes leave
//! with the same addresses from the host's own sockets, whose answers only a local address gets.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use futures_util::TryStreamExt as _;
use netlink_packet_route::{
    AddressFamily,
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use rtnetlink::{Handle, RouteMessageBuilder};

use super::{Error, Net};

/// Marks our routes: of the numbers that the kernel leaves to routing daemons, one that none of them uses.
const OURS: RouteProtocol = RouteProtocol::Other(103);
/// The table that the kernel keeps local addresses in: `RT_TABLE_LOCAL` of rtnetlink(7).
const TABLE_LOCAL: u8 = 255;
/// EEXIST of errno(3).
const EXISTS: i32 = -17;

impl Net {
    /// Owns exactly these addresses from now on, besides those of the interfaces; who could not be owned, and why.
    pub async fn own(&mut self, wanted: &BTreeSet<IpAddr>) -> BTreeMap<IpAddr, Error> {
        let mut failed = BTreeMap::new();
        let owned = match owned(&self.handle).await {
            Ok(owned) => owned,
            Err(error) => {
                tracing::error!("local routes cannot be listed: {error}");
                BTreeMap::new()
            }
        };
        for (address, message) in &owned {
            if !wanted.contains(address)
                && let Err(error) = self.handle.route().del(message.clone()).execute().await
            {
                tracing::error!(%address, "a local route cannot be removed: {error}");
            }
        }
        for address in wanted.iter().filter(|address| !owned.contains_key(*address)) {
            if let Err(error) = add(&self.handle, *address).await {
                failed.insert(*address, error);
            }
        }
        failed
    }

    /// Gives all of them back.
    pub async fn disown_all() -> Result<(), Error> {
        let mut net = Self::connect()?;
        let wanted = BTreeSet::new();
        net.own(&wanted).await;
        Ok(())
    }
}

/// Our routes, by address.
async fn owned(handle: &Handle) -> Result<BTreeMap<IpAddr, RouteMessage>, Error> {
    let mut owned = BTreeMap::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        message.header.table = TABLE_LOCAL;
        message.header.protocol = OURS;
        let mut routes = handle.route().get(message).execute();
        while let Some(route) = routes.try_next().await? {
            if route.header.protocol != OURS || route.header.kind != RouteType::Local {
                continue;
            }
            let address = route.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(v4)) => Some(IpAddr::from(*v4)),
                RouteAttribute::Destination(RouteAddress::Inet6(v6)) => Some(IpAddr::from(*v6)),
                _ => None,
            });
            owned.extend(address.map(|address| (address, route)));
        }
    }
    Ok(owned)
}

async fn add(handle: &Handle, address: IpAddr) -> Result<(), Error> {
    if is_local(handle, address).await {
        return Ok(());
    }
    let mut links = handle.link().get().match_name("lo".to_owned()).execute();
    let index = links.try_next().await?.map_or(1, |link| link.header.index);
    let length = if address.is_ipv4() { 32 } else { 128 };
    let Ok(route) = RouteMessageBuilder::<IpAddr>::new().destination_prefix(address, length) else { return Ok(()) };
    let scope = if address.is_ipv4() { RouteScope::Host } else { RouteScope::Universe };
    let route =
        route.output_interface(index).table_id(TABLE_LOCAL.into()).kind(RouteType::Local).scope(scope).protocol(OURS).build();
    match handle.route().add(route).execute().await {
        Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == EXISTS => Ok(()),
        result => Ok(result?),
    }
}

/// Whether an interface has the address already.
async fn is_local(handle: &Handle, address: IpAddr) -> bool {
    let length = if address.is_ipv4() { 32 } else { 128 };
    let Ok(question) = RouteMessageBuilder::<IpAddr>::new().destination_prefix(address, length) else { return false };
    let mut routes = handle.route().get(question.build()).execute();
    matches!(routes.try_next().await, Ok(Some(answer)) if answer.header.kind == RouteType::Local)
}
