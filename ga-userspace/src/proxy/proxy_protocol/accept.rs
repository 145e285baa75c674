//! Connections of proxies that the file trusts: who is behind them.

use std::{io, net::SocketAddr, time::Duration};

use ipnet::IpNet;
use thiserror::Error;
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::timeout};

use super::{Header, MAX_V2, Malformed, parse};

/// How long a trusted proxy may take to send its header.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// Why a connection of a trusted proxy is closed.
#[derive(Debug, Error)]
pub enum Fault {
    /// What it sent is no header.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// It sent too little in [`TIMEOUT`].
    #[error("no header of the PROXY protocol came in time")]
    Timeout,
    /// It ended before its header did.
    #[error("the connection ended before its header of the PROXY protocol")]
    Ended,
    /// It broke.
    #[error("the connection broke before its header of the PROXY protocol")]
    Broken(#[source] io::Error),
}

/// Whom a connection from `peer` is of. A header is read when the peer is in one of the networks `from`, and must be there then; bytes
/// of others are not looked at. `stream` is left at the first byte behind the header.
pub async fn accept(stream: &mut TcpStream, from: &[IpNet], peer: SocketAddr) -> Result<SocketAddr, Fault> {
    let ip = peer.ip().to_canonical();
    if !from.iter().any(|network| network.contains(&ip)) {
        return Ok(peer);
    }
    match timeout(TIMEOUT, header(stream)).await {
        Err(_elapsed) => Err(Fault::Timeout),
        Ok(Ok(Header::Local)) => Ok(peer),
        Ok(Ok(Header::Proxied { client, .. })) => Ok(SocketAddr::new(client.ip().to_canonical(), client.port())),
        Ok(Err(fault)) => Err(fault),
    }
}

/// Reads exactly the header: bytes are looked at first, and taken once they are known to be part of it.
async fn header(stream: &mut TcpStream) -> Result<Header, Fault> {
    // Not in the future itself, which lives as long as the connection.
    let mut buffer = vec![0; MAX_V2];
    let mut taken = 0;
    loop {
        let seen = stream.peek(&mut buffer[taken..]).await.map_err(Fault::Broken)?;
        if seen == 0 {
            return Err(Fault::Ended);
        }
        let answer = parse(&buffer[..taken + seen])?;
        let until = answer.map_or(taken + seen, |(_, length)| length);
        stream.read_exact(&mut buffer[taken..until]).await.map_err(Fault::Broken)?;
        taken = until;
        if let Some((header, _)) = answer {
            return Ok(header);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt as _, net::TcpListener};

    use super::*;

    async fn pair() -> (TcpStream, TcpStream, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection");
        let (server, peer) = listener.accept().await.expect("a connection");
        client.set_nodelay(true).expect("an option");
        (client, server, peer)
    }

    fn trusted() -> Vec<IpNet> {
        vec!["127.0.0.0/8".parse().expect("a network")]
    }

    #[tokio::test]
    async fn a_header_in_pieces_is_taken_and_nothing_behind_it() {
        for header in [&b"PROXY TCP4 192.0.2.1 198.51.100.2 4000 80\r\n"[..], &crate_header()] {
            let (mut client, mut server, peer) = pair().await;
            let header = header.to_vec();
            let send = async move {
                for byte in &header {
                    client.write_all(&[*byte]).await.expect("a byte");
                    tokio::task::yield_now().await;
                }
                client.write_all(b"hello").await.expect("a body");
            };
            let (real, ()) = tokio::join!(accept(&mut server, &[], peer), async {});
            assert_eq!(real.expect("not looked at"), peer);
            let from = trusted();
            let (real, ()) = tokio::join!(accept(&mut server, &from, peer), send);
            assert_eq!(real.expect("a client"), "192.0.2.1:4000".parse().expect("an address"));
            let mut rest = String::new();
            server.read_to_string(&mut rest).await.expect("the rest");
            assert_eq!(rest, "hello");
        }
    }

    fn crate_header() -> Vec<u8> {
        let (client, server) = ("192.0.2.1:4000".parse().expect("an address"), "198.51.100.2:80".parse().expect("an address"));
        super::super::write(super::super::Version::V2, client, server)
    }

    #[tokio::test]
    async fn what_is_no_header_closes_the_connection_of_a_trusted_proxy() {
        let (mut client, mut server, peer) = pair().await;
        client.write_all(b"GET / HTTP/1.1\r\n").await.expect("bytes");
        let fault = accept(&mut server, &trusted(), peer).await.expect_err("no header");
        assert!(matches!(fault, Fault::Malformed(Malformed::Foreign)), "{fault}");
        let (client, mut server, peer) = pair().await;
        drop(client);
        assert!(matches!(accept(&mut server, &trusted(), peer).await, Err(Fault::Ended)));
    }
}
