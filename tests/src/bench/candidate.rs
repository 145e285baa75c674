//! One way of getting packets from the client to the servers, in a lab of its own.

use std::{fs, net::Ipv4Addr, process::Child, thread::sleep, time::Duration};

use anyhow::{Context as _, Result, bail};
use ga_common::bench::Load;

use super::kernel::{Kernel, Xdp};
use crate::lab::{Agent, Lab, Namespace, VIP4, server4};

/// Where the web servers listen.
pub(super) const PORT_WEB: u16 = 80;
/// Where iperf3 listens.
pub(super) const PORT_BULK: u16 = 5201;
/// Where UDP is counted.
pub(super) const PORT_UDP: u16 = 9000;

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The product.
    Ga,
    /// DNAT by a hash, and masquerade.
    Nftables,
    /// A TCP proxy.
    Haproxy,
    /// An XDP program that changes the MAC addresses and redirects to one server: the least that can be done.
    Redirect,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ga => "ga",
            Self::Nftables => "nftables",
            Self::Haproxy => "haproxy",
            Self::Redirect => "redirect",
        }
    }

    pub(super) fn forwards_udp(self) -> bool {
        self != Self::Haproxy
    }

    pub(super) fn forwards_tcp(self) -> bool {
        self != Self::Redirect
    }
}

/// A lab, and what runs in it.
pub(super) struct Candidate {
    pub(super) kind: Kind,
    /// Away while a thread in the client's namespace has it.
    pub(super) generator: Option<Kernel>,
    pub(super) client: Ipv4Addr,
    pub(super) client_ifindex: u32,
    pub(super) gateway_mac: [u8; 6],
    sinks: Vec<Kernel>,
    _forwarder: Option<Kernel>,
    _agent: Option<Agent>,
    _children: Vec<Running>,
    // Dropped last: the namespaces must be there as long as what runs in them.
    pub(super) lab: Lab,
}

/// A program of ours that is ended when we are done.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Candidate {
    pub(super) fn new(kind: Kind) -> Result<Self> {
        let lab = Lab::new(2)?;
        let mut children = Vec::new();
        for (namespace, device) in lab.servers.iter().chain([&lab.clients[0]]).map(|namespace| (namespace, "eth0")) {
            namespace.run(&["ethtool", "-K", device, "tso", "off", "gso", "off", "tx", "off", "gro", "on"])?;
        }
        for device in ["c1", "s1", "s2"] {
            lab.edge.run(&["ethtool", "-K", device, "tso", "off", "gso", "off", "gro", "on"])?;
        }
        lab.clients[0].run(&["sysctl", "-qw", "net.ipv4.ip_local_port_range=1024 65000"])?;
        let mut sinks = Vec::new();
        if kind.forwards_tcp() {
            for number in 1..=lab.servers.len() {
                children.extend(serve(&lab, number)?);
            }
        }
        for server in &lab.servers {
            sinks.push(attached(server, "eth0", Xdp::Sink, None)?);
        }
        let (client_ifindex, _) = device(&lab.clients[0], "eth0")?;
        let (_, gateway_mac) = device(&lab.edge, "c1")?;
        let (mut agent, mut forwarder) = (None, None);
        match kind {
            Kind::Ga => agent = Some(start_agent(&lab)?),
            Kind::Nftables => nftables(&lab)?,
            Kind::Haproxy => children.push(haproxy(&lab)?),
            Kind::Redirect => {
                let ((ifindex, src), (_, dst)) = (device(&lab.edge, "s1")?, device(&lab.servers[0], "eth0")?);
                let mut macs = [0; 12];
                macs[..6].copy_from_slice(&dst);
                macs[6..].copy_from_slice(&src);
                let load = Load { ifindex, macs, ..Load::default() };
                forwarder = Some(attached(&lab.edge, "c1", Xdp::Redirect, Some(load))?);
            }
        }
        let mut generator = Kernel::new(256)?;
        generator.set_list(&(0..256).map(|n| [n, 0]).collect::<Vec<_>>())?;
        let candidate = Self {
            kind,
            generator: Some(generator),
            client: Ipv4Addr::new(192, 0, 2, 2),
            client_ifindex,
            gateway_mac,
            sinks,
            _forwarder: forwarder,
            _agent: agent,
            _children: children,
            lab,
        };
        candidate.wait()?;
        Ok(candidate)
    }

    /// UDP packets that arrived at the servers so far.
    pub(super) fn arrived(&self) -> Result<u64> {
        self.sinks.iter().map(Kernel::arrived).sum()
    }

    /// Until the web answers through the candidate, often enough for both servers to be known.
    fn wait(&self) -> Result<()> {
        if !self.kind.forwards_tcp() {
            return Ok(());
        }
        let url = format!("http://{VIP4}:{PORT_WEB}/");
        let mut in_a_row = 0;
        for _ in 0..200 {
            let output = self.lab.clients[0].output(&["curl", "-sf", "-m", "1", "-o", "/dev/null", &url])?;
            in_a_row = if output.status.success() { in_a_row + 1 } else { 0 };
            if in_a_row == 16 {
                return Ok(());
            }
            if in_a_row == 0 {
                sleep(Duration::from_millis(50));
            }
        }
        bail!("{url} does not answer through {}", self.kind.name())
    }
}

/// Attaches a program of the benchmark inside a namespace.
fn attached(namespace: &Namespace, device: &'static str, program: Xdp, load: Option<Load>) -> Result<Kernel> {
    let mut kernel = Kernel::new(1)?;
    if let Some(load) = load {
        kernel.set_load(load)?;
    }
    namespace.within(move || kernel.attach(program, device).map(|()| kernel))?
}

/// Index and MAC address of an interface.
fn device(namespace: &Namespace, name: &str) -> Result<(u32, [u8; 6])> {
    let links: serde_json::Value = serde_json::from_str(&namespace.read(&["ip", "-j", "link", "show", "dev", name])?)?;
    let (index, text) = (links[0]["ifindex"].as_u64(), links[0]["address"].as_str());
    let (index, text) = index.zip(text).with_context(|| format!("interface {name} is not as it should be"))?;
    let mut mac = [0; 6];
    for (byte, hex) in mac.iter_mut().zip(text.split(':')) {
        *byte = u8::from_str_radix(hex, 16)?;
    }
    Ok((u32::try_from(index)?, mac))
}

/// A web server and iperf3.
fn serve(lab: &Lab, number: usize) -> Result<[Running; 2]> {
    let (server, file) = (&lab.servers[number - 1], lab.dir.join(format!("nginx-{number}.conf")));
    let body = "x".repeat(90);
    let pid = lab.dir.join(format!("nginx-{number}.pid"));
    let text = format!(
        "daemon off;\nmaster_process off;\nworker_processes 1;\nerror_log /dev/null;\npid {};\nevents {{ worker_connections 4096; }}\n\
         http {{\n  access_log off;\n  keepalive_requests 1000000000;\n  server {{\n    listen {PORT_WEB} backlog=4096;\n    \
         location / {{ return 200 \"{body}\"; }}\n  }}\n}}\n",
        pid.display()
    );
    fs::write(&file, text)?;
    let file = file.to_string_lossy();
    let web = server.spawn(&["nginx", "-e", "/dev/null", "-c", &file])?;
    Ok([Running(web), Running(server.spawn(&["iperf3", "-s", "-p", &PORT_BULK.to_string()])?)])
}

fn start_agent(lab: &Lab) -> Result<Agent> {
    let listeners = [
        Lab::listener("web", "tcp", &PORT_WEB.to_string(), &[128, 128], ""),
        Lab::listener("bulk", "tcp", &PORT_BULK.to_string(), &[128, 128], "client_affinity = \"source_ip\""),
        Lab::listener("udp", "udp", &PORT_UDP.to_string(), &[128, 128], ""),
    ];
    lab.configure(&(lab.head() + &listeners.concat()))?;
    Agent::start(lab)
}

fn nftables(lab: &Lab) -> Result<()> {
    let map = format!("mod 2 map {{ 0 : {}, 1 : {} }}", server4(1), server4(2));
    let text = format!(
        "table ip bench {{\n  chain pre {{\n    type nat hook prerouting priority dstnat;\n    \
         ip daddr {VIP4} tcp dport {PORT_BULK} dnat to jhash ip saddr {map}\n    \
         ip daddr {VIP4} meta l4proto tcp dnat to jhash ip saddr . tcp sport {map}\n    \
         ip daddr {VIP4} meta l4proto udp dnat to jhash ip saddr . udp sport {map}\n  }}\n  \
         chain post {{\n    type nat hook postrouting priority srcnat;\n    ip daddr 10.0.0.0/8 masquerade\n  }}\n}}\n"
    );
    let file = lab.dir.join("nft.conf");
    fs::write(&file, text)?;
    lab.edge.run(&["sysctl", "-qw", "net.ipv4.ip_forward=1"])?;
    lab.edge.run(&["nft", "-f", &file.to_string_lossy()])
}

fn haproxy(lab: &Lab) -> Result<Running> {
    lab.edge.run(&["ip", "addr", "add", &format!("{VIP4}/32"), "dev", "lo"])?;
    let mut text =
        "global\n  maxconn 4000\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n"
            .to_owned();
    for (name, port, balance) in [("web", PORT_WEB, "roundrobin"), ("bulk", PORT_BULK, "source")] {
        text += &format!("listen {name}\n  bind {VIP4}:{port}\n  balance {balance}\n");
        for number in 1..=lab.servers.len() {
            text += &format!("  server s{number} {}:{port}\n", server4(number));
        }
    }
    let file = lab.dir.join("haproxy.cfg");
    fs::write(&file, text)?;
    Ok(Running(lab.edge.spawn(&["haproxy", "-db", "-f", &file.to_string_lossy()])?))
}
