//! Addresses, egress addresses and services of an intent.

use std::{collections::BTreeMap, net::IpAddr};

use ga_common::abi::{
    entry::{Address, AddressKey, Egress, Service, ServiceKey},
    id::InstanceId,
    limits::MAX_EGRESS,
};

use super::{
    Family, PlanError, address_key,
    check::protocol_bit,
    identity,
    numbers::{Numbers, Sorted},
};
use crate::model::{Instance, Listener, Protocol};

/// Every address with its roles; one may have both.
pub(super) fn addresses(sorted: &Sorted<'_>, numbers: &Numbers) -> BTreeMap<AddressKey, Address> {
    let mut addresses: BTreeMap<AddressKey, Address> = BTreeMap::new();
    let mut add = |ip: IpAddr, roles: u8, protocols: u8, instance: InstanceId| {
        let address = addresses.entry(address_key(ip)).or_default();
        *address = Address { roles: address.roles | roles, protocols: address.protocols | protocols, instance };
    };
    for instance in &sorted.instances {
        let id = numbers.instances[&instance.id];
        let of_listener = |listener: &Listener| match protocol_bit(listener.protocol.number()) {
            _ if listener.is_custom() => Address::TCP | Address::UDP,
            bit if listener.speaks_http3() => (bit | Address::UDP) | (bit | Address::UDP) << 2,
            bit if listener.is_proxied() => bit | bit << 2,
            bit => bit,
        };
        let protocols = instance.listeners.iter().fold(0, |bits, listener| bits | of_listener(listener));
        let is_custom = instance.listeners.iter().any(Listener::is_custom);
        let roles = if is_custom { Address::VIP | Address::CUSTOM } else { Address::VIP };
        instance.vips.iter().for_each(|ip| add(*ip, roles, protocols, id));
        instance.egress_ips.iter().for_each(|ip| add(*ip, Address::EGRESS, 0, id));
    }
    addresses
}

/// What each instance's flows leave by, in the order of the addresses.
pub(super) fn egress(sorted: &Sorted<'_>, numbers: &Numbers) -> Result<BTreeMap<InstanceId, Egress>, PlanError> {
    sorted.instances.iter().map(|instance| Ok((numbers.instances[&instance.id], egress_of(instance)?))).collect()
}

fn egress_of(instance: &Instance) -> Result<Egress, PlanError> {
    let mut ips: Vec<_> = instance.egress_ips.iter().map(IpAddr::to_canonical).collect();
    ips.sort_unstable();
    ips.dedup();
    for family in Family::ALL {
        let value = ips.iter().filter(|ip| Family::of(**ip) == family).count() as u64;
        let limit = MAX_EGRESS as u64;
        if value > limit {
            return Err(PlanError::EgressAddresses { instance: instance.id.clone(), family, limit, value });
        }
    }
    let mut egress = Egress::default();
    for ip in ips {
        match ip {
            IpAddr::V4(v4) => {
                egress.v4[usize::from(egress.count4)] = v4.octets();
                egress.count4 += 1;
            }
            IpAddr::V6(v6) => {
                egress.v6[usize::from(egress.count6)] = v6.octets();
                egress.count6 += 1;
            }
        }
    }
    Ok(egress)
}

/// VIP × port × protocol of every listener.
pub(super) fn services(sorted: &Sorted<'_>, numbers: &Numbers) -> Result<BTreeMap<ServiceKey, Service>, PlanError> {
    let mut services = BTreeMap::new();
    let mut owners: BTreeMap<ServiceKey, String> = BTreeMap::new();
    // Of a custom routing listener no port has an entry of its own.
    for (instance, listener) in sorted.listeners.iter().filter(|(_, listener)| !listener.is_custom()) {
        let path = format!("{}/{}", instance.id, listener.name);
        let id = numbers.listeners[&identity::of_listener(instance.id.as_str(), listener.name.as_str())];
        for (vip, port, key) in keys(instance, listener) {
            let endpoint_port = match listener {
                _ if listener.is_proxied() => port.get(),
                _ if listener.client_ip().is_direct() => 0,
                _ => listener.port_mapping().endpoint_port(port),
            };
            services.insert(key, Service { listener: id, endpoint_port: endpoint_port.to_be_bytes() });
            if let Some(first) = owners.insert(key, path.clone()) {
                return Err(PlanError::ServiceTwice { vip, port, protocol: listener.protocol, first, second: path });
            }
        }
    }
    Ok(services)
}

fn keys<'a>(
    instance: &'a Instance,
    listener: &'a Listener,
) -> impl Iterator<Item = (IpAddr, crate::model::Port, ServiceKey)> + 'a {
    instance.vips.iter().flat_map(move |&vip| {
        listener.ports.iter().flat_map(move |port| {
            let udp = listener.speaks_http3().then_some(Protocol::Udp);
            [listener.protocol].into_iter().chain(udp).map(move |protocol| {
                let (port_word, protocol) = (port.get().to_be_bytes(), protocol.number());
                (vip, port, ServiceKey { addr: address_key(vip), port: port_word, protocol, pad: 0 })
            })
        })
    })
}
