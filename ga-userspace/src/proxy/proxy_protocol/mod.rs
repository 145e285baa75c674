//! The PROXY protocol, versions 1 and 2: written to endpoints, and read from proxies in networks that the file trusts (specification
//! §1.9). What the two sides share is `read` and `write`, which are pure.

mod accept;
mod read;
mod write;

pub use accept::{Fault, TIMEOUT, accept};
pub use read::{Header, MAX_V1, MAX_V2, Malformed, parse};
pub use write::{Version, write};

/// What every header of version 2 begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};

    use proptest::prelude::*;

    use super::*;

    fn pair() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
        let v4 = (any::<[u8; 4]>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(IpAddr::from(ip), port));
        let v6 = (any::<[u8; 16]>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(IpAddr::from(ip), port));
        prop_oneof![(v4.clone(), v4), (v6.clone(), v6)]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read((client, server) in pair(), version in prop_oneof![Just(Version::V1), Just(Version::V2)], body: Vec<u8>) {
            let mut bytes = write(version, client, server);
            let length = bytes.len();
            bytes.extend(body);
            prop_assert_eq!(parse(&bytes), Ok(Some((Header::Proxied { client, server }, length))));
            for short in 0..length {
                prop_assert_eq!(parse(&bytes[..short]), Ok(None), "{} of {} bytes", short, length);
            }
        }

        #[test]
        fn more_bytes_never_change_an_answer(mut bytes: Vec<u8>, choice in 0..4_u8, cut in 0..400_usize) {
            // Random bytes alone never get past the first.
            let mut all = match choice {
                0 => SIGNATURE.to_vec(),
                1 => b"PROXY TCP4 ".to_vec(),
                2 => b"PROXY UNKNOWN".to_vec(),
                _ => Vec::new(),
            };
            all.append(&mut bytes);
            let cut = cut.min(all.len());
            match parse(&all[..cut]) {
                Ok(None) => prop_assert!(cut < MAX_V2),
                answer => prop_assert_eq!(parse(&all), answer),
            }
        }
    }
}
