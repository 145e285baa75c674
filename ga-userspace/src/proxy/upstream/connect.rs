//! A new connection to an endpoint, from an egress address of the instance.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};

use super::super::counts::Reason;

/// Connects to `address` within `patience`, from the address of `egress` that `number` falls on among those of its family; from the
/// host's own when there is none.
///
/// # Errors
///
/// When the endpoint refuses, cannot be reached, or does not answer in time.
pub(in crate::proxy) async fn connect(
    address: SocketAddr,
    egress: &[IpAddr],
    number: u64,
    patience: Duration,
) -> Result<TcpStream, Reason> {
    let socket = socket(address, source(address, egress, number)).map_err(|_| Reason::Refused)?;
    match tokio::time::timeout(patience, socket.connect(address)).await {
        Err(_) => Err(Reason::TimeoutConnect),
        Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => Err(Reason::TimeoutConnect),
        Ok(Err(_)) => Err(Reason::Refused),
        Ok(Ok(stream)) => Ok(stream),
    }
}

fn source(address: SocketAddr, egress: &[IpAddr], number: u64) -> Option<IpAddr> {
    let of_family = || egress.iter().filter(|from| from.is_ipv4() == address.is_ipv4());
    let count = of_family().count();
    let place = usize::try_from(number % u64::try_from(count.max(1)).unwrap_or(1)).unwrap_or(0);
    of_family().nth(place).copied()
}

fn socket(address: SocketAddr, from: Option<IpAddr>) -> io::Result<TcpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if let Some(from) = from {
        // The address need not be on this host yet, and the port is found when it is known where the connection leads: a port may
        // then serve connections to many endpoints.
        if from.is_ipv4() {
            socket.set_freebind_v4(true)?
        } else {
            socket.set_freebind_v6(true)?
        }
        setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
        socket.bind(&SocketAddr::new(from, 0).into())?;
    }
    Ok(TcpSocket::from_std_stream(socket.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_come_from_the_egress_addresses_of_the_endpoints_family_in_turn() {
        let egress = ["203.0.113.1", "2001:db8::1", "203.0.113.2"].map(|text| text.parse::<IpAddr>().expect("an address"));
        let v4 = SocketAddr::from(([192, 0, 2, 1], 80));
        assert_eq!([0, 1, 2].map(|number| source(v4, &egress, number)), [Some(egress[0]), Some(egress[2]), Some(egress[0])]);
        assert_eq!(source(v4, &egress[1..2], 7), None);
    }
}
