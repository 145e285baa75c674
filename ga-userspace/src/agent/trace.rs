//! `ga trace`: a packet goes through the real program with the live maps, and nothing comes of it but an explanation.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use aya::Ebpf;
use etherparse::PacketBuilder;
use ga_common::{
    abi::{
        entry::Address,
        flow::{Flow, unpack_mac},
        id::{EndpointId, InstanceId, ListenerId, TableId},
        limits::TABLE_SIZE,
    },
    path::{
        explain::{By, Step, TupleSeen},
        parse::flag,
        verdict::Verdict,
    },
    wire::vlan::{SERVICE, Tags},
};

use super::{Agent, Error, Notice, clock, flows::seconds, refusal};
use crate::{
    maps::TraceMap,
    program::{self, Tool},
    status::{
        Code, Frame, PacketEnds, Protocol, Refusal, Reply, SCHEMA_VERSION, TRACE_LENGTH, Trace, TraceOrder, TracePacket,
        TraceStep, VerdictWord,
    },
};

/// The tracing program, loaded when it was first asked for.
pub(super) struct Tracer {
    ebpf: Ebpf,
    map: TraceMap,
}

/// Somebody waits for it to be loaded.
pub(super) struct Asked {
    order: TraceOrder,
    reply: Reply<Trace>,
}

impl Agent {
    /// Explains a packet, at once or when the program is loaded.
    pub(super) fn order_trace(&mut self, order: TraceOrder, reply: Reply<Trace>) {
        if self.tracer.is_some() {
            let answer = self.trace(&order);
            return reply.send(answer);
        }
        let (pin_dir, sizes) = (self.options.pin_dir.clone(), self.data_path.sizes());
        let notify = self.notify.clone();
        self.tasks.spawn(async move {
            let loading = tokio::task::spawn_blocking(move || program::load_tool(Some(&pin_dir), sizes, Tool::Trace));
            let loaded = match loading.await {
                Ok(loaded) => loaded.map_err(|error| refusal(&error.into())),
                Err(error) => Err(Refusal::new(Code::Internal, format!("loading the tracing program ended: {error}"))),
            };
            drop(notify.send(Notice::TraceLoaded(Box::new(loaded), Asked { order, reply })).await);
        });
    }

    /// Goes on when the program is loaded.
    pub(super) fn begin_trace(&mut self, loaded: Result<Ebpf, Refusal>, asked: Asked) {
        let Asked { order, reply } = asked;
        let tracer = loaded.and_then(|mut ebpf| match TraceMap::open(&mut ebpf) {
            Ok(map) => Ok(Tracer { ebpf, map }),
            Err(error) => Err(refusal(&error.into())),
        });
        match tracer {
            Ok(tracer) => {
                self.tracer = Some(tracer);
                reply.send(self.trace(&order));
            }
            Err(refusal) => reply.send(Err(refusal)),
        }
    }

    fn trace(&mut self, order: &TraceOrder) -> Result<Trace, Refusal> {
        let (interface, ifindex, mac) = self.way_in(order.interface.as_deref())?;
        let frame = match &order.packet {
            TracePacket::Frame(frame) => frame.bytes(),
            fields @ TracePacket::Fields { .. } => craft(fields, mac),
        };
        let Some(frame) = frame.filter(|frame| (14..=TRACE_LENGTH).contains(&frame.len())) else {
            let message = format!("a packet must be a frame of 14 to {TRACE_LENGTH} bytes, with both ends of one family");
            return Err(Refusal::new(Code::Invalid, message));
        };
        let (steps, after) = self.run(&frame, ifindex).map_err(|error| refusal(&error))?;
        Ok(self.explained(interface, &frame, &steps, &after))
    }

    /// Name, index and MAC address of the interface that a packet is to come in by.
    fn way_in(&self, wanted: Option<&str>) -> Result<(String, u32, [u8; 6]), Refusal> {
        let slots = self.data_path.attachments().slots();
        let attached: Vec<_> = slots.iter().filter_map(|slot| slot.attached.as_ref()).collect();
        let found = match wanted {
            Some(name) => attached.iter().find(|interface| interface.name == name),
            None => attached.first(),
        };
        match found {
            Some(interface) => Ok((interface.name.clone(), interface.ifindex, [0x02, 0, 0, 0, 0, 1])),
            None => {
                let names = attached.iter().map(|interface| interface.name.clone());
                let message = format!("the program is on no interface `{}`", wanted.unwrap_or_default());
                Err(Refusal::new(Code::NotFound, message).with_problems(names))
            }
        }
    }

    fn run(&mut self, frame: &[u8], ifindex: u32) -> Result<(Vec<Step>, Vec<u8>), Error> {
        let Some(Tracer { ebpf, map }) = &mut self.tracer else { return Ok((Vec::new(), Vec::new())) };
        map.clear()?;
        let (_action, after) = program::run_once(program::tool_program(ebpf, Tool::Trace)?, frame, ifindex)?;
        Ok((map.read()?, after))
    }

    fn explained(&self, interface: String, frame: &[u8], steps: &[Step], after: &[u8]) -> Trace {
        let words = self.words();
        let mut trace = Trace {
            schema_version: SCHEMA_VERSION,
            interface,
            steps: steps.iter().filter_map(|step| words.step(step, clock::tick())).collect(),
            verdict: VerdictWord::Pass,
            reason: None,
            explanation: None,
            listener: None,
            endpoint: None,
            known: false,
            out: None,
            sent: None,
            frame: Frame::of(frame.len() as u32, frame),
            frame_after: None,
        };
        let mut protocol = 0;
        for step in steps {
            match step {
                Step::Parsed { tuple, .. } => protocol = tuple.protocol,
                Step::Known { endpoint, .. } => {
                    trace.known = true;
                    (trace.listener, trace.endpoint) = words.endpoint(*endpoint);
                }
                Step::Chosen { endpoint, table, .. } if *table != TableId::EMPTY => {
                    (trace.listener, trace.endpoint) = words.endpoint(*endpoint);
                }
                Step::Tracked { endpoint, by } if *endpoint != EndpointId::NONE => {
                    trace.known = *by != By::Before;
                    (trace.listener, trace.endpoint) = words.endpoint(*endpoint);
                }
                Step::Denied { listener } | Step::Service { listener, .. } => {
                    trace.listener = words.listeners.get(listener).cloned()
                }
                Step::Rewritten { src, dst } => {
                    trace.sent =
                        Some(PacketEnds { protocol, src: src.ip(), sport: src.port(), dst: dst.ip(), dport: dst.port() });
                }
                Step::Verdict(verdict, _) => match *verdict {
                    Verdict::Pass(reason) => {
                        (trace.reason, trace.explanation) = (Some(reason.name().to_owned()), Some(reason.explain().to_owned()));
                    }
                    Verdict::Drop(reason) => {
                        trace.verdict = VerdictWord::Drop;
                        (trace.reason, trace.explanation) = (Some(reason.name().to_owned()), Some(reason.explain().to_owned()));
                    }
                    Verdict::Send(ifindex) => {
                        trace.verdict = VerdictWord::Send;
                        trace.out = Some(words.interface(ifindex));
                        trace.frame_after = Some(Frame::of(after.len() as u32, after));
                    }
                },
                Step::Reopened { .. } | Step::Retried { .. } => trace.known = false,
                Step::Refused => trace.frame_after = Some(Frame::of(after.len() as u32, after)),
                Step::Roles(_)
                | Step::Tracked { .. }
                | Step::Chosen { .. }
                | Step::Candidate { .. }
                | Step::Kept { .. }
                | Step::Hop(_)
                | Step::Icmp { .. }
                | Step::Answered
                | Step::Quoted(_)
                | Step::Encapsulated { .. }
                | Step::TooBig { .. }
                | Step::Translated(_) => {}
            }
        }
        trace
    }

    fn words(&self) -> Words {
        let names = self.names();
        let shares = self.plan.listeners.iter().flat_map(|listener| &listener.endpoints);
        Words {
            listeners: names.listeners,
            owners: names.owners,
            served: self.plan.listeners.iter().filter(|listener| listener.is_served()).map(|listener| listener.id).collect(),
            instances: self.plan.instances.iter().map(|instance| (instance.id, instance.name.to_string())).collect(),
            endpoints: self
                .data_path
                .running()
                .endpoints
                .iter()
                .map(|(&id, endpoint)| (id, IpAddr::from(endpoint.addr).to_canonical()))
                .collect(),
            shares: shares.map(|view| (view.id, (view.name.group.to_string(), view.weight.0, view.share))).collect(),
            interfaces: self.data_path.attachments().names(),
        }
    }
}

/// What numbers are called.
#[derive(Clone, Debug, Default)]
struct Words {
    listeners: BTreeMap<ListenerId, String>,
    owners: BTreeMap<EndpointId, ListenerId>,
    /// Listeners that the agent serves itself.
    served: BTreeSet<ListenerId>,
    instances: BTreeMap<InstanceId, String>,
    endpoints: BTreeMap<EndpointId, IpAddr>,
    /// Group, weight and share of those that the configuration has.
    shares: BTreeMap<EndpointId, (String, u8, f64)>,
    interfaces: BTreeMap<u32, String>,
}

impl Words {
    fn interface(&self, ifindex: u32) -> String {
        self.interfaces.get(&ifindex).cloned().unwrap_or_else(|| format!("#{ifindex}"))
    }

    fn listener(&self, id: ListenerId) -> String {
        self.listeners.get(&id).cloned().unwrap_or_else(|| format!("listener {id}"))
    }

    /// Listener and address of an endpoint.
    fn endpoint(&self, id: EndpointId) -> (Option<String>, Option<String>) {
        let owner = self.owners.get(&id).and_then(|owner| self.listeners.get(owner));
        (owner.cloned(), self.endpoints.get(&id).map(IpAddr::to_string))
    }

    /// One stage in a sentence; the verdict is told apart.
    fn step(&self, step: &Step, now: u32) -> Option<TraceStep> {
        let (stage, found) = match step {
            Step::Parsed { tuple, ttl, flags, tags, l4 } => {
                let flags =
                    if tuple.protocol == Protocol::Tcp.number() { format!(" {}", flag_words(*flags)) } else { String::new() };
                let protocol = protocol_word(tuple.protocol);
                let (src, dst) = (tuple.src, tuple.dst);
                (
                    "parse",
                    format!(
                        "{protocol}{flags} from {src} to {dst}, TTL {ttl}{}, IP header at byte {}, transport header at {l4}",
                        tag_words(*tags),
                        tags.l3()
                    ),
                )
            }
            Step::Icmp { src, dst, kind, ttl, tags, offset } => (
                "parse",
                format!(
                    "{} from {src} to {dst}, TTL {ttl}{}, IP header at byte {}, ICMP header at {offset}",
                    icmp_words(src.is_ipv4(), *kind),
                    tag_words(*tags),
                    tags.l3()
                ),
            ),
            Step::Answered => ("echo", "answered, to where it came from".to_owned()),
            Step::TooBig { mtu } => (
                "mtu",
                format!("too long for the interface it would leave by: its sender is told that packets of {mtu} bytes fit"),
            ),
            Step::Refused => ("refuse", "answered by a RST, to where it came from".to_owned()),
            Step::Quoted(TupleSeen { src, dst, protocol }) => {
                ("quote", format!("the message is about a {} packet from {src} to {dst}", protocol_word(*protocol)))
            }
            Step::Translated(TupleSeen { src, dst, .. }) => {
                ("rewrite", format!("the message is about the packet from {src} to {dst} now, TTL one less, checksums adjusted"))
            }
            Step::Roles(address) => ("address", self.roles(address)),
            Step::Known { index, peer, flags, endpoint, seen } => {
                let idle = seconds(u32::try_from(now.wrapping_sub(*seen).cast_signed()).unwrap_or(0));
                let to = self.endpoint(*endpoint).1.unwrap_or_else(|| format!("endpoint {endpoint}"));
                let way = if flags & Flow::<1>::RETURN == 0 { "from the client to" } else { "to the client from" };
                let stage = stage_words(*flags);
                (
                    "flow",
                    format!(
                        "known: {way} {to}, {stage}, last heard of {idle} s ago; slot {index}, the other half in slot {peer}"
                    ),
                )
            }
            Step::Retried { endpoint } => {
                ("flow", format!("{} did not answer: another endpoint is tried", self.endpoint(*endpoint).1.unwrap_or_default()))
            }
            Step::Tracked { endpoint, by } => {
                let why = match by {
                    By::Note => "its SYN, which went there, was noted",
                    By::Memory => "it is remembered",
                    By::Before => "the flow began before the table changed, or the table says the same",
                };
                ("flow", format!("goes to {}: {why}", self.endpoint(*endpoint).1.unwrap_or_default()))
            }
            Step::Reopened { index } => ("flow", format!("the one in slot {index} is over, and a SYN opens another")),
            Step::Service { listener, endpoint_port: 0 } => (
                "listener",
                format!("{} has this address and port; endpoints answer clients themselves", self.listener(*listener)),
            ),
            Step::Encapsulated { src, dst, protocol } => (
                "encapsulate",
                format!("within an IP packet from {src} to {dst}, protocol {protocol}; the packet stays as it is"),
            ),
            Step::Service { listener, .. } if self.served.contains(listener) => {
                ("listener", format!("{} has this address and port; the agent serves it itself", self.listener(*listener)))
            }
            Step::Service { listener, endpoint_port } => (
                "listener",
                format!("{} has this address and port; endpoints are reached at port {endpoint_port}", self.listener(*listener)),
            ),
            Step::Denied { listener } => ("acl", format!("the access lists of {} keep the source out", self.listener(*listener))),
            Step::Chosen { table: TableId::EMPTY, .. } => {
                ("table", "the listener has nobody to choose for this family".to_owned())
            }
            Step::Chosen { table, slot, hash, by_source, endpoint } => {
                let who = match (self.endpoints.get(endpoint), self.shares.get(endpoint)) {
                    (Some(address), Some((group, weight, share))) => {
                        format!("{address} of group {group}, weight {weight}, {:.1} % of new flows", share * 100.0)
                    }
                    (Some(address), None) => format!("{address}, which is not in the configuration any more"),
                    (None, _) => "nobody".to_owned(),
                };
                let of = if *by_source { "the addresses: affinity" } else { "addresses and ports" };
                ("endpoint", format!("{who}: entry {slot} of {TABLE_SIZE} in table {table} (hash {hash:016x} of {of})"))
            }
            Step::Candidate { reply, is_free } => {
                let became = if *is_free { "free" } else { "a living flow has it" };
                ("nat", format!("egress {}, to which {} would answer: {became}", reply.dst, reply.src))
            }
            Step::Kept { reply, is_free } => {
                let became = if *is_free { "free" } else { "a living flow has it" };
                ("client", format!("{} is kept, to which {} would answer by way of this edge: {became}", reply.dst, reply.src))
            }
            Step::Hop(way) => {
                let mac = |word| unpack_mac(word).map(|byte| format!("{byte:02x}")).join(":");
                (
                    "hop",
                    format!(
                        "{} by {}, from {}{}",
                        mac(way.dst),
                        self.interface(way.ifindex),
                        mac(way.src),
                        tag_words(Tags(way.tags))
                    ),
                )
            }
            Step::Rewritten { src, dst } => ("rewrite", format!("from {src} to {dst}, TTL one less, checksums adjusted")),
            Step::Verdict(..) => return None,
        };
        Some(TraceStep { stage: stage.to_owned(), found })
    }

    fn roles(&self, address: &Address) -> String {
        let of = self.instances.get(&address.instance).map_or_else(|| format!("instance {}", address.instance), Clone::clone);
        let has = |bit| address.roles & bit != 0;
        let what = match (has(Address::VIP), has(Address::EGRESS)) {
            (true, true) => "a VIP and an egress address",
            (true, false) => "a VIP",
            (false, true) => "an egress address",
            (false, false) => "an address without a role",
        };
        let listeners = match (address.protocols & Address::TCP != 0, address.protocols & Address::UDP != 0) {
            (true, true) => ", with TCP and UDP listeners",
            (true, false) => ", with TCP listeners",
            (false, true) => ", with UDP listeners",
            (false, false) => "",
        };
        format!("the destination is {what} of {of}{listeners}")
    }
}

fn protocol_word(number: u8) -> String {
    Protocol::of(number).map_or_else(|| number.to_string(), |protocol| protocol.to_string())
}

/// VLAN tags, the outer one first.
fn tag_words(tags: Tags) -> String {
    let word = |n| {
        let [t0, t1, v0, v1] = tags.tag(n);
        let kind = if [t0, t1] == SERVICE { " (802.1ad)" } else { "" };
        format!(", VLAN {}{kind}", u16::from_be_bytes([v0, v1]))
    };
    (0..tags.count().min(2)).map(word).collect()
}

fn icmp_words(is_v4: bool, kind: u8) -> String {
    match (is_v4, kind) {
        (true, 8) => "ICMP echo request".to_owned(),
        (false, 128) => "ICMPv6 echo request".to_owned(),
        (true, _) => format!("ICMP error of type {kind}"),
        (false, _) => format!("ICMPv6 error of type {kind}"),
    }
}

fn flag_words(flags: u8) -> String {
    let words = [(flag::SYN, "SYN"), (flag::ACK, "ACK"), (flag::FIN, "FIN"), (flag::RST, "RST")];
    let set: Vec<_> = words.into_iter().filter(|(bit, _)| flags & bit != 0).map(|(_, word)| word).collect();
    if set.is_empty() { "without flags".to_owned() } else { set.join("+") }
}

const fn stage_words(flags: u8) -> &'static str {
    if flags & Flow::<1>::CLOSED != 0 {
        "closed"
    } else if flags & Flow::<1>::FIN != 0 {
        "closing"
    } else if flags & Flow::<1>::ESTABLISHED != 0 {
        "established"
    } else {
        "opening"
    }
}

/// A frame of these fields with good checksums, to our `mac` from a made-up neighbour.
fn craft(fields: &TracePacket, mac: [u8; 6]) -> Option<Vec<u8>> {
    let TracePacket::Fields { src, dst, protocol, flags, ttl, payload } = fields else { return None };
    let eth = PacketBuilder::ethernet2([0x02, 0, 0, 0, 0, 2], mac);
    let ip = match (src.ip(), dst.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => eth.ipv4(src.octets(), dst.octets(), *ttl),
        (IpAddr::V6(src), IpAddr::V6(dst)) => eth.ipv6(src.octets(), dst.octets(), *ttl),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    };
    let (mut bytes, data) = (Vec::new(), vec![0; usize::from(*payload)]);
    match protocol {
        Protocol::Udp => ip.udp(src.port(), dst.port()).write(&mut bytes, &data),
        Protocol::Tcp => {
            let mut tcp = ip.tcp(src.port(), dst.port(), 1, 65_535);
            let steps = [(0x01, 'F'), (0x02, 'S'), (0x04, 'R'), (0x08, 'P'), (0x10, 'A'), (0x20, 'U'), (0x40, 'E'), (0x80, 'C')];
            for (bit, letter) in steps {
                if flags & bit != 0 {
                    tcp = match letter {
                        'F' => tcp.fin(),
                        'S' => tcp.syn(),
                        'R' => tcp.rst(),
                        'P' => tcp.psh(),
                        'A' => tcp.ack(1),
                        'U' => tcp.urg(0),
                        'E' => tcp.ece(),
                        _ => tcp.cwr(),
                    };
                }
            }
            tcp.write(&mut bytes, &data)
        }
    }
    .ok()?;
    Some(bytes)
}
