//! A network in namespaces: two client networks, an edge, and servers, each behind a cable of its own. Everything is taken
//! down again when the lab is dropped.

mod agent;
mod delay;
mod namespace;
mod nginx;
mod pinned;
mod strace;

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf,
    programs::{Xdp, XdpMode},
};

pub use agent::{Agent, ga_binary};
pub use delay::Delay;
pub use namespace::{Namespace, command};
pub use nginx::{Nginx, curl, self_signed};
pub use pinned::{Picture, read as read_pins};
pub use strace::Strace;

/// What clients reach, IPv4.
pub const VIP4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
/// What clients reach, IPv6.
pub const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 0x10);
/// What endpoints see, IPv4.
pub const EGRESS4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
/// What endpoints see, IPv6.
pub const EGRESS6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x200, 0, 0, 0, 0, 5);

/// The namespaces and the files of one lab.
#[derive(Debug)]
pub struct Lab {
    /// Prefix of the names of the namespaces.
    pub name: String,
    /// Configuration, admin socket, state, logs.
    pub dir: PathBuf,
    /// Where the agent pins, on the host's bpffs.
    pub pin_dir: PathBuf,
    /// Two client networks.
    pub clients: [Namespace; 2],
    /// Where the agent runs.
    pub edge: Namespace,
    /// Servers, the first is number 1.
    pub servers: Vec<Namespace>,
    /// What connects them all, in a one-armed lab.
    pub switch: Option<Namespace>,
    /// A veth delivers what XDP sends back only to a far end that runs XDP itself.
    far_end: Option<Ebpf>,
}

static LABS: AtomicU32 = AtomicU32::new(0);

impl Lab {
    /// Builds a lab with `servers` servers, each host behind a cable of its own. Needs root, iproute2 and ethtool.
    pub fn new(servers: usize) -> Result<Self> {
        Self::hosts(servers, None)?.cabled()
    }

    /// The same under a name that is known beforehand, with its files in `dir`.
    pub fn named(name: String, dir: PathBuf, servers: usize) -> Result<Self> {
        Self::named_hosts(name, dir, servers, None)?.cabled()
    }

    fn cabled(self) -> Result<Self> {
        let lab = self;
        for (number, client) in (1..).zip(&lab.clients) {
            cable(&lab.edge, &format!("c{number}"), client)?;
            address(&lab.edge, &format!("c{number}"), [client_gateway4(number), client_gateway6(number)])?;
        }
        for number in 1..=lab.servers.len() {
            lab.cable_server(number)?;
        }
        lab.addressed()
    }

    fn cable_server(&self, number: usize) -> Result<()> {
        let server = self.servers.get(number - 1).context("no such server")?;
        cable(&self.edge, &format!("s{number}"), server)?;
        address(&self.edge, &format!("s{number}"), [server_gateway4(number), server_gateway6(number)])
    }

    /// Takes the cable of a server away, with the interfaces at both ends.
    pub fn unplug_server(&self, number: usize) -> Result<()> {
        self.edge.run(&["ip", "link", "del", &format!("s{number}")])
    }

    /// A new cable where [`unplug_server`](Self::unplug_server) took the old one away, with the addresses of before.
    pub fn plug_server(&self, number: usize) -> Result<()> {
        self.cable_server(number)?;
        self.address_server(number)
    }

    /// A longer cable to a server: what goes there takes that long, each way. The addresses stay; nothing else may use the old cable.
    pub fn delay_server(&self, number: usize, one_way: Duration) -> Result<Delay> {
        let server = self.servers.get(number - 1).context("no such server")?;
        self.unplug_server(number)?;
        let relay = Namespace::new(&format!("{}-d{number}", self.name))?;
        // It has nothing to say of its own.
        relay.run(&["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1"])?;
        let port = format!("s{number}");
        cable_to(&self.edge, &port, &relay, "near")?;
        cable(&relay, "far", server)?;
        // Checksums must be complete, and frames no longer than they were sent, for those who read and write them as bytes.
        self.edge.run(&["ethtool", "-K", &port, "tx", "off"])?;
        relay.run(&["ip", "link", "set", "near", "gro_max_size", "1500"])?;
        address(&self.edge, &port, [server_gateway4(number), server_gateway6(number)])?;
        self.address_server(number)?;
        Delay::between(relay, ["near", "far"], one_way)
    }

    /// Builds a lab whose edge has one interface only, `lan`, with everybody on the same switch.
    pub fn one_armed(servers: usize) -> Result<Self> {
        let mut lab = Self::hosts(servers, Some("switch"))?;
        let switch = lab.switch.as_ref().context("this lab has a switch")?;
        switch.run(&["ip", "link", "add", "bridge", "type", "bridge"])?;
        switch.run(&["ip", "link", "set", "bridge", "up"])?;
        cable_named(switch, "edge", &lab.edge, "lan")?;
        let hosts = [("c", &lab.clients[..]), ("s", &lab.servers[..])];
        for (port, host) in
            hosts.iter().flat_map(|(letter, hosts)| (1..).zip(*hosts).map(move |(n, h)| (format!("{letter}{n}"), h)))
        {
            cable(switch, &port, host)?;
            switch.run(&["ip", "link", "set", &port, "master", "bridge"])?;
        }
        switch.run(&["ip", "link", "set", "edge", "master", "bridge"])?;
        lab.far_end = Some(pass_program(switch, "edge")?);
        for number in 1..=lab.clients.len() {
            address(&lab.edge, "lan", [client_gateway4(number), client_gateway6(number)])?;
        }
        for number in 1..=servers {
            address(&lab.edge, "lan", [server_gateway4(number), server_gateway6(number)])?;
        }
        lab.addressed()
    }

    fn hosts(servers: usize, switch: Option<&str>) -> Result<Self> {
        let name = format!("ga{}-{}", std::process::id(), LABS.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(format!("{name}-lab"));
        Self::named_hosts(name, dir, servers, switch)
    }

    fn named_hosts(name: String, dir: PathBuf, servers: usize, switch: Option<&str>) -> Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "namespaces need root: run this through `cargo xtask test` or `sudo`");
        mount_bpffs()?;
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let namespace = |what: &str| Namespace::new(&format!("{name}-{what}"));
        Ok(Self {
            pin_dir: Path::new("/sys/fs/bpf").join(&name),
            clients: [namespace("c1")?, namespace("c2")?],
            edge: namespace("edge")?,
            servers: (1..=servers).map(|number| namespace(&format!("s{number}"))).collect::<Result<_>>()?,
            switch: switch.map(namespace).transpose()?,
            far_end: None,
            name,
            dir,
        })
    }

    /// Gives clients and servers their addresses and routes.
    fn addressed(self) -> Result<Self> {
        for (number, client) in (1..).zip(&self.clients) {
            address(client, "eth0", [client4(number).to_string(), client6(number).to_string()])?;
            for (family, vip, gateway) in
                [("-4", VIP4.to_string(), client_gateway4(number)), ("-6", VIP6.to_string(), client_gateway6(number))]
            {
                client.run(&["ip", family, "route", "add", &vip, "via", &gateway])?;
            }
        }
        (1..=self.servers.len()).try_for_each(|number| self.address_server(number))?;
        Ok(self)
    }

    fn address_server(&self, number: usize) -> Result<()> {
        let server = self.servers.get(number - 1).context("no such server")?;
        address(server, "eth0", [server4(number).to_string(), server6(number).to_string()])?;
        server.run(&["ip", "-4", "route", "add", "default", "via", &server_gateway4(number)])?;
        server.run(&["ip", "-6", "route", "add", "default", "via", &server_gateway6(number)])
    }

    /// The edge's interfaces, as a TOML list.
    pub fn interfaces(&self) -> String {
        if self.switch.is_some() {
            return "[\"lan\"]".to_owned();
        }
        let servers = (1..=self.servers.len()).map(|number| format!("\"s{number}\""));
        let all: Vec<_> = ["\"c1\"", "\"c2\""].map(str::to_owned).into_iter().chain(servers).collect();
        format!("[{}]", all.join(", "))
    }

    /// `[node]` and one instance; listeners are to follow.
    pub fn head(&self) -> String {
        format!(
            "[node]\nap = \"lab\"\ninterfaces = {}\nmetrics = \"off\"\n\n[limits]\nendpoints_per_group = 12\n\n\
             [[instance]]\nid = \"lab\"\nvips = [\"{VIP4}\", \"{VIP6}\"]\negress_ips = [\"{EGRESS4}\", \"{EGRESS6}\"]\n",
            self.interfaces(),
        )
    }

    /// A listener to the first servers, of both families, with these weights; `extra` are further keys of the listener.
    pub fn listener(name: &str, protocol: &str, ports: &str, weights: &[u8], extra: &str) -> String {
        Self::mapped_listener(name, protocol, ports, weights, extra, "")
    }

    /// The same with further keys of the endpoint group.
    pub fn mapped_listener(name: &str, protocol: &str, ports: &str, weights: &[u8], extra: &str, group: &str) -> String {
        let both = |(index, weight): (usize, &u8)| {
            let number = index + 1;
            [IpAddr::from(server4(number)), server6(number).into()].map(|address| ("private_ip", address, *weight))
        };
        let endpoints: Vec<_> = weights.iter().enumerate().flat_map(both).collect();
        let group = format!("backend_ip_version = \"affinity\"\n{group}");
        Self::listener_to(name, protocol, ports, &endpoints, extra, &group)
    }

    /// A listener to any endpoints, each with type, address and weight.
    pub fn listener_to(
        name: &str,
        protocol: &str,
        ports: &str,
        endpoints: &[(&str, IpAddr, u8)],
        extra: &str,
        group: &str,
    ) -> String {
        let mut text = format!(
            "\n[[instance.listener]]\nname = \"{name}\"\nprotocol = \"{protocol}\"\nports = \"{ports}\"\n{extra}\n\n\
             [[instance.listener.endpoint_group]]\nname = \"near\"\nregion = \"lab\"\n{group}\n",
        );
        for (kind, address, weight) in endpoints {
            text += &format!(
                "\n[[instance.listener.endpoint_group.endpoint]]\ntype = \"{kind}\"\naddress = \"{address}\"\nweight = {weight}\n",
            );
        }
        text
    }

    /// A second cable from the edge, where it is `x1`, to the first client, where it is `eth1`; packets do not go by it until
    /// [`move_client`](Self::move_client).
    pub fn second_cable(&self) -> Result<()> {
        cable_to(&self.edge, "x1", &self.clients[0], "eth1")?;
        address(&self.edge, "x1", ["192.0.102.1", "2001:db8:ccc::1"].map(str::to_owned))?;
        address(&self.clients[0], "eth1", ["192.0.102.2", "2001:db8:ccc::2"].map(str::to_owned))
    }

    /// The first client reaches the edge by its second cable from now on; what it has open keeps its addresses.
    pub fn move_client(&self) -> Result<()> {
        for (family, vip, gateway) in [("-4", VIP4.to_string(), "192.0.102.1"), ("-6", VIP6.to_string(), "2001:db8:ccc::1")] {
            self.clients[0].run(&["ip", family, "route", "replace", &vip, "via", gateway])?;
        }
        Ok(())
    }

    /// Makes the edge own the addresses that clients reach, as a router with loopback addresses does: what no listener has is
    /// answered by the edge's own stack.
    pub fn own_vips(&self) -> Result<()> {
        self.edge.run(&["ip", "addr", "add", &format!("{VIP4}/32"), "dev", "lo"])?;
        self.edge.run(&["ip", "addr", "add", &format!("{VIP6}/128"), "dev", "lo", "nodad"])
    }

    /// Gives a host behind the edge another address; `number` is the server's.
    pub fn server_address(&self, number: usize, address: IpAddr) -> Result<()> {
        let (family, length, gateway) = match address {
            IpAddr::V4(_) => ("-4", 32, IpAddr::from(server4(number))),
            IpAddr::V6(_) => ("-6", 128, server6(number).into()),
        };
        let one = format!("{address}/{length}");
        let server = self.servers.get(number - 1).context("no such server")?;
        server.run(&["ip", family, "addr", "add", &one, "dev", "lo"])?;
        self.edge.run(&["ip", family, "route", "add", &one, "via", &gateway.to_string()])
    }

    /// Writes the configuration and returns its path.
    pub fn configure(&self, text: &str) -> Result<PathBuf> {
        let path = self.dir.join("ga.toml");
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for folder in ["links", "maps"] {
            for pin in fs::read_dir(self.pin_dir.join(folder)).into_iter().flatten().flatten() {
                drop(fs::remove_file(pin.path()));
            }
            drop(fs::remove_dir(self.pin_dir.join(folder)));
        }
        drop(fs::remove_dir(&self.pin_dir));
        drop(fs::remove_dir_all(&self.dir));
    }
}

/// Address of server `number`.
pub fn server4(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, number as u8, 11)
}

/// Address of server `number`.
pub fn server6(number: usize) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x10, number as u16, 0, 0, 0, 0, 0x11)
}

/// First address of client network `number`.
pub fn client4(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, number as u8 + 1, 2)
}

/// First address of client network `number`.
pub fn client6(number: usize) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0xc0 | number as u16, 0, 0, 0, 0, 2)
}

fn client_gateway4(number: usize) -> String {
    format!("192.0.{}.1", number + 1)
}

fn client_gateway6(number: usize) -> String {
    format!("2001:db8:c{number}::1")
}

fn server_gateway4(number: usize) -> String {
    format!("10.0.{number}.1")
}

fn server_gateway6(number: usize) -> String {
    format!("fd00:10:{number}::1")
}

/// A veth pair from `port` of the edge, or of a switch, to `eth0` of `host`.
fn cable(edge: &Namespace, port: &str, host: &Namespace) -> Result<()> {
    cable_to(edge, port, host, "eth0")
}

fn cable_to(edge: &Namespace, port: &str, host: &Namespace, device: &str) -> Result<()> {
    cable_named(edge, port, host, device)?;
    // Frames that XDP redirects reach a veth only when the receiving end polls: GRO makes it. Checksums must be complete,
    // because nobody completes them after a redirect.
    host.run(&["ethtool", "-K", device, "gro", "on", "tx", "off"])
}

fn cable_named(edge: &Namespace, port: &str, host: &Namespace, device: &str) -> Result<()> {
    let peer = ["type", "veth", "peer", "name", device, "netns", &host.name];
    edge.run(&[&["ip", "link", "add", port, "numrxqueues", "2", "numtxqueues", "2"], &peer[..]].concat())?;
    edge.run(&["ip", "link", "set", port, "up"])?;
    host.run(&["ip", "link", "set", device, "up"])
}

/// Attaches a program that passes everything, natively; it stays as long as what is returned.
pub fn pass_program(namespace: &Namespace, device: &str) -> Result<Ebpf> {
    let device = device.to_owned();
    namespace.within(move || {
        let mut object = ga::program::load(None, ga::program::Sizes::for_flows(1024))?.ebpf;
        let program: &mut Xdp = object.program_mut("ga_pass").context("the object has no ga_pass")?.try_into()?;
        program.load()?;
        program.attach(&device, XdpMode::Driver)?;
        Ok(object)
    })?
}

/// Gives a device an IPv4 and an IPv6 address.
fn address(namespace: &Namespace, device: &str, [v4, v6]: [String; 2]) -> Result<()> {
    namespace.run(&["ip", "addr", "add", &format!("{v4}/24"), "dev", device])?;
    namespace.run(&["ip", "addr", "add", &format!("{v6}/64"), "dev", device, "nodad"])
}

fn mount_bpffs() -> Result<()> {
    const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
    if rustix::fs::statfs("/sys/fs/bpf").is_ok_and(|stat| stat.f_type == BPF_FS_MAGIC) {
        return Ok(());
    }
    command(&["mount", "-t", "bpf", "bpf", "/sys/fs/bpf"])
}
