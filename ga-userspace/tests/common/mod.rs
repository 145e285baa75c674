//! The proxy without the kernel's part: a file, planned as the agent plans it, served on this host's loopback addresses.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub, reason = "a test fails by panicking; not every test uses all of it")]

use ga::{
    config,
    health::Beliefs,
    plan::{self, Overrides, State},
    proxy::{Proxy, View},
};

/// What `text` has for the proxy. VIPs and egress addresses become 127.0.0.1, endpoints 10.0.0.N become 127.0.0.N.
pub fn view(text: &str, before: &View) -> View {
    let mut intent = config::parse("test.toml", text).unwrap_or_else(|report| panic!("{:#?}", report.problems)).intent;
    for instance in &mut intent.instances {
        for ip in instance.vips.iter_mut().chain(&mut instance.egress_ips) {
            *ip = if ip.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() };
        }
        for group in instance.listeners.iter_mut().flat_map(|listener| &mut listener.groups) {
            for endpoint in &mut group.endpoints {
                // 10.0.0.N is 127.0.0.N here: endpoints cannot be loopback addresses in a file.
                if let std::net::IpAddr::V4(v4) = endpoint.address {
                    endpoint.address = [127, 0, 0, v4.octets()[3]].into();
                }
            }
        }
    }
    let plan = plan::build(&intent, &Overrides::default(), &Beliefs::default(), &State::default(), [1, 2]).unwrap();
    View::new(&plan, &intent, before)
}

/// A proxy that serves what `text` says, on one thread.
pub fn serve(text: &str) -> Proxy {
    let mut proxy = Proxy::start(1).unwrap();
    let unbound = proxy.apply(view(text, &View::default()));
    assert!(unbound.is_empty(), "{unbound:?}");
    proxy
}

/// A file with one instance and `listeners`.
pub fn file(listeners: &str) -> String {
    format!(
        "[node]\ninterfaces = [\"eth0\"]\n[[instance]]\nid = \"lab\"\nvips = [\"198.51.100.10\"]\negress_ips = [\"203.0.113.5\"]\n{listeners}"
    )
}
