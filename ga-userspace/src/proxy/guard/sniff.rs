//! Whom the first request of a connection is for, for those who pass the connection on without serving it.

use std::{net::IpAddr, ops::ControlFlow};

use super::{Limits, Refusal, head::Scan};

/// How far the first head of a connection is read.
#[derive(Clone, Debug, Default)]
pub struct Asked(Scan);

impl Asked {
    /// Reads on in the connection that `bytes` begin with; what was given before is given again, with more behind it. Breaks with the
    /// host in lower case when the head is whole: none where it names nobody, or an address.
    ///
    /// # Errors
    /// It is no request, or one that the guard of HTTP listeners would not let in: two servers could see different hosts in it.
    pub fn feed(&mut self, bytes: &[u8], limits: &Limits) -> Result<ControlFlow<Option<String>>, Refusal> {
        if self.0.feed(bytes, limits)?.is_none() {
            return Ok(ControlFlow::Continue(()));
        }
        let name = self.0.asked(bytes).and_then(|name| str::from_utf8(name).ok());
        let name = name.map(|name| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase());
        let is_name = |name: &String| !name.is_empty() && !name.starts_with('[') && name.parse::<IpAddr>().is_err();
        Ok(ControlFlow::Break(name.filter(is_name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fed byte by byte, and at once.
    fn asked(bytes: &str) -> Result<Option<String>, Refusal> {
        let limits = Limits { head: 200, ..Limits::default() };
        let whole = Asked::default().feed(bytes.as_bytes(), &limits);
        let mut asked = Asked::default();
        for end in 1..=bytes.len() {
            match asked.feed(&bytes.as_bytes()[..end], &limits) {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(name)) => {
                    assert_eq!(whole, Ok(ControlFlow::Break(name.clone())));
                    return Ok(name);
                }
                Err(refusal) => return Err(refusal),
            }
        }
        Err(Refusal::Field)
    }

    #[test]
    fn the_host_of_a_request_is_told_without_its_port() {
        for (head, host) in [
            ("GET / HTTP/1.1\r\nA: b\r\nHost: Shop.Example:8080\r\n\r\nmore", Some("shop.example")),
            ("GET http://shop.example/ HTTP/1.1\r\nHost: shop.example:80\r\n\r\n", Some("shop.example")),
            ("\r\nGET / HTTP/1.1\r\nhost:\tshop.example.\r\n\r\n", Some("shop.example")),
            ("GET / HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n", None),
            ("GET / HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n", None),
            ("GET / HTTP/1.0\r\n\r\n", None),
        ] {
            assert_eq!(asked(head), Ok(host.map(str::to_owned)), "{head:?}");
        }
    }

    #[test]
    fn what_servers_could_read_differently_names_nobody() {
        for head in [
            "SSH-2.0-OpenSSH_9.2\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.example, b.example\r\n\r\n",
            "GET http://a.example/ HTTP/1.1\r\nHost: b.example\r\n\r\n",
            "GET / HTTP/1.1\nHost: a.example\n\n",
        ] {
            assert!(asked(head).is_err(), "{head:?}");
        }
        let long = format!("GET / HTTP/1.1\r\nX: {}\r\nHost: a.example\r\n\r\n", "x".repeat(200));
        assert_eq!(asked(&long), Err(Refusal::HeadTooLarge));
    }
}
