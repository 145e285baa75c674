//! What a client would be shown, and whether its request would belong on the connection, without a handshake.

use std::{net::IpAddr, sync::Arc};

use super::{TlsInfo, names::host_of, server::Server};

/// What a handshake would come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The server name that the client asks for; none where it can ask for none.
    pub server_name: Option<String>,
    /// The domain of the listener's file whose certificate is shown; `default` for the default one.
    pub certificate: String,
    /// The certificate is good for the server name, or, without one, for the host.
    pub is_believed: bool,
    /// A request for the host belongs on the connection; if not, the answer is 421 (RFC 9110 §15.5.20).
    pub is_covered: bool,
}

/// The server name of a client of `host` that is not said to ask for another one: the host, as browsers have it, where that is no
/// address (RFC 6066 §3).
pub fn server_name(said: Option<&str>, host: &str) -> Option<String> {
    let name = said.unwrap_or_else(|| host_of(host)).to_ascii_lowercase();
    Some(name).filter(|name| name.parse::<IpAddr>().is_err())
}

impl Server {
    /// What a client is shown who asks for [`server_name`] in its handshake and then for `host`.
    pub fn shown(&self, said: Option<&str>, host: &str) -> Shown {
        let server_name = server_name(said, host);
        let names = &self.certificates().choose(server_name.as_deref()).names;
        let info = TlsInfo::named(server_name.clone(), Arc::clone(names));
        Shown {
            certificate: self.certificates().domain(server_name.as_deref()),
            is_believed: names.covers(server_name.as_deref().unwrap_or_else(|| host_of(host))),
            is_covered: info.covers(host),
            server_name,
        }
    }
}
