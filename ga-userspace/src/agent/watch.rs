//! `ga watch` and `ga capture`: the watching program is loaded aside, takes the place of the usual one for a while, and gives it
//! back whatever happens to whoever asked.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::mpsc as lines,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aya::Ebpf;
use ga_common::{
    abi::{
        entry::{Service, ServiceKey},
        id::ListenerId,
        reason::{Drop, Pass},
    },
    watch::{self, End, Ends, Event, SNAP, Seen, Watch, kind, words},
};
use ipnet::IpNet;
use rustix::time::{ClockId, clock_gettime};
use tokio::{
    io::unix::AsyncFd,
    sync::mpsc,
    time::{Instant, sleep_until, timeout_at},
};

use super::{Agent, Error, Notice, flows::Names, refusal};
use crate::{
    maps::{Told, WatchMaps, WatchRing},
    program::{self, Tool},
    status::{
        Code, Frame, PacketEnds, PacketEvent, PacketFilter, Refusal, Reply, SCHEMA_VERSION, VerdictWord, WATCH_COUNT, WATCH_RATE,
        WATCH_SECONDS, WatchEnd, WatchLine, WatchOrder,
    },
};

/// Lines that may wait for a slow reader.
const QUEUE: usize = 1024;

/// Where the agent is with watching.
pub(super) enum Watching {
    /// The program is being loaded.
    Loading,
    /// It is attached.
    On(Box<On>),
}

/// The watching program, attached.
pub(super) struct On {
    maps: WatchMaps,
    tell: mpsc::Sender<WatchLine>,
}

/// Somebody waits for the program to be loaded.
pub(super) struct Order {
    order: WatchOrder,
    watch: Watch,
    reply: Reply<mpsc::Receiver<WatchLine>>,
}

/// The reader of events is done.
pub(super) struct Ending {
    why: Why,
    told: u64,
}

/// Why a watch ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Count,
    Time,
    Gone,
    Broken,
    Stopping,
}

impl Why {
    const fn words(self) -> &'static str {
        match self {
            Self::Count => "that many were asked for",
            Self::Time => "the time is over",
            Self::Gone => "whoever asked is gone",
            Self::Broken => "the ring of events cannot be read",
            Self::Stopping => "the agent stops",
        }
    }
}

impl Agent {
    /// Loads the watching program; [`Agent::begin_watch`] goes on when that is done.
    pub(super) fn order_watch(&mut self, order: WatchOrder, reply: Reply<mpsc::Receiver<WatchLine>>) {
        let watch = match check(&order) {
            Ok(watch) => watch,
            Err(refusal) => return reply.send(Err(refusal)),
        };
        if self.watching.is_some() {
            let message = "packets are being watched already: one `ga watch` or `ga capture` at a time";
            return reply.send(Err(Refusal::new(Code::Conflict, message)));
        }
        self.watching = Some(Watching::Loading);
        let (pin_dir, sizes) = (self.options.pin_dir.clone(), self.data_path.sizes());
        let notify = self.notify.clone();
        self.tasks.spawn(async move {
            // The verifier takes its time, and packets and questions do not wait for it.
            let loading = tokio::task::spawn_blocking(move || program::load_tool(Some(&pin_dir), sizes, Tool::Watch));
            let loaded = match loading.await {
                Ok(loaded) => loaded.map_err(|error| refusal(&error.into())),
                Err(error) => Err(Refusal::new(Code::Internal, format!("loading the watching program ended: {error}"))),
            };
            let order = Order { order, watch, reply };
            // The agent that is gone attaches nothing.
            drop(notify.send(Notice::WatchLoaded(Box::new(loaded), order)).await);
        });
    }

    /// Attaches the watching program.
    pub(super) fn begin_watch(&mut self, loaded: Result<Ebpf, Refusal>, order: Order) {
        self.watching = None;
        let Order { order, watch, reply } = order;
        let begun = loaded.and_then(|ebpf| self.attach_watch(ebpf, &order, watch).map_err(|error| refusal(&error)));
        reply.send(begun);
    }

    fn attach_watch(&mut self, mut ebpf: Ebpf, order: &WatchOrder, mut watch: Watch) -> Result<mpsc::Receiver<WatchLine>, Error> {
        let mut maps = WatchMaps::open(&mut ebpf)?;
        let (events, from_lines) = lines::sync_channel(QUEUE + 2 * order.per_second as usize);
        let ring = if order.snap > 0 { WatchRing::frames(&mut ebpf)? } else { WatchRing::lines(&mut ebpf, events)? };
        let ring = ring.waiting().map_err(|source| Error::System { what: "wait for events", source })?;
        let monotonic = monotonic_ns();
        watch.until_ns = monotonic + Duration::from_secs(u64::from(order.seconds)).as_nanos() as u64;
        maps.set(watch)?;
        self.data_path.attach_tool(ebpf, Tool::Watch)?;
        let (tell, told) = mpsc::channel(QUEUE);
        let slots = self.data_path.attachments().slots();
        // There is room: nobody else has the channel.
        drop(tell.try_send(WatchLine::Started {
            schema_version: SCHEMA_VERSION,
            interfaces: slots.iter().filter(|slot| slot.attached.is_some()).map(|slot| slot.name.clone()).collect(),
        }));
        let teller = Teller {
            names: self.names(),
            services: self.data_path.running().services.clone(),
            interfaces: self.data_path.attachments().names(),
            epoch_ns: unix_ns().saturating_sub(monotonic),
            waiting: BTreeMap::new(),
        };
        let end = Instant::now() + Duration::from_secs(u64::from(order.seconds));
        let (count, notify) = (u64::from(order.count), self.notify.clone());
        let to = tell.clone();
        self.tasks.spawn(async move {
            let (why, told) = read(ring, from_lines, teller, count, end, &to).await;
            drop(to);
            drop(notify.send(Notice::WatchEnded(Ending { why, told })).await);
        });
        tracing::info!(seconds = order.seconds, count = order.count, "packets are watched");
        self.watching = Some(Watching::On(Box::new(On { maps, tell })));
        Ok(told)
    }

    /// Enough was watched.
    pub(super) fn end_watch(&mut self, ending: &Ending) {
        self.stop(ending.why, Some(ending.told));
    }

    /// Watches no more, because the agent stops.
    pub(super) fn stop_watching(&mut self) {
        self.stop(Why::Stopping, None);
    }

    /// Puts the usual program back, if it is not there, and says so.
    fn stop(&mut self, why: Why, told: Option<u64>) {
        let Some(Watching::On(on)) = self.watching.take() else { return };
        match self.data_path.attach_usual() {
            Ok(()) => tracing::info!(because = why.words(), "packets are not watched any more"),
            Err(error) => tracing::error!(
                "the watching program stays attached, tells nothing more, and is replaced as soon as it can be: {error}"
            ),
        }
        let Seen { matched, limited, lost } = on.maps.seen().unwrap_or_default();
        let end = WatchEnd {
            because: why.words().to_owned(),
            complete: matches!(why, Why::Count | Why::Time),
            matched,
            told: told.unwrap_or_default(),
            limited,
            lost,
        };
        // Whoever asked may be gone.
        drop(on.tell.try_send(WatchLine::Ended(end)));
    }
}

/// Reads events and tells them until it is enough; why, and how many.
async fn read(
    mut ring: AsyncFd<WatchRing>,
    lines: lines::Receiver<Event>,
    mut teller: Teller,
    count: u64,
    end: Instant,
    tell: &mpsc::Sender<WatchLine>,
) -> (Why, u64) {
    let mut told = 0;
    loop {
        let mut events = Vec::new();
        tokio::select! {
            () = tell.closed() => return (Why::Gone, told),
            () = sleep_until(end) => return (Why::Time, told),
            ready = ring.readable_mut() => {
                let Ok(mut ready) = ready else { return (Why::Broken, told) };
                ready.get_inner_mut().read(|one| events.push(one));
                ready.clear_ready();
                events.extend(lines.try_iter().map(|event| (event, Vec::new())));
            }
        }
        for event in events.into_iter().filter_map(|told| teller.tell(told)) {
            match timeout_at(end, tell.send(WatchLine::Packet(Box::new(event)))).await {
                Ok(Ok(())) => told += 1,
                Ok(Err(_closed)) => return (Why::Gone, told),
                Err(_late) => return (Why::Time, told),
            }
            if told >= count {
                return (Why::Count, told);
            }
        }
    }
}

/// Puts names to events.
struct Teller {
    names: Names,
    services: BTreeMap<ServiceKey, Service>,
    interfaces: BTreeMap<u32, String>,
    /// What the monotonic clock's zero is in Unix nanoseconds.
    epoch_ns: u64,
    /// By CPU: the frame as it came, whose other record comes next on that CPU.
    waiting: BTreeMap<u32, Told>,
}

impl Teller {
    /// The packet, as soon as all of it is known.
    fn tell(&mut self, told: Told) -> Option<PacketEvent> {
        let (event, bytes) = told;
        if bytes.is_empty() {
            return Some(self.packet(&event));
        }
        if event.part == 0 && event.verdict == kind::SEND {
            self.waiting.insert(event.cpu, (event, bytes));
            return None;
        }
        let mut packet = self.packet(&event);
        if event.part == 0 {
            packet.frame = Some(Frame::of(event.len, &bytes));
        } else if let Some((before, frame)) = self.waiting.remove(&event.cpu).filter(|(before, _)| before.ns == event.ns) {
            packet.length = before.len;
            packet.frame = Some(Frame::of(before.len, &frame));
            packet.frame_after = Some(Frame::of(event.len, &bytes));
        }
        Some(packet)
    }

    fn packet(&self, event: &Event) -> PacketEvent {
        let reason = usize::from(event.reason);
        let (verdict, why) = match event.verdict {
            kind::PASS => (VerdictWord::Pass, Pass::ALL.get(reason).map(|pass| (pass.name(), pass.explain()))),
            kind::DROP => (VerdictWord::Drop, Drop::ALL.get(reason).map(|drop| (drop.name(), drop.explain()))),
            _ => (VerdictWord::Send, None),
        };
        let interface = |index: u32| self.interfaces.get(&index).cloned().unwrap_or_else(|| format!("#{index}"));
        PacketEvent {
            at_ns: self.epoch_ns.saturating_add(event.ns),
            verdict,
            reason: why.map(|(name, _)| name.to_owned()),
            explanation: why.map(|(_, explain)| explain.to_owned()),
            listener: self.listener(event),
            interface: interface(event.ifindex),
            out: (event.out != 0).then(|| interface(event.out)),
            length: event.len,
            before: ends(&event.before),
            after: ends(&event.after).filter(|_| event.verdict == kind::SEND),
            frame: None,
            frame_after: None,
        }
    }

    /// The one that was counted, or the one whose address and port it carries.
    fn listener(&self, event: &Event) -> Option<String> {
        let service = |addr: watch::Words, port: [u8; 2]| {
            let key = ServiceKey { addr: watch::address(addr), port, protocol: event.before.protocol, pad: 0 };
            self.services.get(&key).map(|service| service.listener)
        };
        let ([_, _, d0, d1], [s0, s1, _, _]) = (event.before.ports, event.after.ports);
        let counted = Some(ListenerId(event.listener)).filter(|id| *id != ListenerId::NONE);
        let id = counted.or_else(|| service(event.before.dst, [d0, d1])).or_else(|| service(event.after.src, [s0, s1]))?;
        self.names.listeners.get(&id).cloned()
    }
}

fn ends(ends: &Ends) -> Option<PacketEnds> {
    let address = |words| IpAddr::from(watch::address(words)).to_canonical();
    let [s0, s1, d0, d1] = ends.ports;
    (ends.is_ip != 0).then(|| PacketEnds {
        protocol: ends.protocol,
        src: address(ends.src),
        sport: u16::from_be_bytes([s0, s1]),
        dst: address(ends.dst),
        dport: u16::from_be_bytes([d0, d1]),
    })
}

/// The order as the watching program understands it.
fn check(order: &WatchOrder) -> Result<Watch, Refusal> {
    let limits = [
        ("every", order.every, 1, u32::MAX),
        ("per_second", order.per_second, 1, WATCH_RATE),
        ("seconds", order.seconds, 1, WATCH_SECONDS),
        ("count", order.count, 1, WATCH_COUNT),
        ("snap", order.snap, 0, SNAP as u32),
    ];
    for (name, value, least, most) in limits {
        if !(least..=most).contains(&value) {
            return Err(Refusal::new(Code::Invalid, format!("`{name}` is {value}: {least} to {most} are possible")));
        }
    }
    let PacketFilter { src, sport, dst, dport, host, port, protocol, verdict, reason } = &order.only;
    let (mut verdicts, mut number) = (kind::PASS | kind::DROP | kind::SEND, 0);
    if let Some(name) = reason {
        let dropped = Drop::ALL.iter().position(|drop| drop.name() == name).map(|at| (kind::DROP, at));
        let passed = Pass::ALL.iter().position(|pass| pass.name() == name).map(|at| (kind::PASS, at));
        let Some((kind, at)) = dropped.or(passed) else {
            let all = Drop::ALL.iter().map(|drop| drop.name()).chain(Pass::ALL.iter().map(|pass| pass.name()));
            return Err(Refusal::new(Code::NotFound, format!("there is no reason `{name}`")).with_problems(all));
        };
        (verdicts, number) = (kind, at as u8 + 1);
    }
    verdicts &= match verdict {
        Some(VerdictWord::Pass) => kind::PASS,
        Some(VerdictWord::Drop) => kind::DROP,
        Some(VerdictWord::Send) => kind::SEND,
        None => verdicts,
    };
    Ok(Watch {
        until_ns: 0,
        src: end(*src, *sport),
        dst: end(*dst, *dport),
        any: end(*host, *port),
        per_second: order.per_second,
        every: order.every,
        snap: order.snap,
        verdicts,
        protocol: protocol.unwrap_or(0),
        reason: number,
        pad: 0,
    })
}

fn end(network: Option<IpNet>, port: Option<u16>) -> End {
    let mut end = End { port: port.unwrap_or(0).to_be_bytes(), ..End::default() };
    if let Some(network) = network {
        let (addr, bits) = match network.network() {
            IpAddr::V4(addr) => (addr.to_ipv6_mapped(), 96 + u32::from(network.prefix_len())),
            IpAddr::V6(addr) => (addr, u32::from(network.prefix_len())),
        };
        end.addr = words(addr.octets());
        end.mask = words(u128::MAX.checked_shl(128 - bits).unwrap_or(0).to_be_bytes());
    }
    end
}

fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

fn unix_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(only: PacketFilter) -> WatchOrder {
        WatchOrder { only, every: 1, per_second: 100, seconds: 10, count: 10, snap: 0 }
    }

    #[test]
    fn networks_of_both_families_become_masks() {
        let network = |text: &str| end(Some(text.parse().expect("a network")), None);
        let four = network("192.0.2.0/24");
        assert_eq!(watch::address(four.addr)[..], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 0, 2, 0]);
        assert_eq!(watch::address(four.mask)[12..], [255, 255, 255, 0]);
        assert_eq!(watch::address(network("2001:db8::/32").mask)[..5], [255, 255, 255, 255, 0]);
        assert_eq!(network("::/0").mask, [0, 0]);
        assert_eq!(network("0.0.0.0/0").mask[0], u64::MAX, "every IPv4 address is no IPv6 address");
    }

    #[test]
    fn a_reason_narrows_the_verdicts_and_an_unknown_one_is_refused() {
        let with = |reason: &str, verdict| {
            check(&order(PacketFilter { reason: Some(reason.to_owned()), verdict, ..PacketFilter::default() }))
        };
        let watch = with("no_flow", None).expect("a reason");
        assert_eq!((watch.verdicts, watch.reason), (kind::DROP, Drop::NoFlow as u8 + 1));
        assert_eq!(with("not_ours", None).map(|watch| watch.verdicts), Ok(kind::PASS));
        assert_eq!(with("not_ours", Some(VerdictWord::Drop)).map(|watch| watch.verdicts), Ok(0));
        assert!(with("no_such", None).is_err_and(|refusal| refusal.code == Code::NotFound && !refusal.problems.is_empty()));
    }

    #[test]
    fn orders_without_bounds_are_refused() {
        let good = order(PacketFilter::default());
        assert!(check(&good).is_ok());
        for bad in [
            WatchOrder { count: 0, ..good.clone() },
            WatchOrder { seconds: WATCH_SECONDS + 1, ..good.clone() },
            WatchOrder { per_second: WATCH_RATE + 1, ..good.clone() },
            WatchOrder { snap: SNAP as u32 + 1, ..good.clone() },
            WatchOrder { every: 0, ..good.clone() },
        ] {
            assert!(check(&bad).is_err_and(|refusal| refusal.code == Code::Invalid), "{bad:?}");
        }
    }

    #[test]
    fn the_two_records_of_a_packet_become_one() {
        let mut teller = Teller {
            names: Names::default(),
            services: BTreeMap::new(),
            interfaces: BTreeMap::from([(2, "eth0".to_owned())]),
            epoch_ns: 1000,
            waiting: BTreeMap::new(),
        };
        let event = |cpu, ns, part, verdict| Event { ns, cpu, part, verdict, ifindex: 2, len: 60, ..Event::default() };
        assert_eq!(teller.tell((event(0, 5, 0, kind::SEND), vec![1])), None);
        let dropped = teller.tell((event(1, 6, 0, kind::DROP), vec![2])).expect("one record is all of a drop");
        assert_eq!((dropped.frame, dropped.frame_after, dropped.interface.as_str()), (Some(Frame::of(60, &[2])), None, "eth0"));
        let sent = teller.tell((event(0, 5, 1, kind::SEND), vec![3])).expect("both are there");
        assert_eq!((sent.frame, sent.frame_after, sent.at_ns), (Some(Frame::of(60, &[1])), Some(Frame::of(60, &[3])), 1005));
        assert!(teller.waiting.is_empty());
        // A first record whose second was lost is not taken for another packet's.
        assert_eq!(teller.tell((event(0, 7, 0, kind::SEND), vec![1])), None);
        let other = teller.tell((event(0, 8, 1, kind::SEND), vec![3])).expect("told all the same");
        assert_eq!(other.frame, None);
    }
}
