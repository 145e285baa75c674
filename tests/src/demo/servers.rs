//! What runs on the servers: nginx that answers its own name, a UDP echo, iperf3.

use std::{
    fs, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use socket2::{Domain, Socket, Type};

use super::stop::Stop;
use crate::lab::{Lab, Namespace};

/// Ports of nginx.
const HTTP: [u16; 5] = [80, 7000, 8000, 8001, 8002];
/// Programs that run on each server; nginx is the first.
pub(super) const PROGRAMS: usize = 3;
/// Size of the file for long transfers.
const FILE_BYTES: usize = 6 << 20;
/// Bytes per second of a long transfer: it takes 3 s.
const FILE_RATE: usize = 2 << 20;

/// Name of server `number`.
pub(super) fn name(number: usize) -> String {
    format!("s{number}")
}

/// The file of long transfers.
pub(super) fn file(lab: &Lab) -> PathBuf {
    lab.dir.join("file")
}

/// Starts all servers of the lab and waits until they serve.
pub(super) fn start(lab: &Lab, stop: &Stop) -> Result<Vec<Child>> {
    // Bytes that differ from place to place, so that a piece at a wrong place would be seen.
    let bytes: Vec<u8> = (0..FILE_BYTES as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    fs::write(file(lab), bytes).context("cannot write the file for long transfers")?;
    let this = std::env::current_exe().context("cannot find this program")?.display().to_string();
    let mut children = Vec::new();
    for (server, number) in lab.servers.iter().zip(1..) {
        let programs: [Child; PROGRAMS] =
            [nginx(lab, number)?, spawn(server, &["iperf3", "-s"])?, spawn(server, &[&this, "--serve-udp", &name(number)])?];
        children.extend(programs);
    }
    for (server, index) in lab.servers.iter().zip(1..) {
        stop.wait(&format!("the servers of {}", name(index)), Duration::from_secs(10), || {
            // iperf3 shows one socket for both families, nginx two each, the echo two.
            let listening = server.read(&["ss", "-Hltun"])?;
            Ok(listening.lines().count() >= 2 * HTTP.len() + 3)
        })?;
    }
    Ok(children)
}

/// nginx on server `number`.
pub(super) fn nginx(lab: &Lab, number: usize) -> Result<Child> {
    let server = lab.servers.get(number - 1).context("no such server")?;
    let name = name(number);
    let dir = lab.dir.join(&name);
    fs::create_dir_all(&dir)?;
    let conf = dir.join("nginx.conf");
    fs::write(&conf, nginx_conf(&name, &dir, &file(lab)))?;
    let log = dir.join("nginx.log").display().to_string();
    spawn(server, &["nginx", "-e", &log, "-c", &conf.display().to_string()])
}

/// In a session of its own: neither Ctrl-C nor the end of the terminal is for it.
fn spawn(server: &Namespace, words: &[&str]) -> Result<Child> {
    let mut command: Command = server.command(&["setsid"]);
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().with_context(|| format!("cannot start {words:?}"))
}

fn nginx_conf(name: &str, dir: &Path, file: &Path) -> String {
    let (dir, file) = (dir.display(), file.display());
    let listen: String = HTTP.iter().map(|port| format!("    listen {port};\n    listen [::]:{port} ipv6only=on;\n")).collect();
    let temporary: String =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|what| format!("  {what}_temp_path {dir}/{what};\n")).concat();
    format!(
        "daemon off;\nmaster_process off;\npid {dir}/nginx.pid;\nevents {{ worker_connections 4096; }}\n\
         http {{\n  access_log off;\n  default_type text/plain;\n{temporary}  server {{\n{listen}    add_header X-Server {name};\n    \
         location / {{ return 200 \"{name}\\n\"; }}\n    location = /file {{ alias {file}; limit_rate {FILE_RATE}; }}\n  }}\n}}\n"
    )
}

/// Answers every datagram at port 53 with `name` and the datagram, until it is ended.
pub(super) fn serve_udp(name: &str) -> io::Result<()> {
    let sockets = [bound(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 53)))?, bound(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 53)))?];
    thread::scope(|scope| {
        for socket in &sockets {
            scope.spawn(move || {
                let mut datagram = [0; 2048];
                while let Ok((n, from)) = socket.recv_from(&mut datagram) {
                    let answer = [name.as_bytes(), b" ", &datagram[..n]].concat();
                    // A client that went away is its own affair.
                    drop(socket.send_to(&answer, from));
                }
            });
        }
    });
    Ok(())
}

fn bound(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}
