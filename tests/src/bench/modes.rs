//! What listeners cost that do more than most: endpoints that answer clients themselves, custom routing, endpoints of the other
//! family, access lists. Where packets grow or shrink, the figures contain the few nanoseconds it takes to put them back.

use std::{net::Ipv4Addr, rc::Rc, sync::Arc};

use anyhow::Result;
use ga::{
    model::{Block, Destination, Policy, Protocols},
    plan::{CustomPart, CustomTable, CustomView, Sheet, SheetId, SheetKind, Step},
    program::Sizes,
};
use ga_common::{
    abi::{
        entry::{Address, Egress, Endpoint, Listener, Service, ServiceKey, mapped},
        family::Family,
        id::{EndpointId, InstanceId, ListenerId},
        limits::MAX_EGRESS,
        sheet::AclWord,
    },
    bench::{Load, PORT_BITS, order},
    wire::frame::TCP,
};

use super::{
    edge::{self, Edge, PORT, VIP4, VIP6},
    frames::{self, CLIENT4, Kind},
    packet::{Bench, Case, Fate, ROUNDS, only4},
    report::{Figure, Goal},
    stats::{Spread, paired},
};

/// TCP ports of the listeners.
const L2: u16 = 82;
const IPIP: u16 = 83;
const ACROSS: u16 = 84;
const LISTED: u16 = 85;
/// A VIP with custom routing, whose port [`PORT`] leads to the first host of its subnet.
const ROOMS: [u8; 4] = [198, 51, 100, 11];
const SUBNET: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 0);
const PREFIXES: u32 = 10_000;

/// Measures.
pub(super) fn run(figures: &mut Vec<Figure>) -> Result<()> {
    for flows in [1, 1_000_000] {
        eprintln!("endpoints that answer clients themselves: {flows} flows");
        direct(flows, figures)?;
    }
    // To one port of one host there are ports for half a million.
    for flows in [1, 200_000] {
        eprintln!("custom routing: {flows} flows");
        custom(flows, figures)?;
    }
    for flows in [1, 64_000] {
        eprintln!("across families: {flows} flows");
        across(flows, figures)?;
    }
    eprintln!("access lists");
    listed(figures)
}

/// No flow is remembered: the first packet of one and the rest go the same way.
fn direct(flows: u32, figures: &mut Vec<Figure>) -> Result<()> {
    let mut edge = Edge::with(only4(1_000), &steps())?;
    let fd = edge.fd()?;
    let edge = Rc::new(edge);
    let mut lanes = Vec::new();
    for (port, names) in [(L2, ["l2 forward", "l2 SYN"]), (IPIP, ["ipip forward", "ipip SYN"])] {
        let mut bench = Bench::over(&edge, &fd, flows)?;
        let [ack, syn] = [false, true].map(|syn| frames::load(Kind::To4 { vip: VIP4, port, syn }));
        let numbers = |load| Load { order: order::NUMBERS, flows, ..load };
        let (ack, syn) = (numbers(ack?), numbers(syn?));
        bench.list((0..u64::from(flows)).map(|n| [n, 0]).collect(), ack)?;
        let [known, first] = names;
        lanes.push((bench, [Case::new(known, ack, Fate::Forward), Case::new(first, syn, Fate::New)]));
    }
    for _ in 0..ROUNDS {
        for (bench, cases) in &mut lanes {
            for case in cases {
                bench.round(case, true)?;
            }
        }
    }
    let cases = lanes.iter().flat_map(|(_, cases)| cases);
    figures.extend(cases.map(|case| case.wants_above(case.figure(flows), 55.0)));
    Ok(())
}

fn custom(flows: u32, figures: &mut Vec<Figure>) -> Result<()> {
    let mut edge = Edge::with(only4(flows), &steps())?;
    (0..16).try_for_each(|host| edge.know(Ipv4Addr::from_bits(SUBNET.to_bits() + host)))?;
    let fd = edge.fd()?;
    let mut bench = Bench::over(&Rc::new(edge), &fd, flows)?;
    let load = |syn| frames::load(Kind::To4 { vip: ROOMS, port: PORT, syn });
    let flows = bench.open(load(true)?, flows, Family::V4, PORT)?;
    let ack = Load { order: order::NUMBERS, flows, ..load(false)? };
    let mut case = Case::new("custom routing, tcp4 forward", ack, Fate::Forward);
    bench.ga(ack, flows, Fate::Forward)?;
    for _ in 0..ROUNDS {
        bench.round(&mut case, true)?;
    }
    figures.push(case.wants_above(case.figure(flows), 45.0));
    Ok(())
}

/// Beside flows whose endpoints are of the client's family, in the same memory.
fn across(flows: u32, figures: &mut Vec<Figure>) -> Result<()> {
    let mut edge = Edge::with(Sizes::for_flows(4 * flows), &steps())?;
    let fd = edge.fd()?;
    let edge = Rc::new(edge);
    let of = |family, port, syn| match family {
        Family::V4 => frames::load(Kind::To4 { vip: VIP4, port, syn }),
        Family::V6 => frames::load(Kind::To6 { port, syn }),
    };
    let mut lanes = Vec::new();
    for (name, family, port) in [
        ("tcp4 to an IPv4 endpoint", Family::V4, PORT),
        ("tcp4 to an IPv6 endpoint", Family::V4, ACROSS),
        ("tcp6 to an IPv6 endpoint", Family::V6, PORT),
        ("tcp6 to an IPv4 endpoint", Family::V6, ACROSS),
    ] {
        let mut bench = Bench::over(&edge, &fd, flows)?;
        let flows = bench.open(of(family, port, true)?, flows, family, port)?;
        let ack = Load { order: order::NUMBERS, flows, ..of(family, port, false)? };
        lanes.push((bench, Case::new(name, ack, Fate::Forward)));
    }
    for (bench, case) in &mut lanes {
        bench.ga(case.load, case.load.flows, case.fate)?;
    }
    for _ in 0..ROUNDS {
        for (bench, case) in &mut lanes {
            bench.round(case, true)?;
        }
    }
    for pair in lanes.chunks(2) {
        let [(_, same), (_, other)] = pair else { continue };
        let ratio = paired(&other.ga, &same.ga);
        figures.push(same.figure(flows));
        figures.push(other.figure(flows).wants(Goal::at_most("ratio to the same family", ratio, 1.4)));
    }
    Ok(())
}

/// New flows: of a listener with a list, of one without beside it, and of one in an edge that has no list at all.
fn listed(figures: &mut Vec<Figure>) -> Result<()> {
    const FLOWS: u32 = 2_000;
    // As many clients, each in a prefix of its own.
    let clients = || (0..u64::from(FLOWS)).map(|n| [(n * 8) << PORT_BITS, 0]).collect();
    let lane = |mut edge: Edge, name, port| {
        let fd = edge.fd()?;
        let mut bench = Bench::over(&Rc::new(edge), &fd, FLOWS)?;
        let load = frames::load(Kind::To4 { vip: VIP4, port, syn: true })?;
        let load = Load { order: order::NUMBERS, flows: FLOWS, ..load };
        bench.list(clients(), load)?;
        let mut case = Case::new(name, load, Fate::New);
        case.packets = FLOWS;
        anyhow::Ok((bench, case))
    };
    let sizes = || only4(4_096);
    let mut lanes = [
        lane(Edge::new(sizes())?, "tcp4 new flow, no list anywhere", PORT)?,
        lane(Edge::with(sizes(), &steps())?, "tcp4 new flow, lists of other listeners", PORT)?,
        lane(Edge::with(sizes(), &steps())?, "tcp4 new flow, list of 10,000 prefixes", LISTED)?,
    ];
    for _ in 0..30 {
        for (bench, case) in &mut lanes {
            bench.edge.forget(false);
            bench.round(case, false)?;
        }
    }
    let [(_, none), (_, others), (_, own)] = &lanes;
    let more = |than: &Case, case: &Case| {
        let more: Vec<f64> = case.ga.iter().zip(&than.ga).map(|(ns, than)| ns - than).collect();
        Spread::of(&more).median
    };
    figures.push(none.figure(0));
    // What the clock of a busy machine makes of nothing.
    let goal = Goal::at_most("more than without, ns", more(none, others), 10.0);
    figures.push(others.figure(0).wants(goal));
    figures.push(own.figure(0).wants(Goal::at_most("more than without, ns", more(others, own), 60.0)));
    Ok(())
}

/// The small plan, and a listener of each kind.
fn steps() -> Vec<Step> {
    let mut steps = edge::steps();
    let plain = edge::listener(InstanceId(0));
    let white = AclWord::new(1, 0, true).0;
    for (n, port, listener) in [
        (3, L2, Listener { flags: plain.flags | Listener::L2, identity: 3, ..plain }),
        (4, IPIP, Listener { flags: plain.flags | Listener::IPIP, identity: 4, ..plain }),
        (5, ACROSS, Listener { identity: 5, ..plain }),
        (6, LISTED, Listener { acl: white, identity: 6, ..plain }),
    ] {
        steps.push(Step::PutListener(ListenerId(n), listener));
        let direct = listener.flags & (Listener::L2 | Listener::IPIP) != 0;
        let endpoint_port = if direct { [0; 2] } else { [0x1f, 0x90] };
        for addr in [mapped(VIP4), VIP6] {
            let key = ServiceKey { addr, port: port.to_be_bytes(), protocol: TCP, pad: 0 };
            steps.push(Step::PutService(key, Service { listener: ListenerId(n), endpoint_port }));
        }
    }
    for (nth, listener, clients, endpoints) in [
        (3, 3, Family::V4, Family::V4),
        (4, 4, Family::V4, Family::V4),
        (5, 5, Family::V4, Family::V6),
        (6, 5, Family::V6, Family::V4),
        (7, 6, Family::V4, Family::V4),
    ] {
        steps.extend(edge::serve(nth, ListenerId(listener), clients, endpoints));
    }
    let first = u32::from_be_bytes(CLIENT4);
    let borders = (0..PREFIXES).flat_map(|n| [first + n * 8, first + n * 8 + 4]).collect();
    steps.push(Step::FillSheet { id: SheetId { kind: SheetKind::Acl4, number: 1 }, content: Sheet::Acl4(borders) });
    rooms(&mut steps);
    steps
}

/// Custom routing in an instance of its own.
fn rooms(steps: &mut Vec<Step>) {
    let (instance, listener, endpoint) = (InstanceId(1), ListenerId(7), EndpointId(900));
    let address = Address { roles: Address::VIP | Address::CUSTOM, protocols: Address::TCP | Address::UDP, instance };
    steps.push(Step::PutAddress(mapped(ROOMS), address));
    let plain = edge::listener(instance);
    steps.push(Step::PutListener(listener, Listener { flags: plain.flags | Listener::CUSTOM, identity: 7, ..plain }));
    let flags = Endpoint::IN_USE;
    steps.push(Step::PutEndpoint(endpoint, Endpoint { addr: [0; 16], listener, port: [0; 2], flags, identity: 7 }));
    let mut egress = Egress { count4: MAX_EGRESS as u16, custom: 1, ..Egress::default() };
    for n in 0..MAX_EGRESS {
        egress.v4[n] = [203, 0, 113, n as u8 + 1];
    }
    steps.push(Step::PutEgress(instance, egress));
    let destinations = vec![Destination { first: 8080, last: 8080, protocols: Protocols::Both }];
    let net = format!("{SUBNET}/28").parse().expect("a network");
    let taken = vec![(PORT, PORT + 15)];
    let block = Block { group: "eu".to_owned(), net, destinations: destinations.clone(), taken };
    let part = CustomPart { block, region: "eu".to_owned(), policy: Policy::AllowAll, destinations, endpoint };
    let table = CustomTable::new([&CustomView::of(vec![part])].into_iter()).expect("it fits");
    let content = Sheet::Custom(Arc::new(table));
    steps.push(Step::FillSheet { id: SheetId { kind: SheetKind::Custom, number: 1 }, content });
}
