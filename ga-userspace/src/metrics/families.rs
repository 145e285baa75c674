//! The table of all metric families.

use std::{borrow::Cow, collections::BTreeMap};

use super::series::{Family, Process, Series, Source};
use crate::status::{
    self, AttachMode, Certificate, Circuit, Counters, Endpoint, Group, Health, Instance, Listener, Name, NextHop, Proxied,
    ProxiedEndpoint, RuleHits, Status,
};

/// In the order of the output.
pub(super) const FAMILIES: &[Family] = &[
    Family { name: "build", help: "Version of this process.", source: Source::Process(Process::Build) },
    Family { name: "agent_up", help: "Whether the agent answered this scrape.", source: Source::Process(Process::AgentUp) },
    Family {
        name: "config",
        help: "The configuration behind the running plan.",
        source: Source::Info(|status| {
            let generation = ("generation", Cow::Owned(status.generation.to_string()));
            vec![Series { labels: vec![generation, ("hash", Cow::Borrowed(&status.config_hash))], value: () }]
        }),
    },
    Family {
        name: "config_last_reload_successful",
        help: "Whether the latest configuration was applied.",
        source: Source::Gauge(|status| Series::only(flag(status.last_reload.successful))),
    },
    Family {
        name: "config_last_reload_success_timestamp_seconds",
        help: "When a configuration was last applied.",
        source: Source::Gauge(|status| status.last_reload.success_at.map(|at| Series::only(at as f64)).unwrap_or_default()),
    },
    Family {
        name: "config_reload_failures",
        help: "Configurations refused since the agent started.",
        source: Source::Counter(|status| Series::only(status.last_reload.failures)),
    },
    Family {
        name: "dataplane_attached",
        help: "Whether the program is attached to the interface.",
        source: Source::Gauge(|status| {
            let interfaces = status.interfaces.iter();
            interfaces.map(|i| Series::new([("interface", i.name.as_str()), ("mode", mode(i.mode))], flag(i.attached))).collect()
        }),
    },
    Family {
        name: "interface_reattached",
        help: "Times the program was attached again to an interface that had lost it.",
        source: Source::Counter(|status| {
            status.interfaces.iter().map(|i| Series::new([("interface", i.name.as_str())], i.reattached)).collect()
        }),
    },
    Family {
        name: "pins_restored",
        help: "Pins that somebody had removed and the agent made again.",
        source: Source::Counter(|status| Series::only(status.repairs.pins)),
    },
    Family {
        name: "map_repairs",
        help: "Entries that somebody else had changed and the agent put right, by map; all maps are compared every 10 seconds.",
        source: Source::Counter(|status| {
            status.repairs.maps.iter().map(|(map, count)| Series::new([("map", map.as_str())], *count)).collect()
        }),
    },
    Family {
        name: "next_hop_changes",
        help: "Changes of the way to an endpoint.",
        source: Source::Counter(|status| Series::only(status.repairs.next_hops)),
    },
    Family {
        name: "dataplane_generation",
        help: "Number of the plan that packets see.",
        source: Source::Gauge(|status| Series::only(status.generation as f64)),
    },
    Family {
        name: "listener_packets",
        help: "Packets forwarded for the listener, by direction.",
        source: Source::Counter(|status| listener_directions(status, |c| (c.forward_packets, c.return_packets))),
    },
    Family {
        name: "listener_bytes",
        help: "Bytes of frames forwarded for the listener, by direction.",
        source: Source::Counter(|status| listener_directions(status, |c| (c.forward_bytes, c.return_bytes))),
    },
    Family {
        name: "listener_new_flows",
        help: "Flows begun at the listener.",
        source: Source::Counter(|status| listeners(status, |listener| listener.counters.new_flows)),
    },
    Family {
        name: "listener_flows",
        help: "Flows of the listener that have not expired.",
        source: Source::Gauge(|status| listeners(status, |listener| listener.active_flows as f64)),
    },
    Family {
        name: "listener_in_transition",
        help: "Whether the listener's table changed lately, so that older flows are remembered to go where they began; only of listeners whose endpoints answer clients themselves.",
        source: Source::Gauge(|status| listeners(status, |listener| flag(listener.in_transition))),
    },
    Family {
        name: "certificate_not_after_timestamp_seconds",
        help: "When the certificate of an HTTPS listener is not good any more.",
        source: Source::Gauge(|status| certificates(status, |certificate| certificate.not_after as f64)),
    },
    Family {
        name: "certificate_failures",
        help: "Times the files of a certificate could not be used when they were read again; the one before stayed in use.",
        source: Source::Counter(|status| certificates(status, |certificate| certificate.failures)),
    },
    Family {
        name: "proxy_connections",
        help: "Connections that clients opened to listeners that the agent serves.",
        source: Source::Counter(|status| proxied(status, |p| p.connections)),
    },
    Family {
        name: "proxy_connections_open",
        help: "Connections of clients that are open.",
        source: Source::Gauge(|status| proxied(status, |p| p.active as f64)),
    },
    Family {
        name: "proxy_connections_limit",
        help: "Connections of clients that may be open.",
        source: Source::Gauge(|status| proxied(status, |p| p.max_connections as f64)),
    },
    Family {
        name: "proxy_group_connections_open",
        help: "Connections to the endpoint group that are used: relayed ones, and those of HTTP/2.",
        source: Source::Gauge(|status| circuits(status, |circuit| f64::from(circuit.connections[0]))),
    },
    Family {
        name: "proxy_group_requests_open",
        help: "Requests to the endpoint group that are not answered to their end.",
        source: Source::Gauge(|status| circuits(status, |circuit| f64::from(circuit.requests[0]))),
    },
    Family {
        name: "proxy_group_refused",
        help: "Requests and connections refused because the endpoint group had as many as it may.",
        source: Source::Counter(|status| circuits(status, |circuit| circuit.refused)),
    },
    Family {
        name: "access_log_lost_lines",
        help: "Lines of the access log that were lost, because the disk is too slow or cannot be written.",
        source: Source::Counter(|status| Series::only(status.access_log_lost)),
    },
    Family {
        name: "proxy_requests",
        help: "Requests that were answered, and connections that were relayed.",
        source: Source::Counter(|status| proxied(status, |p| p.requests)),
    },
    Family {
        name: "proxy_responses",
        help: "Answers by the class of their status.",
        source: Source::Counter(|status| proxied_by(status, "code", |p| &p.statuses)),
    },
    Family {
        name: "proxy_failures",
        help: "Requests and connections that failed, by reason.",
        source: Source::Counter(|status| proxied_by(status, "reason", |p| &p.failures)),
    },
    Family {
        name: "proxy_retries",
        help: "Requests sent once more, to another endpoint or on a fresh connection.",
        source: Source::Counter(|status| proxied(status, |p| p.retries)),
    },
    Family {
        name: "proxy_bytes",
        help: "Bytes of bodies and relayed connections, by direction.",
        source: Source::Counter(|status| directions(proxied(status, |p| (p.bytes_in, p.bytes_out)))),
    },
    Family {
        name: "proxy_rule_hits",
        help: "Requests and connections that the forwarding rule applied to.",
        source: Source::Counter(rule_hits),
    },
    Family {
        name: "proxy_endpoint_requests",
        help: "Requests and connections that the agent gave to the endpoint.",
        source: Source::Counter(|status| proxied_endpoints(status, |p| p.requests)),
    },
    Family {
        name: "proxy_endpoint_requests_open",
        help: "Requests and connections that the endpoint has.",
        source: Source::Gauge(|status| proxied_endpoints(status, |p| p.active as f64)),
    },
    Family {
        name: "proxy_endpoint_connections",
        help: "Connections that the agent opened to the endpoint.",
        source: Source::Counter(|status| proxied_endpoints(status, |p| p.connections)),
    },
    Family {
        name: "proxy_endpoint_reused",
        help: "Requests to the endpoint that a connection was at hand for.",
        source: Source::Counter(|status| proxied_endpoints(status, |p| p.reused)),
    },
    Family {
        name: "proxy_endpoint_failures",
        help: "What the endpoint failed with, by reason.",
        source: Source::Counter(endpoint_failures),
    },
    Family {
        name: "endpoint_packets",
        help: "Packets forwarded to and from the endpoint, by direction.",
        source: Source::Counter(|status| endpoint_directions(status, |c| (c.forward_packets, c.return_packets))),
    },
    Family {
        name: "endpoint_bytes",
        help: "Bytes of frames forwarded to and from the endpoint, by direction.",
        source: Source::Counter(|status| endpoint_directions(status, |c| (c.forward_bytes, c.return_bytes))),
    },
    Family {
        name: "endpoint_new_flows",
        help: "Flows that chose the endpoint.",
        source: Source::Counter(|status| endpoints(status, |endpoint| endpoint.counters.new_flows)),
    },
    Family {
        name: "endpoint_weight",
        help: "Weight of the endpoint in force.",
        source: Source::Gauge(|status| endpoints(status, |endpoint| f64::from(endpoint.weight))),
    },
    Family {
        name: "group_priority",
        help: "Where the endpoint group stands in the scheduling priority of its listener; 1 is the nearest.",
        source: Source::Gauge(|status| groups(status, |group| Some(group.priority as f64))),
    },
    Family {
        name: "group_traffic_ratio",
        help: "Part of the traffic that reaches the endpoint group which it takes, as configured, 0 to 1.",
        source: Source::Gauge(|status| groups(status, |group| Some(f64::from(group.traffic_ratio) / 100.0))),
    },
    Family {
        name: "group_latency_seconds",
        help: "Latency to the endpoint group, measured or configured; without a line while it is unknown.",
        source: Source::Gauge(|status| groups(status, |group| group.latency_ms.map(|ms| ms / 1e3))),
    },
    Family {
        name: "group_share_ratio",
        help: "Part of the listener's new flows of a family that the endpoint group gets, 0 to 1.",
        source: Source::Gauge(|status| {
            let family = |name, share: fn(&Group) -> Option<f64>| {
                let mut series = groups(status, share);
                series.iter_mut().for_each(|line| line.labels.push(("family", Cow::Borrowed(name))));
                series
            };
            [family("ipv4", |group| group.share_ipv4), family("ipv6", |group| group.share_ipv6)].concat()
        }),
    },
    Family {
        name: "endpoint_share_ratio",
        help: "Part of the listener's new flows that the endpoint gets, 0 to 1.",
        source: Source::Gauge(|status| endpoints(status, |endpoint| endpoint.share)),
    },
    Family {
        name: "endpoint_up",
        help: "Whether probes find the endpoint healthy; absent where it is not probed.",
        source: Source::Gauge(|status| probed(status, |health| Some(flag(health.healthy)))),
    },
    Family {
        name: "health_probe_duration_seconds",
        help: "Smoothed time of the probes to connect to the endpoint.",
        source: Source::Gauge(|status| probed(status, |health| health.round_trip_ms.map(|ms| ms / 1e3))),
    },
    Family {
        name: "health_probes",
        help: "Probes by what came of them; one for several endpoints is one.",
        source: Source::Counter(|status| {
            let results = status.probes.results.iter();
            results.map(|(result, count)| Series::new([("result", result.as_str())], *count)).collect()
        }),
    },
    Family {
        name: "health_probes_late_seconds",
        help: "99 of 100 probes began at most that long after they were due.",
        source: Source::Gauge(|status| Series::only(status.probes.late_ms as f64 / 1e3)),
    },
    Family {
        name: "health_panic",
        help: "Whether so many endpoints of the instance fail at once that this host is suspected and nobody is taken out.",
        source: Source::Gauge(|status| {
            let panic = status.probes.panic.iter();
            panic.map(|(instance, panic)| Series::new([("instance", instance.as_str())], flag(*panic))).collect()
        }),
    },
    Family {
        name: "endpoint_next_hop_resolved",
        help: "Whether the way to the endpoint is known and its neighbour answers.",
        source: Source::Gauge(|status| endpoints(status, |endpoint| flag(endpoint.next_hop == NextHop::Resolved))),
    },
    Family {
        name: "endpoint_flows",
        help: "Flows of the endpoint that have not expired.",
        source: Source::Gauge(|status| endpoints(status, |endpoint| endpoint.active_flows as f64)),
    },
    Family {
        name: "name_failures",
        help: "Attempts to find out what a domain stands for, or to read an inventory, that were no good.",
        source: Source::Counter(|status| names(status, |name| Some(name.failures))),
    },
    Family {
        name: "name_age_seconds",
        help: "Time since the last good answer about a domain, or the last good look at an inventory.",
        source: Source::Gauge(|status| names(status, |name| name.age_s.map(|age| age as f64))),
    },
    Family {
        name: "name_addresses",
        help: "Addresses that a domain stands for.",
        source: Source::Gauge(|status| {
            names(status, |name| (name.source == status::Source::Dns).then_some(name.addresses.len() as f64))
        }),
    },
    Family {
        name: "drop_packets",
        help: "Packets dropped, by reason and, where one was found, listener.",
        source: Source::Counter(|status| {
            let rows = status.drops.iter();
            rows.map(|row| {
                let labels = [
                    ("reason", row.reason.as_str()),
                    ("instance", or_empty(&row.instance)),
                    ("listener", or_empty(&row.listener)),
                ];
                Series::new(labels, row.packets)
            })
            .collect()
        }),
    },
    Family {
        name: "pass_packets",
        help: "Packets given to the host untouched, by reason.",
        source: Source::Counter(|status| {
            status.passes.iter().map(|row| Series::new([("reason", row.reason.as_str())], row.packets)).collect()
        }),
    },
    Family {
        name: "flow_events",
        help: "What happened in flow memory beside verdicts: ports tried again or reused, flows evicted, clients that moved.",
        source: Source::Counter(|status| {
            status.flow_events.iter().map(|(event, count)| Series::new([("event", event.as_str())], *count)).collect()
        }),
    },
    Family {
        name: "flow_entries",
        help: "Flows that have not expired, by family of the client.",
        source: Source::Gauge(|status| families(status.flows.ipv4.live, status.flows.ipv6.live)),
    },
    Family {
        name: "flow_capacity",
        help: "Flows that fit, by family of the client.",
        source: Source::Gauge(|status| families(status.flows.ipv4.capacity, status.flows.ipv6.capacity)),
    },
    Family {
        name: "bpf_map_fill_ratio",
        help: "Entries over capacity of the map, 0 to 1.",
        source: Source::Gauge(|status| {
            status.maps.iter().map(|map| Series::new([("map", map.name.as_str())], map.fill())).collect()
        }),
    },
];

fn flag(value: bool) -> f64 {
    if value { 1.0 } else { 0.0 }
}

fn or_empty(name: &Option<String>) -> &str {
    name.as_deref().unwrap_or_default()
}

fn mode(mode: AttachMode) -> &'static str {
    match mode {
        AttachMode::Native => "native",
        AttachMode::Generic => "generic",
    }
}

fn names<'s, V>(status: &'s Status, value: impl Fn(&Name) -> Option<V>) -> Vec<Series<'s, V>> {
    let labels = |name: &'s Name| [("source", name.source.word()), ("name", name.name.as_str())];
    status.names.iter().filter_map(|name| Some(Series::new(labels(name), value(name)?))).collect()
}

fn families(ipv4: u64, ipv6: u64) -> Vec<Series<'static, f64>> {
    vec![Series::new([("family", "ipv4")], ipv4 as f64), Series::new([("family", "ipv6")], ipv6 as f64)]
}

fn listeners<V>(status: &Status, value: impl Fn(&Listener) -> V) -> Vec<Series<'_, V>> {
    let line = status.listeners();
    line.map(|(i, l)| Series::new([("instance", i.id.as_str()), ("listener", l.name.as_str())], value(l))).collect()
}

fn certificates<V>(status: &Status, value: impl Fn(&Certificate) -> V) -> Vec<Series<'_, V>> {
    let all = status.certificates.iter();
    all.map(|one| Series::new([("listener", one.listener.as_str()), ("name", one.name.as_str())], value(one))).collect()
}

fn proxied<V>(status: &Status, value: impl Fn(&Proxied) -> V) -> Vec<Series<'_, V>> {
    let own = status.listeners().filter_map(|(i, l)| Some((i, l, l.proxied.as_ref()?)));
    own.map(|(i, l, p)| Series::new([("instance", i.id.as_str()), ("listener", l.name.as_str())], value(p))).collect()
}

/// A line for each entry of what `values` picks, under `label`.
fn proxied_by<'s>(
    status: &'s Status,
    label: &'static str,
    values: impl Fn(&Proxied) -> &BTreeMap<String, u64>,
) -> Vec<Series<'s, u64>> {
    let own = status.listeners().filter_map(|(i, l)| Some((i, l, l.proxied.as_ref()?)));
    let lines = |(i, l, p): (&'s Instance, &'s Listener, &'s Proxied)| {
        let line = |(word, count): (&String, &u64)| Series {
            labels: vec![
                ("instance", Cow::Borrowed(i.id.as_str())),
                ("listener", Cow::Borrowed(l.name.as_str())),
                (label, Cow::Owned(word.clone())),
            ],
            value: *count,
        };
        values(p).iter().map(line).collect::<Vec<_>>()
    };
    own.flat_map(lines).collect()
}

fn circuits<V>(status: &Status, value: impl Fn(&Circuit) -> V) -> Vec<Series<'_, V>> {
    let own = status.listeners().filter_map(|(i, l)| Some((i, l, l.proxied.as_ref()?)));
    let all = own.flat_map(|(i, l, p)| p.circuits.iter().map(move |circuit| (i, l, circuit)));
    let labels = |i: &'_ Instance, l: &'_ Listener, circuit: &'_ Circuit| {
        let labels = [("instance", i.id.clone()), ("listener", l.name.clone()), ("group", circuit.group.clone())];
        labels.map(|(name, text)| (name, Cow::Owned(text))).to_vec()
    };
    all.map(|(i, l, circuit)| Series { labels: labels(i, l, circuit), value: value(circuit) }).collect()
}

fn rule_hits(status: &Status) -> Vec<Series<'_, u64>> {
    let rules = |(i, l): (&'_ Instance, &'_ Listener)| {
        let line = |hits: &RuleHits| {
            let labels = [("instance", i.id.clone()), ("listener", l.name.clone()), ("rule", hits.rule.clone())];
            Series { labels: labels.map(|(name, text)| (name, Cow::Owned(text))).to_vec(), value: hits.hits }
        };
        l.proxied.iter().flat_map(|proxied| &proxied.rules).map(line).collect::<Vec<_>>()
    };
    status.listeners().flat_map(rules).collect()
}

fn proxied_endpoints<V>(status: &Status, value: impl Fn(&ProxiedEndpoint) -> V) -> Vec<Series<'_, V>> {
    let lines = endpoints(status, |endpoint| endpoint.proxied.as_ref().map(&value));
    lines.into_iter().filter_map(|series| Some(Series { labels: series.labels, value: series.value? })).collect()
}

fn endpoint_failures(status: &Status) -> Vec<Series<'_, u64>> {
    let lines = endpoints(status, |endpoint| endpoint.proxied.as_ref().map(|proxied| proxied.failures.clone()));
    let each = |series: Series<'_, Option<BTreeMap<String, u64>>>| {
        let labels = series.labels.iter().map(|(name, text)| (*name, Cow::Owned(text.clone().into_owned()))).collect::<Vec<_>>();
        let line = move |(reason, count)| {
            let mut labels = labels.clone();
            labels.push(("reason", Cow::Owned(reason)));
            Series { labels, value: count }
        };
        series.value.unwrap_or_default().into_iter().map(line)
    };
    lines.into_iter().flat_map(each).collect()
}

fn listener_directions(status: &Status, values: impl Fn(&Counters) -> (u64, u64)) -> Vec<Series<'_, u64>> {
    directions(listeners(status, |listener| values(&listener.counters)))
}

/// A line for each group that has a value.
fn groups(status: &Status, value: impl Fn(&Group) -> Option<f64>) -> Vec<Series<'_, f64>> {
    let all = status.listeners().flat_map(|(i, l)| l.groups.iter().map(move |group| (i, l, group)));
    let line = |(i, l, group): (&'_ Instance, &'_ Listener, &'_ Group)| {
        let labels = [("instance", i.id.clone()), ("listener", l.name.clone()), ("group", group.name.clone())];
        let value = value(group)?;
        Some(Series { labels: labels.map(|(name, text)| (name, Cow::Owned(text))).to_vec(), value })
    };
    all.filter_map(line).collect()
}

fn endpoints<V>(status: &Status, value: impl Fn(&Endpoint) -> V) -> Vec<Series<'_, V>> {
    let line = status.endpoints().map(|(path, endpoint)| Series {
        labels: vec![
            ("instance", Cow::Owned(path.instance)),
            ("listener", Cow::Owned(path.listener)),
            ("group", Cow::Owned(path.group)),
            ("endpoint", Cow::Owned(path.address)),
        ],
        value: value(endpoint),
    });
    line.collect()
}

/// Endpoints whose health has that value.
fn probed(status: &Status, value: impl Fn(&Health) -> Option<f64>) -> Vec<Series<'_, f64>> {
    let lines = endpoints(status, |endpoint| endpoint.health.as_ref().and_then(&value)).into_iter();
    lines.filter_map(|Series { labels, value }| Some(Series { labels, value: value? })).collect()
}

fn endpoint_directions(status: &Status, values: impl Fn(&Counters) -> (u64, u64)) -> Vec<Series<'_, u64>> {
    directions(endpoints(status, |endpoint| values(&endpoint.counters)))
}

/// Each line twice: from clients, and to them.
fn directions(pairs: Vec<Series<'_, (u64, u64)>>) -> Vec<Series<'_, u64>> {
    let both = pairs.into_iter().flat_map(|Series { labels, value: (forward, back) }| {
        [("forward", forward), ("return", back)].map(|(direction, value)| {
            let mut labels = labels.clone();
            labels.push(("direction", Cow::Borrowed(direction)));
            Series { labels, value }
        })
    });
    both.collect()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use super::{FAMILIES, Source};

    /// The names on the wire.
    fn names() -> BTreeSet<String> {
        let suffix = |source| match source {
            Source::Counter(_) => "_total",
            Source::Gauge(_) | Source::Process(super::Process::AgentUp) => "",
            Source::Info(_) | Source::Process(super::Process::Build) => "_info",
        };
        FAMILIES.iter().map(|family| format!("ga_{}{}", family.name, suffix(family.source))).collect()
    }

    #[test]
    fn the_dashboard_shows_what_there_is_and_all_of_flow_memory() {
        let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../config/grafana.json")).unwrap();
        let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
        let targets = dashboard["panels"].as_array().unwrap().iter().flat_map(|panel| panel["targets"].as_array().unwrap());
        let queries: Vec<_> = targets.map(|target| target["expr"].as_str().unwrap()).collect();
        let words = queries.iter().flat_map(|query| query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
        let shown: BTreeSet<_> = words.filter(|word| word.starts_with("ga_")).map(str::to_owned).collect();
        assert_eq!(shown.difference(&names()).collect::<Vec<_>>(), [""; 0], "no such family");
        for name in ["ga_flow_entries", "ga_flow_capacity", "ga_flow_events_total", "ga_drop_packets_total"] {
            assert!(shown.contains(name), "{name} is on no panel");
        }
    }
}
