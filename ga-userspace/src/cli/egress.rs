//! `ga egress`: the addresses that packets to endpoints come from, for whoever opens firewalls (specification §2.1).

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf};

use clap::Args;
use comfy_table::{Cell, CellAlignment};
use serde::Serialize;

use super::{
    Context, Exit, file,
    output::{Style, tsv},
};
use crate::model::{BackendIpVersion, ClientIp, Instance, Intent, Listener, Protocols};

pub(super) const EXAMPLES: &str =
    "Endpoints see these addresses, and no others, unless they see the client's (`return = \"l2\"`; of \"ipip\" the outer packet is
meant). Probes come from them too. A terminal gets a table, a pipe tab-separated values with a header line.

Examples:
  ga egress
  ga egress --config ga.toml --json
  ga egress | tail -n +2 | cut -f 2 | sort -u | xargs -I{} nft add element inet filter edges '{ {} }'";

/// Arguments of `ga egress`.
#[derive(Clone, Debug, Args)]
pub(super) struct EgressArgs {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/ga/ga.toml")]
    config: PathBuf,
}

/// Runs `ga egress`.
pub(super) fn run(args: &EgressArgs, context: &Context) -> anyhow::Result<Exit> {
    let list = EgressList::of(&file::load(&args.config, context)?.intent);
    let output = &context.output;
    output.view(&list, |style| if output.is_terminal() { list.table(style) } else { list.lines() })?;
    Ok(Exit::Ok)
}

/// The JSON document.
#[derive(Debug, Serialize)]
struct EgressList {
    schema_version: u32,
    egress: Vec<Egress>,
}

/// One address.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Egress {
    instance: String,
    address: IpAddr,
    /// Listeners with endpoints that see it.
    listeners: Vec<String>,
    /// What comes from it.
    protocols: BTreeSet<&'static str>,
}

impl EgressList {
    fn of(intent: &Intent) -> Self {
        let of_instance = |instance: &Instance| -> Vec<Egress> {
            instance.egress_ips.iter().map(|address| Egress::of(instance, *address)).collect()
        };
        Self { schema_version: 1, egress: intent.instances.iter().flat_map(of_instance).collect() }
    }

    fn table(&self, style: &Style) -> String {
        use CellAlignment::Left;
        let mut table = style.table(&[("instance", Left), ("egress", Left), ("protocols", Left), ("listeners", Left)]);
        for egress in &self.egress {
            table.add_row(egress.words().map(Cell::new).to_vec());
        }
        style.draw(table)
    }

    fn lines(&self) -> String {
        tsv(&["instance", "egress", "protocols", "listeners"], self.egress.iter().map(Egress::words))
    }
}

impl Egress {
    fn of(instance: &Instance, address: IpAddr) -> Self {
        let sees = |listener: &&Listener| protocols(listener, address.is_ipv4()).next().is_some();
        let listeners = || instance.listeners.iter();
        Self {
            instance: instance.id.to_string(),
            address,
            listeners: listeners().filter(sees).map(|listener| listener.name.to_string()).collect(),
            protocols: listeners().flat_map(|listener| protocols(listener, address.is_ipv4())).collect(),
        }
    }

    fn words(&self) -> [String; 4] {
        let list = |words: Vec<&str>| if words.is_empty() { "-".to_owned() } else { words.join(",") };
        let protocols = list(self.protocols.iter().copied().collect());
        let listeners = list(self.listeners.iter().map(String::as_str).collect());
        [self.instance.clone(), self.address.to_string(), protocols, listeners]
    }
}

/// What endpoints of a listener get from egress addresses of one family.
fn protocols(listener: &Listener, is_ipv4: bool) -> impl Iterator<Item = &'static str> {
    let mut words = BTreeSet::new();
    for group in &listener.groups {
        let speaks = match group.backend_ip_version {
            BackendIpVersion::Ipv4 => is_ipv4,
            BackendIpVersion::Ipv6 => !is_ipv4,
            BackendIpVersion::Affinity => true,
        };
        if !speaks {
            continue;
        }
        match group.client_ip {
            ClientIp::Hidden | ClientIp::ProxyV1 | ClientIp::ProxyV2 => drop(words.insert(listener.protocol.transport())),
            ClientIp::Ipip => drop(words.insert("ipip")),
            ClientIp::L2 | ClientIp::Gateway => {}
        }
        if group.health_check.is_some() {
            words.insert("tcp");
        }
    }
    if is_ipv4 {
        let destinations = listener.custom.iter().flat_map(|group| &group.destinations);
        for (protocol, word) in [(Protocols::Tcp, "tcp"), (Protocols::Udp, "udp")] {
            if destinations.clone().any(|one| one.protocols.meets(protocol)) {
                words.insert(word);
            }
        }
    }
    words.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    const FILE: &str = "[node]\ninterfaces = [\"eth0\"]\n\n[[instance]]\nid = \"shop\"\nvips = [\"198.51.100.1\", \"2001:db8::1\"]\n\
                        egress_ips = [\"203.0.113.1\", \"203.0.113.2\", \"2001:db8:e::1\"]\n\
                        [[instance.listener]]\nname = \"web\"\nports = \"80\"\n\
                        [[instance.listener.endpoint_group]]\nregion = \"eu\"\nbackend_ip_version = \"ipv4\"\n\
                        [[instance.listener.endpoint_group.endpoint]]\ntype = \"ip\"\naddress = \"192.0.2.1\"\n\
                        [[instance.listener]]\nname = \"dns\"\nprotocol = \"udp\"\nports = \"53\"\n\
                        [[instance.listener.endpoint_group]]\nregion = \"eu\"\nbackend_ip_version = \"ipv6\"\n\
                        health_check = { protocol = \"tcp\" }\n\
                        [[instance.listener.endpoint_group.endpoint]]\ntype = \"ip\"\naddress = \"2001:db8:2::1\"\n\
                        [[instance]]\nid = \"spare\"\nvips = [\"198.51.100.2\"]\negress_ips = [\"203.0.113.9\"]\n\
                        [[instance.listener]]\nname = \"direct\"\nports = \"80\"\n\
                        [[instance.listener.endpoint_group]]\nregion = \"eu\"\nbackend_ip_version = \"affinity\"\n\
                        preserve_client_ip = \"transparent\"\nreturn = \"l2\"\n\
                        [[instance.listener.endpoint_group.endpoint]]\ntype = \"ip\"\naddress = \"192.0.2.1\"\n";

    fn list() -> EgressList {
        EgressList::of(&config::parse("test.toml", FILE).unwrap_or_else(|report| panic!("{:#?}", report.problems)).intent)
    }

    // proves: C19
    #[test]
    fn every_egress_address_is_printed_with_the_listeners_whose_endpoints_see_it() {
        let expected = "
  instance  egress         protocols  listeners
  shop      203.0.113.1    tcp        web
  shop      203.0.113.2    tcp        web
  shop      2001:db8:e::1  tcp,udp    dns
  spare     203.0.113.9    -          -
";
        assert_eq!(format!("\n{}", list().table(&Style::default())), expected);
        let lines = list().lines();
        assert_eq!(lines.lines().nth(3), Some("shop\t2001:db8:e::1\ttcp,udp\tdns"), "{lines}");
        let json = serde_json::to_value(list()).expect("JSON");
        assert_eq!(json["egress"][2]["address"], "2001:db8:e::1");
    }
}
