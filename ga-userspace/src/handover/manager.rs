//! The service manager: it is told how things are (sd_notify(3)), and keeps sockets between one process and the next
//! (`FileDescriptorStoreMax=` of systemd.service(5)). Where there is none, nothing here does anything.

use std::{collections::BTreeMap, env, io, net::SocketAddr, os::fd::AsFd as _, process};

use listenfd::ListenFd;
use sd_notify::NotifyState;

use super::{Sockets, add};

/// What the service manager kept, or listened at for us. To be asked once, before there are threads: the environment that says so is
/// cleared.
pub fn inherited() -> Sockets {
    let mut sockets = Sockets::new();
    let mut given = ListenFd::from_env();
    for index in 0..given.len() {
        match given.take_tcp_listener(index) {
            Ok(Some(socket)) => {
                if !add(&mut sockets, socket) {
                    tracing::warn!("a socket of the service manager is of no use here");
                }
            }
            Ok(None) => {}
            Err(error) => tracing::warn!("a socket of the service manager is of no use here: {error}"),
        }
    }
    sockets
}

/// This process serves, and is the one that counts.
pub fn ready(generation: u64) {
    let status = format!("generation {generation} is live");
    tell(&[NotifyState::Ready, NotifyState::MainPid(process::id()), NotifyState::Status(&status)]);
}

/// This process ends.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("the service manager cannot be told: {error}");
    }
}

/// What the service manager keeps: how many sockets of each address.
#[derive(Debug, Default)]
pub struct Kept(BTreeMap<SocketAddr, usize>);

impl Kept {
    /// What it gave us, it still has.
    pub fn of(sockets: &Sockets) -> Self {
        Self(sockets.iter().map(|(address, sockets)| (*address, sockets.len())).collect())
    }

    /// Whether there is somebody who keeps sockets.
    pub fn is_possible() -> bool {
        env::var_os("NOTIFY_SOCKET").is_some()
    }

    /// Makes what is kept what is listened with.
    pub fn follow(&mut self, sockets: &Sockets) {
        if !Self::is_possible() {
            return;
        }
        let gone: Vec<SocketAddr> = self.0.keys().filter(|address| !sockets.contains_key(address)).copied().collect();
        for address in gone {
            tell(&[NotifyState::FdStoreRemove, NotifyState::FdName(&name(address))]);
            self.0.remove(&address);
        }
        for (address, sockets) in sockets {
            if self.0.get(address) == Some(&sockets.len()) {
                continue;
            }
            // It keeps one of each, however often it is given.
            match keep(*address, sockets) {
                Ok(()) => drop(self.0.insert(*address, sockets.len())),
                Err(error) => tracing::warn!(%address, "the service manager does not keep the sockets: {error}"),
            }
        }
    }
}

/// Sockets of one message.
const AT_ONCE: usize = 64;

fn keep(address: SocketAddr, sockets: &[std::net::TcpListener]) -> io::Result<()> {
    let name = name(address);
    // A socket that listens is never looked at by who keeps it.
    let states = [NotifyState::FdStore, NotifyState::FdName(&name), NotifyState::Custom("FDPOLL=0")];
    let fds: Vec<_> = sockets.iter().map(|socket| socket.as_fd()).collect();
    fds.chunks(AT_ONCE).try_for_each(|some| sd_notify::notify_with_fds(&states, some))
}

/// A name of descriptors has no colon.
fn name(address: SocketAddr) -> String {
    format!("tcp-{}-{}", address.ip().to_string().replace(':', "_"), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_the_service_manager_takes() {
        for address in ["198.51.100.10:80", "[2001:db8::10]:65535"] {
            let name = name(address.parse().expect("an address"));
            assert!(name.is_ascii() && !name.contains(':') && name.len() < 256, "{name}");
        }
    }
}
