//! `ga watch`: what becomes of packets, as they come; and the filter that `ga capture` shares.

use std::{fmt::Write as _, net::SocketAddr, ops::ControlFlow};

use clap::Args;
use ipnet::IpNet;

use super::{Context, Exit, Failure, flows::network, units::count};
use crate::status::{
    PacketEnds, PacketEvent, PacketFilter, VerdictWord, WATCH_COUNT, WATCH_RATE, WATCH_SECONDS, WatchEnd, WatchLine, WatchOrder,
};

pub(super) const EXAMPLES: &str =
    "While it runs, interfaces have a program that does the same and tells of some packets; it costs time for every packet.
The usual program is back when it ends, however it ends. One line is one packet: what became of it, from where to where,
and as what it was sent.

Examples:
  ga watch                                         the next 100 packets, for 10 seconds at most
  ga watch --verdict drop --seconds 60             what is dropped, and why
  ga watch --host 203.0.113.7 --count 20           packets of one client, both ways
  ga watch --port 443 --sample 1000 --rate 10      now and then one
  ga watch --reason no_flow --json | jq .before    for programs";

/// Which packets.
#[derive(Clone, Debug, Args)]
pub(super) struct Filter {
    /// Only packets from this network, on arrival
    #[arg(long, value_name = "CIDR", value_parser = network)]
    src: Option<IpNet>,
    /// Only packets from this port, on arrival
    #[arg(long, value_name = "PORT")]
    sport: Option<u16>,
    /// Only packets to this network, on arrival
    #[arg(long, value_name = "CIDR", value_parser = network)]
    dst: Option<IpNet>,
    /// Only packets to this port, on arrival
    #[arg(long, value_name = "PORT")]
    dport: Option<u16>,
    /// Only packets from or to this network, on arrival or as they are sent
    #[arg(long, value_name = "CIDR", value_parser = network)]
    host: Option<IpNet>,
    /// Only packets from or to this port; with --host, that host's port
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Only tcp, udp, icmp, icmp6, or an IANA number
    #[arg(long, value_name = "PROTOCOL", value_parser = protocol)]
    proto: Option<u8>,
    /// Only packets that are passed, dropped or sent: pass, drop, send
    #[arg(long, value_name = "VERDICT")]
    verdict: Option<VerdictWord>,
    /// Only packets dropped or passed for this reason; `ga drops` knows the words
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
}

impl Filter {
    pub(super) fn only(&self) -> PacketFilter {
        let Self { src, sport, dst, dport, host, port, proto, verdict, reason } = self.clone();
        PacketFilter { src, sport, dst, dport, host, port, protocol: proto, verdict, reason }
    }
}

const PROTOCOLS: [(&str, u8); 4] = [("tcp", 6), ("udp", 17), ("icmp", 1), ("icmp6", 58)];

/// A protocol's number by its name.
pub(super) fn protocol(text: &str) -> Result<u8, String> {
    let known = PROTOCOLS.iter().find(|(name, _)| *name == text.to_ascii_lowercase()).map(|(_, number)| *number);
    known
        .or_else(|| text.parse().ok().filter(|number| *number != 0))
        .ok_or_else(|| "tcp, udp, icmp, icmp6 or 1 to 255".to_owned())
}

/// A protocol's name by its number.
pub(super) fn protocol_name(number: u8) -> String {
    PROTOCOLS.iter().find(|(_, known)| *known == number).map_or_else(|| format!("ip {number}"), |(name, _)| (*name).to_owned())
}

/// Arguments of `ga watch`.
#[derive(Clone, Debug, Args)]
pub(super) struct WatchArgs {
    #[command(flatten)]
    filter: Filter,
    /// End after N packets
    #[arg(long, short, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=i64::from(WATCH_COUNT)))]
    count: u32,
    /// End after SECS seconds
    #[arg(long, value_name = "SECS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=i64::from(WATCH_SECONDS)))]
    seconds: u32,
    /// Show one of N packets that fit
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    sample: u32,
    /// Show N packets a second at most
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=i64::from(WATCH_RATE)))]
    rate: u32,
}

/// Runs `ga watch`.
pub(super) async fn run(args: &WatchArgs, context: &Context) -> anyhow::Result<Exit> {
    let order = WatchOrder {
        only: args.filter.only(),
        every: args.sample,
        per_second: args.rate,
        seconds: args.seconds,
        count: args.count,
        snap: 0,
    };
    let end = follow(context, &order, |packet| context.output.line(packet, || line(packet))).await?;
    if let Some(end) = end.filter(left_out) {
        eprintln!("ga: {}", summary(&end));
    }
    Ok(Exit::Ok)
}

/// Shows packets as they come, until the agent ends the watch or somebody interrupts. None when it was interrupted.
pub(super) async fn follow(
    context: &Context,
    order: &WatchOrder,
    mut show: impl FnMut(&PacketEvent) -> anyhow::Result<()>,
) -> anyhow::Result<Option<WatchEnd>> {
    let client = context.client();
    let mut ended = None;
    let watch = client.watch(order, |line| match line {
        WatchLine::Started { .. } => Ok(ControlFlow::Continue(())),
        WatchLine::Packet(packet) => show(&packet).map(ControlFlow::Continue),
        WatchLine::Ended(end) => {
            ended = Some(end);
            Ok(ControlFlow::Break(()))
        }
    });
    tokio::select! {
        done = watch => done?,
        stopped = tokio::signal::ctrl_c() => return Ok(stopped.map(|()| None)?),
    }
    match ended {
        Some(end) if end.complete => Ok(Some(end)),
        Some(end) => Err(Failure::new(Exit::Unreachable, format!("the watch broke off: {}", end.because)).into()),
        None => Err(Failure::new(Exit::Unreachable, "the watch broke off: the agent is gone").into()),
    }
}

fn left_out(end: &WatchEnd) -> bool {
    end.limited + end.lost > 0
}

/// What was left out.
pub(super) fn summary(end: &WatchEnd) -> String {
    let WatchEnd { because, matched, told, limited, lost, .. } = end;
    let mut out = format!("{} of {} packets that fit ({because})", count(*told), count(*matched));
    // Writing to a string cannot fail.
    if *limited > 0 {
        write!(out, "; {} left out because there were more in a second than asked for", count(*limited)).ok();
    }
    if *lost > 0 {
        write!(out, "; {} lost because nobody read fast enough", count(*lost)).ok();
    }
    out
}

/// One packet on one line.
pub(super) fn line(packet: &PacketEvent) -> String {
    let PacketEvent { at_ns, verdict, reason, explanation, listener, interface, out, length, before, after, .. } = packet;
    let mut text = format!("{} {}", time(*at_ns), verdict.word());
    let mut add = |part: &str| text += &format!(" {part}");
    if let Some(reason) = reason {
        add(reason);
    }
    match before {
        Some(before) => add(&ends(before)),
        None => add("not IP"),
    }
    if let Some(after) = after {
        add(&format!("=> {}", ends(after).split_once(' ').map_or("", |(_, ends)| ends)));
    }
    add(&format!("({length} bytes, {interface}{})", out.as_ref().map(|out| format!(" to {out}")).unwrap_or_default()));
    if let Some(listener) = listener {
        add(listener);
    }
    if let Some(explanation) = explanation {
        text += &format!(": {explanation}");
    }
    text
}

/// Protocol and both ends.
pub(super) fn ends(ends: &PacketEnds) -> String {
    let end = |address, port| if port == 0 { format!("{address}") } else { SocketAddr::new(address, port).to_string() };
    format!("{} {} > {}", protocol_name(ends.protocol), end(ends.src, ends.sport), end(ends.dst, ends.dport))
}

/// The time of day in UTC, to microseconds.
fn time(at_ns: u64) -> String {
    let (seconds, micros) = (at_ns / 1_000_000_000 % 86_400, at_ns % 1_000_000_000 / 1000);
    format!("{:02}:{:02}:{:02}.{micros:06}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::status::Frame;

    /// A datagram that was translated, with its frames.
    pub(in crate::cli) fn sent() -> PacketEvent {
        let ends = |src: [u8; 4], sport, dst: [u8; 4], dport| PacketEnds {
            protocol: 17,
            src: src.into(),
            sport,
            dst: dst.into(),
            dport,
        };
        PacketEvent {
            at_ns: 1_700_000_000_123_456_789,
            verdict: VerdictWord::Send,
            reason: None,
            explanation: None,
            listener: Some("shop/dns".to_owned()),
            interface: "eth0".to_owned(),
            out: Some("eth1".to_owned()),
            length: 60,
            before: Some(ends([192, 0, 2, 7], 4000, [198, 51, 100, 10], 53)),
            after: Some(ends([203, 0, 113, 5], 1024, [10, 0, 0, 11], 53)),
            frame: Some(Frame::of(60, &[1; 60])),
            frame_after: Some(Frame::of(60, &[2; 60])),
        }
    }

    /// A datagram that was dropped.
    pub(in crate::cli) fn dropped() -> PacketEvent {
        PacketEvent {
            verdict: VerdictWord::Drop,
            reason: Some("fragment".to_owned()),
            explanation: Some("IP fragments are not supported on listeners".to_owned()),
            out: None,
            after: None,
            frame_after: None,
            frame: Some(Frame::of(1500, &[3; 61])),
            ..sent()
        }
    }

    #[test]
    fn a_line_says_what_became_of_a_packet() {
        assert_eq!(
            line(&sent()),
            "22:13:20.123456 send udp 192.0.2.7:4000 > 198.51.100.10:53 => 203.0.113.5:1024 > 10.0.0.11:53 \
             (60 bytes, eth0 to eth1) shop/dns"
        );
        assert_eq!(
            line(&dropped()),
            "22:13:20.123456 drop fragment udp 192.0.2.7:4000 > 198.51.100.10:53 (60 bytes, eth0) shop/dns: \
             IP fragments are not supported on listeners"
        );
        let arp = PacketEvent {
            verdict: VerdictWord::Pass,
            reason: Some("not_ip".to_owned()),
            before: None,
            listener: None,
            ..dropped()
        };
        assert!(line(&PacketEvent { explanation: None, ..arp }).ends_with(" pass not_ip not IP (60 bytes, eth0)"));
    }

    #[test]
    fn what_was_left_out_is_said() {
        let end = WatchEnd {
            because: "the time is over".to_owned(),
            complete: true,
            matched: 5000,
            told: 1000,
            limited: 3990,
            lost: 10,
        };
        let text = summary(&end);
        assert!(text.starts_with("1,000 of 5,000 packets that fit (the time is over); 3,990 left out"), "{text}");
        assert!(left_out(&end) && !left_out(&WatchEnd { limited: 0, lost: 0, ..end }));
    }

    #[test]
    fn protocols_have_names_and_numbers() {
        assert_eq!([protocol("tcp"), protocol("ICMP6"), protocol("47")], [Ok(6), Ok(58), Ok(47)]);
        assert!(protocol("0").is_err() && protocol("256").is_err() && protocol("http").is_err());
        assert_eq!(protocol_name(47), "ip 47");
    }
}
