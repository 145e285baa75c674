//! What a corpus file says: cases, their packets, and what is expected of each.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::Context as _;
use serde::Deserialize;

/// One file: a theme.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    case: Vec<Case>,
}

/// One promise, shown by packets in a world.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// The promise, as a sentence.
    pub name: String,
    /// The world it starts in.
    #[serde(default = "standard")]
    pub world: String,
    /// In order.
    pub packets: Vec<Packet>,
    /// Variables that must differ from each other.
    #[serde(default)]
    pub differ: Vec<String>,
    /// What all endpoints together must have counted after the last packet.
    pub counted: Option<Counted>,
}

fn standard() -> String {
    "standard".to_owned()
}

/// Sums over all endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Counted {
    /// Packets from clients.
    pub forward_packets: u64,
    /// Bytes from clients.
    pub forward_bytes: u64,
    /// Packets to clients.
    pub return_packets: u64,
    /// Bytes to clients.
    pub return_bytes: u64,
    /// Flows that were opened.
    pub new_flows: u64,
    /// Flows that endpoints did not answer.
    pub failures: u64,
}

/// A packet by its fields; what is not said is ordinary.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Packet {
    /// Seconds that pass before it.
    pub wait_s: u16,
    /// The world that holds from now on; flows stay.
    pub becomes: Option<String>,
    /// `address:port`; the address may be a name of the world or a variable, the port may be a variable.
    pub src: Option<String>,
    /// The same.
    pub dst: String,
    /// `tcp`, `udp`, or a number.
    pub proto: String,
    /// TCP flags: letters of `FSRPAUEC`.
    pub flags: String,
    /// TCP sequence number.
    pub seq: u32,
    /// TCP acknowledgement number.
    pub ack: u32,
    /// TTL or hop limit.
    pub ttl: u8,
    /// ToS or traffic class, ECN included.
    pub tos: u8,
    /// IPv4 identification.
    pub id: u16,
    /// IPv4 "do not fragment".
    pub df: bool,
    /// IPv4 "more fragments".
    pub mf: bool,
    /// IPv4 fragment offset in units of eight bytes.
    pub fragment: u16,
    /// IPv6 flow label.
    pub flow_label: u32,
    /// Payload, as text.
    pub payload: String,
    /// Payload, that many bytes of a pattern.
    pub payload_len: usize,
    /// Payload, in hex.
    pub payload_hex: String,
    /// `in` or `out`: two more bytes of payload make the transport checksum of the frame as it comes, or as it leaves, zero.
    pub zero_sum: String,
    /// IPv4 options, in hex.
    pub ip_options: String,
    /// TCP options, in hex.
    pub tcp_options: String,
    /// IPv6 extension headers, in hex, between the fixed header and the transport header.
    pub extension: String,
    /// IPv6 next header or IPv4 protocol, whatever follows.
    pub next: Option<u8>,
    /// IPv4 total length or IPv6 payload length, whatever is there.
    pub ip_len: Option<u16>,
    /// UDP length, whatever is there.
    pub udp_len: Option<u16>,
    /// Transport checksum: `good`, `bad`, or four hex digits.
    pub checksum: String,
    /// IPv4 header checksum: `good` or `bad`.
    pub ip_checksum: String,
    /// Source MAC, in hex.
    pub src_mac: Option<String>,
    /// Destination MAC, in hex.
    pub dst_mac: Option<String>,
    /// EtherType, in hex.
    pub ethertype: Option<String>,
    /// VLAN tags, TPID and the rest in hex: `88a8:0014 8100:600a`.
    pub vlan: String,
    /// An ICMP or ICMPv6 message in the place of `proto`, its payload behind it.
    pub icmp: Option<Icmp>,
    /// Bytes put over the finished frame.
    pub patch: Vec<Patch>,
    /// Bytes of 0xee behind the IP packet.
    pub pad: usize,
    /// Bytes cut off the end.
    pub cut: usize,
    /// The whole frame, in hex, instead of all this.
    pub raw: Option<String>,
    /// `pass: reason`, `drop: reason`, `refuse: reason` (dropped, and an answer sent back: a RST, or what fits), `send: tx` or `send: redirect`.
    pub expect: String,
    /// How long packets may be, as its sender is told of one that is too big.
    pub mtu: Option<u16>,
    /// The listener a drop is counted for; not looked at unless given.
    pub listener: Option<u16>,
    /// What differs in a sent frame.
    pub out: Option<Out>,
    /// Pairs that hold slots afterwards.
    pub pairs: Option<usize>,
}

impl Default for Packet {
    fn default() -> Self {
        Self {
            wait_s: 0,
            becomes: None,
            src: None,
            dst: "vip4:80".to_owned(),
            proto: "tcp".to_owned(),
            flags: "S".to_owned(),
            seq: 1000,
            ack: 0,
            ttl: 64,
            tos: 0,
            id: 7,
            df: true,
            mf: false,
            fragment: 0,
            flow_label: 0,
            payload: String::new(),
            payload_len: 0,
            payload_hex: String::new(),
            zero_sum: String::new(),
            ip_options: String::new(),
            tcp_options: String::new(),
            extension: String::new(),
            next: None,
            ip_len: None,
            udp_len: None,
            checksum: "good".to_owned(),
            ip_checksum: "good".to_owned(),
            src_mac: None,
            dst_mac: None,
            ethertype: None,
            vlan: String::new(),
            icmp: None,
            patch: Vec::new(),
            pad: 0,
            cut: 0,
            raw: None,
            expect: String::new(),
            mtu: None,
            listener: None,
            out: None,
            pairs: None,
        }
    }
}

/// An ICMP message.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Icmp {
    /// Its type.
    pub kind: u8,
    /// Its code.
    #[serde(default)]
    pub code: u8,
    /// The four bytes behind the checksum, in hex.
    #[serde(default)]
    pub rest: String,
    /// The packet it is about, from the IP header on; `cut` says how much of it is missing.
    pub quote: Option<Box<Packet>>,
}

/// Bytes put over a frame.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Patch {
    /// Offset from the beginning of the frame.
    pub at: usize,
    /// What is put there.
    pub hex: String,
}

/// What differs in a sent frame from the one that came: addresses, ports, MACs, VLAN tags; the TTL is one less.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Out {
    /// As [`Packet::src`]; a variable that is not bound yet is bound by what is seen.
    #[serde(default)]
    pub src: String,
    /// The same.
    #[serde(default)]
    pub dst: String,
    /// Four hex digits that the transport checksum must be, where the full sum is not the whole truth.
    pub checksum: Option<String>,
    /// Destination MAC, in hex, when it is not the one the world has for the destination.
    pub dst_mac: Option<String>,
    /// Source MAC, in hex, likewise.
    pub src_mac: Option<String>,
    /// As [`Packet::vlan`]; none unless given.
    #[serde(default)]
    pub vlan: String,
    /// TTL or hop limit, where it is not one less.
    pub ttl: Option<u8>,
    /// ICMP type, where it is another one.
    pub kind: Option<u8>,
    /// ICMP code, where it is another one.
    pub code: Option<u8>,
    /// The four bytes behind an ICMP checksum, in hex, where they are others.
    pub rest: Option<String>,
    /// TCP options, in hex, where they are others.
    pub tcp_options: Option<String>,
    /// Source of the quoted packet.
    pub quote_src: Option<String>,
    /// Destination of the quoted packet.
    pub quote_dst: Option<String>,
    /// The endpoint that it goes to as it came, but for MACs and VLAN tags; `src` and `dst` are not looked at.
    pub via: Option<String>,
    /// Source of the outer IP packet that it goes in; `$g` is any of our egress addresses.
    pub outer: Option<String>,
}

/// All files of `dir` in the order of their names: theme and cases.
pub fn corpus(dir: &Path) -> anyhow::Result<BTreeMap<String, Vec<Case>>> {
    let mut themes = BTreeMap::new();
    for entry in fs::read_dir(dir).with_context(|| format!("{}", dir.display()))? {
        let path = entry?.path();
        if path.extension().is_none_or(|ext| ext != "toml") {
            continue;
        }
        let text = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
        let file: File = toml::from_str(&text).with_context(|| format!("{}", path.display()))?;
        let theme = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        themes.insert(theme, file.case);
    }
    Ok(themes)
}

/// Where the corpus of this repository is.
pub fn corpus_dir() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus"))
}
