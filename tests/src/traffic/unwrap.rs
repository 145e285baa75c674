//! A backend's decapsulation, for kernels that lack the tunnel devices: what comes within an IP packet is given to the host
//! itself, unchanged.

use std::{io::ErrorKind, mem::MaybeUninit, net::SocketAddr, thread::JoinHandle, time::Duration};

use anyhow::{Context as _, Result, bail};
use rustix::net::{RecvFlags, recv};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use crate::lab::Namespace;

/// IANA number of IPv4 and of IPv6 within IP.
const WITHIN: [i32; 2] = [4, 41];
/// IPPROTO_RAW: headers come from us.
const RAW: i32 = 255;
/// The longest packet.
const LONGEST: usize = 65_535;

/// Unpacks what a host gets until it is dropped.
#[derive(Debug)]
pub struct Unwrap {
    stop: Arc<AtomicBool>,
    counts: Arc<[AtomicU64; 4]>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Unwrap {
    /// Starts it in a namespace.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        let (stop, counts) = (Arc::new(AtomicBool::new(false)), Arc::new([const { AtomicU64::new(0) }; 4]));
        let mut threads = Vec::new();
        for (outer, domain) in [Domain::IPV4, Domain::IPV6].into_iter().enumerate() {
            for (inner, protocol) in WITHIN.into_iter().enumerate() {
                let open = move || -> Result<Socket> {
                    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(protocol)))?;
                    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
                    socket.set_recv_buffer_size(8 << 20)?;
                    Ok(socket)
                };
                let socket = namespace.within(open)?.context("no raw socket")?;
                let (stop, counts) = (Arc::clone(&stop), Arc::clone(&counts));
                threads.push(namespace.thread(move || unpack(&socket, outer == 0, &stop, &counts[outer * 2 + inner]))?);
            }
        }
        Ok(Self { stop, counts, threads })
    }

    /// How many packets were unpacked: 4in4, 6in4, 4in6, 6in6.
    pub fn counts(&self) -> [u64; 4] {
        [0, 1, 2, 3].map(|kind: usize| self.counts[kind].load(Ordering::Relaxed))
    }
}

impl Drop for Unwrap {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if let Ok(Err(error)) = thread.join() {
                eprintln!("unpacking ended: {error:#}");
            }
        }
    }
}

/// Raw IPv4 sockets show the outer header, raw IPv6 sockets do not.
fn unpack(socket: &Socket, has_header: bool, stop: &AtomicBool, count: &AtomicU64) -> Result<()> {
    let to4 = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(RAW)))?;
    let to6 = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::from(RAW)))?;
    let mut room = vec![MaybeUninit::<u8>::uninit(); LONGEST];
    while !stop.load(Ordering::Relaxed) {
        let outer: &[u8] = match recv(socket, &mut room[..], RecvFlags::empty()) {
            Ok(((bytes, _), _)) => bytes,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => continue,
            Err(error) => return Err(error.into()),
        };
        let inner = outer.get(if has_header { usize::from(outer[0] & 15) * 4 } else { 0 }..).context("no inner packet")?;
        match inner.first().map(|first| first >> 4) {
            Some(4) => {
                let to: [u8; 4] = inner.get(16..20).context("cut off")?.try_into()?;
                to4.send_to(inner, &SockAddr::from(SocketAddr::from((to, 0))))?;
            }
            Some(6) => {
                let to: [u8; 16] = inner.get(24..40).context("cut off")?.try_into()?;
                to6.send_to(inner, &SockAddr::from(SocketAddr::from((to, 0))))?;
            }
            other => bail!("an IP packet of version {other:?} within another"),
        }
        count.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
