//! The rules of the configuration, from both sides: what is just accepted, what is just refused. Where in the file a refusal
//! points is the business of `config_broken.rs`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

use std::{net::IpAddr, time::Duration};

use ga::{
    config::{self, Loaded, problem::Severity},
    model::{
        Affinity, AllUnhealthy, BackendIpVersion, BackendTls, Certificate, ClientIp, EndpointKind, GroupKind, HealthCheck,
        HealthProtocol, Listener, Profile, Protocol, Seed, TlsPolicy, TrafficRatio, XdpMode,
    },
};

/// A file in parts that a test can replace.
struct File {
    node: &'static str,
    limits: String,
    instance: String,
    listener: String,
    group: String,
    endpoints: Vec<String>,
    rest: String,
}

fn file() -> File {
    File {
        node: "interfaces = [\"eth0\"]",
        limits: String::new(),
        instance: "id = \"ga-demo\"\nvips = [\"198.51.100.10\"]\negress_ips = [\"203.0.113.5\"]".to_owned(),
        listener: "name = \"web\"\nports = \"80\"".to_owned(),
        group: "region = \"eu\"".to_owned(),
        endpoints: vec!["type = \"ip\"\naddress = \"192.0.2.11\"".to_owned()],
        rest: String::new(),
    }
}

impl File {
    fn node(mut self, line: &'static str) -> Self {
        self.node = line;
        self
    }

    fn limit(mut self, line: &str) -> Self {
        self.limits = format!("{}\n{line}", self.limits);
        self
    }

    fn instance(mut self, text: &str) -> Self {
        self.instance = text.to_owned();
        self
    }

    fn dual_stack(self) -> Self {
        let instance =
            "id = \"ga-demo\"\nvips = [\"198.51.100.10\", \"2001:db8::10\"]\negress_ips = [\"203.0.113.5\", \"2001:db8:1::5\"]";
        self.instance(instance).group("region = \"eu\"\nbackend_ip_version = \"affinity\"").endpoint("2001:db8:2::1", "")
    }

    fn listener(mut self, text: &str) -> Self {
        self.listener = text.to_owned();
        self
    }

    fn limits(mut self, text: &str) -> Self {
        self.limits = text.to_owned();
        self
    }

    fn ports(self, ports: &str) -> Self {
        self.listener(&format!("name = \"web\"\nports = \"{ports}\""))
    }

    fn group(mut self, text: &str) -> Self {
        self.group = text.to_owned();
        self
    }

    fn endpoint(mut self, address: &str, line: &str) -> Self {
        self.endpoints.push(format!("type = \"ip\"\naddress = \"{address}\"\n{line}"));
        self
    }

    fn endpoints(mut self, endpoints: &[&str]) -> Self {
        self.endpoints = endpoints.iter().map(|text| (*text).to_owned()).collect();
        self
    }

    /// Another listener of the same instance.
    fn and(mut self, listener: &str) -> Self {
        self.rest += &format!("[[instance.listener]]\n{listener}\n{}", group_text("region = \"eu\"", &self.endpoints[..1]));
        self
    }

    fn text(&self) -> String {
        let group = group_text(&self.group, &self.endpoints);
        format!(
            "[node]\n{}\n[limits]\n{}\n[[instance]]\n{}\n[[instance.listener]]\n{}\n{group}{}",
            self.node, self.limits, self.instance, self.listener, self.rest
        )
    }

    fn loaded(&self) -> Loaded {
        let text = self.text();
        config::parse("test.toml", &text).unwrap_or_else(|report| panic!("{:#?}\n{text}", report.problems))
    }

    fn first(&self) -> Listener {
        self.loaded().intent.instances.remove(0).listeners.remove(0)
    }

    /// The words of all problems, in order.
    fn problems(&self) -> Vec<&'static str> {
        let report = config::parse("test.toml", &self.text()).map(|loaded| loaded.intent).expect_err("no problem");
        report.problems.iter().map(|problem| problem.code.map_or(problem.kind.word(), |code| code.word())).collect()
    }

    fn refused(&self, word: &str) {
        assert_eq!(self.problems(), [word], "{}", self.text());
    }
}

fn group_text(group: &str, endpoints: &[String]) -> String {
    let endpoints: String =
        endpoints.iter().map(|text| format!("[[instance.listener.endpoint_group.endpoint]]\n{text}\n")).collect();
    format!("[[instance.listener.endpoint_group]]\n{group}\n{endpoints}")
}

fn ports(listener: &Listener) -> Vec<u16> {
    listener.ports.iter().map(|port| port.get()).collect()
}

// proves: A05
#[test]
fn a_comma_list_opens_exactly_its_ports() {
    assert_eq!(ports(&file().ports("80,90,8080").first()), [80, 90, 8080]);
    assert_eq!(ports(&file().ports(" 80 , 90 ").first()), [80, 90]);
}

// proves: A06
#[test]
fn a_tilde_range_opens_every_port_of_it_and_mixes_with_single_ones() {
    assert_eq!(ports(&file().ports("80~85").first()), [80, 81, 82, 83, 84, 85]);
    assert_eq!(ports(&file().ports("80,90~92").first()), [80, 90, 91, 92]);
    assert_eq!(ports(&file().ports("80-82").first()), [80, 81, 82]);
    assert_eq!(ports(&file().ports("7~7").first()), [7]);
}

// proves: A06
#[test]
fn a_backward_range_is_refused() {
    file().ports("85~80").refused("PortRangeIllegal.Listener");
}

// proves: A07
#[test]
fn ports_are_1_to_65499() {
    assert_eq!(ports(&file().ports("1,65499").first()), [1, 65499]);
    for port in ["0", "65500", "65535", "70000"] {
        file().ports(port).refused("PortRangeIllegal.Listener");
    }
}

// proves: A08
#[test]
fn a_listener_has_30_ports_unless_the_limit_says_otherwise() {
    assert_eq!(file().ports("1~30").first().ports.count(), 30);
    file().ports("1~31").refused("QuotaExceeded.ListenerPort");
    assert_eq!(file().limit("ports_per_l4_listener = 31").ports("1~31").first().ports.count(), 31);
    assert_eq!(file().limit("ports_per_l4_listener = 2000").ports("1~2000").first().ports.count(), 2_000);
    file().limit("ports_per_l4_listener = 2").ports("1~3").refused("QuotaExceeded.ListenerPort");
}

// proves: A10
#[test]
fn tcp_and_udp_may_share_a_port_and_two_of_one_may_not() {
    let udp = "name = \"dns\"\nprotocol = \"udp\"\nports = \"80\"";
    assert_eq!(file().and(udp).loaded().intent.listeners().count(), 2);
    file().and("name = \"dns\"\nports = \"80\"").refused("PortConflict.Listener");
    file().and(udp).and("name = \"dns2\"\nprotocol = \"UDP\"\nports = \"70~90\"").refused("PortConflict.Listener");
}

// proves: A10
#[test]
fn two_instances_may_listen_on_the_same_port() {
    let text = format!("{}{}", file().text(), second_instance("ga-two", "198.51.100.20", "203.0.113.20"));
    assert!(config::parse("test.toml", &text).is_ok());
}

// proves: A11
#[test]
fn names_obey_the_documented_rule() {
    let named = |name: &str| file().listener(&format!("name = \"{name}\"\nports = \"80\""));
    for good in ["a1", "A_b-c", &"a".repeat(128)] {
        assert_eq!(named(good).first().name.as_str(), good);
    }
    for bad in ["a", &"a".repeat(129), "1a", "a b", "-a", "a.b"] {
        assert_eq!(named(bad).problems().len(), 1, "{bad}");
    }
}

// proves: A11
#[test]
fn the_extended_name_rule_allows_one_character_and_dots() {
    let named = |name: &str| file().limit("name_rule = \"extended\"").listener(&format!("name = \"{name}\"\nports = \"80\""));
    assert_eq!(named("a").first().name.as_str(), "a");
    assert_eq!(named("a.b").first().name.as_str(), "a.b");
    named("1a").refused("bad_value");
}

#[test]
fn client_affinity_is_off_unless_set_and_is_there_for_both_protocols() {
    assert_eq!(file().first().affinity, Affinity::None);
    for protocol in ["tcp", "udp"] {
        let text = format!("name = \"web\"\nprotocol = \"{protocol}\"\nports = \"80\"\nclient_affinity = \"source_ip\"");
        assert_eq!(file().listener(&text).first().affinity, Affinity::SourceIp);
    }
}

fn timed(protocol: &str, timeout: &str) -> File {
    file().listener(&format!("name = \"web\"\nprotocol = \"{protocol}\"\nports = \"80\"\nidle_timeout = {timeout}"))
}

// proves: A16
#[test]
fn tcp_flows_idle_10_to_900_seconds() {
    assert_eq!(file().first().idle_timeout, Duration::from_secs(900));
    for (written, seconds) in [("10", 10), ("900", 900), ("\"30s\"", 30), ("\"2m\"", 120), ("\"15m\"", 900)] {
        assert_eq!(timed("tcp", written).first().idle_timeout, Duration::from_secs(seconds));
    }
    for wrong in ["9", "901", "0", "\"9s\"", "\"16m\""] {
        timed("tcp", wrong).refused("out_of_range");
    }
}

// proves: A17
#[test]
fn udp_flows_idle_10_to_20_seconds() {
    let default = file().listener("name = \"dns\"\nprotocol = \"udp\"\nports = \"53\"").first();
    assert_eq!(default.idle_timeout, Duration::from_secs(20));
    assert_eq!(timed("udp", "10").first().idle_timeout, Duration::from_secs(10));
    for wrong in ["9", "21", "900"] {
        timed("udp", wrong).refused("out_of_range");
    }
}

#[test]
fn protocol_is_tcp_unless_set_and_its_case_does_not_count() {
    assert_eq!(file().first().protocol, Protocol::Tcp);
    for (written, protocol) in [("TCP", Protocol::Tcp), ("Udp", Protocol::Udp)] {
        let text = format!("name = \"web\"\nports = \"80\"\nprotocol = \"{written}\"");
        assert_eq!(file().listener(&text).first().protocol, protocol);
    }
}

#[test]
fn a_description_has_200_characters_and_is_no_link() {
    let described = |text: &str| file().group(&format!("region = \"eu\"\ndescription = \"{text}\""));
    assert_eq!(described(&"ä".repeat(200)).first().groups[0].description.chars().count(), 200);
    described(&"ä".repeat(201)).refused("out_of_range");
    described("https://x").refused("not_allowed");
    assert_eq!(described("see https://x").first().groups[0].description, "see https://x");
}

/// The file with more groups after the first, of these lines and an endpoint each.
fn with_groups(groups: &[&str]) -> File {
    let mut file = file();
    for (index, group) in groups.iter().enumerate() {
        file.rest += &group_text(group, &[format!("type = \"ip\"\naddress = \"192.0.2.{}\"", 20 + index)]);
    }
    file
}

// proves: B02
#[test]
fn two_default_groups_have_different_regions_and_a_third_exceeds_the_quota() {
    let more = |regions: &[&str]| {
        let groups: Vec<_> = regions.iter().map(|region| format!("region = \"{region}\"")).collect();
        with_groups(&groups.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let regions = |file: File| file.first().groups.into_iter().map(|group| group.region).collect::<Vec<_>>();
    assert_eq!(regions(more(&["us"])), ["eu", "us"]);
    more(&["eu"]).refused("Exist.EndpointGroup");
    more(&["us", "ap"]).refused("QuotaExceeded.EndpointGroup");
    assert_eq!(regions(more(&["us", "ap"]).limit("default_groups_per_listener = 3")), ["eu", "us", "ap"]);
    more(&["us"]).limit("default_groups_per_listener = 1").refused("QuotaExceeded.EndpointGroup");
    more(&["us"]).limit("profile = \"legacy2021\"").refused("QuotaExceeded.EndpointGroup");
    let ten = more(&["b", "c", "d", "e", "f", "g", "h", "i", "j"]).limit("default_groups_per_listener = 10");
    assert_eq!(ten.first().groups.len(), 10);
}

#[test]
fn groups_have_names_of_their_own() {
    let names = |file: File| file.first().groups.into_iter().map(|group| group.name.to_string()).collect::<Vec<_>>();
    assert_eq!(names(with_groups(&["region = \"us\""])), ["default", "default-2"]);
    assert_eq!(names(with_groups(&["region = \"us\"\nname = \"far\""])), ["default", "far"]);
    with_groups(&["region = \"us\"\nname = \"default\""]).refused("duplicate");
}

#[test]
fn groups_of_a_listener_map_its_ports_alike() {
    let mapped = |endpoint: u16| format!("region = \"us\"\nport_mapping = [{{ listener = 80, endpoint = {endpoint} }}]");
    let file = |first: u16| with_groups(&[&mapped(8080)]).group(&mapped(first).replace("us", "eu"));
    assert_eq!(file(8080).first().groups.len(), 2);
    file(8081).refused("not_supported_yet");
    with_groups(&[&mapped(8080)]).refused("not_supported_yet");
}

// proves: B14, B17, B20
#[test]
fn traffic_ratio_is_0_to_100_and_100_unless_set() {
    let first = |text: &str| file().group(&format!("region = \"eu\"\n{text}"));
    assert_eq!(file().first().groups[0].traffic_ratio, TrafficRatio(100));
    for ratio in [0, 1, 50, 100] {
        assert_eq!(first(&format!("traffic_ratio = {ratio}")).first().groups[0].traffic_ratio, TrafficRatio(ratio));
    }
    for wrong in ["101", "-1", "256"] {
        first(&format!("traffic_ratio = {wrong}")).refused("out_of_range");
    }
    first("traffic_ratio = 50.5").refused("wrong_type");
    let udp = first("traffic_ratio = 50").listener("name = \"dns\"\nprotocol = \"udp\"\nports = \"53\"");
    assert_eq!(udp.first().groups[0].traffic_ratio, TrafficRatio(50));
}

#[test]
fn latency_is_measured_unless_set() {
    let first = |text: &str| file().group(&format!("region = \"eu\"\n{text}"));
    assert_eq!(file().first().groups[0].latency, None);
    assert_eq!(first("latency_ms = 5").first().groups[0].latency, Some(Duration::from_millis(5)));
    for wrong in ["-1", "60001"] {
        first(&format!("latency_ms = {wrong}")).refused("out_of_range");
    }
}

// proves: E12
#[test]
fn listeners_fail_closed_unless_told_otherwise() {
    let listener = |text: &str| file().listener(&format!("name = \"web\"\nports = \"80\"\n{text}"));
    assert_eq!(file().first().all_unhealthy, AllUnhealthy::FailClosed);
    assert!(file().first().failover_to_zero_ratio);
    assert_eq!(listener("all_unhealthy = \"fail_open\"").first().all_unhealthy, AllUnhealthy::FailOpen);
    listener("all_unhealthy = \"fail_soft\"").refused("bad_value");
    assert!(!listener("failover_to_zero_ratio = false").first().failover_to_zero_ratio);
    listener("failover_to_zero_ratio = 0").refused("wrong_type");
}

// proves: B06
#[test]
fn a_virtual_group_on_udp_is_refused_for_good() {
    let udp = file().listener("name = \"dns\"\nprotocol = \"udp\"\nports = \"53\"");
    udp.group("region = \"eu\"\nkind = \"virtual\"").refused("not_allowed");
    file().group("region = \"eu\"\nkind = \"virtual\"").refused("conflict");
    assert!(file().group("region = \"eu\"\nkind = \"default\"").first().groups[0].name.as_str() == "default");
}

// proves: F05
#[test]
fn there_is_one_way_of_telling_endpoints_the_clients_address_and_proxy_headers_are_for_tcp() {
    let group = |text: &str| file().group(&format!("region = \"eu\"\n{text}"));
    group("preserve_client_ip = \"transparent,proxy_v2\"").refused("conflict");
    group("preserve_client_ip = [\"transparent\", \"proxy_v2\"]").refused("wrong_type");
    let udp = || file().listener("name = \"dns\"\nprotocol = \"udp\"\nports = \"53\"");
    for word in ["proxy_v1", "proxy_v2"] {
        udp().group(&format!("region = \"eu\"\npreserve_client_ip = \"{word}\"")).refused("not_allowed");
    }
}

#[test]
fn the_clients_address_is_kept_where_answers_have_a_way() {
    let client_ip = |text: &str| file().group(&format!("region = \"eu\"\n{text}")).first().client_ip();
    assert_eq!(client_ip(""), ClientIp::Hidden);
    assert_eq!(client_ip("preserve_client_ip = \"none\""), ClientIp::Hidden);
    assert_eq!(client_ip("preserve_client_ip = \"transparent\"\nreturn = \"l2\""), ClientIp::L2);
    assert_eq!(client_ip("preserve_client_ip = \"transparent\"\nreturn = \"ipip\""), ClientIp::Ipip);
    assert_eq!(client_ip("preserve_client_ip = \"transparent\"\nreturn = \"gateway\""), ClientIp::Gateway);
    let refused = |text: &str, kind: &str| file().group(&format!("region = \"eu\"\n{text}")).refused(kind);
    refused("preserve_client_ip = \"transparent\"", "missing_key");
    refused("return = \"l2\"", "conflict");
    assert_eq!(client_ip("preserve_client_ip = \"proxy_v1\""), ClientIp::ProxyV1);
    assert_eq!(client_ip("preserve_client_ip = \"proxy_v2\""), ClientIp::ProxyV2);
    refused("preserve_client_ip = \"proxy_v2\"\nreturn = \"gateway\"", "conflict");
    refused("preserve_client_ip = \"toa\"", "not_supported_yet");
    let mapping = "port_mapping = [{ listener = 80, endpoint = 8080 }]";
    refused(&format!("preserve_client_ip = \"transparent\"\nreturn = \"ipip\"\n{mapping}"), "conflict");
    let gateway = client_ip(&format!("preserve_client_ip = \"transparent\"\nreturn = \"gateway\"\n{mapping}"));
    assert_eq!(gateway, ClientIp::Gateway, "ports can be mapped");
}

#[test]
fn the_agent_serves_what_the_kernel_cannot() {
    let proxied = |text: &str| file().group(&format!("region = \"eu\"\n{text}")).first().is_proxied();
    assert!(!proxied(""));
    assert!(!proxied("preserve_client_ip = \"transparent\"\nreturn = \"gateway\""));
    assert!(proxied("preserve_client_ip = \"proxy_v1\""));
    let listener = |text: &str| file().listener(&format!("name = \"web\"\nports = \"80\"\n{text}"));
    assert!(listener("proxy_protocol = { from = [\"10.0.0.0/8\"] }").first().is_proxied());
}

#[test]
fn headers_of_the_proxy_protocol_are_read_from_named_networks_only() {
    let listener = |text: &str| file().listener(&format!("name = \"web\"\nports = \"80\"\n{text}"));
    let from = |text: &str| listener(&format!("proxy_protocol = {text}"));
    assert_eq!(file().first().proxy_from, []);
    let networks = ["10.0.0.0/8", "2001:db8::1/128"].map(|text| text.parse().unwrap());
    assert_eq!(from("{ from = [\"10.0.0.0/8\", \"2001:db8::1\"] }").first().proxy_from, networks);
    from("{}").refused("missing_key");
    from("{ from = [] }").refused("out_of_range");
    from("{ from = [\"everybody\"] }").refused("bad_value");
    from("true").refused("wrong_type");
    listener("protocol = \"udp\"\nproxy_protocol = { from = [\"10.0.0.0/8\"] }").refused("not_allowed");
    let http = listener("protocol = \"http\"\nproxy_protocol = { from = [\"10.0.0.0/8\"] }").first();
    assert_eq!(http.proxy_from.len(), 1);
    let kept = "region = \"eu\"\npreserve_client_ip = \"transparent\"\nreturn = \"l2\"";
    from("{ from = [\"10.0.0.0/8\"] }").group(kept).refused("conflict");
}

#[test]
fn hosts_of_plain_http_are_looked_for_only_where_rules_ask_for_names() {
    let rule = "[[instance.listener.rule]]\nname = \"api\"\nwhen = [{ host = \"api.example\" }]\ndo = [{ drop = true }]";
    let listener = |text: &str| file().listener(&format!("name = \"web\"\nports = \"80\"\n{text}\n{rule}"));
    assert!(listener("http_sniff = true").first().http_sniff);
    assert!(!listener("http_sniff = false").first().http_sniff && !listener("").first().http_sniff);
    listener("http_sniff = 1").refused("wrong_type");
    listener("protocol = \"http\"\nhttp_sniff = true").refused("not_allowed");
    file().listener("name = \"web\"\nports = \"80\"\nhttp_sniff = true").refused("not_allowed");
}

// proves: B09, D05
#[test]
fn a_virtual_group_of_tcp_is_where_a_default_one_is_and_maps_no_port() {
    let mapping = "port_mapping = [{ listener = 80, endpoint = 8080 }]";
    let with = |region: &str, of_default: &str, of_virtual: &str| {
        let other = format!("name = \"api\"\nkind = \"virtual\"\nregion = \"{region}\"\n{of_virtual}");
        with_groups(&[&other]).group(&format!("region = \"eu\"\n{of_default}"))
    };
    assert_eq!(with("eu", "", "").first().groups[1].kind, GroupKind::Virtual);
    assert!(with("eu", "port_mapping = []", "port_mapping = []").first().port_mapping().iter().next().is_none());
    with("us", "", "").refused("conflict");
    with("eu", mapping, "").refused("conflict");
    with("eu", "", mapping).refused("conflict");
    let http = |file: File| file.listener("name = \"web\"\nprotocol = \"http\"\nports = \"80\"");
    assert_eq!(http(with("us", mapping, mapping)).first().groups[1].region, "us");
}

#[test]
fn profiles_bring_their_documented_limits_and_keys_override_them() {
    let limits = |text: &str| file().limit(text).loaded().intent.limits;
    let payg = limits("profile = \"payg\"");
    assert_eq!((payg.instances, payg.listeners_per_instance, payg.ports_per_l4_listener), (10, 50, 30));
    assert_eq!((payg.default_groups_per_listener, payg.endpoints_per_group, payg.port_mappings_per_group), (2, 4, 5));
    let legacy = limits("profile = \"legacy2021\"");
    assert_eq!((legacy.profile, legacy.instances, legacy.listeners_per_instance), (Profile::Legacy2021, 5, 10));
    assert_eq!((legacy.default_groups_per_listener, legacy.port_mappings_per_group), (1, 0));
    assert_eq!(limits("profile = \"legacy2021\"\ninstances = 7").instances, 7);
    assert_eq!(limits("profile = \"subscription\"").profile, Profile::Subscription);
}

// proves: B11
#[test]
fn a_group_needs_a_region() {
    file().group("").refused("missing_key");
    assert_eq!(file().first().groups[0].region, "eu");
}

// proves: C01
#[test]
fn a_group_has_1_to_4_endpoints_unless_the_limit_says_otherwise() {
    let with = |count: usize| {
        let mut file = file().endpoints(&[]);
        for index in 0..count {
            file = file.endpoint(&format!("192.0.2.{}", index + 1), "");
        }
        file
    };
    assert_eq!(with(1).first().groups[0].endpoints.len(), 1);
    assert_eq!(with(4).first().groups[0].endpoints.len(), 4);
    with(0).refused("missing_key");
    with(5).refused("QuotaExceeded.EndPoint");
    assert_eq!(with(5).limit("endpoints_per_group = 5").first().groups[0].endpoints.len(), 5);
    assert_eq!(with(30).limit("endpoints_per_group = 30").first().groups[0].endpoints.len(), 30);
    with(2).limit("endpoints_per_group = 1").refused("QuotaExceeded.EndPoint");
}

// proves: C02
#[test]
fn a_weight_is_0_to_255_and_255_when_omitted() {
    let weighted = |line: &str| file().endpoint("192.0.2.12", line);
    let weight = |line: &str| weighted(line).first().groups[0].endpoints[1].weight.0;
    assert_eq!((weight(""), weight("weight = 0"), weight("weight = 255"), weight("weight = 1")), (255, 0, 255, 1));
    weighted("weight = 256").refused("out_of_range");
    weighted("weight = -1").refused("out_of_range");
}

#[test]
fn a_group_of_weight_0_alone_is_a_warning() {
    let loaded = file().endpoints(&["type = \"ip\"\naddress = \"192.0.2.11\"\nweight = 0"]).loaded();
    let [warning] = loaded.warnings.as_slice() else { panic!("{:?}", loaded.warnings) };
    assert_eq!((warning.severity, warning.kind.word()), (Severity::Warning, "no_effect"));
    assert!(file().endpoint("192.0.2.12", "weight = 0").loaded().warnings.is_empty());
}

#[test]
fn addresses_public_and_private_are_endpoints_of_every_ip_type() {
    let kinds = [("ip", EndpointKind::Ip), ("public_ip", EndpointKind::PublicIp), ("private_ip", EndpointKind::PrivateIp)];
    for (word, kind) in kinds {
        for address in ["10.1.2.3", "100.64.0.1", "172.16.0.1", "192.168.1.1", "8.8.8.8"] {
            let text = format!("type = \"{word}\"\naddress = \"{address}\"");
            let endpoint = file().endpoints(&[&text]).first().groups[0].endpoints.remove(0);
            assert_eq!((endpoint.kind, endpoint.address), (kind, address.parse::<IpAddr>().unwrap()));
        }
    }
}

// proves: C13
#[test]
fn an_alb_endpoint_under_udp_is_refused_for_good() {
    let udp = file().listener("name = \"dns\"\nprotocol = \"udp\"\nports = \"53\"");
    udp.endpoints(&["type = \"alb\"\naddress = \"alb-1\""]).refused("not_allowed");
    file().endpoints(&["type = \"alb\"\naddress = \"alb-1\""]).loaded();
}

// proves: C15, D12
#[test]
fn an_oss_endpoint_with_ipv6_or_affinity_is_refused_for_good() {
    for version in ["ipv6", "affinity"] {
        let group = format!("region = \"eu\"\nbackend_ip_version = \"{version}\"");
        file().group(&group).endpoints(&["type = \"oss\"\naddress = \"bucket\""]).refused("not_allowed");
    }
}

// proves: D12
#[test]
fn no_backend_version_is_set_where_the_region_is_a_point_of_presence() {
    for version in ["ipv4", "ipv6", "affinity"] {
        let group = |pop| format!("region = \"eu\"\npop = {pop}\nbackend_ip_version = \"{version}\"");
        let address = if version == "ipv6" { "2001:db8:2::1" } else { "192.0.2.11" };
        let endpoint = format!("type = \"ip\"\naddress = \"{address}\"");
        let text = "id = \"ga-demo\"\nvips = [\"198.51.100.10\"]\negress_ips = [\"203.0.113.5\", \"2001:db8:1::5\"]";
        let with = |pop| file().instance(text).group(&group(pop)).endpoints(&[&endpoint]);
        with(true).refused("conflict");
        with(false).loaded();
    }
    // It is the default that holds there.
    assert_eq!(file().group("region = \"eu\"\npop = true").first().groups[0].backend_ip_version, BackendIpVersion::Ipv4);
}

// proves: C18
#[test]
fn a_vswitch_endpoint_is_refused_under_a_standard_listener() {
    file().endpoints(&["type = \"vswitch\"\naddress = \"10.1.2.0/28\""]).refused("not_allowed");
}

fn second_instance(id: &str, vip: &str, egress: &str) -> String {
    format!(
        "[[instance]]\nid = \"{id}\"\nvips = [\"{vip}\"]\negress_ips = [\"{egress}\"]\n\
         [[instance.listener]]\nname = \"web\"\nports = \"80\"\n{}",
        group_text("region = \"eu\"", &["type = \"ip\"\naddress = \"192.0.2.11\"".to_owned()])
    )
}

// proves: C19
#[test]
fn egress_addresses_and_vips_are_never_shared_between_instances() {
    let both = |id, vip, egress| {
        let mut file = file();
        file.rest = second_instance(id, vip, egress);
        file
    };
    assert_eq!(both("ga-two", "198.51.100.20", "203.0.113.20").loaded().intent.instances.len(), 2);
    both("ga-two", "198.51.100.20", "203.0.113.5").refused("conflict");
    both("ga-two", "198.51.100.10", "203.0.113.20").refused("conflict");
    both("ga-two", "203.0.113.5", "203.0.113.20").refused("conflict");
    both("ga-demo", "198.51.100.20", "203.0.113.20").refused("duplicate");
}

#[test]
fn one_address_may_be_vip_and_egress_address_of_one_instance() {
    let instance = "id = \"ga-demo\"\nvips = [\"198.51.100.10\"]\negress_ips = [\"198.51.100.10\"]";
    assert_eq!(file().instance(instance).loaded().intent.instances[0].egress_ips.len(), 1);
}

#[test]
fn an_instance_has_8_egress_addresses_of_each_family() {
    let list = |v4: u32, v6: u32| {
        let v4 = (1..=v4).map(|n| format!("\"203.0.113.{n}\""));
        let all: Vec<_> = v4.chain((1..=v6).map(|n| format!("\"2001:db8:1::{n}\""))).collect();
        file().instance(&format!("id = \"ga-demo\"\nvips = [\"198.51.100.10\"]\negress_ips = [{}]", all.join(", ")))
    };
    assert_eq!(list(8, 8).loaded().intent.instances[0].egress_ips.len(), 16);
    list(9, 0).refused("capacity");
    list(9, 9).problems().iter().for_each(|word| assert_eq!(*word, "capacity"));
}

#[test]
fn a_port_mapping_on_tcp_and_udp_changes_only_the_ports_it_names() {
    for protocol in ["tcp", "udp"] {
        let file = file()
            .listener(&format!("name = \"web\"\nprotocol = \"{protocol}\"\nports = \"80,90\""))
            .group("region = \"eu\"\nport_mapping = [{ listener = 80, endpoint = 18080 }]");
        let listener = file.first();
        let mapped: Vec<u16> = listener.ports.iter().map(|port| listener.groups[0].port_mapping.endpoint_port(port)).collect();
        assert_eq!(mapped, [18080, 90]);
    }
}

// proves: D04
#[test]
fn several_listener_ports_may_go_to_one_endpoint_port() {
    let mapping = "region = \"eu\"\nport_mapping = [{ listener = 8001, endpoint = 8080 }, { listener = 8002, endpoint = 8080 }]";
    assert_eq!(file().ports("8001~8002").group(mapping).first().groups[0].port_mapping.iter().count(), 2);
}

// proves: D06
#[test]
fn a_mapping_of_a_port_that_the_listener_has_not_is_refused() {
    let mapping = "region = \"eu\"\nport_mapping = [{ listener = 82, endpoint = 102 }]";
    assert!(file().ports("80~82").group(mapping).first().ports.count() == 3);
    file().ports("80~81").group(mapping).refused("conflict");
}

#[test]
fn a_group_has_5_port_mappings_unless_the_limit_says_otherwise() {
    let with = |count: u16| {
        let mappings: Vec<_> = (1..=count).map(|port| format!("{{ listener = {port}, endpoint = 80 }}")).collect();
        file().ports("1~10").group(&format!("region = \"eu\"\nport_mapping = [{}]", mappings.join(", ")))
    };
    assert_eq!(with(5).first().groups[0].port_mapping.iter().count(), 5);
    with(6).refused("QuotaExceeded.PortOverride");
    assert_eq!(with(6).limit("port_mappings_per_group = 6").first().groups[0].port_mapping.iter().count(), 6);
    with(1).limit("port_mappings_per_group = 0").refused("QuotaExceeded.PortOverride");
}

#[test]
fn instances_and_listeners_are_counted_against_their_limits() {
    let mut two = file();
    two.rest = second_instance("ga-two", "198.51.100.20", "203.0.113.20");
    two.limit("instances = 1").refused("quota");
    let other = "name = \"other\"\nports = \"81\"";
    file().and(other).limit("listeners_per_instance = 1").refused("QuotaExceeded.Listener");
    assert_eq!(file().and(other).limit("listeners_per_instance = 2").loaded().intent.listeners().count(), 2);
}

#[test]
fn a_limit_beyond_its_documented_ceiling_is_refused() {
    for line in ["instances = 41", "ports_per_l4_listener = 2001", "endpoints_per_group = 31", "listeners_per_instance = 2049"] {
        file().limit(line).refused("out_of_range");
    }
    file().limit("port_max = 65535").refused("not_allowed");
    assert_eq!(file().limit("port_max = 65499\ninstances = 40").loaded().intent.limits.instances, 40);
}

#[test]
fn fixed_backend_versions_take_endpoints_of_their_family_only() {
    let v6 = "id = \"ga-demo\"\nvips = [\"2001:db8::10\"]\negress_ips = [\"2001:db8:1::5\"]";
    let group = "region = \"eu\"\nbackend_ip_version = \"ipv6\"";
    let endpoint = "type = \"ip\"\naddress = \"2001:db8:2::1\"";
    let good = file().instance(v6).group(group).endpoints(&[endpoint]);
    assert_eq!(good.first().groups[0].backend_ip_version, BackendIpVersion::Ipv6);
    assert_eq!(file().first().groups[0].backend_ip_version, BackendIpVersion::Ipv4);
    file().instance(v6).group("region = \"eu\"").endpoints(&[endpoint]).refused("family");
}

#[test]
fn protocol_affinity_takes_endpoints_of_both_families() {
    let listener = file().dual_stack().first();
    assert_eq!((listener.groups[0].backend_ip_version, listener.groups[0].endpoints.len()), (BackendIpVersion::Affinity, 2));
}

#[test]
fn every_family_of_the_vips_needs_an_endpoint_and_the_refusal_says_how() {
    let file = file().dual_stack().endpoints(&["type = \"ip\"\naddress = \"192.0.2.11\""]);
    let report = config::parse("test.toml", &file.text()).unwrap_err();
    let help = &report.problems[0].help;
    assert!(help.contains("headers are translated then"), "{help}");
    assert!(help.contains("add an IPv6 endpoint"), "{help}");
}

#[test]
fn endpoints_of_a_family_without_vip_are_a_warning() {
    let mut file = file().dual_stack();
    file.instance = file.instance.replace(", \"2001:db8::10\"", "");
    assert_eq!(file.loaded().warnings.len(), 1);
}

#[test]
fn endpoints_need_an_egress_address_of_their_family() {
    let mut file = file().dual_stack();
    file.instance = file.instance.replace(", \"2001:db8:1::5\"", "");
    file.refused("family");
}

#[test]
fn preserving_the_client_address_is_off_and_may_be_said_so() {
    assert_eq!(file().group("region = \"eu\"\npreserve_client_ip = \"none\"").loaded().warnings.len(), 0);
    file().group("region = \"eu\"\npreserve_client_ip = \"transparent\"").refused("missing_key");
}

#[test]
fn proxy_protocol_under_udp_is_refused_for_good() {
    let udp = file().listener("name = \"dns\"\nprotocol = \"udp\"\nports = \"53\"");
    udp.group("region = \"eu\"\npreserve_client_ip = \"proxy_v2\"").refused("not_allowed");
}

#[test]
fn the_node_has_documented_defaults() {
    let node = file().loaded().intent.node;
    assert_eq!((node.ap.as_str(), node.xdp_mode, node.flows), ("local", XdpMode::Auto, 65_536));
    assert_eq!((node.nat_ports, node.hash_seed), (1_024..=64_511, None));
    assert_eq!(node.metrics, Some("127.0.0.1:9464".parse().unwrap()));
}

#[test]
fn the_node_says_everything_about_the_host() {
    let text = "ap = \"fra1\"\ninterfaces = [\"eth0\", \"eth1\"]\nxdp_mode = \"native\"\nflows = 1_000_000\n\
                nat_ports = \"2000 ~ 9999\"\n\
                hash_seed = \"000000000000000A00000000000000ff\"\nmetrics = \"off\"";
    let node = file().node(text).loaded().intent.node;
    assert_eq!((node.ap.as_str(), node.interfaces.len(), node.xdp_mode), ("fra1", 2, XdpMode::Native));
    assert_eq!((node.flows, node.nat_ports), (1_000_000, 2_000..=9_999));
    assert_eq!((node.hash_seed, node.metrics), (Some(Seed([10, 255])), None));
}

#[test]
fn source_ports_that_the_host_takes_for_itself_are_a_warning() {
    let loaded = file().node("interfaces = [\"eth0\"]\nnat_ports = \"1500~65000\"").loaded();
    assert_eq!(loaded.warnings[0].place.path, "node.nat_ports");
}

#[test]
fn keys_of_later_versions_are_told_from_unknown_ones() {
    file().group("region = \"eu\"\nfailover = \"later\"").refused("not_supported_yet");
    file().group("region = \"eu\"\ntraffic_ration = 50").refused("unknown_key");
}

fn checked(check: &str) -> File {
    file().group(&format!("region = \"eu\"\nhealth_check = {{ {check} }}"))
}

fn health_check(check: &str) -> Option<HealthCheck> {
    checked(check).first().groups.remove(0).health_check
}

// proves: E10
#[test]
fn health_checks_are_off_by_default() {
    assert_eq!(file().first().groups.remove(0).health_check, None);
    assert_eq!(health_check("enabled = false, protocol = \"http\""), None);
    assert_eq!(health_check(""), Some(HealthCheck::default()));
}

// proves: E05
#[test]
fn the_threshold_is_2_to_10_and_3_by_default() {
    let threshold = |text: &str| health_check(text).map(|check| check.threshold);
    assert_eq!([threshold(""), threshold("threshold = 2"), threshold("threshold = 10")], [Some(3), Some(2), Some(10)]);
    checked("threshold = 1").refused("out_of_range");
    checked("threshold = 11").refused("out_of_range");
}

// proves: E04
#[test]
fn the_timeout_of_a_probe_is_fixed() {
    assert_eq!(ga::model::HEALTH_TIMEOUT, Duration::from_secs(3));
    checked("timeout = 3").refused("not_allowed");
    let report = config::parse("test.toml", &checked("timeout = 5").text()).expect_err("no problem");
    assert_eq!(report.problems[0].message, "the timeout of a probe is fixed: 3 s");
}

#[test]
fn a_health_check_has_its_documented_bounds_and_words() {
    let both = "protocol = \"HTTPS\", path = \"/up?full=1\", host = \"a.example:8443\", expected_status = \"200,300~302\", \
                verify = true, body = \"ok\", port = 8443, interval = 50, initial = \"unhealthy\", fast_interval_ms = 500, \
                slow_start = 30, hold_down = 900";
    let check = health_check(both).unwrap();
    assert_eq!((check.protocol, check.port, check.path.as_str()), (HealthProtocol::Https, Some(8443), "/up?full=1"));
    assert_eq!((check.host.as_deref(), check.body.as_deref()), (Some("a.example:8443"), Some("ok")));
    assert_eq!((check.interval, check.fast_interval), (Duration::from_secs(50), Some(Duration::from_millis(500))));
    assert_eq!((check.slow_start, check.hold_down), (Some(Duration::from_secs(30)), Some(Duration::from_secs(900))));
    assert!(check.verify && !check.initially_healthy);
    let statuses = [199, 200, 201, 300, 302, 303].map(|status| check.expected_status.iter().any(|range| range.contains(status)));
    assert_eq!(statuses, [false, true, false, true, true, false]);
    for (wrong, word) in [
        ("interval = 0", "out_of_range"),
        ("interval = 51", "out_of_range"),
        ("port = 0", "out_of_range"),
        ("protocol = \"udp\"", "bad_value"),
        ("protocol = \"http\", path = \"up\"", "bad_value"),
        ("protocol = \"http\", host = \"a b\"", "bad_value"),
        ("protocol = \"http\", expected_status = \"99\"", "bad_value"),
        ("protocol = \"http\", expected_status = \"300~200\"", "bad_value"),
        ("protocol = \"http\", body = \"\"", "bad_value"),
        ("path = \"/\"", "conflict"),
        ("protocol = \"http\", verify = true", "conflict"),
        ("interval = 1, fast_interval_ms = 1001", "conflict"),
        ("fast_interval_ms = 99", "out_of_range"),
        ("slow_start = 0", "out_of_range"),
        ("hold_down = 901", "out_of_range"),
        ("enabled = 1", "wrong_type"),
        ("threshhold = 3", "unknown_key"),
    ] {
        checked(wrong).refused(word);
    }
}

#[test]
fn probes_and_nat_have_ports_of_their_own() {
    let wide = "interfaces = [\"eth0\"]\nnat_ports = \"61000~65535\"";
    checked("").node(wide).refused("conflict");
    file().node(wide).loaded();
    checked("enabled = false").node(wide).loaded();
    checked("").node("interfaces = [\"eth0\"]\nnat_ports = \"61000~65499\"").loaded();
}

#[test]
fn the_agents_own_connections_and_nat_have_ports_of_their_own() {
    let http = || file().listener("name = \"web\"\nprotocol = \"http\"\nports = \"80\"");
    let node = http().loaded().intent.node;
    assert_eq!((node.proxy_ports(), node.nat_ports), (1_024..=16_383, 16_384..=64_511));
    let narrow = http().node("interfaces = [\"eth0\"]\nnat_ports = \"2000~65499\"").loaded().intent.node;
    assert_eq!((narrow.proxy_ports(), narrow.nat_ports), (1_024..=1_999, 2_000..=65_499));
    http().node("interfaces = [\"eth0\"]\nnat_ports = \"1024~65499\"").refused("conflict");
    file().node("interfaces = [\"eth0\"]\nnat_ports = \"1024~65499\"").loaded();
}

#[test]
fn the_panic_threshold_is_a_part_that_can_be_exceeded() {
    let node = |line: &'static str| file().node(line);
    assert_eq!(file().loaded().intent.node.panic_threshold, None);
    let threshold = node("interfaces = [\"eth0\"]\npanic_threshold = 99").loaded().intent.node.panic_threshold;
    assert_eq!(threshold, Some(99));
    node("interfaces = [\"eth0\"]\npanic_threshold = 100").refused("out_of_range");
    node("interfaces = [\"eth0\"]\npanic_threshold = 0").refused("out_of_range");
}

/// Everything the running file and the next one have to say to each other.
fn change(running: &File, next: &File) -> Vec<String> {
    let next = next.loaded();
    config::check_change(&running.loaded().intent, &next).into_iter().map(|problem| problem.message).collect()
}

fn mapped(ports: &str, mapping: &str) -> File {
    file().ports(ports).group(&format!("region = \"eu\"\nport_mapping = [{mapping}]"))
}

const MAP_82: &str = "{ listener = 82, endpoint = 102 }";

// proves: D06
#[test]
fn a_port_that_the_running_configuration_maps_cannot_go() {
    let running = mapped("80~82", MAP_82);
    let problems = change(&running, &mapped("80~81", ""));
    assert_eq!(problems, ["port 82 cannot go: the running configuration maps it to endpoint port 102"]);
    assert!(change(&running, &mapped("82~83", MAP_82)).is_empty(), "unmapped ports may go, others may come");
}

// proves: D06
#[test]
fn a_mapped_port_goes_in_two_steps() {
    let (running, between, last) = (mapped("80~82", MAP_82), mapped("80~82", ""), mapped("80~81", ""));
    assert!(change(&running, &between).is_empty());
    assert!(change(&between, &last).is_empty());
}

// proves: D06
#[test]
fn a_refused_change_points_at_the_ports_of_the_new_file() {
    let next = mapped("80~81", "").loaded();
    let problems = config::check_change(&mapped("80~82", MAP_82).loaded().intent, &next);
    let place = &problems[0].place;
    assert_eq!((place.text.as_str(), place.path.as_str()), ("\"80~81\"", "instance[0].listener[0].ports"));
}

#[test]
fn the_protocol_of_a_listener_with_mapped_ports_cannot_change() {
    let running = mapped("80~82", MAP_82);
    let mut next = mapped("80~82", MAP_82);
    next.listener += "\nprotocol = \"udp\"";
    assert_eq!(change(&running, &next).len(), 1);
    let unmapped = file().ports("80~82");
    assert!(change(&unmapped, &next).is_empty(), "without a running mapping the protocol may change");
}

// proves: D06
#[test]
fn a_listener_that_goes_takes_its_mappings_along() {
    let next = file().listener("name = \"other\"\nports = \"80\"");
    assert!(change(&mapped("80~82", MAP_82), &next).is_empty());
}

#[test]
fn the_same_file_again_is_no_forbidden_change() {
    let file = mapped("80~82", MAP_82);
    assert!(change(&file, &file).is_empty());
}

fn https(lines: &str) -> File {
    file().listener(&format!("name = \"web\"\nprotocol = \"https\"\nports = \"443\"\n{lines}"))
}

const OWN: &str = "certificates = { default = \"a.pem\" }";

// proves: H02
#[test]
fn policies_have_their_documented_names_and_what_they_cannot_be_is_said() {
    let policy = |lines: &str| https(&format!("{OWN}\n{lines}")).first().tls.unwrap().policy;
    assert_eq!(policy(""), TlsPolicy::Tls12StrictWith13);
    for key in ["security_policy", "security_policy_id"] {
        assert_eq!(policy(&format!("{key} = \"tls_cipher_policy_1_2\"")), TlsPolicy::Tls12);
        assert_eq!(policy(&format!("{key} = \"tls_cipher_policy_1_2_strict\"")), TlsPolicy::Tls12Strict);
        assert_eq!(policy(&format!("{key} = \"tls_cipher_policy_1_2_strict_with_1_3\"")), TlsPolicy::Tls12StrictWith13);
        for old in ["tls_cipher_policy_1_0", "tls_cipher_policy_1_1"] {
            let text = https(&format!("{OWN}\n{key} = \"{old}\"")).text();
            let problem = config::parse("test.toml", &text).unwrap_err().problems.remove(0);
            assert!(problem.message.contains("1.1, which are broken"), "{}", problem.message);
            assert!(problem.help.contains("tls_cipher_policy_1_2"), "{}", problem.help);
        }
    }
}

// proves: H04
#[test]
fn a_listener_that_speaks_http3_has_its_port_for_udp_too() {
    let game = "name = \"game\"\nprotocol = \"udp\"\nports = \"440~450\"";
    let both = |version: &str| https(&format!("http_version = \"{version}\"\n{OWN}")).and(game);
    assert_eq!(both("http2").loaded().intent.listeners().count(), 2);
    let text = both("http3").text();
    let line = |what: &str| 1 + text.lines().position(|line| line == what).unwrap();
    let problem = config::parse("test.toml", &text).unwrap_err().problems.remove(0);
    assert_eq!(problem.place.line, line("ports = \"440~450\""));
    let said = format!("UDP port 443 belongs to listener `web` on line {}, which speaks HTTP/3 there", line("ports = \"443\""));
    assert_eq!(problem.message.to_lowercase(), said.to_lowercase());
    https(&format!("http_version = \"http3\"\nsecurity_policy = \"tls_cipher_policy_1_2\"\n{OWN}")).refused("conflict");
    // Another instance has other addresses.
    assert!(https(&format!("http_version = \"http3\"\n{OWN}")).first().speaks_http3());
}

// proves: H01
#[test]
fn certificates_are_beside_the_file_or_where_they_say_and_a_key_may_be_apart() {
    let certificates = "certificates = { default = { cert = \"a.crt\", key = \"/keys/a.key\" }, additional = [\n\
                        { domain = \"B.example\", cert = \"/etc/b.pem\" }, { domain = \"*.b.example\", cert = \"w.crt\", key = \"w.key\" }] }";
    let text = https(certificates).text();
    let tls = |file: &str| {
        let mut intent = config::parse(file, &text).unwrap().intent;
        intent.instances.remove(0).listeners.remove(0).tls.unwrap()
    };
    let files = |cert: &str, key: &str| Certificate { cert: cert.to_owned(), key: key.to_owned() };
    let found = tls("/etc/ga/ga.toml");
    assert_eq!(found.default, files("/etc/ga/a.crt", "/keys/a.key"));
    assert_eq!(
        found.additional,
        [
            ("b.example".to_owned(), files("/etc/b.pem", "/etc/b.pem")),
            ("*.b.example".to_owned(), files("/etc/ga/w.crt", "/etc/ga/w.key")),
        ]
    );
    assert_eq!(tls("ga.toml").default.cert, "a.crt");
    let one = https(OWN).first().tls.unwrap().default;
    assert_eq!((one.cert.as_str(), one.key.as_str()), ("a.pem", "a.pem"));
}

// proves: H03
#[test]
fn endpoints_are_verified_unless_the_file_says_no_which_is_pointed_out() {
    let backend = |lines: &str| {
        let loaded = https(OWN).group(&format!("region = \"eu\"\n{lines}")).loaded();
        let warnings: Vec<_> = loaded.warnings.iter().map(|warning| warning.kind.word()).collect();
        (loaded.intent.instances[0].listeners[0].groups[0].backend.tls.clone(), warnings)
    };
    assert_eq!(backend(""), (None, vec![]));
    let over = "backend_protocol = \"https\"";
    assert_eq!(backend(over), (Some(BackendTls { verify: true, ca: None }), vec![]));
    let ca = format!("{over}\nca = \"/etc/ca.pem\"");
    assert_eq!(backend(&ca), (Some(BackendTls { verify: true, ca: Some("/etc/ca.pem".to_owned()) }), vec![]));
    assert_eq!(backend(&format!("{over}\nverify = false")), (Some(BackendTls { verify: false, ca: None }), vec!["unsafe"]));
    assert_eq!(backend(&format!("{ca}\nverify = false")).1, ["no_effect", "unsafe"]);
}

fn http(port: &str, more: &str) -> File {
    file().listener(&format!("name = \"web\"\nprotocol = \"http\"\nports = \"{port}\"\n{more}"))
}

// proves: A09
#[test]
fn http_and_https_listeners_have_one_port() {
    assert_eq!(ports(&http("80", "").first()), [80]);
    http("80,81", "").refused("PortRangeIllegal.Listener");
    let https = |ports: &str| {
        format!("name = \"web\"\nprotocol = \"https\"\nports = \"{ports}\"\ncertificates = {{ default = \"a.pem\" }}")
    };
    assert_eq!(ports(&file().listener(&https("443")).first()), [443]);
    file().listener(&https("443~444")).refused("PortRangeIllegal.Listener");
}

// proves: D07
#[test]
fn endpoints_of_http_listeners_are_spoken_to_by_http() {
    let group = |text: &str| http("80", "").group(&format!("region = \"eu\"\n{text}"));
    assert_eq!(group("").first().groups[0].backend.tls, None);
    assert_eq!(group("backend_protocol = \"HTTP\"").first().groups[0].backend.tls, None);
    group("backend_protocol = \"https\"").refused("not_allowed");
}

#[test]
fn the_longest_idle_timeout_of_http_is_a_limit() {
    http("80", "idle_timeout = 61").refused("out_of_range");
    let raised = |seconds: u32| http("80", &format!("idle_timeout = {seconds}")).limits("http_idle_timeout_max = 100");
    assert_eq!(raised(100).first().idle_timeout.as_secs(), 100);
    raised(101).refused("out_of_range");
}
