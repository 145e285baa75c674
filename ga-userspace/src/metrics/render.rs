//! From a status to the text of a scrape.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

use super::{
    families::FAMILIES,
    series::{Family, Labels, Process, Series, Source},
};
use crate::status::Status;

/// The text of a scrape; without a status, what is known without the agent.
pub fn render(status: Option<Status>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("ga");
    registry.register_collector(Box::new(Scrape { status }));
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

#[derive(Debug)]
struct Scrape {
    status: Option<Status>,
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in FAMILIES {
            self.family(family, &mut encoder)?;
        }
        Ok(())
    }
}

impl Scrape {
    fn family(&self, family: &Family, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        match (family.source, &self.status) {
            (Source::Counter(lines), Some(status)) => family.numbers(encoder, lines(status), ConstCounter::new),
            (Source::Gauge(lines), Some(status)) => family.numbers(encoder, lines(status), ConstGauge::new),
            (Source::Info(lines), Some(status)) => family.info(encoder, lines(status)),
            (Source::Counter(_) | Source::Gauge(_) | Source::Info(_), None) => Ok(()),
            (Source::Process(Process::Build), _) => {
                family.info(encoder, vec![Series::new([("version", env!("CARGO_PKG_VERSION"))], ())])
            }
            (Source::Process(Process::AgentUp), status) => {
                family.numbers(encoder, Series::only(u64::from(status.is_some())), ConstGauge::new)
            }
        }
    }
}

impl Family {
    fn numbers<V, M: EncodeMetric>(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        lines: Vec<Series<'_, V>>,
        metric: impl Fn(V) -> M,
    ) -> fmt::Result {
        let mut metrics = lines.into_iter().map(|line| (line.labels, metric(line.value))).peekable();
        let Some((_, first)) = metrics.peek() else { return Ok(()) };
        let mut family = encoder.encode_descriptor(self.name, self.help, None, first.metric_type())?;
        for (labels, metric) in metrics {
            if labels.is_empty() {
                // An empty family label set would be written as `{}`.
                return metric.encode(family);
            }
            metric.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn info(&self, encoder: &mut DescriptorEncoder<'_>, lines: Vec<Series<'_, ()>>) -> fmt::Result {
        let mut family = encoder.encode_descriptor(self.name, self.help, None, MetricType::Info)?;
        lines.into_iter().map(|line| line.labels).try_for_each(|labels: Labels<'_>| family.encode_info(&labels))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::status::{Certificate, Circuit, Proxied, ProxiedEndpoint, RuleHits, example::example};

    /// A strict little reader of OpenMetrics: family to type, and every series once. Panics on what it does not know.
    fn read(text: &str) -> (BTreeMap<String, String>, BTreeMap<String, f64>) {
        let (mut types, mut helps, mut series) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        let body = text.strip_suffix("# EOF\n").expect("ends with EOF");
        for line in body.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, sentence) = help.split_once(' ').expect("HELP has a text");
                assert!(sentence.ends_with('.') && helps.insert(name.to_owned()), "{line}");
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect("TYPE has a type");
                assert!(helps.contains(name) && types.insert(name.to_owned(), kind.to_owned()).is_none(), "{line}");
            } else {
                let (key, value) = line.rsplit_once(' ').expect("a series has a value");
                let name = key.split('{').next().expect("never empty");
                assert!(name.starts_with("ga_") && !key.ends_with("{}"), "{line}");
                let suffix_of = |kind: &str| {
                    if kind == "counter" {
                        "_total"
                    } else if kind == "info" {
                        "_info"
                    } else {
                        ""
                    }
                };
                let belongs = |(family, kind): (&String, &String)| format!("{family}{}", suffix_of(kind)) == name;
                assert!(types.iter().any(belongs), "no TYPE before {line}");
                assert!(series.insert(key.to_owned(), value.parse().expect("a number")).is_none(), "twice: {line}");
            }
        }
        (types, series)
    }

    /// The example, its first listener served by the agent.
    fn with_proxy() -> Status {
        let mut status = example();
        status.certificates = vec![Certificate {
            listener: "ga-demo/game".to_owned(),
            name: "default".to_owned(),
            not_after: 1_800_000_000,
            ..Certificate::default()
        }];
        let listener = &mut status.instances[0].listeners[0];
        listener.proxied = Some(Proxied {
            requests: 12,
            statuses: [("2xx".to_owned(), 11)].into(),
            failures: [("refused".to_owned(), 1)].into(),
            max_connections: 100,
            circuits: vec![Circuit { group: "near".to_owned(), connections: [0, 1024], requests: [3, 1024], refused: 7 }],
            rules: vec![RuleHits { rule: "api".to_owned(), priority: 10, does: "forward to api".to_owned(), hits: 5 }],
            ..Proxied::default()
        });
        listener.groups[0].endpoints[0].proxied =
            Some(ProxiedEndpoint { requests: 11, failures: [("reset".to_owned(), 2)].into(), ..ProxiedEndpoint::default() });
        status
    }

    #[test]
    fn the_text_is_valid_and_complete() {
        let (types, series) = read(&render(Some(with_proxy())).expect("a string takes everything"));
        assert_eq!(types.len(), FAMILIES.len(), "every family has a line in the example");
        for (key, expected) in [
            (r#"ga_build_info{version="0.1.0"}"#, 1.0),
            (r#"ga_config_info{generation="42",hash="9f3a"}"#, 1.0),
            ("ga_agent_up", 1.0),
            ("ga_config_last_reload_successful", 1.0),
            ("ga_config_last_reload_success_timestamp_seconds", 1_700_273_000.0),
            ("ga_config_reload_failures_total", 1.0),
            ("ga_dataplane_generation", 42.0),
            (r#"ga_dataplane_attached{interface="eth1",mode="generic"}"#, 1.0),
            (r#"ga_interface_reattached_total{interface="eth0"}"#, 0.0),
            ("ga_pins_restored_total", 1.0),
            (r#"ga_map_repairs_total{map="hops"}"#, 3.0),
            ("ga_next_hop_changes_total", 12.0),
            (r#"ga_certificate_not_after_timestamp_seconds{listener="ga-demo/game",name="default"}"#, 1_800_000_000.0),
            (r#"ga_proxy_connections_limit{instance="ga-demo",listener="game"}"#, 100.0),
            (r#"ga_proxy_group_requests_open{instance="ga-demo",listener="game",group="near"}"#, 3.0),
            (r#"ga_proxy_group_refused_total{instance="ga-demo",listener="game",group="near"}"#, 7.0),
            ("ga_access_log_lost_lines_total", 2.0),
            (r#"ga_proxy_responses_total{instance="ga-demo",listener="game",code="2xx"}"#, 11.0),
            (r#"ga_proxy_failures_total{instance="ga-demo",listener="game",reason="refused"}"#, 1.0),
            (r#"ga_proxy_rule_hits_total{instance="ga-demo",listener="game",rule="api"}"#, 5.0),
            (
                r#"ga_proxy_endpoint_failures_total{instance="ga-demo",listener="game",group="near",endpoint="10.0.0.11",reason="reset"}"#,
                2.0,
            ),
            (r#"ga_endpoint_next_hop_resolved{instance="ga-demo",listener="game",group="near",endpoint="10.0.0.11"}"#, 1.0),
            (r#"ga_listener_packets_total{instance="ga-demo",listener="voice",direction="return"}"#, 1800.0),
            (r#"ga_listener_new_flows_total{instance="ga-demo",listener="voice"}"#, 90.0),
            (
                r#"ga_endpoint_packets_total{instance="ga-demo",listener="game",group="near",endpoint="10.0.0.11",direction="forward"}"#,
                1_234_567.0,
            ),
            (r#"ga_endpoint_weight{instance="ga-demo",listener="game",group="near",endpoint="10.0.0.12"}"#, 0.0),
            (r#"ga_endpoint_share_ratio{instance="ga-demo",listener="voice",group="near",endpoint="10.0.0.11"}"#, 0.996),
            (r#"ga_name_failures_total{source="dns",name="origin.example.net"}"#, 2.0),
            (r#"ga_name_age_seconds{source="dns",name="origin.example.net"}"#, 12.0),
            (r#"ga_name_addresses{source="dns",name="origin.example.net"}"#, 1.0),
            (r#"ga_endpoint_up{instance="ga-demo",listener="game",group="near",endpoint="10.0.0.11"}"#, 1.0),
            (r#"ga_health_probes_total{result="refused"}"#, 2.0),
            (r#"ga_health_panic{instance="ga-demo"}"#, 0.0),
            (r#"ga_drop_packets_total{reason="no_flow",instance="ga-demo",listener="game"}"#, 17.0),
            (r#"ga_drop_packets_total{reason="malformed",instance="",listener=""}"#, 0.0),
            (r#"ga_pass_packets_total{reason="not_ours"}"#, 9001.0),
            (r#"ga_flow_events_total{event="port_retry"}"#, 5.0),
            (r#"ga_flow_entries{family="ipv4"}"#, 12_345.0),
            (r#"ga_flow_capacity{family="ipv6"}"#, 65_536.0),
            (r#"ga_bpf_map_fill_ratio{map="services"}"#, 0.5),
        ] {
            assert_eq!(series.get(key), Some(&expected), "{key}");
        }
    }

    #[test]
    fn only_counters_end_in_total() {
        let (types, series) = read(&render(Some(example())).expect("a string takes everything"));
        for key in series.keys() {
            let name = key.split('{').next().expect("never empty");
            let counter = name.strip_suffix("_total").and_then(|family| types.get(family)).is_some_and(|kind| kind == "counter");
            assert_eq!(name.ends_with("_total"), counter, "{key}");
        }
        assert!(FAMILIES.iter().all(|family| !family.name.ends_with("_total") && !family.name.starts_with("ga_")));
    }

    #[test]
    fn without_the_agent_only_the_process_is_known() {
        let (_, series) = read(&render(None).expect("a string takes everything"));
        assert_eq!(
            series.into_iter().collect::<Vec<_>>(),
            [("ga_agent_up".to_owned(), 0.0), (r#"ga_build_info{version="0.1.0"}"#.to_owned(), 1.0)]
        );
    }

    #[test]
    fn odd_interface_names_are_escaped() {
        let mut status = example();
        status.interfaces[0].name = r#"a"\b"#.to_owned();
        let text = render(Some(status)).expect("a string takes everything");
        assert!(text.contains(r#"interface="a\"\\b""#), "{text}");
    }
}
