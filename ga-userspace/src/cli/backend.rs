//! `ga backend FILE`: what endpoints that see the client's address must be configured with; changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
};

use clap::Args;
use serde::Serialize;

use super::{Context, Exit, file};
use crate::{
    config::{self, render},
    model::{BackendIpVersion, ClientIp, Endpoint, EndpointGroup, Instance, Intent, Listener, Protocol},
};

pub(super) const EXAMPLES: &str = "Examples:
  ga backend /etc/ga/ga.toml
  ga backend /etc/ga/ga.toml --endpoint 10.0.0.11 --commands | ssh root@10.0.0.11 sh
  ga backend /etc/ga/ga.toml --endpoint 10.0.0.12 --edge 10.0.0.1 --commands | ssh root@10.0.0.12 sh";

/// Arguments of `ga backend`.
#[derive(Clone, Debug, Args)]
pub(super) struct BackendArgs {
    /// The configuration
    pub(super) file: PathBuf,
    /// Only this endpoint
    #[arg(long, value_name = "ADDRESS")]
    pub(super) endpoint: Option<IpAddr>,
    /// The edge's address on the link to the endpoint, where `return = "gateway"` asks for a route by way of it; without it, the
    /// script asks for the variable EDGE
    #[arg(long, value_name = "ADDRESS")]
    pub(super) edge: Option<IpAddr>,
    /// Print a shell script; it may run again and again
    #[arg(long)]
    pub(super) commands: bool,
}

/// Prints it: 0 good, 1 the file has problems or no such endpoint.
pub(super) fn run(args: &BackendArgs, context: &Context) -> anyhow::Result<Exit> {
    let text = file::read(&args.file)?;
    let name = args.file.display().to_string();
    let loaded = match config::parse(&name, &text) {
        Ok(loaded) => loaded,
        Err(report) => {
            let mut out = String::new();
            render::report(&mut out, &report, &text, render::Style::Plain)?;
            context.output.text(&out)?;
            return Ok(Exit::Negative);
        }
    };
    let mut backends = backends(&loaded.intent, args.edge);
    if let Some(address) = args.endpoint {
        backends.retain(|backend| backend.address == address);
    }
    let is_known = args.endpoint.is_none() || !backends.is_empty();
    let answer = Answer { schema_version: 1, backends };
    context.output.view(&answer, |_| if args.commands { answer.script() } else { answer.table() })?;
    Ok(if is_known { Exit::Ok } else { Exit::Negative })
}

/// The JSON document.
#[derive(Debug, Serialize)]
struct Answer {
    schema_version: u32,
    backends: Vec<Backend>,
}

/// One endpoint.
#[derive(Debug, Serialize)]
struct Backend {
    address: IpAddr,
    /// Instance and listener of those that name it.
    listeners: BTreeSet<String>,
    steps: Vec<Step>,
}

/// Something that an endpoint needs.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Step {
    why: String,
    commands: Vec<String>,
}

/// What an endpoint needs for all its listeners.
#[derive(Default)]
struct Needs {
    listeners: BTreeSet<String>,
    /// Addresses that egress packets have.
    egress: BTreeSet<IpAddr>,
    /// Addresses that it must have itself.
    vips: BTreeSet<IpAddr>,
    /// Addresses whose packets come within others.
    packed: BTreeSet<IpAddr>,
    /// Protocols and ports whose answers leave by way of the edge.
    returned: BTreeSet<(Protocol, u16)>,
}

fn backends(intent: &Intent, edge: Option<IpAddr>) -> Vec<Backend> {
    let mut all: BTreeMap<IpAddr, Needs> = BTreeMap::new();
    for (instance, listener) in intent.listeners() {
        for group in &listener.groups {
            for endpoint in &group.endpoints {
                all.entry(endpoint.address).or_default().add(instance, listener, group, endpoint);
            }
        }
    }
    let into_backend = |(address, needs): (IpAddr, Needs)| {
        let steps = needs.steps(address, edge);
        Backend { address, listeners: needs.listeners, steps }
    };
    all.into_iter().map(into_backend).collect()
}

impl Needs {
    fn add(&mut self, instance: &Instance, listener: &Listener, group: &EndpointGroup, endpoint: &Endpoint) {
        let address = endpoint.address;
        self.listeners.insert(format!("{}/{}", instance.id, listener.name));
        let is_same = |other: &&IpAddr| other.is_ipv4() == address.is_ipv4();
        let is_any = group.backend_ip_version != BackendIpVersion::Affinity;
        let vips = instance.vips.iter().filter(|vip| is_any || is_same(vip)).copied();
        match group.client_ip {
            ClientIp::Hidden | ClientIp::ProxyV1 | ClientIp::ProxyV2 => {
                self.egress.extend(instance.egress_ips.iter().filter(is_same))
            }
            ClientIp::L2 => self.vips.extend(vips),
            ClientIp::Ipip => {
                self.packed.extend(vips.clone());
                self.vips.extend(vips);
            }
            ClientIp::Gateway => {
                let ports = listener.ports.iter().map(|port| endpoint.port.unwrap_or(group.port_mapping.endpoint_port(port)));
                self.returned.extend(ports.map(|port| (listener.protocol, port)));
            }
        }
    }

    fn steps(&self, address: IpAddr, edge: Option<IpAddr>) -> Vec<Step> {
        let mut steps = Vec::new();
        if !self.egress.is_empty() {
            let from: Vec<_> = self.egress.iter().map(IpAddr::to_string).collect();
            steps.push(Step {
                why: format!("clients come from {}, where answers must go", from.join(" or ")),
                commands: Vec::new(),
            });
        }
        if !self.vips.is_empty() {
            steps.push(own(&self.vips));
        }
        for is_v4 in [true, false] {
            if self.packed.iter().any(|vip| vip.is_ipv4() == is_v4) {
                steps.push(unpack(address, is_v4));
            }
        }
        if !self.returned.is_empty() {
            steps.extend(back(&self.returned, address, edge));
        }
        steps
    }
}

/// The VIPs are the host's own, and it does not tell the link so (RFC 826 would have it answer): clients' packets come by the edge.
fn own(vips: &BTreeSet<IpAddr>) -> Step {
    let mut commands = Vec::new();
    if vips.iter().any(IpAddr::is_ipv4) {
        commands.push("sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2".to_owned());
    }
    commands.extend(vips.iter().map(|vip| match vip {
        IpAddr::V4(vip) => format!("ip addr replace {vip}/32 dev lo"),
        IpAddr::V6(vip) => format!("ip addr replace {vip}/128 dev lo nodad"),
    }));
    Step {
        why: "packets come to the VIP, and answers leave from it; nobody on the link may learn that it is here".to_owned(),
        commands,
    }
}

/// Number of the routing table, and of the rules that lead to it.
const TABLE: u16 = 7411;

/// What is served is answered by way of the edge; everything else goes its usual way.
fn back(served: &BTreeSet<(Protocol, u16)>, address: IpAddr, edge: Option<IpAddr>) -> Vec<Step> {
    let ip = if address.is_ipv4() { "ip" } else { "ip -6" };
    let via = match edge.filter(|edge| edge.is_ipv4() == address.is_ipv4()) {
        Some(edge) => edge.to_string(),
        None => "\"${EDGE:?the address of the edge on the link to this host}\"".to_owned(),
    };
    let mut commands = vec![
        format!("{ip} route replace default via {via} table {TABLE}"),
        format!("while {ip} rule del pref {TABLE} 2>/dev/null; do :; done"),
    ];
    commands.extend(ranges(served).into_iter().map(|(protocol, first, last)| {
        let ports = if first == last { first.to_string() } else { format!("{first}-{last}") };
        format!("{ip} rule add pref {TABLE} ipproto {} sport {ports} lookup {TABLE}", protocol.word())
    }));
    let why = "packets come from the clients themselves, and answers must leave by way of the edge: by these rules, or by a default \
               route, which ICMP errors about clients' packets take too";
    let mut steps = vec![Step { why: why.to_owned(), commands }];
    if address.is_ipv4() {
        steps.push(Step {
            why: "the usual way to clients may be another than the one that their packets come by".to_owned(),
            commands: vec!["sysctl -qw net.ipv4.conf.all.rp_filter=2".to_owned()],
        });
    }
    steps
}

/// Ports that follow each other as one range.
fn ranges(served: &BTreeSet<(Protocol, u16)>) -> Vec<(Protocol, u16, u16)> {
    let mut ranges: Vec<(Protocol, u16, u16)> = Vec::new();
    for &(protocol, port) in served {
        match ranges.last_mut() {
            Some((known, _, last)) if *known == protocol && last.checked_add(1) == Some(port) => *last = port,
            _ => ranges.push((protocol, port, port)),
        }
    }
    ranges
}

/// Takes the outer header off.
fn unpack(address: IpAddr, is_v4: bool) -> Step {
    let (device, kind) = match (is_v4, address.is_ipv4()) {
        (true, true) => ("ga-4in4", "ipip"),
        (false, true) => ("ga-6in4", "sit"),
        (true, false) => ("ga-4in6", "ip6tnl mode ipip6"),
        (false, false) => ("ga-6in6", "ip6tnl mode ip6ip6"),
    };
    let any = if address.is_ipv4() { "any" } else { "::" };
    let mut commands = vec![
        format!("ip link show {device} >/dev/null 2>&1 || ip link add {device} type {kind} local {address} remote {any}"),
        format!("ip link set {device} up"),
    ];
    if is_v4 {
        // The larger of the two counts.
        commands.push(format!("sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.{device}.rp_filter=0"));
    }
    let (longer, inner) = (if address.is_ipv4() { 20 } else { 40 }, if is_v4 { 4 } else { 6 });
    let why = format!(
        "IPv{inner} packets come within packets to {address}, which are {longer} bytes longer: the way from the edge must have room, \
         or the routes to clients an `advmss` that is as much smaller"
    );
    Step { why, commands }
}

impl Answer {
    fn table(&self) -> String {
        let mut out = String::new();
        for Backend { address, listeners, steps } in &self.backends {
            let listeners: Vec<_> = listeners.iter().map(String::as_str).collect();
            out += &format!("{address} of {}\n", listeners.join(", "));
            for Step { why, commands } in steps {
                out += &format!("  {why}\n");
                for command in commands {
                    out += &format!("    {command}\n");
                }
            }
        }
        out
    }

    fn script(&self) -> String {
        let mut out = String::from("set -e\n");
        for Backend { address, steps, .. } in &self.backends {
            out += &format!("# {address}\n");
            for Step { why, commands } in steps {
                out += &format!("# {why}\n");
                for command in commands {
                    out += &format!("{command}\n");
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(group: &str) -> Answer {
        let text = format!(
            "[node]\nap = \"lab\"\ninterfaces = [\"eth0\"]\n[[instance]]\nid = \"lab\"\nvips = [\"198.51.100.10\", \"2001:db8::10\"]\n\
             egress_ips = [\"203.0.113.5\", \"2001:db8::5\"]\n[[instance.listener]]\nname = \"web\"\nprotocol = \"tcp\"\n\
             ports = \"80\"\n[[instance.listener.endpoint_group]]\nregion = \"lab\"\nbackend_ip_version = \"affinity\"\n{group}\n\
             [[instance.listener.endpoint_group.endpoint]]\ntype = \"private_ip\"\naddress = \"10.0.0.1\"\n\
             [[instance.listener.endpoint_group.endpoint]]\ntype = \"private_ip\"\naddress = \"fd00::1\"\n"
        );
        let loaded = config::parse("test.toml", &text).unwrap_or_else(|report| panic!("{:#?}", report.problems));
        Answer { schema_version: 1, backends: backends(&loaded.intent, Some([10, 0, 0, 254].into())) }
    }

    fn commands(answer: &Answer, at: usize) -> Vec<&str> {
        answer.backends[at].steps.iter().flat_map(|step| &step.commands).map(String::as_str).collect()
    }

    #[test]
    fn who_sees_egress_addresses_needs_nothing() {
        let answer = of("");
        assert_eq!(commands(&answer, 0), [""; 0]);
        assert_eq!(answer.table().lines().nth(1), Some("  clients come from 203.0.113.5, where answers must go"));
    }

    #[test]
    fn who_is_on_the_link_has_the_vip_and_does_not_tell() {
        let answer = of("preserve_client_ip = \"transparent\"\nreturn = \"l2\"");
        let arp = "sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2";
        assert_eq!(commands(&answer, 0), [arp, "ip addr replace 198.51.100.10/32 dev lo"]);
        assert_eq!(commands(&answer, 1), ["ip addr replace 2001:db8::10/128 dev lo nodad"]);
        assert_eq!(answer.script().lines().last(), Some("ip addr replace 2001:db8::10/128 dev lo nodad"));
    }

    #[test]
    fn who_answers_by_way_of_the_edge_has_a_route_for_that() {
        let answer =
            of("preserve_client_ip = \"transparent\"\nreturn = \"gateway\"\nport_mapping = [{ listener = 80, endpoint = 8080 }]");
        let expected = [
            "ip route replace default via 10.0.0.254 table 7411",
            "while ip rule del pref 7411 2>/dev/null; do :; done",
            "ip rule add pref 7411 ipproto tcp sport 8080 lookup 7411",
            "sysctl -qw net.ipv4.conf.all.rp_filter=2",
        ];
        assert_eq!(commands(&answer, 0), expected);
        let expected = [
            "ip -6 route replace default via \"${EDGE:?the address of the edge on the link to this host}\" table 7411",
            "while ip -6 rule del pref 7411 2>/dev/null; do :; done",
            "ip -6 rule add pref 7411 ipproto tcp sport 8080 lookup 7411",
        ];
        assert_eq!(commands(&answer, 1), expected, "the edge's IPv4 address is no way for IPv6");
    }

    #[test]
    fn ports_in_a_row_are_one_rule() {
        let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
        let served = [(tcp, 80), (tcp, 81), (tcp, 82), (tcp, 443), (udp, 444), (tcp, 65_535)].into();
        assert_eq!(ranges(&served), [(tcp, 80, 82), (tcp, 443, 443), (tcp, 65_535, 65_535), (udp, 444, 444)]);
    }

    #[test]
    fn who_gets_ip_in_ip_unpacks_it_too() {
        let answer = of("preserve_client_ip = \"transparent\"\nreturn = \"ipip\"");
        let add = "ip link show ga-4in4 >/dev/null 2>&1 || ip link add ga-4in4 type ipip local 10.0.0.1 remote any";
        let filter = "sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.ga-4in4.rp_filter=0";
        assert_eq!(commands(&answer, 0)[2..], [add, "ip link set ga-4in4 up", filter]);
        let add = "ip link show ga-6in6 >/dev/null 2>&1 || ip link add ga-6in6 type ip6tnl mode ip6ip6 local fd00::1 remote ::";
        assert_eq!(commands(&answer, 1)[1..], [add, "ip link set ga-6in6 up"]);
    }
}
