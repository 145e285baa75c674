//! Who is probed, how, and for whom: what the intent says of health. Pure.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use super::{Orders, preface::Preface};
use crate::model::{EndpointName, HealthCheck, HealthProtocol, Instance, Intent, Listener, Name};

/// One check. The same one for several listeners is made once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Check {
    /// Whose egress address the probes leave with.
    pub instance: Name,
    /// That address.
    pub source: IpAddr,
    /// Where they go.
    pub target: SocketAddr,
    /// What they ask, how often, and how the answers are judged; `host` is known, `port` is part of the target.
    pub how: HealthCheck,
    /// What they begin with.
    pub preface: Option<Preface>,
}

/// All checks, and which endpoint is judged by which.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    /// In order, each once; a check's number is its place here.
    pub checks: Vec<Arc<Check>>,
    /// The number of an endpoint's check.
    pub endpoints: BTreeMap<EndpointName, usize>,
    /// The orders of groups that probes can change, as they are before the first.
    pub orders: Orders,
}

impl Roster {
    /// Every endpoint of every group that has a health check, whatever its weight.
    pub fn of(intent: &Intent) -> Self {
        let mut by_endpoint = BTreeMap::new();
        for (instance, listener) in intent.listeners() {
            by_endpoint.extend(of_listener(instance, listener));
        }
        let mut numbers: BTreeMap<Arc<Check>, usize> = by_endpoint.values().map(|check| (Arc::clone(check), 0)).collect();
        for (number, value) in numbers.values_mut().enumerate() {
            *value = number;
        }
        let endpoints = by_endpoint.into_iter().map(|(name, check)| (name, numbers[&check])).collect();
        Self { checks: numbers.into_keys().collect(), endpoints, orders: Orders::of(intent) }
    }

    /// Nobody is probed.
    pub fn is_empty(&self) -> bool {
        self.checks.is_empty()
    }

    /// Every address that probes leave with.
    pub fn sources(&self) -> std::collections::BTreeSet<IpAddr> {
        self.checks.iter().map(|check| check.source).collect()
    }

    /// Probes a second when all is well.
    pub fn rate(&self) -> f64 {
        self.checks.iter().map(|check| 1.0 / check.how.interval.max(Duration::from_millis(1)).as_secs_f64()).sum()
    }
}

fn of_listener<'i>(instance: &'i Instance, listener: &'i Listener) -> impl Iterator<Item = (EndpointName, Arc<Check>)> + use<'i> {
    let first = listener.ports.iter().next();
    let groups = listener.groups.iter().filter_map(move |group| Some((group, group.health_check.as_ref()?)));
    groups.flat_map(move |(group, how)| {
        let mapped = first.map(|port| group.port_mapping.endpoint_port(port));
        group.endpoints.iter().filter_map(move |endpoint| {
            let target = SocketAddr::new(endpoint.address, how.port.or(endpoint.port).or(mapped)?);
            let mut egress = instance.egress_ips.iter().copied();
            let source = egress.find(|address| address.is_ipv4() == target.is_ipv4())?;
            let host = how.host.clone().or_else(|| host(how.protocol, target));
            let how = HealthCheck { port: None, host, ..how.clone() };
            let preface = Preface::of(group.client_ip, how.protocol);
            let check = Check { instance: instance.id.clone(), source, target, how, preface };
            Some((EndpointName::new(instance, listener, group, endpoint), Arc::new(check)))
        })
    })
}

/// What the `Host` of a probe is where the file says nothing: the address, with the port when it is not the scheme's.
fn host(protocol: HealthProtocol, target: SocketAddr) -> Option<String> {
    let usual = match protocol {
        HealthProtocol::Tcp => return None,
        HealthProtocol::Http => 80,
        HealthProtocol::Https => 443,
    };
    Some(match target {
        target if target.port() != usual => target.to_string(),
        SocketAddr::V4(target) => target.ip().to_string(),
        SocketAddr::V6(target) => format!("[{}]", target.ip()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_names_the_port_unless_it_is_the_usual_one() {
        for (protocol, target, expected) in [
            (HealthProtocol::Http, "10.0.0.1:80", "10.0.0.1"),
            (HealthProtocol::Http, "10.0.0.1:443", "10.0.0.1:443"),
            (HealthProtocol::Https, "[fd00::1]:443", "[fd00::1]"),
            (HealthProtocol::Https, "[fd00::1]:80", "[fd00::1]:80"),
        ] {
            let target = target.parse().expect("an address with a port");
            assert_eq!(host(protocol, target).as_deref(), Some(expected));
        }
        assert_eq!(host(HealthProtocol::Tcp, "10.0.0.1:80".parse().expect("an address with a port")), None);
    }
}
