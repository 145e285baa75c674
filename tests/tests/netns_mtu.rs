//! Narrow links on either side of the edge: what does not fit is refused there, and the sender hears of it (RFC 1191, RFC 8201).

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use ga_tests::{
    lab::{Agent, Lab, Namespace, VIP4, VIP6, client4, client6, server4, server6},
    traffic::{Server, transfer},
};

const VIPS: [IpAddr; 2] = [IpAddr::V4(VIP4), IpAddr::V6(VIP6)];

fn start(lab: &Lab, text: &str) -> Result<Agent> {
    lab.configure(text)?;
    Agent::start(lab)
}

/// A host behind `near` whose packets cross a link with an MTU of 1,400 bytes that neither end knows of.
fn behind_a_narrow_link(lab: &Lab, near: &Namespace, net: u8) -> Result<[Namespace; 2]> {
    let [router, host] = ["router", "host"].map(|what| Namespace::new(&format!("{}-{what}{net}", lab.name)));
    let (router, host) = (router?, host?);
    for namespace in [near, &router] {
        namespace.run(&["sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"])?;
    }
    for (from, port, to, mtu) in [(near, "far", &router, "1400"), (&router, "lan", &host, "1500")] {
        from.run(&[
            "ip", "link", "add", port, "mtu", mtu, "type", "veth", "peer", "name", "eth0", "mtu", mtu, "netns", &to.name,
        ])?;
        from.run(&["ip", "link", "set", port, "up"])?;
        to.run(&["ip", "link", "set", "eth0", "up"])?;
        // Whole checksums, as on any cable: XDP forwards what it gets.
        for (namespace, device) in [(from, port), (to, "eth0")] {
            namespace.run(&["ethtool", "-K", device, "tx", "off", "tso", "off", "gso", "off"])?;
        }
    }
    for (namespace, device, number) in
        [(near, "far", "0.1"), (&router, "eth0", "0.2"), (&router, "lan", "1.1"), (&host, "eth0", "1.2")]
    {
        let number6 = number.replace('.', "::");
        namespace.run(&["ip", "addr", "add", &format!("10.{net}.{number}/24"), "dev", device])?;
        namespace.run(&["ip", "addr", "add", &format!("fd00:{net}:{number6}/64"), "dev", device, "nodad"])?;
    }
    for (namespace, gateway) in [(&host, "1.1"), (&router, "0.1")] {
        let gateway6 = gateway.replace('.', "::");
        namespace.run(&["ip", "-4", "route", "add", "default", "via", &format!("10.{net}.{gateway}")])?;
        namespace.run(&["ip", "-6", "route", "add", "default", "via", &format!("fd00:{net}:{gateway6}")])?;
    }
    near.run(&["ip", "-4", "route", "add", &format!("10.{net}.1.0/24"), "via", &format!("10.{net}.0.2")])?;
    near.run(&["ip", "-6", "route", "add", &format!("fd00:{net}:1::/64"), "via", &format!("fd00:{net}:0::2")])?;
    Ok([router, host])
}

/// Routes of the edge to the host behind `near`.
fn reach(lab: &Lab, near: [IpAddr; 2], net: u8) -> Result<()> {
    let [near4, near6] = near;
    lab.edge.run(&["ip", "-4", "route", "add", &format!("10.{net}.1.0/24"), "via", &near4.to_string()])?;
    lab.edge.run(&["ip", "-6", "route", "add", &format!("fd00:{net}:1::/64"), "via", &near6.to_string()])
}

fn far_addresses(net: u8) -> Result<[IpAddr; 2]> {
    Ok([format!("10.{net}.1.2").parse()?, format!("fd00:{net}:1::2").parse()?])
}

#[test]
fn path_mtu_discovery_works_behind_the_edge_and_before_it() -> Result<()> {
    const BYTES: u64 = 3_000_000;
    let lab = Lab::new(2)?;
    // Server 1 is a router to a far server, client 1 a router to a far client; both ways have a narrow link.
    let [_server_router, far_server] = behind_a_narrow_link(&lab, &lab.servers[0], 71)?;
    let [_client_router, far_client] = behind_a_narrow_link(&lab, &lab.clients[0], 72)?;
    reach(&lab, [server4(1).into(), server6(1).into()], 71)?;
    reach(&lab, [client4(1).into(), client6(1).into()], 72)?;
    let _far = Server::start(&far_server, 1, &[80])?;
    let _near = Server::start(&lab.servers[1], 2, &[81])?;
    let endpoints = |addresses: [IpAddr; 2]| addresses.map(|address| ("private_ip", address, 255));
    let both = "backend_ip_version = \"affinity\"";
    let near = [server4(2).into(), server6(2).into()];
    let text = lab.head()
        + &Lab::listener_to("far", "tcp", "80", &endpoints(far_addresses(71)?), "", both)
        + &Lab::listener_to("near", "tcp", "81", &endpoints(near), "", both);
    let _agent = start(&lab, &text)?;
    for address in VIPS {
        for (what, client, port) in [
            ("a narrow link behind the edge", &lab.clients[1], 80),
            ("a narrow link before the edge", &far_client, 81),
            ("both", &far_client, 80),
        ] {
            let report = transfer(client, SocketAddr::new(address, port), BYTES);
            let report = report.with_context(|| format!("{what}, {address}"))?;
            ensure!(report.sent.bytes() == BYTES, "{what}, {address}: {} bytes", report.sent.bytes());
        }
    }
    // The links are narrow indeed: the routers refused what did not fit.
    for router in [&lab.servers[0], &lab.clients[0]] {
        for counter in ["IpFragFails", "Ip6InTooBigErrors"] {
            ensure!(router.counter(counter)? > 0, "{}: every packet fitted, {counter} is 0", router.name);
        }
    }
    Ok(())
}

#[test]
fn path_mtu_discovery_works_between_families() -> Result<()> {
    const BYTES: u64 = 3_000_000;
    let lab = Lab::new(2)?;
    let [_server_router, far_server] = behind_a_narrow_link(&lab, &lab.servers[0], 73)?;
    let [_client_router, far_client] = behind_a_narrow_link(&lab, &lab.clients[0], 74)?;
    reach(&lab, [server4(1).into(), server6(1).into()], 73)?;
    reach(&lab, [client4(1).into(), client6(1).into()], 74)?;
    let _far = Server::start(&far_server, 1, &[80, 81])?;
    let _near = Server::start(&lab.servers[1], 2, &[82, 83])?;
    let [far4, far6] = far_addresses(73)?;
    let listener = |name, port, address: IpAddr| {
        let version = if address.is_ipv4() { "ipv4" } else { "ipv6" };
        let group = format!("backend_ip_version = \"{version}\"");
        Lab::listener_to(name, "tcp", port, &[("private_ip", address, 255)], "", &group)
    };
    let text = lab.head()
        + &listener("far4", "80", far4)
        + &listener("far6", "81", far6)
        + &listener("near4", "82", server4(2).into())
        + &listener("near6", "83", server6(2).into());
    let _agent = start(&lab, &text)?;
    for (address, [far, near]) in VIPS.into_iter().zip([[81, 83], [80, 82]]) {
        for (what, client, port) in [
            ("a narrow link behind the edge", &lab.clients[1], far),
            ("a narrow link before the edge", &far_client, near),
            ("both", &far_client, far),
        ] {
            let report = transfer(client, SocketAddr::new(address, port), BYTES);
            let report = report.with_context(|| format!("{what}, {address}"))?;
            ensure!(report.sent.bytes() == BYTES, "{what}, {address}: {} bytes", report.sent.bytes());
        }
    }
    for router in [&lab.servers[0], &lab.clients[0]] {
        for counter in ["IpFragFails", "Ip6InTooBigErrors"] {
            ensure!(router.counter(counter)? > 0, "{}: every packet fitted, {counter} is 0", router.name);
        }
    }
    Ok(())
}
