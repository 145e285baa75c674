//! What happened, counted where it happens. Handles are found when a view is made; those of a view before go on.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Why a request or a connection was not served as its client asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The client's message is not HTTP, or not safe to forward.
    BadRequest,
    /// The client took too long for its request's head.
    ClientHeadTimeout,
    /// The client took too long for its request's body.
    ClientBodyTimeout,
    /// The client took too long to read its answer.
    ClientWriteTimeout,
    /// The client of HTTP/2 sent frames that carry nothing by the thousand.
    Flood,
    /// The client left before the answer's end.
    ClientClosed,
    /// The head is larger than the listener allows.
    TooLarge,
    /// The method is not served: TRACE, or CONNECT for anything but WebSocket.
    Method,
    /// The certificate of the connection is not for that host.
    Misdirected,
    /// The handshake of TLS failed or took too long.
    TlsHandshake,
    /// Nobody may be chosen.
    NoEndpoint,
    /// The listener, or the edge, has as many connections as it may.
    Limit,
    /// The endpoint group has as many connections or requests as it may.
    Circuit,
    /// A rule said so.
    Dropped,
    /// The endpoint refused the connection, or it cannot be reached.
    Refused,
    /// The endpoint did not take the connection in time.
    TimeoutConnect,
    /// The endpoint ended the connection before its answer's end.
    Reset,
    /// The endpoint did not begin its answer in time.
    TimeoutHead,
    /// The endpoint stopped in its answer.
    TimeoutBody,
    /// The endpoint's answer is not HTTP, or not safe to forward.
    BadAnswer,
    /// The endpoint's certificate is not good, or TLS failed with it.
    TlsVerify,
    /// Nothing came from either side for the listener's idle timeout.
    Idle,
    /// A trusted proxy's connection did not begin with a header of the PROXY protocol.
    ProxyHeader,
    /// The edge's own fault.
    Internal,
}

impl Reason {
    /// All of them, in their order.
    pub const ALL: [Self; 24] = [
        Self::BadRequest,
        Self::ClientHeadTimeout,
        Self::ClientBodyTimeout,
        Self::ClientWriteTimeout,
        Self::Flood,
        Self::ClientClosed,
        Self::TooLarge,
        Self::Method,
        Self::Misdirected,
        Self::TlsHandshake,
        Self::NoEndpoint,
        Self::Limit,
        Self::Circuit,
        Self::Dropped,
        Self::Refused,
        Self::TimeoutConnect,
        Self::Reset,
        Self::TimeoutHead,
        Self::TimeoutBody,
        Self::BadAnswer,
        Self::TlsVerify,
        Self::Idle,
        Self::ProxyHeader,
        Self::Internal,
    ];

    /// The word of logs and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::ClientHeadTimeout => "client_head_timeout",
            Self::ClientBodyTimeout => "client_body_timeout",
            Self::ClientWriteTimeout => "client_write_timeout",
            Self::Flood => "flood",
            Self::ClientClosed => "client_closed",
            Self::TooLarge => "too_large",
            Self::Method => "method",
            Self::Misdirected => "misdirected",
            Self::TlsHandshake => "tls_handshake",
            Self::NoEndpoint => "no_endpoint",
            Self::Limit => "limit",
            Self::Circuit => "circuit",
            Self::Dropped => "dropped",
            Self::Refused => "refused",
            Self::TimeoutConnect => "timeout_connect",
            Self::Reset => "reset",
            Self::TimeoutHead => "timeout_head",
            Self::TimeoutBody => "timeout_body",
            Self::BadAnswer => "bad_answer",
            Self::TlsVerify => "tls_verify",
            Self::Idle => "idle",
            Self::ProxyHeader => "proxy_header",
            Self::Internal => "internal",
        }
    }
}

/// A number that only grows, or one that is put back.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// One more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// So many fewer: of what is counted while it lasts.
    pub fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Relaxed);
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// One more, for as long as what is returned is there.
    pub fn lasting(&self) -> Lasting<'_> {
        self.add(1);
        Lasting(self)
    }
}

/// One of what is counted while it lasts.
#[derive(Debug)]
pub struct Lasting<'c>(&'c Count);

impl Drop for Lasting<'_> {
    fn drop(&mut self) {
        self.0.sub(1);
    }
}

/// A number for each [`Reason`].
#[derive(Debug, Default)]
pub struct Reasons([Count; Reason::ALL.len()]);

impl Reasons {
    /// One more of that reason.
    pub fn add(&self, reason: Reason) {
        if let Some(count) = self.0.get(reason as usize) {
            count.add(1);
        }
    }

    /// The number of that reason.
    pub fn get(&self, reason: Reason) -> u64 {
        self.0.get(reason as usize).map_or(0, Count::get)
    }
}

/// Of a listener.
#[derive(Debug, Default)]
pub struct ListenerCounts {
    /// Connections that clients opened.
    pub connections: Count,
    /// Those that are open.
    pub active: Count,
    /// Requests that were answered, or connections that were relayed.
    pub requests: Count,
    /// Answers by the first digit of their status: 1xx first.
    pub statuses: [Count; 5],
    /// Bytes of bodies or connections from clients.
    pub bytes_in: Count,
    /// Bytes of bodies or connections to clients.
    pub bytes_out: Count,
    /// Requests sent once more, to another endpoint or on a fresh connection.
    pub retries: Count,
    /// Why requests or connections failed.
    pub reasons: Reasons,
}

/// Of a forwarding rule.
#[derive(Debug, Default)]
pub struct RuleCounts {
    /// Requests or connections that it applied to.
    pub hits: Count,
}

/// Of an endpoint.
#[derive(Debug, Default)]
pub struct EndpointCounts {
    /// Connections opened to it.
    pub connections: Count,
    /// Those on which it could have answered the next request at once, and did.
    pub reused: Count,
    /// Requests or connections that it has.
    pub active: Count,
    /// Requests or connections that it was given.
    pub requests: Count,
    /// Answers by the first digit of their status: 1xx first.
    pub statuses: [Count; 5],
    /// Bytes of bodies or connections to it.
    pub bytes_in: Count,
    /// Bytes of bodies or connections from it.
    pub bytes_out: Count,
    /// What it failed with.
    pub reasons: Reasons,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_place_and_a_word_of_its_own() {
        let reasons = Reasons::default();
        for (at, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at);
            reasons.add(reason);
            assert_eq!(reasons.get(reason), 1);
        }
        let words: std::collections::BTreeSet<_> = Reason::ALL.map(Reason::word).into();
        assert_eq!(words.len(), Reason::ALL.len());
    }
}
