//! Custom routing: a port leads to one port of one host, by arithmetic.

use super::{
    select::Addresses,
    tables::{Scratch, Tables},
};
use crate::{
    abi::{
        custom::{Found, Target},
        entry::{Address, Service, mapped},
        family::Family,
    },
    wire::frame::TCP,
};

/// Where `port`, in host order, leads by the sheet `number`.
#[inline(always)]
pub fn find<T: Tables + ?Sized>(tables: &T, number: u32, port: u32, protocol: u32) -> Found {
    let bit = if protocol == u32::from(TCP) { Target::TCP } else { Target::UDP };
    tables.mapping(number).map_or(Found::NOWHERE, |mapping| mapping.find(port as u16, bit))
}

/// What a packet to one of our addresses without a service asks of custom routing: the service, the endpoint and the host are in
/// its room then. False when its port leads nowhere.
#[inline(never)]
pub(super) fn serve<const K: usize, A: Addresses<K>, T: Tables>(tables: &T, address: Address, room: &mut Scratch<K>) -> bool {
    if A::FAMILY != Family::V4 || address.roles & Address::CUSTOM == 0 {
        return false;
    }
    let number = tables.egress(address.instance).map_or(0, |egress| egress.custom);
    let found = tables.leads(number, u16::from_be_bytes(room.key.port).into(), room.key.protocol.into());
    let Some(endpoint) = tables.endpoint(found.endpoint()) else { return false };
    if number == 0 || found == Found::NOWHERE || endpoint.flags == 0 {
        return false;
    }
    room.service = Service { listener: endpoint.listener, endpoint_port: found.port() };
    (room.endpoint, room.target, room.is_denied) = (found.endpoint(), mapped(found.host()), found.is_denied().into());
    true
}
