//! Orders to explain a packet, and explanations.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{Frame, PacketEnds, Protocol, VerdictWord};

/// Longest frame that can be traced.
pub const TRACE_LENGTH: usize = 3000;

/// Which packet to explain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceOrder {
    /// The packet.
    pub packet: TracePacket,
    /// The interface it is to come in by; the first one when none is named.
    #[serde(default)]
    pub interface: Option<String>,
}

/// A packet, made up or seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TracePacket {
    /// A whole frame.
    Frame(Frame),
    /// Fields; the rest is as in any packet.
    Fields {
        /// Source.
        src: SocketAddr,
        /// Destination.
        dst: SocketAddr,
        /// What it speaks.
        protocol: Protocol,
        /// TCP flags as they stand in the header.
        flags: u8,
        /// TTL or hop limit.
        ttl: u8,
        /// Bytes of payload.
        payload: u16,
    },
}

/// What would become of a packet, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// [`SCHEMA_VERSION`](super::SCHEMA_VERSION).
    pub schema_version: u32,
    /// The interface it was to come in by.
    pub interface: String,
    /// Stage by stage.
    pub steps: Vec<TraceStep>,
    /// What would become of it.
    pub verdict: VerdictWord,
    /// Why; none for a packet that is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The same in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<String>,
    /// `instance/listener`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<String>,
    /// The endpoint's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// It belongs to a flow that is known.
    pub known: bool,
    /// Where it would go out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out: Option<String>,
    /// As what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<PacketEnds>,
    /// The frame as it came.
    pub frame: Frame,
    /// The frame as it would be sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame_after: Option<Frame>,
}

/// One stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceStep {
    /// A word: parse, address, quote, flow, listener, table, endpoint, nat, rewrite, hop, echo.
    pub stage: String,
    /// What it found, in a sentence.
    pub found: String,
}
