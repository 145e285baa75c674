//! `ga status`: one screen that says how things are.

use std::{collections::BTreeMap, fmt::Write};

use clap::Args;
use comfy_table::{Cell, CellAlignment, Color, Table};

use super::{
    Context, Exit, drops,
    output::Style,
    units::{bytes, count, duration, percent},
    watch::{Unit, Watch, watch},
};
use crate::status::{
    AttachMode, Certificate, Endpoint, EndpointState, FlowTable, Health, Instance, Interface, Listener, NextHop, Proxied,
    Repairs, Status,
};

pub(super) const EXAMPLES: &str = "Examples:
  ga status                                  how things are
  ga status --watch                          the same every second, with rates
  ga status --watch=5 | tee log              a block every 5 seconds
  ga status --output json | jq .generation   for programs";

/// Arguments of `ga status`.
#[derive(Clone, Debug, Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    watch: Watch,
}

/// Runs `ga status`.
pub(super) async fn run(args: &StatusArgs, context: &Context) -> anyhow::Result<Exit> {
    let output = &context.output;
    match args.watch.watch {
        Some(every) => watch(context, every, |status, unit| output.repeated(status, |style| render(status, style, unit))).await,
        None => {
            let status = context.client().status().await?;
            output.view(&status, |style| render(&status, style, Unit::Total))?;
            Ok(Exit::Ok)
        }
    }
}

/// The screen.
pub(super) fn render(status: &Status, style: &Style, unit: Unit) -> String {
    let mut out = head(status);
    for (instance, listener) in status.listeners() {
        out += &format!("\n{}\n", title(instance, listener));
        out += &listener.proxied.as_ref().map(answers).unwrap_or_default();
        out += &certificates(status, &format!("{}/{}", instance.id, listener.name));
        out += &listener.proxied.as_ref().and_then(|proxied| rules(proxied, style)).unwrap_or_default();
        out += &groups(listener, style).unwrap_or_default();
        out += &endpoints(listener, style, unit);
    }
    out.push('\n');
    out += &drops::render_drops(&status.drops, style, unit);
    out
}

fn head(status: &Status) -> String {
    let Status { version, access_point, generation, last_reload, .. } = status;
    let up = duration(status.uptime_s as u64);
    // The agent's own clock: ours may be another host's.
    let now = status.started_at.unwrap_or_default() + status.uptime_s as u64;
    let reloaded = last_reload.success_at.map(|at| format!(", configured {} ago", duration(now.saturating_sub(at))));
    let interfaces: Vec<String> = status.interfaces.iter().map(interface).collect();
    let flows = |family: &str, table: FlowTable| {
        format!("{family} {} of {} ({})", count(table.live), count(table.capacity), percent(table.fill()))
    };
    let mut out = format!(
        "ga {version} at {access_point}, generation {generation}, up {up}{}\ninterfaces: {}\nflows: {}, {}\n",
        reloaded.unwrap_or_default(),
        or_dash(interfaces.join(", ")),
        flows("IPv4", status.flows.ipv4),
        flows("IPv6", status.flows.ipv6),
    );
    let events: Vec<String> =
        status.flow_events.iter().filter(|(_, n)| **n > 0).map(|(event, n)| format!("{} {event}", count(*n))).collect();
    if !events.is_empty() {
        out += &format!("flow memory: {}\n", events.join(", "));
    }
    let refused = (!last_reload.successful).then(|| {
        let why = last_reload.error.as_deref().unwrap_or("no reason given");
        format!("the latest configuration was refused: {why}")
    });
    let detached = status.interfaces.iter().filter_map(|interface| {
        let why = interface.trouble.as_deref().filter(|_| !interface.attached)?;
        Some(format!("{}: {why}", interface.name))
    });
    for warning in refused.iter().cloned().chain(detached).chain(repairs(&status.repairs)).chain(status.warnings.clone()) {
        // Writing to a string cannot fail.
        writeln!(out, "warning: {warning}").ok();
    }
    out
}

fn interface(interface: &Interface) -> String {
    let mode = match interface.mode {
        AttachMode::Native => "native",
        AttachMode::Generic => "generic",
    };
    format!("{} {}", interface.name, if interface.attached { mode } else { "NOT ATTACHED" })
}

/// A line for each group in the order of their priority, where there are several.
fn groups(listener: &Listener, style: &Style) -> Option<String> {
    use CellAlignment::{Left, Right};
    if listener.groups.len() < 2 {
        return None;
    }
    let has_virtual = listener.groups.iter().any(|group| group.kind == "virtual");
    let mut columns = vec![("group", Left), ("region", Left)];
    if has_virtual {
        columns.push(("kind", Left));
    }
    columns.extend([("priority", Right), ("latency", Right), ("ratio", Right), ("share", Right)]);
    let mut table = style.table(&columns);
    for group in &listener.groups {
        let shares = [group.share_ipv4, group.share_ipv6].into_iter().flatten().map(percent).collect::<Vec<_>>();
        let mut row = vec![Cell::new(&group.name), Cell::new(&group.region)];
        if has_virtual {
            row.push(Cell::new(&group.kind));
        }
        row.extend([
            Cell::new(group.priority),
            Cell::new(group.latency_ms.map_or("-".to_owned(), |ms| format!("{ms:.1} ms"))),
            Cell::new(format!("{} %", group.traffic_ratio)),
            Cell::new(or_dash(shares.join(" / "))),
        ]);
        table.add_row(row);
    }
    Some(style.draw(table))
}

/// What somebody else changed and the agent put right: no trouble any more, but somebody's.
fn repairs(repairs: &Repairs) -> Option<String> {
    let maps = repairs.maps.iter().filter(|(_, count)| **count > 0);
    let mut parts: Vec<String> = maps.map(|(map, entries)| format!("{} in {map}", count(*entries))).collect();
    if repairs.pins > 0 {
        parts.push(format!("{} pins", count(repairs.pins)));
    }
    (!parts.is_empty()).then(|| format!("somebody else changed the data path; put right since the start: {}", parts.join(", ")))
}

fn title(instance: &Instance, listener: &Listener) -> String {
    let Listener { name, protocol, ports, client_affinity, idle_timeout_s, active_flows, in_transition, .. } = listener;
    let (id, vips) = (&instance.id, or_dash(instance.vips.join(",")));
    let affinity = if client_affinity == "none" { String::new() } else { format!(", affinity {client_affinity}") };
    let moving = if *in_transition { ", older flows stay where they began" } else { "" };
    let open = match &listener.proxied {
        Some(proxied) => format!("{} of {} connections", count(proxied.active), count(proxied.max_connections)),
        None => format!("{} flows", count(*active_flows)),
    };
    format!("{id}/{name}  {vips} {protocol} {ports}{affinity}, idle {idle_timeout_s} s, {open}{moving}")
}

/// What became of requests and connections of a listener that the agent serves.
fn answers(proxied: &Proxied) -> String {
    let each =
        |of: &BTreeMap<String, u64>| of.iter().map(|(word, n)| format!("{} {word}", count(*n))).collect::<Vec<_>>().join(", ");
    let mut out = format!("requests {}", count(proxied.requests));
    for (what, of) in [("answers", &proxied.statuses), ("failed", &proxied.failures)] {
        if !of.is_empty() {
            out += &format!("; {what}: {}", each(of));
        }
    }
    if proxied.retries > 0 {
        out += &format!("; {} sent once more", count(proxied.retries));
    }
    for circuit in proxied.circuits.iter().filter(|circuit| circuit.refused > 0 || circuit.is_full()) {
        out += &format!("\ncircuit: {circuit}");
    }
    for trouble in &proxied.trouble {
        out += &format!("\nwarning: {trouble}");
    }
    out + "\n"
}

/// How long the certificates of an https listener are good for.
fn certificates(status: &Status, listener: &str) -> String {
    let now = status.started_at.unwrap_or_default() + status.uptime_s as u64;
    let one = |certificate: &Certificate| match u64::try_from(certificate.not_after).unwrap_or(0).checked_sub(now) {
        Some(left) => format!("{} good for {}", certificate.name, duration(left)),
        None => format!("{} HAS EXPIRED", certificate.name),
    };
    let own: Vec<String> = status.certificates.iter().filter(|one| one.listener == listener).map(one).collect();
    if own.is_empty() { String::new() } else { format!("certificates: {}\n", own.join(", ")) }
}

/// A line for each rule, as they are tried, where there are any.
fn rules(proxied: &Proxied, style: &Style) -> Option<String> {
    use CellAlignment::{Left, Right};
    if proxied.rules.is_empty() {
        return None;
    }
    let mut table = style.table(&[("rule", Left), ("priority", Right), ("does", Left), ("applied", Right)]);
    for rule in &proxied.rules {
        table.add_row(vec![Cell::new(&rule.rule), Cell::new(rule.priority), Cell::new(&rule.does), Cell::new(count(rule.hits))]);
    }
    Some(style.draw(table))
}

/// All columns, or where they do not fit, all but the packets.
fn endpoints(listener: &Listener, style: &Style, unit: Unit) -> String {
    let table = endpoint_table(listener, style, unit, true);
    style.draw(if style.fits(&table) { table } else { endpoint_table(listener, style, unit, false) })
}

fn endpoint_table(listener: &Listener, style: &Style, unit: Unit, packets: bool) -> Table {
    use CellAlignment::{Left, Right};
    let several_groups = listener.groups.len() > 1;
    let notes = listener.groups.iter().flat_map(|group| &group.endpoints).any(|endpoint| note(endpoint).is_some());
    let is_proxied = listener.proxied.is_some();
    let packets = packets && !is_proxied;
    let names = match unit {
        _ if is_proxied => ["requests", "", "", "bytes in", "bytes out"],
        Unit::Total => ["new flows", "packets in", "packets out", "bytes in", "bytes out"],
        Unit::PerSecond => ["new/s", "packets/s in", "packets/s out", "bytes/s in", "bytes/s out"],
    };
    let mut columns = vec![
        ("endpoint", Left),
        ("weight", Right),
        ("share", Right),
        (if is_proxied { "open" } else { "flows" }, Right),
        (names[0], Right),
    ];
    if several_groups {
        columns.insert(0, ("group", Left));
    }
    if packets {
        columns.extend([(names[1], Right), (names[2], Right)]);
    }
    columns.extend([(names[3], Right), (names[4], Right)]);
    if notes {
        columns.push(("note", Left));
    }
    let mut table = style.table(&columns);
    for group in &listener.groups {
        for endpoint in &group.endpoints {
            let mut row = vec![
                Cell::new(&endpoint.address),
                Cell::new(endpoint.weight),
                Cell::new(percent(endpoint.share)),
                Cell::new(count(endpoint.proxied.as_ref().map_or(endpoint.active_flows, |p| p.active))),
                Cell::new(count(endpoint.proxied.as_ref().map_or(endpoint.counters.new_flows, |p| p.requests))),
            ];
            if several_groups {
                row.insert(0, Cell::new(&group.name));
            }
            if packets {
                row.extend([endpoint.counters.forward_packets, endpoint.counters.return_packets].map(|n| Cell::new(count(n))));
            }
            let (bytes_in, bytes_out) = match &endpoint.proxied {
                Some(proxied) => (proxied.bytes_in, proxied.bytes_out),
                None => (endpoint.counters.forward_bytes, endpoint.counters.return_bytes),
            };
            row.extend([bytes_in, bytes_out].map(|n| Cell::new(bytes(n))));
            if let Some(note) = note(endpoint) {
                row.push(Cell::new(note).fg(Color::Yellow));
            }
            table.add_row(row);
        }
    }
    table
}

/// What is not as the file says, or not well.
pub(super) fn note(endpoint: &Endpoint) -> Option<String> {
    let configured = endpoint.configured_weight;
    let weight = match endpoint.state {
        EndpointState::Drained => Some(format!("drained ({configured})")),
        EndpointState::Paused => Some("does not answer: paused".to_owned()),
        EndpointState::Active | EndpointState::Zero | EndpointState::Unhealthy => {
            (endpoint.weight != configured).then(|| format!("configured {configured}"))
        }
    };
    let hop = match endpoint.next_hop {
        NextHop::Resolved => None,
        NextHop::Unresolved => Some("no next hop".to_owned()),
        NextHop::OffLink => Some("not on a link of this edge".to_owned()),
        NextHop::Stale => Some("next hop does not answer".to_owned()),
    };
    let health = endpoint.health.as_ref().and_then(health);
    let notes: Vec<String> = weight.into_iter().chain(health).chain(hop).collect();
    (!notes.is_empty()).then(|| notes.join(", "))
}

/// What is not well, and why.
fn health(health: &Health) -> Option<String> {
    let why = health.failure.as_deref().unwrap_or("not probed yet");
    let mut text = match (health.healthy, health.suspect) {
        (false, _) => format!("unhealthy for {}: {why}", duration(health.for_s)),
        (true, true) => format!("suspect: {why}"),
        (true, false) if health.share_percent < 100 => format!("slow start, {} %", health.share_percent),
        (true, false) => return None,
    };
    if let Some(held) = health.held_for_s {
        text += &format!(", flaps: held for {}", duration(held));
    }
    Some(text)
}

fn or_dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{RuleHits, example::example};

    const HEAD: &str = "\
ga 0.1.0 at fra1, generation 42, up 3d 4h, configured 10m ago
interfaces: eth0 native, eth1 generic
flows: IPv4 12,345 of 65,536 (18.8%), IPv6 0 of 65,536 (0.0%)
flow memory: 5 port_retry
warning: somebody else changed the data path; put right since the start: 3 in hops, 1 pins
";

    fn at(width: Option<u16>) -> String {
        render(&example(), &Style { width, color: false }, Unit::Total)
    }

    #[test]
    fn a_wide_terminal_shows_everything() {
        let expected = "
ga-demo/game  198.51.100.10 tcp 80,90~92,8080, affinity source_ip, idle 900 s, 12,387 flows
  endpoint   weight   share   flows  new flows  packets in  packets out  bytes in  bytes out  note
  10.0.0.11     255  100.0%  12,345    123,456       1.23M        2.47M   118 MiB   3.45 GiB
  10.0.0.12       0    0.0%      42        420       4,200        8,400   410 KiB   12.0 MiB  drained (255)

ga-demo/voice  198.51.100.10 udp 80,90~92,8080, affinity source_ip, idle 900 s, 9 flows
  endpoint      weight  share  flows  new flows  packets in  packets out  bytes in  bytes out  note
  10.0.0.11        255  99.6%      9         90         900        1,800  87.9 KiB   2.57 MiB
  2001:db8::11       1   0.4%      0          0           0            0       0 B        0 B  configured 255

  dropped  listener      packets  because
  no_flow  ga-demo/game       17  a TCP segment other than SYN that belongs to no known flow
";
        assert_eq!(at(Some(120)), format!("{HEAD}{expected}"));
        assert_eq!(at(None), at(Some(120)), "what fits is the same in a pipe");
    }

    #[test]
    fn several_groups_are_shown_in_their_order() {
        let mut status = example();
        let groups = &mut status.instances[0].listeners[0].groups;
        groups.push(crate::status::Group {
            name: "far".to_owned(),
            kind: "default".to_owned(),
            region: "us-east".to_owned(),
            priority: 2,
            traffic_ratio: 0,
            latency_ms: None,
            share_ipv4: None,
            share_ipv6: None,
            endpoints: Vec::new(),
        });
        let text = render(&status, &Style::default(), Unit::Total);
        let expected = "
  group  region      priority  latency  ratio   share
  near   eu-central         1   4.2 ms  100 %  100.0%
  far    us-east            2        -    0 %       -
";
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn rules_and_certificates_are_told_of_what_the_agent_serves() {
        let mut status = example();
        let started = status.started_at.unwrap_or_default() + status.uptime_s as u64;
        status.certificates = [("default", 29 * 86_400), ("*.shop.example", -5)]
            .map(|(name, left)| Certificate {
                listener: "ga-demo/game".to_owned(),
                name: name.to_owned(),
                not_after: started as i64 + left,
                ..Certificate::default()
            })
            .into();
        let rule =
            |rule: &str, priority, does: &str, hits| RuleHits { rule: rule.to_owned(), priority, does: does.to_owned(), hits };
        let listener = &mut status.instances[0].listeners[0];
        listener.proxied = Some(Proxied {
            requests: 1_300,
            statuses: [("2xx".to_owned(), 1_200), ("4xx".to_owned(), 100)].into(),
            rules: vec![rule("api", 10, "forward to api", 1_200), rule("closed", 20, "fixed response 503", 0)],
            ..Proxied::default()
        });
        let mut api = listener.groups[0].clone();
        (api.name, api.kind, api.share_ipv4) = ("api".to_owned(), "virtual".to_owned(), None);
        api.endpoints.truncate(1);
        listener.groups.push(api);
        let text = render(&status, &Style::default(), Unit::Total);
        let expected = "
requests 1,300; answers: 1,200 2xx, 100 4xx
certificates: default good for 29d, *.shop.example HAS EXPIRED
  rule    priority  does                applied
  api           10  forward to api        1,200
  closed        20  fixed response 503        0
  group  region      kind     priority  latency  ratio   share
  near   eu-central  default         1   4.2 ms  100 %  100.0%
  api    eu-central  virtual         1   4.2 ms  100 %       -
";
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn trouble_is_said_at_the_top() {
        let mut status = example();
        status.last_reload.successful = false;
        status.last_reload.error = Some("ga.toml: 2 problems".to_owned());
        status.interfaces[1].attached = false;
        status.interfaces[1].trouble = Some("there is no such interface".to_owned());
        status.warnings.push("eth0 lost 3 packets to its ring".to_owned());
        status.instances[0].listeners[0].groups[0].endpoints[0].next_hop = NextHop::Unresolved;
        status.instances[0].listeners[1].groups[0].endpoints[0].next_hop = NextHop::Stale;
        let text = render(&status, &Style::default(), Unit::PerSecond);
        for expected in [
            "interfaces: eth0 native, eth1 NOT ATTACHED\n",
            "warning: the latest configuration was refused: ga.toml: 2 problems\n",
            "warning: eth1: there is no such interface\n",
            "warning: eth0 lost 3 packets to its ring\n",
            "  no next hop\n",
            "  next hop does not answer\n",
            "packets/s in",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
        assert!(render(&status, &Style { width: None, color: true }, Unit::Total).contains("\x1b["), "colours when told to");
        assert!(!text.contains('\x1b'), "no colours otherwise");
    }

    #[test]
    fn what_probes_say_is_said_in_a_few_words() {
        let well = Health {
            healthy: true,
            for_s: 3_700,
            suspect: false,
            failure: Some("status 500".to_owned()),
            round_trip_ms: Some(0.3),
            share_percent: 100,
            held_for_s: None,
        };
        assert_eq!(health(&well), None);
        let down = Health { healthy: false, ..well.clone() };
        assert_eq!(health(&down).as_deref(), Some("unhealthy for 1h 1m: status 500"));
        let flaps = Health { held_for_s: Some(90), ..down };
        assert_eq!(health(&flaps).as_deref(), Some("unhealthy for 1h 1m: status 500, flaps: held for 1m 30s"));
        assert_eq!(health(&Health { suspect: true, ..well.clone() }).as_deref(), Some("suspect: status 500"));
        assert_eq!(health(&Health { share_percent: 40, ..well }).as_deref(), Some("slow start, 40 %"));
    }

    #[test]
    fn a_narrow_terminal_leaves_the_packets_out() {
        let expected = "
ga-demo/game  198.51.100.10 tcp 80,90~92,8080, affinity source_ip, idle 900 s, 12,387 flows
  endpoint   weight   share   flows  new flows  bytes in  bytes out  note
  10.0.0.11     255  100.0%  12,345    123,456   118 MiB   3.45 GiB
  10.0.0.12       0    0.0%      42        420   410 KiB   12.0 MiB  drained
                                                                     (255)

ga-demo/voice  198.51.100.10 udp 80,90~92,8080, affinity source_ip, idle 900 s, 9 flows
  endpoint      weight  share  flows  new flows  bytes in  bytes out  note
  10.0.0.11        255  99.6%      9         90  87.9 KiB   2.57 MiB
  2001:db8::11       1   0.4%      0          0       0 B        0 B  configured
                                                                      255

  dropped  listener      packets  because
  no_flow  ga-demo/game       17  a TCP segment other than SYN that belongs to
                                  no known flow
";
        assert_eq!(at(Some(80)), format!("{HEAD}{expected}"));
    }
}
