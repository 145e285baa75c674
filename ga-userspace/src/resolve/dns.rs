//! Asking for the addresses of a domain, by the host's resolver or by servers that the file names.

use std::{net::SocketAddr, time::Duration};

use hickory_resolver::{
    TokioResolver,
    config::{NameServerConfig, ResolverConfig},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{op::ResponseCode, rr::RecordType},
};
use tokio::time::timeout;

use super::domain::{Answer, Families};

/// For one attempt at one server.
const ATTEMPT: Duration = Duration::from_secs(2);
/// Attempts at each server.
const ATTEMPTS: usize = 2;
/// For all of it, whatever servers and aliases do.
const PATIENCE: Duration = Duration::from_secs(10);

/// A resolver that remembers nothing: what is remembered, and for how long, is [`Domain`](super::Domain)'s.
#[derive(Clone)]
pub(super) struct Dns(Option<TokioResolver>, String);

impl Dns {
    /// Asks `servers`; without one, those of `/etc/resolv.conf`, after looking into `/etc/hosts`.
    pub(super) fn new(servers: &[SocketAddr]) -> Self {
        match build(servers) {
            Ok(resolver) => Self(Some(resolver), String::new()),
            Err(error) => Self(None, error.to_string()),
        }
    }

    /// Asks for the records of each wanted family.
    pub(super) async fn ask(&self, name: &str, families: Families) -> (Option<Answer>, Option<Answer>) {
        let (v4, v6) = (self.records(name, RecordType::A), self.records(name, RecordType::AAAA));
        let when = |wanted: bool, answer| async move { if wanted { Some(answer.await) } else { None } };
        tokio::join!(when(families.v4, v4), when(families.v6, v6))
    }

    async fn records(&self, name: &str, kind: RecordType) -> Answer {
        let Some(resolver) = &self.0 else { return Answer::Failed(self.1.clone()) };
        match timeout(PATIENCE, resolver.lookup(name, kind)).await {
            Err(_) => Answer::Failed("no answer in time".to_owned()),
            Ok(Err(error)) => failure(&error),
            Ok(Ok(lookup)) => {
                let records = lookup.answers();
                let ttl = records.iter().map(|record| record.ttl).min().unwrap_or(0);
                let addresses = records.iter().filter_map(|record| record.data.ip_addr()).collect();
                Answer::Found(addresses, Duration::from_secs(ttl.into()))
            }
        }
    }
}

fn build(servers: &[SocketAddr]) -> Result<TokioResolver, NetError> {
    let mut builder = if servers.is_empty() {
        TokioResolver::builder_tokio()?
    } else {
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.iter().copied().map(server).collect());
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    let options = builder.options_mut();
    (options.cache_size, options.timeout, options.attempts) = (0, ATTEMPT, ATTEMPTS);
    builder.build()
}

fn server(at: SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(at.ip());
    for connection in &mut server.connections {
        connection.port = at.port();
    }
    server
}

fn failure(error: &NetError) -> Answer {
    if let NetError::Dns(DnsError::NoRecordsFound(none)) = error {
        if none.response_code == ResponseCode::NXDomain {
            return Answer::Nothing("there is no such name".to_owned());
        }
        if none.response_code == ResponseCode::NoError {
            return Answer::Nothing("the name has no address of this family".to_owned());
        }
    }
    // Servers may put anything into what the error repeats.
    Answer::Failed(error.to_string().chars().filter(|c| !c.is_control()).take(200).collect())
}
