//! A network in namespaces: two client networks, an edge, and servers, each behind a cable of its own. Everything is taken
//! down again when the lab is dropped.

mod agent;
mod namespace;

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result, ensure};

pub use agent::{Agent, ga_binary};
pub use namespace::{Namespace, command};

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
}

static LABS: AtomicU32 = AtomicU32::new(0);

impl Lab {
    /// Builds a lab with `servers` servers. Needs root, iproute2 and ethtool.
    pub fn new(servers: usize) -> Result<Self> {
        let name = format!("ga{}-{}", std::process::id(), LABS.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(format!("{name}-lab"));
        Self::named(name, dir, servers)
    }

    /// The same under a name that is known beforehand, with its files in `dir`.
    pub fn named(name: String, dir: PathBuf, servers: usize) -> Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "namespaces need root: run this through `cargo xtask test` or `sudo`");
        mount_bpffs()?;
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let mut lab = Self {
            pin_dir: Path::new("/sys/fs/bpf").join(&name),
            clients: [Namespace::new(&format!("{name}-c1"))?, Namespace::new(&format!("{name}-c2"))?],
            edge: Namespace::new(&format!("{name}-edge"))?,
            servers: Vec::new(),
            name,
            dir,
        };
        for number in 1..=servers {
            lab.servers.push(Namespace::new(&format!("{}-s{number}", lab.name))?);
        }
        for (index, client) in lab.clients.iter().enumerate() {
            let number = index + 1;
            cable(
                &lab.edge,
                &format!("c{number}"),
                client,
                [client_gateway4(number), client_gateway6(number)],
                [client4(number), client6(number)],
            )?;
            for (family, vip, gateway) in
                [("-4", VIP4.to_string(), client_gateway4(number)), ("-6", VIP6.to_string(), client_gateway6(number))]
            {
                client.run(&["ip", family, "route", "add", &vip, "via", &gateway])?;
            }
        }
        for (index, server) in lab.servers.iter().enumerate() {
            let number = index + 1;
            let (gateway4, gateway6) = (format!("10.0.{number}.1"), format!("fd00:10:{number}::1"));
            cable(
                &lab.edge,
                &format!("s{number}"),
                server,
                [gateway4.clone(), gateway6.clone()],
                [server4(number).to_string(), server6(number).to_string()],
            )?;
            server.run(&["ip", "-4", "route", "add", "default", "via", &gateway4])?;
            server.run(&["ip", "-6", "route", "add", "default", "via", &gateway6])?;
        }
        Ok(lab)
    }

    /// The edge's interfaces, as a TOML list.
    pub fn interfaces(&self) -> String {
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
        let mut text = format!(
            "\n[[instance.listener]]\nname = \"{name}\"\nprotocol = \"{protocol}\"\nports = \"{ports}\"\n{extra}\n\n\
             [[instance.listener.endpoint_group]]\nname = \"near\"\nregion = \"lab\"\nbackend_ip_version = \"affinity\"\n",
        );
        for (index, weight) in weights.iter().enumerate() {
            let number = index + 1;
            for address in [IpAddr::from(server4(number)), server6(number).into()] {
                text += &format!(
                    "\n[[instance.listener.endpoint_group.endpoint]]\ntype = \"private_ip\"\naddress = \"{address}\"\nweight = {weight}\n",
                );
            }
        }
        text
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

/// Address of client `number`.
pub fn client4(number: usize) -> String {
    format!("192.0.{}.2", number + 1)
}

/// Address of client `number`.
pub fn client6(number: usize) -> String {
    format!("2001:db8:c{number}::2")
}

fn client_gateway4(number: usize) -> String {
    format!("192.0.{}.1", number + 1)
}

fn client_gateway6(number: usize) -> String {
    format!("2001:db8:c{number}::1")
}

/// A veth pair from the edge's `port` to `eth0` of `host`, with an IPv4 and an IPv6 address on both ends.
fn cable(edge: &Namespace, port: &str, host: &Namespace, edge_addresses: [String; 2], host_addresses: [String; 2]) -> Result<()> {
    edge.run(&[
        "ip",
        "link",
        "add",
        port,
        "numrxqueues",
        "2",
        "numtxqueues",
        "2",
        "type",
        "veth",
        "peer",
        "name",
        "eth0",
        "netns",
        &host.name,
    ])?;
    for (namespace, device, addresses) in [(edge, port, edge_addresses), (host, "eth0", host_addresses)] {
        let [v4, v6] = addresses;
        namespace.run(&["ip", "addr", "add", &format!("{v4}/24"), "dev", device])?;
        namespace.run(&["ip", "addr", "add", &format!("{v6}/64"), "dev", device, "nodad"])?;
        namespace.run(&["ip", "link", "set", device, "up"])?;
    }
    // Frames that XDP redirects reach a veth only when the receiving end polls: GRO makes it. Checksums must be complete,
    // because nobody completes them after a redirect.
    host.run(&["ethtool", "-K", "eth0", "gro", "on", "tx", "off"])
}

fn mount_bpffs() -> Result<()> {
    const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
    if rustix::fs::statfs("/sys/fs/bpf").is_ok_and(|stat| stat.f_type == BPF_FS_MAGIC) {
        return Ok(());
    }
    command(&["mount", "-t", "bpf", "bpf", "/sys/fs/bpf"])
}
