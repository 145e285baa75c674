//! `ga trace`: what would become of a packet, stage by stage.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::{Context, Exit, packets::ends, pcapng, trace_http};
use crate::status::{Frame, Protocol, Trace, TraceOrder, TracePacket};

pub(super) const EXAMPLES: &str = "The packet goes through the program that the interfaces run, with the tables and flows of this moment, and nothing comes of it:
no flow is opened, no counter moves. A new flow's source port may differ for the real packet; its endpoint does not.

Examples:
  ga trace 203.0.113.7:40000 198.51.100.10:443/tcp         which endpoint would this client get?
  ga trace '[2001:db8::7]:40000' '[2001:db8:100::10]:53/udp'
  ga trace 10.0.0.11:80 203.0.113.5:1024/tcp --flags syn,ack --interface eth1
  ga trace --pcap web.pcapng --nth 3 --json                a packet that was captured
  ga trace http --host www.example.com --path /v1          a request, of listeners that the agent serves";

/// Arguments of `ga trace`.
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct TraceArgs {
    #[command(subcommand)]
    verb: Option<TraceVerb>,
    /// Where the packet comes from: `ADDRESS:PORT`, `[ADDRESS]:PORT` for IPv6
    #[arg(value_name = "SRC:PORT", required_unless_present = "pcap")]
    src: Option<SocketAddr>,
    /// Where it goes to, and what it speaks: ADDRESS:PORT/tcp or /udp
    #[arg(value_name = "DST:PORT/PROTO", required_unless_present = "pcap", value_parser = destination)]
    dst: Option<(SocketAddr, Protocol)>,
    /// Interface it comes in by [default: the first one of the configuration]
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// TCP flags, separated by commas: syn, ack, fin, rst, psh, urg, ece, cwr, none [default: syn]
    #[arg(long, value_name = "FLAGS", value_parser = tcp_flags, conflicts_with = "pcap")]
    flags: Option<u8>,
    /// TTL or hop limit
    #[arg(long, value_name = "N", default_value_t = 64, conflicts_with = "pcap")]
    ttl: u8,
    /// Bytes of payload
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=2000), conflicts_with = "pcap")]
    payload: u16,
    /// Take a frame of this file, pcap or pcapng, in the place of a packet made up
    #[arg(long, value_name = "FILE", conflicts_with_all = ["src", "dst"])]
    pcap: Option<PathBuf>,
    /// Which frame of the file, from 1
    #[arg(long, value_name = "N", default_value_t = 1, requires = "pcap", value_parser = clap::value_parser!(u32).range(1..))]
    nth: u32,
}

/// What else can be explained.
#[derive(Clone, Debug, Subcommand)]
enum TraceVerb {
    /// Explain what would become of a request
    #[command(after_long_help = trace_http::EXAMPLES)]
    Http(trace_http::HttpArgs),
}

const FLAGS: [(&str, u8); 9] = [
    ("none", 0),
    ("fin", 0x01),
    ("syn", 0x02),
    ("rst", 0x04),
    ("psh", 0x08),
    ("ack", 0x10),
    ("urg", 0x20),
    ("ece", 0x40),
    ("cwr", 0x80),
];

fn tcp_flags(text: &str) -> Result<u8, String> {
    text.split([',', '|', '+']).try_fold(0, |flags, word| {
        let known = FLAGS.iter().find(|(name, _)| *name == word.trim().to_ascii_lowercase());
        known.map(|(_, bit)| flags | bit).ok_or_else(|| format!("`{word}` is no TCP flag"))
    })
}

fn destination(text: &str) -> Result<(SocketAddr, Protocol), String> {
    let (address, protocol) = text.rsplit_once('/').ok_or("ADDRESS:PORT/tcp or ADDRESS:PORT/udp is wanted")?;
    let address = address.parse().map_err(|_| format!("`{address}` is not ADDRESS:PORT, or [ADDRESS]:PORT for IPv6"))?;
    Ok((address, protocol.parse()?))
}

/// Runs `ga trace`.
pub(super) async fn run(args: &TraceArgs, context: &Context) -> anyhow::Result<Exit> {
    if let Some(TraceVerb::Http(args)) = &args.verb {
        return trace_http::run(args, context).await;
    }
    let packet = match (&args.pcap, args.src, args.dst) {
        (Some(file), _, _) => {
            let bytes = pcapng::frame(file, args.nth as usize)?;
            TracePacket::Frame(Frame::of(bytes.len() as u32, &bytes))
        }
        (None, src, dst) => {
            let (src, (dst, protocol)) = src.zip(dst).context("a packet needs a source and a destination")?;
            let flags = args.flags.unwrap_or(if protocol == Protocol::Tcp { 0x02 } else { 0 });
            TracePacket::Fields { src, dst, protocol, flags, ttl: args.ttl, payload: args.payload }
        }
    };
    let trace = context.client().trace(&TraceOrder { packet, interface: args.interface.clone() }).await?;
    context.output.view(&trace, |_| render(&trace, args.interface.is_none()))?;
    Ok(Exit::Ok)
}

/// For people; `is_chosen` says that nobody named the interface.
fn render(trace: &Trace, is_chosen: bool) -> String {
    let Trace { interface, steps, verdict, reason, explanation, listener, out, sent, frame, .. } = trace;
    let why = if is_chosen { ", the first of the configuration (--interface names another)" } else { "" };
    let mut text = format!("a frame of {} bytes by {interface}{why}\n", frame.length);
    if steps.is_empty() {
        text += "  no stage was reached: the verdict came with the first look at the headers\n";
    }
    for step in steps {
        text += &format!("  {:<9} {}\n", step.stage, step.found);
    }
    text += verdict.word();
    for part in [reason.clone(), sent.as_ref().map(ends), out.as_ref().map(|out| format!("by {out}"))].into_iter().flatten() {
        text += &format!(" {part}");
    }
    if let Some(listener) = listener {
        text += &format!(" ({listener})");
    }
    if let Some(explanation) = explanation {
        text += &format!(": {explanation}");
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{PacketEnds, TraceStep, VerdictWord};

    #[test]
    fn packets_are_written_as_people_write_them() {
        assert_eq!(destination("198.51.100.10:443/TCP"), Ok(("198.51.100.10:443".parse().expect("an address"), Protocol::Tcp)));
        assert_eq!(destination("[2001:db8::1]:53/udp").map(|(address, _)| address.port()), Ok(53));
        for wrong in ["198.51.100.10:443", "198.51.100.10/tcp", "2001:db8::1:53/udp", "198.51.100.10:443/icmp"] {
            assert!(destination(wrong).is_err(), "{wrong}");
        }
        assert_eq!(
            [tcp_flags("syn"), tcp_flags("SYN|ack"), tcp_flags("fin, rst"), tcp_flags("none")],
            [Ok(2), Ok(18), Ok(5), Ok(0)]
        );
        assert!(tcp_flags("sny").is_err() && tcp_flags("").is_err());
    }

    #[test]
    fn an_explanation_reads_from_top_to_bottom() {
        let ends = PacketEnds { protocol: 6, src: [203, 0, 113, 5].into(), sport: 1024, dst: [10, 0, 0, 11].into(), dport: 8080 };
        let trace = Trace {
            schema_version: 1,
            interface: "eth0".to_owned(),
            steps: vec![TraceStep { stage: "listener".to_owned(), found: "shop/web has it".to_owned() }],
            verdict: VerdictWord::Send,
            reason: None,
            explanation: None,
            listener: Some("shop/web".to_owned()),
            endpoint: Some("10.0.0.11".to_owned()),
            known: false,
            out: Some("eth1".to_owned()),
            sent: Some(ends),
            frame: Frame::of(54, &[]),
            frame_after: None,
        };
        let expected = "a frame of 54 bytes by eth0\n  listener  shop/web has it\n\
                        send tcp 203.0.113.5:1024 > 10.0.0.11:8080 by eth1 (shop/web)\n";
        assert_eq!(render(&trace, false), expected);
        let chosen = render(&trace, true);
        assert!(chosen.starts_with("a frame of 54 bytes by eth0, the first of the configuration (--interface"), "{chosen}");
        let dropped = Trace {
            verdict: VerdictWord::Drop,
            reason: Some("no_flow".to_owned()),
            explanation: Some("why".to_owned()),
            out: None,
            sent: None,
            ..trace
        };
        let early = Trace { steps: Vec::new(), ..dropped.clone() };
        assert!(render(&early, false).contains("no stage was reached"), "{}", render(&early, false));
        assert!(render(&dropped, false).ends_with("\ndrop no_flow (shop/web): why\n"), "{}", render(&dropped, false));
    }
}
