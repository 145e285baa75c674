//! Rules between instances, and the capacities of the data path (`ga_common::abi::limits`).

use std::{collections::BTreeMap, net::IpAddr, ops::RangeInclusive};

use ga_common::abi::limits::{MAX_ADDRESSES, MAX_ENDPOINTS};

use super::{
    document::{Context, Ledger, Seen},
    node::NAT_PORTS_BESIDE_PROXY,
    problem::{Fault, Kind, Problems},
};
use crate::model::{Node, PROBE_PORTS};

/// Judges what the walk has put into the ledger.
pub(super) fn check(cx: &mut Context<'_>) {
    let (problems, ledger) = (&mut cx.problems, &cx.ledger);
    let vips = unique(&ledger.vips, "VIP", problems);
    let egress_ips = unique(&ledger.egress_ips, "egress address", problems);
    vips_against_egress(ledger, &egress_ips, problems);
    endpoints_are_not_us(ledger, &vips, &egress_ips, problems);
    capacities(ledger, problems);
}

/// The first owner of each address; every later one is a problem.
fn unique<'l>(all: &'l [Seen], what: &str, problems: &mut Problems<'_>) -> BTreeMap<IpAddr, &'l Seen> {
    let mut first = BTreeMap::new();
    for seen in all {
        let Some(owner) = first.get(&seen.address).copied() else {
            first.insert(seen.address, seen);
            continue;
        };
        let line = problems.line(owner.span.start);
        let draft = if owner.instance == seen.instance {
            Fault::new(Kind::Duplicate, format!("{what} {} is listed twice, first on line {line}", seen.address))
                .help("list it once")
        } else {
            let message = format!("{what} {} belongs to another instance, on line {line}", seen.address);
            Fault::new(Kind::Conflict, message).help("no address is shared between instances")
        };
        problems.push(seen.span.clone(), &seen.path, draft);
    }
    first
}

/// One instance may use one address for both; two instances may not.
fn vips_against_egress(ledger: &Ledger, egress_ips: &BTreeMap<IpAddr, &Seen>, problems: &mut Problems<'_>) {
    for vip in &ledger.vips {
        let Some(egress) = egress_ips.get(&vip.address).filter(|egress| egress.instance != vip.instance) else { continue };
        let line = problems.line(egress.span.start);
        let message = format!("VIP {} is an egress address of another instance, on line {line}", vip.address);
        problems.push(
            vip.span.clone(),
            &vip.path,
            Fault::new(Kind::Conflict, message).help("no address is shared between instances"),
        );
    }
}

/// Traffic to one of our own addresses would come back to us.
fn endpoints_are_not_us(
    ledger: &Ledger,
    vips: &BTreeMap<IpAddr, &Seen>,
    egress_ips: &BTreeMap<IpAddr, &Seen>,
    problems: &mut Problems<'_>,
) {
    for endpoint in ledger.endpoints.iter().chain(&ledger.servers) {
        let (what, owner) = match (vips.get(&endpoint.address), egress_ips.get(&endpoint.address)) {
            (Some(vip), _) => ("a VIP", vip),
            (None, Some(egress)) => ("an egress address", egress),
            (None, None) => continue,
        };
        let line = problems.line(owner.span.start);
        let message = format!("{} is {what} of this edge (line {line}); an endpoint must be another host", endpoint.address);
        problems.push(
            endpoint.span.clone(),
            &endpoint.path,
            Fault::new(Kind::Conflict, message).help("name the host behind this edge"),
        );
    }
}

/// What answers a probe must not be taken for a packet of a flow.
pub(super) fn probes_have_their_ports(nat_ports: &RangeInclusive<u16>, cx: &mut Context<'_>) {
    let Some((span, path)) = cx.ledger.probed.clone().filter(|_| nat_ports.end() >= PROBE_PORTS.start()) else { return };
    let (first, last) = (PROBE_PORTS.start(), PROBE_PORTS.end());
    let message = format!("probes leave from ports {first} to {last}, which `node.nat_ports` takes for flows");
    let help = format!("let `node.nat_ports` end at {} or below", first - 1);
    cx.problems.push(span, &path, Fault::new(Kind::Conflict, message).help(help));
}

/// Fewer source ports than this are used up by one busy endpoint.
const MIN_PROXY_PORTS: usize = 512;

/// What answers the agent's own connections must not be taken for a packet of a flow either. Where the file does not say which ports
/// flows have, they make way.
pub(super) fn proxy_has_its_ports(node: &mut Node, cx: &mut Context<'_>) {
    let Some((span, path)) = cx.ledger.nat_ports.clone() else {
        node.nat_ports = NAT_PORTS_BESIDE_PROXY;
        return;
    };
    let left = node.proxy_ports().len();
    if left < MIN_PROXY_PORTS {
        let message =
            format!("these ports leave {left} side by side to the agent's own connections, for clients that it serves itself");
        let (first, last) = NAT_PORTS_BESIDE_PROXY.into_inner();
        let help = format!("leave {MIN_PROXY_PORTS} or more from 1024 to 65499: without the key it is \"{first}~{last}\" here");
        cx.problems.push(span, &path, Fault::new(Kind::Conflict, message).help(help));
    }
}

fn capacities(ledger: &Ledger, problems: &mut Problems<'_>) {
    let addresses = ledger.vips.iter().chain(&ledger.egress_ips).nth(MAX_ADDRESSES as usize);
    let endpoints = ledger.endpoints.get(MAX_ENDPOINTS as usize);
    for (excess, limit, what) in
        [(addresses, MAX_ADDRESSES, "VIPs and egress addresses together"), (endpoints, MAX_ENDPOINTS, "endpoints")]
    {
        if let Some(excess) = excess {
            let message = format!("an edge holds {limit} {what}; this is one more");
            problems.push(
                excess.span.clone(),
                &excess.path,
                Fault::new(Kind::Capacity, message).help("share them out to several edges"),
            );
        }
    }
}
