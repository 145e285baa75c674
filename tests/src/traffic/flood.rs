//! Packets that no client of ours sent: any source address, any port, as fast as a raw socket takes them.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context as _, Result, ensure};
use rustix::thread::{CpuSet, sched_setaffinity};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::lab::Namespace;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoofed {
    /// A TCP SYN.
    Syn,
    /// A UDP datagram whose eight bytes of payload are its number, little-endian.
    Datagram,
}

/// A bounded number of packets, each with a source of its own.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    /// What.
    pub kind: Spoofed,
    /// To whom.
    pub to: SocketAddrV4,
    /// Source address of packet 0; packet `n` has the address `n / ports` further on.
    pub first: Ipv4Addr,
    /// Lowest source port.
    pub first_port: u16,
    /// Ports of every source address: packet `n` has the port `n % ports` further on.
    pub ports: u16,
    /// The packets that are sent, by number.
    pub from: u32,
    /// And how many of them.
    pub count: u32,
}

/// IPPROTO_RAW: the header comes from us, but for its checksum.
const RAW: i32 = 255;
const IP: usize = 20;

impl Flood {
    /// Sends it from a namespace, by a thread that stays on `cpu`.
    pub fn send(self, namespace: &Namespace, cpu: usize) -> Result<()> {
        namespace.within(move || self.send_here(cpu))?
    }

    /// Sends it from two CPUs at once.
    pub fn send_by_two(self, namespace: &Namespace) -> Result<()> {
        let half = self.count / 2;
        let parts = [Self { count: half, ..self }, Self { from: self.from + half, count: self.count - half, ..self }];
        let threads = parts.into_iter().enumerate().map(|(cpu, part)| namespace.thread(move || part.send_here(cpu)));
        let threads = threads.collect::<Result<Vec<_>>>()?;
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }

    /// Sends it from the namespace that this thread is in.
    pub fn send_here(self, cpu: usize) -> Result<()> {
        stay_on(cpu)?;
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(RAW))).context("a raw socket")?;
        socket.set_send_buffer_size(4 << 20)?;
        let to = SockAddr::from(self.to);
        for number in self.from..self.from + self.count {
            let packet = self.packet(number);
            // A full queue is a packet less of a flood, but never of a question that is asked once.
            let sent = socket.send_to(&packet, &to);
            ensure!(sent.is_ok() || self.kind == Spoofed::Syn, "packet {number}: {:?}", sent.err());
        }
        Ok(())
    }

    /// Source of packet `number`.
    pub fn source(&self, number: u32) -> SocketAddrV4 {
        let ports = u32::from(self.ports.max(1));
        let address = Ipv4Addr::from(u32::from(self.first) + number / ports);
        SocketAddrV4::new(address, self.first_port + (number % ports) as u16)
    }

    fn packet(&self, number: u32) -> Vec<u8> {
        let source = self.source(number);
        let (src, dst) = (source.ip().octets(), self.to.ip().octets());
        let (sport, dport) = (source.port().to_be_bytes(), self.to.port().to_be_bytes());
        let mut l4 = [sport, dport].concat();
        let protocol = match self.kind {
            Spoofed::Syn => {
                l4.extend(number.to_be_bytes());
                l4.extend([0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
                6
            }
            Spoofed::Datagram => {
                l4.extend([0, 16, 0, 0]);
                l4.extend(u64::from(number).to_le_bytes());
                17
            }
        };
        let at = if protocol == 6 { 16 } else { 6 };
        let check = checksum(&[&src, &dst, &[0, protocol, 0, l4.len() as u8], &l4]);
        l4[at..at + 2].copy_from_slice(&check);
        let mut packet = vec![0x45, 0, 0, (IP + l4.len()) as u8, 0, 0, 0x40, 0, 64, protocol, 0, 0];
        packet.extend(src);
        packet.extend(dst);
        packet.extend(l4);
        packet
    }
}

/// Keeps this thread on one CPU.
pub fn stay_on(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).with_context(|| format!("cannot stay on CPU {cpu}"))
}

/// The Internet checksum (RFC 1071) over parts of even length; never zero on the wire of UDP.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let words = parts.iter().flat_map(|part| part.chunks_exact(2)).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let check = !(sum as u16);
    if check == 0 { [0xff, 0xff] } else { check.to_be_bytes() }
}

#[cfg(test)]
mod tests {
    use etherparse::{IpNumber, Ipv4Header, TcpHeader, UdpHeader};

    use super::*;

    #[test]
    fn packets_are_right_and_each_has_its_own_source() {
        let first = Ipv4Addr::new(10, 66, 0, 0);
        let to = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 10), 80);
        let flood = |kind| Flood { kind, to, first, first_port: 1024, ports: 100, from: 0, count: 1000 };
        assert_eq!(flood(Spoofed::Syn).source(250), "10.66.0.2:1074".parse().unwrap());
        for number in [0, 1, 250, 999] {
            let packet = flood(Spoofed::Syn).packet(number);
            let (ip, rest) = Ipv4Header::from_slice(&packet).unwrap();
            let (tcp, _) = TcpHeader::from_slice(rest).unwrap();
            assert!(ip.protocol == IpNumber::TCP && tcp.syn && tcp.checksum == tcp.calc_checksum_ipv4(&ip, &[]).unwrap());
            let packet = flood(Spoofed::Datagram).packet(number);
            let (ip, rest) = Ipv4Header::from_slice(&packet).unwrap();
            let (udp, payload) = UdpHeader::from_slice(rest).unwrap();
            assert_eq!(udp.checksum, udp.calc_checksum_ipv4(&ip, payload).unwrap());
            assert_eq!(payload, u64::from(number).to_le_bytes());
            assert_eq!(SocketAddrV4::new(ip.source.into(), udp.source_port), flood(Spoofed::Syn).source(number));
        }
    }
}
