//! What stands before a request that no client made, for endpoints that expect the PROXY protocol (specification §1.8): a header that
//! says so. Without one they close the connection. Pure.

use crate::model::{ClientIp, HealthProtocol};

/// The header that a probe begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Preface {
    /// Version 1, `UNKNOWN`.
    V1,
    /// Version 2, `LOCAL`.
    V2,
}

impl Preface {
    /// What probes of that protocol begin with at endpoints that are told of clients in that way. A connection that is only accepted
    /// says nothing, a header neither.
    pub(super) const fn of(client_ip: ClientIp, protocol: HealthProtocol) -> Option<Self> {
        match (protocol, client_ip) {
            (HealthProtocol::Http | HealthProtocol::Https, ClientIp::ProxyV1) => Some(Self::V1),
            (HealthProtocol::Http | HealthProtocol::Https, ClientIp::ProxyV2) => Some(Self::V2),
            (HealthProtocol::Tcp, _) | (_, ClientIp::Hidden | ClientIp::L2 | ClientIp::Ipip | ClientIp::Gateway) => None,
        }
    }

    /// Its bytes.
    pub(super) const fn bytes(self) -> &'static [u8] {
        match self {
            Self::V1 => b"PROXY UNKNOWN\r\n",
            // The signature, version 2 and command LOCAL, no family, no addresses.
            Self::V2 => b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
        }
    }
}
