//! Expectations against what happened.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    net::IpAddr,
};

use anyhow::{Context as _, bail, ensure};
use etherparse::SlicedPacket;
use ga_common::abi::{
    entry::EndpointCounters,
    id::EndpointId,
    reason::{Drop, Pass},
};

use super::{
    case::{Case, Counted, Packet},
    craft::{Bound, Changed, Ends, Socket, frame, frame_between, mac, socket, unbind, with_zero_sum},
    dataplane::{Action, Dataplane, Seen},
    encap::unwrapped,
    model::refusal::refusal,
    show::{difference, hex},
    told::told,
    world::{BEHIND, INGRESS, World, address, is_egress, is_endpoint, macs_to, world},
};

/// Which reasons were ever seen, and how much was run.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    /// How often each drop reason.
    pub drops: BTreeMap<Drop, usize>,
    /// How often each pass reason.
    pub passes: BTreeMap<Pass, usize>,
    /// Cases.
    pub cases: usize,
    /// Packets.
    pub packets: usize,
    /// Prefixes of packets.
    pub prefixes: usize,
}

impl Coverage {
    /// Reasons that no case reached.
    pub fn missing(&self) -> Vec<&'static str> {
        let drops = Drop::ALL.iter().filter(|reason| !self.drops.contains_key(reason)).map(|reason| reason.name());
        let passes = Pass::ALL.iter().filter(|reason| !self.passes.contains_key(reason)).map(|reason| reason.name());
        drops.chain(passes).collect()
    }

    /// Prints what was run and how often each reason was met, past the test harness, which keeps the output of tests that pass to
    /// itself.
    pub fn print(&self, what: &str) {
        let drops = self.drops.iter().map(|(reason, count)| format!("{} {count}", reason.name()));
        let passes = self.passes.iter().map(|(reason, count)| format!("{} {count}", reason.name()));
        let (drops, passes): (Vec<_>, Vec<_>) = (drops.collect(), passes.collect());
        let Self { cases, packets, prefixes, .. } = self;
        let lines = format!(
            "{what}: {cases} cases, {packets} packets, {prefixes} prefixes\n  {} of {} drop reasons: {}\n  {} of {} pass reasons: {}\n",
            drops.len(),
            Drop::COUNT,
            drops.join(", "),
            passes.len(),
            Pass::COUNT,
            passes.join(", "),
        );
        drop(std::io::stdout().write_all(lines.as_bytes()));
    }

    /// Takes note of a packet's fate.
    pub fn note(&mut self, seen: &Seen) {
        match seen.action {
            Action::Pass(reason) => {
                *self.passes.entry(reason).or_default() += 1;
            }
            Action::Drop(reason, _) | Action::Refuse(reason, _) => {
                *self.drops.entry(reason).or_default() += 1;
            }
            Action::Tx | Action::Redirect => {}
        }
    }
}

/// Runs every case of a corpus; the error names all that failed.
pub fn run_all(plane: &mut dyn Dataplane, corpus: &BTreeMap<String, Vec<Case>>) -> anyhow::Result<Coverage> {
    let mut coverage = Coverage::default();
    let mut failures = Vec::new();
    for (theme, cases) in corpus {
        for case in cases {
            coverage.cases += 1;
            if let Err(error) = run(plane, case, &mut coverage) {
                failures.push(format!("{theme}: {}\n{error:?}", case.name));
            }
            if let Err(error) = prefixes(plane, case, &mut coverage) {
                failures.push(format!("{theme}: {} (first packet, truncated)\n{error:?}", case.name));
            }
        }
    }
    ensure!(failures.is_empty(), "{} of {} cases failed\n\n{}", failures.len(), coverage.cases, failures.join("\n\n"));
    Ok(coverage)
}

fn enter(plane: &mut dyn Dataplane, case: &Case) -> anyhow::Result<World> {
    let world = world(&case.world)?;
    plane.forget();
    plane.install(&world)?;
    Ok(world)
}

/// Runs one case.
pub fn run(plane: &mut dyn Dataplane, case: &Case, coverage: &mut Coverage) -> anyhow::Result<()> {
    let mut now = enter(plane, case)?;
    let before = sum(&plane.counters()?);
    let mut bound = Bound::default();
    for (number, packet) in (1..).zip(&case.packets) {
        if let Some(name) = &packet.becomes {
            now = world(name)?;
            plane.install(&now)?;
        }
        plane.wait(packet.wait_s);
        coverage.packets += 1;
        let seen = one(plane, &now, packet, &mut bound).with_context(|| format!("packet {number}"))?;
        coverage.note(&seen);
    }
    differ(case, &bound)?;
    if let Some(want) = &case.counted {
        let seen = minus(sum(&plane.counters()?), before);
        ensure!(*want == seen, "wanted {want:?}, counted {seen:?}");
    }
    Ok(())
}

fn one(plane: &mut dyn Dataplane, world: &World, packet: &Packet, bound: &mut Bound) -> anyhow::Result<Seen> {
    let packet = &with_zero_sum(packet, bound)?;
    let input = frame(packet, bound)?;
    let seen = plane.send(&input)?;
    let action = describe(seen.action);
    ensure!(action == packet.expect, "expected {:?}, got {action:?} for {}", packet.expect, hex(&input));
    match (seen.action, packet.listener) {
        (Action::Drop(_, listener) | Action::Refuse(_, listener), Some(want)) => {
            ensure!(listener.0 == want, "counted for listener {listener}, not {want}")
        }
        (Action::Pass(_) | Action::Tx | Action::Redirect | Action::Drop(..) | Action::Refuse(..), _) => {}
    }
    if matches!(seen.action, Action::Tx | Action::Redirect) {
        sent(world, packet, &seen, bound)?;
    } else if matches!(seen.action, Action::Refuse(..)) {
        let want = match packet.mtu {
            Some(mtu) => told(&input, mtu)?,
            None => refusal(&input).context("this cannot be refused by a RST")?,
        };
        ensure!(want == seen.bytes, "not the answer that was expected:\n{}", difference(&want, &seen.bytes));
    } else {
        ensure!(seen.bytes == input, "not sent, but changed:\n{}", difference(&input, &seen.bytes));
    }
    if let Some(pairs) = packet.pairs {
        ensure!(plane.pairs() == pairs, "wanted {pairs} pairs, there are {}", plane.pairs());
    }
    Ok(seen)
}

fn describe(action: Action) -> String {
    match action {
        Action::Pass(reason) => format!("pass: {}", reason.name()),
        Action::Drop(reason, _) => format!("drop: {}", reason.name()),
        Action::Refuse(reason, _) => format!("refuse: {}", reason.name()),
        Action::Tx => "send: tx".to_owned(),
        Action::Redirect => "send: redirect".to_owned(),
    }
}

/// The frame must be, byte for byte, what etherparse makes of the packet's fields between the new ends.
fn sent(world: &World, packet: &Packet, seen: &Seen, bound: &mut Bound) -> anyhow::Result<()> {
    let out = packet.out.as_ref().context("a packet that is to be sent needs `out`")?;
    if let Some(via) = &out.via {
        return unchanged(packet, &unbind(packet, bound)?, address(via)?, seen, bound);
    }
    let actual = ends(&seen.bytes)?;
    let src = bind(socket(&out.src, bound)?, actual.src, bound, world)?;
    let dst = bind(socket(&out.dst, bound)?, actual.dst, bound, world)?;
    let (dst_mac, src_mac) = macs_to(dst.0);
    let given = |text: &Option<String>, default| text.as_deref().map_or(Ok(default), mac);
    let changed = Changed {
        ttl: out.ttl.unwrap_or(packet.ttl.wrapping_sub(1)),
        dst_mac: given(&out.dst_mac, dst_mac)?,
        src_mac: given(&out.src_mac, src_mac)?,
    };
    let mut fields = packet.clone();
    if let Some(checksum) = &out.checksum {
        fields.checksum.clone_from(checksum);
    }
    fields.vlan.clone_from(&out.vlan);
    if let Some(options) = &out.tcp_options {
        fields.tcp_options.clone_from(options);
    }
    if Ends::of(packet, bound)?.src.0.is_ipv4() != src.0.is_ipv4() {
        translated(&mut fields, &seen.bytes);
    }
    if let Some(icmp) = &mut fields.icmp {
        icmp.kind = out.kind.unwrap_or(icmp.kind);
        icmp.code = out.code.unwrap_or(icmp.code);
        icmp.rest = out.rest.clone().unwrap_or_else(|| icmp.rest.clone());
        if let Some(quote) = &mut icmp.quote {
            quote.src.clone_from(&out.quote_src);
            quote.dst = out.quote_dst.clone().context("a packet with a quote needs `quote_src` and `quote_dst`")?;
        }
    }
    let want = frame_between(&unbind(&fields, bound)?, Ends { src, dst }, changed)?;
    ensure!(want == seen.bytes, "not the frame that was expected:\n{}", difference(&want, &seen.bytes));
    if let Some(ifindex) = seen.ifindex {
        let to_endpoint = is_endpoint(dst.0) && out.dst_mac.is_none() && !world.name.starts_with("one_armed");
        let want = if to_endpoint { BEHIND } else { INGRESS };
        ensure!(ifindex == want, "sent by interface {ifindex}, not {want}");
    }
    Ok(())
}

/// What is left of a packet's fields in another family (RFC 7915 sections 4.1 and 5.1). What identifies the fragments of a packet that
/// may be fragmented is the translator's choice: that of `sent`.
fn translated(fields: &mut Packet, sent: &[u8]) {
    (fields.ip_options, fields.extension, fields.flow_label, fields.next) = Default::default();
    let at = if fields.vlan.is_empty() { 14 } else { 18 };
    if let Some(icmp) = &mut fields.icmp {
        // Nobody knows whether the quoted packet was to be fragmented; the error is not.
        (fields.df, fields.id) = (true, 0);
        if let Some(quote) = &mut icmp.quote {
            (quote.ip_options, quote.extension, quote.flow_label, quote.next) = Default::default();
            (quote.df, quote.id) = (true, 0);
        }
        return;
    }
    if let Some(&[0x45, _, l0, l1, i0, i1]) = sent.get(at..at + 6).and_then(|bytes| bytes.first_chunk::<6>()) {
        fields.df = u16::from_be_bytes([l0, l1]) > 1260;
        fields.id = if fields.df { 0 } else { u16::from_be_bytes([i0, i1]) };
    }
}

/// A packet that goes to `via` as it came, perhaps in an outer one.
fn unchanged(packet: &Packet, fields: &Packet, via: IpAddr, seen: &Seen, bound: &Bound) -> anyhow::Result<()> {
    let out = packet.out.as_ref().context("a packet that is to be sent needs `out`")?;
    let (dst_mac, src_mac) = macs_to(via);
    let fields = Packet { vlan: out.vlan.clone(), ..fields.clone() };
    let want = frame_between(&fields, Ends::of(packet, bound)?, Changed { ttl: packet.ttl, dst_mac, src_mac })?;
    let inner = match &out.outer {
        None => seen.bytes.clone(),
        Some(source) => {
            let source = if source == "$g" { None } else { Some(address(source)?) };
            unwrapped(packet, &seen.bytes, source, via)?
        }
    };
    ensure!(want == inner, "not the frame that was expected:\n{}", difference(&want, &inner));
    ensure!(seen.ifindex == Some(BEHIND), "sent by interface {:?}, not {BEHIND}", seen.ifindex);
    Ok(())
}

/// The ends of a frame, as etherparse reads them.
pub fn ends(frame: &[u8]) -> anyhow::Result<Ends> {
    use etherparse::{NetSlice, TransportSlice};
    let sliced = SlicedPacket::from_ethernet(frame).context("a sent frame does not parse")?;
    let (src, dst): (IpAddr, IpAddr) = match &sliced.net {
        Some(NetSlice::Ipv4(ip)) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        Some(NetSlice::Ipv6(ip)) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        Some(NetSlice::Arp(_)) | None => bail!("a sent frame is not IP"),
    };
    let (src_port, dst_port) = match &sliced.transport {
        Some(TransportSlice::Tcp(tcp)) => (tcp.source_port(), tcp.destination_port()),
        Some(TransportSlice::Udp(udp)) => (udp.source_port(), udp.destination_port()),
        Some(TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_)) => (0, 0),
        Some(_) | None => bail!("a sent frame is neither TCP nor UDP nor ICMP"),
    };
    Ok(Ends { src: (src, src_port), dst: (dst, dst_port) })
}

/// Binds what is not bound to what was seen. A variable for an address must be an endpoint's when its name begins with `e` and
/// one of our egress addresses when it begins with `g`; a port variable must be a NAT port.
fn bind(want: Socket, actual: (IpAddr, u16), bound: &mut Bound, world: &World) -> anyhow::Result<(IpAddr, u16)> {
    let addr = match want.addr {
        Ok(addr) => addr,
        Err(name) => {
            let fits = if name.starts_with('e') { is_endpoint(actual.0) } else { is_egress(actual.0) };
            ensure!(fits, "${name} cannot be {}", actual.0);
            bound.addrs.insert(name, actual.0);
            actual.0
        }
    };
    let port = match want.port {
        Ok(port) => port,
        Err(name) => {
            let range = world.fixed.nat_first..=world.fixed.nat_last;
            ensure!(range.contains(&actual.1), "${name} cannot be {}", actual.1);
            bound.ports.insert(name, actual.1);
            actual.1
        }
    };
    Ok((addr, port))
}

fn differ(case: &Case, bound: &Bound) -> anyhow::Result<()> {
    let mut values = BTreeSet::new();
    for name in &case.differ {
        let value = match (bound.addrs.get(name), bound.ports.get(name)) {
            (Some(addr), _) => addr.to_string(),
            (None, Some(port)) => port.to_string(),
            (None, None) => bail!("${name} was never bound"),
        };
        ensure!(values.insert(value), "two of {:?} are equal", case.differ);
    }
    Ok(())
}

fn sum(counters: &BTreeMap<EndpointId, EndpointCounters>) -> Counted {
    counters.values().fold(Counted::default(), |sum, one| Counted {
        forward_packets: sum.forward_packets + one.forward_packets,
        forward_bytes: sum.forward_bytes + one.forward_bytes,
        return_packets: sum.return_packets + one.return_packets,
        return_bytes: sum.return_bytes + one.return_bytes,
        new_flows: sum.new_flows + one.new_flows,
        failures: sum.failures + one.failures,
    })
}

fn minus(after: Counted, before: Counted) -> Counted {
    Counted {
        forward_packets: after.forward_packets - before.forward_packets,
        forward_bytes: after.forward_bytes - before.forward_bytes,
        return_packets: after.return_packets - before.return_packets,
        return_bytes: after.return_bytes - before.return_bytes,
        new_flows: after.new_flows - before.new_flows,
        failures: after.failures - before.failures,
    }
}

/// Every prefix of a case's first frame is passed or dropped untouched, as long as the IP packet in it is not whole.
fn prefixes(plane: &mut dyn Dataplane, case: &Case, coverage: &mut Coverage) -> anyhow::Result<()> {
    enter(plane, case)?;
    let Some(first) = case.packets.first() else { bail!("a case without packets") };
    let first = &with_zero_sum(first, &Bound::default())?;
    let input = frame(first, &Bound::default())?;
    // Headers end below byte 134; longer prefixes only differ in payload, and some of them will do.
    let lengths = (plane.shortest()..input.len().min(140)).chain((140..input.len()).step_by(97));
    for length in lengths {
        let prefix = &input[..length];
        let seen = plane.send(prefix).with_context(|| format!("{length} bytes"))?;
        coverage.prefixes += 1;
        coverage.note(&seen);
        if matches!(seen.action, Action::Tx | Action::Redirect) {
            let whole = input.len() - first.pad.min(input.len());
            ensure!(length >= whole, "{length} of {whole} bytes were sent: {}", hex(prefix));
        } else {
            ensure!(seen.bytes == prefix, "{length} bytes: not sent, but changed");
        }
    }
    Ok(())
}
