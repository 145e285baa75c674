//! A new connection to an endpoint, from an egress address of the instance and a port that no flow has.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::super::{counts::Reason, view::Egress};

/// Ports that are tried before a connection is given up: each is taken only if a connection of it leads to the same endpoint.
const PORTS: u64 = 16;

/// Connects to `address` within `patience`, from the address of `egress` that `number` falls on among those of its family; from the
/// host's own when there is none. `number` is as good as random.
///
/// # Errors
///
/// When the endpoint refuses, cannot be reached, or does not answer in time.
pub(in crate::proxy) async fn connect(
    address: SocketAddr,
    egress: &Egress,
    number: u64,
    patience: Duration,
) -> Result<TcpStream, Reason> {
    match timeout(patience, attempt(address, egress, number)).await {
        Err(_) => Err(Reason::TimeoutConnect),
        Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => Err(Reason::TimeoutConnect),
        Ok(Err(_)) => Err(Reason::Refused),
        Ok(Ok(stream)) => Ok(stream),
    }
}

async fn attempt(address: SocketAddr, egress: &Egress, number: u64) -> io::Result<TcpStream> {
    let Some(from) = source(address, &egress.addresses, number) else { return socket(address, None)?.connect(address).await };
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for at in 0..PORTS {
        let from = SocketAddr::new(from, port(egress, (number >> 16).wrapping_add(at)));
        let connected = match socket(address, Some(from)) {
            Ok(socket) => socket.connect(address).await,
            Err(error) => Err(error),
        };
        match connected {
            Err(error) if matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable) => last = error,
            connected => return connected,
        }
    }
    Err(last)
}

fn source(address: SocketAddr, egress: &[IpAddr], number: u64) -> Option<IpAddr> {
    let of_family = || egress.iter().filter(|from| from.is_ipv4() == address.is_ipv4());
    let count = of_family().count();
    let place = usize::try_from(number % u64::try_from(count.max(1)).unwrap_or(1)).unwrap_or(0);
    of_family().nth(place).copied()
}

/// One of the ports; the kernel's choice when there are none.
fn port(egress: &Egress, number: u64) -> u16 {
    let (first, count) = (*egress.ports.start(), u64::try_from(egress.ports.len()).unwrap_or(0));
    if count == 0 { 0 } else { first.saturating_add(u16::try_from(number % count).unwrap_or(0)) }
}

fn socket(address: SocketAddr, from: Option<SocketAddr>) -> io::Result<TcpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if let Some(from) = from {
        // The address need not be on this host yet, and a port may have connections to many endpoints.
        if from.is_ipv4() {
            socket.set_freebind_v4(true)?
        } else {
            socket.set_freebind_v6(true)?
        }
        socket.set_reuse_address(true)?;
        socket.bind(&from.into())?;
    }
    Ok(TcpSocket::from_std_stream(socket.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_come_from_the_egress_addresses_of_the_endpoints_family_in_turn_and_from_ports_of_no_flow() {
        let addresses = ["203.0.113.1", "2001:db8::1", "203.0.113.2"].map(|text| text.parse::<IpAddr>().expect("an address"));
        let v4 = SocketAddr::from(([192, 0, 2, 1], 80));
        let sources = [0, 1, 2].map(|number| source(v4, &addresses, number));
        assert_eq!(sources, [Some(addresses[0]), Some(addresses[2]), Some(addresses[0])]);
        assert_eq!(source(v4, &addresses[1..2], 7), None);
        let egress = Egress { addresses: addresses.to_vec(), ports: 1_024..=1_033 };
        assert!((0..100).map(|number| port(&egress, number)).all(|port| egress.ports.contains(&port)));
    }

    #[tokio::test]
    async fn a_port_that_leads_to_the_endpoint_already_is_no_reason_to_fail() {
        let endpoint = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = endpoint.local_addr().expect("an address");
        let egress = Egress { addresses: vec![IpAddr::from([127, 0, 0, 1])], ports: 15_100..=15_115 };
        let mut open = Vec::new();
        for number in 0..8 {
            open.push(connect(address, &egress, number, Duration::from_secs(5)).await.expect("a connection"));
        }
        let ports: std::collections::BTreeSet<u16> =
            open.iter().map(|stream| stream.local_addr().expect("an address").port()).collect();
        assert!(ports.len() == 8 && ports.iter().all(|port| egress.ports.contains(port)), "{ports:?}");
    }
}
