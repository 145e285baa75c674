//! nginx on a server of the lab, and certificates of the lab's own making.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Child,
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::{Lab, Namespace};
use crate::traffic::until;

const PATIENCE: Duration = Duration::from_secs(20);

/// A running nginx; ended when dropped.
#[derive(Debug)]
pub struct Nginx {
    child: Child,
    /// Its configuration, its logs, and what it serves.
    pub dir: PathBuf,
}

impl Nginx {
    /// On server `number`, with `servers` as its `server` blocks, in which `DIR` stands for [`dir`](Self::dir): `DIR/cert.pem` and
    /// `DIR/key.pem` are a certificate of `names`, where there are any. Ready when all `ports` are listened on.
    pub fn start(lab: &Lab, number: usize, servers: &str, ports: &[u16], names: &[&str]) -> Result<Self> {
        let namespace = lab.servers.get(number - 1).context("no such server")?;
        let first = ports.first().context("nginx needs a port")?;
        let dir = lab.dir.join(format!("nginx-{number}-{first}"));
        fs::create_dir_all(&dir)?;
        if !names.is_empty() {
            self_signed(&dir, names)?;
        }
        let temporary: String =
            ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|what| format!("{what}_temp_path DIR/{what};\n")).concat();
        let conf = format!(
            "daemon off;\nmaster_process off;\npid DIR/pid;\nerror_log DIR/error.log;\nevents {{ worker_connections 4096; }}\n\
             http {{\ndefault_type text/plain;\nkeepalive_requests 1000000;\nlog_format seen '$server_port $proxy_protocol_addr \
             $proxy_protocol_server_addr $proxy_protocol_server_port $remote_addr $status $request_uri';\n\
             access_log DIR/access.log seen;\n{temporary}{servers}\n}}\n"
        );
        let here = dir.display().to_string();
        fs::write(dir.join("nginx.conf"), conf.replace("DIR", &here))?;
        let child = namespace.spawn(&["nginx", "-e", "/dev/null", "-c", &format!("{here}/nginx.conf"), "-p", &here])?;
        let mut nginx = Self { child, dir };
        until(&format!("nginx of server {number}"), PATIENCE, || {
            anyhow::ensure!(nginx.child.try_wait()?.is_none(), "nginx ended: {}", nginx.log("error.log"));
            let sockets = namespace.read(&["ss", "-Hltn"])?;
            let is_there = |port: &u16| sockets.split_whitespace().any(|word| word.ends_with(&format!(":{port}")));
            Ok(ports.iter().all(is_there).then_some(()))
        })?;
        Ok(nginx)
    }

    /// What `access.log` or `error.log` says so far.
    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.dir.join(name)).unwrap_or_default()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Makes `cert.pem`, good for `names`, its `key.pem`, and `both.pem` with the two of them, in `dir`.
pub fn self_signed(dir: &Path, names: &[&str]) -> Result<()> {
    let made = rcgen::generate_simple_self_signed(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
    let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let write = |name: &str, text: &str| -> io::Result<()> { fs::write(dir.join(name), text) };
    write("cert.pem", &cert)?;
    write("key.pem", &key)?;
    write("both.pem", &(cert + &key))?;
    Ok(())
}

/// What curl at `client` gets for `url`; `more` are words before it.
pub fn curl(client: &Namespace, more: &[&str], url: &str) -> Result<String> {
    client.read(&[&["curl", "-sS", "-g", "--max-time", "15"], more, &[url]].concat())
}
