//! The agent killed in the middle of a change, at one call of bpf(2) after the other: packets see what was or what is to be, and the
//! next start ends what was begun. `GA_KILLS=all` kills at every single call, otherwise some are taken from everywhere.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use ga_tests::{
    lab::{Agent, Lab, Picture, Strace, VIP4, VIP6, client4, client6, read_pins, server4, server6},
    traffic::{Flows, Server, Storm, ask_many, spread},
};

const VIPS: [IpAddr; 2] = [IpAddr::V4(VIP4), IpAddr::V6(VIP6)];

/// Kills when not every call is asked for.
const KILLS: u32 = 16;

/// Two configurations that share nothing but names, addresses and one listener's port.
fn texts(lab: &Lab) -> [String; 2] {
    let to = |servers: &[usize]| {
        let both =
            |&n: &usize| [IpAddr::from(server4(n)), server6(n).into()].map(|address| ("private_ip", address, 100 + n as u8));
        servers.iter().flat_map(both).collect::<Vec<_>>()
    };
    let listener = |name, protocol, ports, servers: &[usize], extra| {
        Lab::listener_to(name, protocol, ports, &to(servers), extra, "backend_ip_version = \"affinity\"\n")
    };
    [
        lab.head()
            + &Lab::listener("web", "tcp", "80", &[255, 255, 0, 0], "")
            + &listener("dns", "udp", "53", &[1], "")
            + &listener("old", "tcp", "8080,8081", &[2], "idle_timeout = \"60s\""),
        lab.head()
            + &listener("new", "tcp", "9090", &[3], "")
            + &Lab::listener(
                "web",
                "tcp",
                "80,81",
                &[0, 0, 100, 200],
                "client_affinity = \"source_ip\"\nidle_timeout = \"600s\"",
            )
            + &listener("dns", "udp", "53", &[2, 4], "idle_timeout = \"10s\""),
    ]
}

/// Which servers answer the listener that both configurations have.
const WEB: [[usize; 2]; 2] = [[1, 2], [3, 4]];

/// New connections and datagrams, in both families: nobody is lost, and no server of one configuration answers beside one of the other.
fn works(lab: &Lab, allowed: &[[usize; 2]]) -> Result<()> {
    for (number, client) in (1..).zip(&lab.clients) {
        for vip in VIPS {
            let from: IpAddr = if vip.is_ipv4() { client4(number).into() } else { client6(number).into() };
            let answered: BTreeSet<usize> = spread(client, from, 0, SocketAddr::new(vip, 80), 12)?.into_keys().collect();
            let is_one = allowed.iter().any(|servers| answered.iter().all(|server| servers.contains(server)));
            ensure!(is_one, "{vip}: answered by {answered:?}, not by servers of one of {allowed:?}");
            let datagrams = ask_many(client, from, SocketAddr::new(vip, 53), 2, 2)?;
            ensure!(datagrams.lost.is_empty(), "{} of 4 datagrams to {vip} are lost", datagrams.lost.len());
        }
    }
    Ok(())
}

/// The lab, its agent, and how the maps look in either configuration.
struct Scene<'a> {
    lab: &'a Lab,
    agent: Agent,
    texts: [String; 2],
    pictures: [Picture; 2],
    /// Which configuration runs.
    now: usize,
}

impl<'a> Scene<'a> {
    /// Goes to and fro once, and looks.
    fn new(lab: &'a Lab) -> Result<(Self, [u32; 2])> {
        let texts = texts(lab);
        lab.configure(&texts[0])?;
        let agent = Agent::start(lab)?;
        let first = read_pins(&lab.pin_dir)?;
        let mut scene = Self { lab, agent, texts, pictures: [first, Picture::default()], now: 0 };
        let forth = scene.counted_reload()?;
        scene.pictures[1] = read_pins(&lab.pin_dir)?;
        let back = scene.counted_reload()?;
        ensure!(scene.pictures[0] == read_pins(&lab.pin_dir)?, "the way back does not lead to where it began");
        Ok((scene, [forth, back]))
    }

    fn strace(&self, kill_at: Option<u32>) -> Result<Strace> {
        Strace::attach(self.agent.pid(), kill_at, self.lab.dir.join("strace"))
    }

    /// A reload that nobody disturbs, and how many calls it makes.
    fn counted_reload(&mut self) -> Result<u32> {
        self.now = 1 - self.now;
        self.lab.configure(&self.texts[self.now])?;
        let strace = self.strace(None)?;
        self.agent.ok(&["reload"])?;
        strace.calls()
    }

    /// A reload that ends at its `number`th call; then everything is looked at, and the next start has to end it. False when the
    /// reload made fewer calls.
    fn killed_reload(&mut self, number: u32) -> Result<bool> {
        let (old, new) = (self.now, 1 - self.now);
        self.lab.configure(&self.texts[new])?;
        let strace = self.strace(Some(number))?;
        let reload = self.agent.ga(&["reload"])?;
        drop(strace);
        self.now = new;
        if reload.status.success() {
            return Ok(false);
        }
        let status = self.agent.wait(Duration::from_secs(10))?;
        ensure!(status.code().is_none(), "the agent was not killed: {status}\n{}", self.agent.log());
        let between = read_pins(&self.lab.pin_dir)?;
        between.is_between(&self.pictures[old], &self.pictures[new])?;
        works(self.lab, &WEB)?;
        self.agent = Agent::start(self.lab)?;
        let after = read_pins(&self.lab.pin_dir)?;
        if after != self.pictures[new] {
            let counts = |picture: &Picture| (picture.listeners.len(), picture.endpoints, picture.tables);
            bail!(
                "the next start left {:?} listeners, endpoints and tables, not {:?}",
                counts(&after),
                counts(&self.pictures[new])
            );
        }
        works(self.lab, &WEB[new..=new])?;
        Ok(true)
    }
}

#[test]
fn a_reload_killed_at_any_call_leaves_old_or_new_and_the_next_start_ends_it() -> Result<()> {
    let lab = Lab::new(4)?;
    let _servers = Server::start_all(&lab.servers, &[80, 53])?;
    let (mut scene, calls) = Scene::new(&lab)?;
    let pause = Duration::from_millis(100);
    let flows = [
        Flows::open(&lab.clients[0], SocketAddr::new(VIPS[0], 80), 10, pause)?,
        Flows::open(&lab.clients[1], SocketAddr::new(VIPS[1], 80), 10, pause)?,
    ];
    let storm = Storm::start(&lab.clients[1], SocketAddr::new(VIPS[0], 80), Duration::from_millis(50))?;
    let all = calls[0].max(calls[1]);
    let points: Vec<u32> = match std::env::var("GA_KILLS") {
        Ok(wish) if wish == "all" => (1..=all).collect(),
        Ok(wish) => evenly(all, wish.parse::<u32>().context("GA_KILLS is `all` or a number")?),
        Err(_) => evenly(all, KILLS),
    };
    let (mut kills, mut spared) = (0, 0);
    // Forth at one number, back at the next: with `all`, both ways at each.
    let ways = if points.len() == all as usize { 2 } else { 1 };
    for number in points.iter().flat_map(|number| std::iter::repeat_n(*number, ways)) {
        if scene.killed_reload(number).with_context(|| format!("killed at call {number} of the reload"))? {
            kills += 1;
        } else {
            spared += 1;
        }
        flows.iter().try_for_each(|flows| flows.wait_for(10)).with_context(|| format!("after the kill at call {number}"))?;
    }
    println!("reloads of {calls:?} calls of bpf(2); {kills} killed, {spared} were over before");
    ensure!(kills > 0, "no reload was killed");
    let report = storm.all_well()?;
    println!("{:?} connections meanwhile", report.answered);
    for flows in flows {
        flows.all_well()?;
    }
    let drops = scene.agent.status()?.drops;
    ensure!(drops.iter().all(|drop| drop.packets == 0), "packets were dropped: {drops:?}");
    Ok(())
}

/// `count` numbers from the first to the last of `1..=all`.
fn evenly(all: u32, count: u32) -> Vec<u32> {
    let count = count.clamp(2, all.max(2));
    let numbers: BTreeSet<u32> = (0..count).map(|n| 1 + n * (all - 1) / (count - 1)).collect();
    numbers.into_iter().collect()
}
