//! Orders to watch packets, and what is told of them.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Longest watch, in seconds.
pub const WATCH_SECONDS: u32 = 3600;
/// Most events of one watch.
pub const WATCH_COUNT: u32 = 1_000_000;
/// Most events in a second.
pub const WATCH_RATE: u32 = 10_000;

/// Which packets to tell of, and for how long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WatchOrder {
    /// Only packets like these.
    #[serde(default)]
    pub only: PacketFilter,
    /// One of so many of them.
    pub every: u32,
    /// Events in a second at most, up to [`WATCH_RATE`].
    pub per_second: u32,
    /// End after so many seconds, up to [`WATCH_SECONDS`].
    pub seconds: u32,
    /// End after so many events, up to [`WATCH_COUNT`].
    pub count: u32,
    /// Bytes of each frame to hand out; 0 for none.
    pub snap: u32,
}

/// What a packet must be like; all of what is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PacketFilter {
    /// The source on arrival is in this network.
    pub src: Option<IpNet>,
    /// The source port on arrival.
    pub sport: Option<u16>,
    /// The destination on arrival is in this network.
    pub dst: Option<IpNet>,
    /// The destination port on arrival.
    pub dport: Option<u16>,
    /// Any end, on arrival or as it is sent, is in this network.
    pub host: Option<IpNet>,
    /// The port of that end.
    pub port: Option<u16>,
    /// IANA number of the protocol.
    pub protocol: Option<u8>,
    /// What becomes of it.
    pub verdict: Option<VerdictWord>,
    /// Why it is dropped or passed.
    pub reason: Option<String>,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictWord {
    /// To the host, untouched.
    Pass,
    /// Away.
    Drop,
    /// Out, rewritten.
    Send,
}

impl VerdictWord {
    /// The word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
            Self::Send => "send",
        }
    }
}

impl std::str::FromStr for VerdictWord {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Pass, Self::Drop, Self::Send]
            .into_iter()
            .find(|verdict| verdict.word() == text)
            .ok_or_else(|| format!("`{text}` is none of pass, drop and send"))
    }
}

/// What a watch tells, one line of JSON each: first that it has begun, last why it ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum WatchLine {
    /// The watching program is attached.
    Started {
        /// [`SCHEMA_VERSION`](super::SCHEMA_VERSION).
        schema_version: u32,
        /// To these interfaces.
        interfaces: Vec<String>,
    },
    /// A packet.
    Packet(Box<PacketEvent>),
    /// The watch is over and the usual program is back.
    Ended(WatchEnd),
}

/// Why a watch ended, and what it left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchEnd {
    /// A few words.
    pub because: String,
    /// It went on for as long as it was told to.
    pub complete: bool,
    /// Packets that fit the filter.
    pub matched: u64,
    /// Events told.
    pub told: u64,
    /// Left out because there were too many in a second.
    pub limited: u64,
    /// Lost because they were not read fast enough.
    pub lost: u64,
}

/// What became of one packet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PacketEvent {
    /// When, in Unix nanoseconds.
    pub at_ns: u64,
    /// What became of it.
    pub verdict: VerdictWord,
    /// Why; none for a packet that is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The same in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<String>,
    /// `instance/listener`, where one is concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<String>,
    /// Where it came in.
    pub interface: String,
    /// Where it goes out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out: Option<String>,
    /// Bytes of the frame on arrival.
    pub length: u32,
    /// On arrival; none when it is not IP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<PacketEnds>,
    /// As it is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<PacketEnds>,
    /// The frame on arrival.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame: Option<Frame>,
    /// The frame as it is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame_after: Option<Frame>,
}

/// Both ends of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketEnds {
    /// IANA number.
    pub protocol: u8,
    /// Source.
    pub src: IpAddr,
    /// Source port; 0 where there are no ports.
    pub sport: u16,
    /// Destination.
    pub dst: IpAddr,
    /// Destination port; 0 where there are no ports.
    pub dport: u16,
}

/// The beginning of a frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Its whole length.
    pub length: u32,
    /// Its first bytes in hex digits.
    pub bytes: String,
}

impl Frame {
    /// Of bytes.
    pub fn of(length: u32, bytes: &[u8]) -> Self {
        Self { length, bytes: bytes.iter().map(|byte| format!("{byte:02x}")).collect() }
    }

    /// The bytes; none when they are not hex digits.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        let pair = |at| u8::from_str_radix(self.bytes.get(at..at + 2)?, 16).ok();
        (0..self.bytes.len()).step_by(2).map(pair).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_hex() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(Frame::of(300, &bytes).bytes(), Some(bytes));
        assert_eq!(Frame { length: 1, bytes: "0".to_owned() }.bytes(), None);
        assert_eq!(Frame { length: 1, bytes: "é0".to_owned() }.bytes(), None);
    }

    #[test]
    fn lines_say_what_they_are() {
        let end = WatchLine::Ended(WatchEnd { because: "count".to_owned(), ..WatchEnd::default() });
        let text = serde_json::to_string(&end).expect("plain data");
        assert!(text.starts_with(r#"{"event":"ended","because":"count","complete":false"#), "{text}");
        assert_eq!(serde_json::from_str::<WatchLine>(&text).expect("own output"), end);
    }
}
