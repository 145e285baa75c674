//! Questions about flow memory, and the answers.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Most flows an answer holds.
pub const FLOWS_LIMIT: u32 = 100_000;

/// Which flows, and how they are to be told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FlowQuery {
    /// Only those of these; all when none is given.
    #[serde(flatten)]
    pub only: FlowFilter,
    /// Flows to list at most, up to [`FLOWS_LIMIT`]; 0 to count only.
    pub limit: u32,
    /// Count by this instead of listing: the `limit` that have most.
    pub top: Option<Top>,
}

/// What a flow must be like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FlowFilter {
    /// `instance/listener`, or `listener` in every instance.
    pub listener: Option<String>,
    /// The endpoint's address.
    pub endpoint: Option<IpAddr>,
    /// A network that the client is in.
    pub client: Option<IpNet>,
    /// What it speaks.
    pub protocol: Option<Protocol>,
    /// How far it is.
    pub state: Option<FlowState>,
}

/// TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// By its IANA number.
    pub const fn of(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            _ => None,
        }
    }

    /// Its IANA number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// The word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Tcp, Self::Udp]
            .into_iter()
            .find(|protocol| protocol.word() == text.to_ascii_lowercase())
            .ok_or_else(|| format!("`{text}` is neither tcp nor udp"))
    }
}

/// How far a flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowState {
    /// Nobody has answered yet.
    Opening,
    /// Packets went both ways.
    Open,
    /// One side has said that it is done.
    Closing,
    /// Over, and remembered for a moment.
    Closed,
}

impl FlowState {
    /// The word in tables and JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Open => "open",
            Self::Closing => "closing",
            Self::Closed => "closed",
        }
    }
}

impl FromStr for FlowState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Opening, Self::Open, Self::Closing, Self::Closed]
            .into_iter()
            .find(|state| state.word() == text)
            .ok_or_else(|| format!("`{text}` is none of opening, open, closing and closed"))
    }
}

/// What flows are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Top {
    /// By client address.
    Clients,
    /// By endpoint of a listener.
    Endpoints,
    /// By listener.
    Listeners,
}

impl Top {
    /// The word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Clients => "clients",
            Self::Endpoints => "endpoints",
            Self::Listeners => "listeners",
        }
    }
}

impl FromStr for Top {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Clients, Self::Endpoints, Self::Listeners]
            .into_iter()
            .find(|top| top.word() == text)
            .ok_or_else(|| format!("`{text}` is none of clients, endpoints and listeners"))
    }
}

/// Answer to `ga flows`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FlowList {
    /// [`SCHEMA_VERSION`](super::SCHEMA_VERSION).
    pub schema_version: u32,
    /// Flows that fit the question, listed or not.
    pub matched: u64,
    /// In the order of flow memory, which is no order.
    pub flows: Vec<FlowRow>,
    /// Most first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub top: Vec<TopRow>,
}

/// One flow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowRow {
    /// What it speaks.
    pub protocol: Protocol,
    /// How far it is.
    pub state: FlowState,
    /// Where the client is.
    pub client: SocketAddr,
    /// Where the client sends to.
    pub vip: SocketAddr,
    /// What the endpoint sees as the client.
    pub egress: SocketAddr,
    /// Where the endpoint is.
    pub endpoint: SocketAddr,
    /// `instance/listener`; none when the listener is not in the configuration any more.
    pub listener: Option<String>,
    /// Seconds since the last packet that counts, in either direction.
    pub idle_s: f64,
    /// Seconds of silence that are allowed.
    pub timeout_s: u16,
    /// Seconds until it is forgotten if nothing comes.
    pub left_s: f64,
    /// Slot of the half towards the endpoint.
    pub slot: u32,
    /// Slot of the half towards the client.
    pub peer_slot: Option<u32>,
}

/// How many flows something has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopRow {
    /// The client's address, `instance/listener/address`, or `instance/listener`.
    pub name: String,
    /// How many.
    pub flows: u64,
}
