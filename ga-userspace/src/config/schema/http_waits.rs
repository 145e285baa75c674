//! The keys of `timeouts`, `http_limits` and `access_log`.

use schemars::JsonSchema;
use serde::Serialize;

use crate::model::{HttpLimits as Sizes, Timeouts as Waits};

/// How long clients and endpoints of an http or https listener are waited for, in seconds.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
pub struct Timeouts {
    /// The first byte of a connection.
    #[schemars(default = "first_byte", range(min = 1, max = 3_600))]
    pub first_byte: u32,
    /// The whole head of a request, from its first byte; then the client gets 408.
    #[schemars(default = "head", range(min = 1, max = 3_600))]
    pub head: u32,
    /// Between pieces of a request's body; then the client gets 408.
    #[schemars(default = "body", range(min = 1, max = 3_600))]
    pub body: u32,
    /// Until the client takes more of its answer; then the connection ends.
    #[schemars(default = "write", range(min = 1, max = 3_600))]
    pub write: u32,
    /// Until an endpoint has taken a connection, TLS included; then another endpoint is asked.
    #[schemars(default = "connect", range(min = 1, max = 3_600))]
    pub connect: u32,
    /// Between pieces of an answer's body; then the connection ends.
    #[schemars(default = "stream", range(min = 1, max = 3_600))]
    pub stream: u32,
    /// Between bytes of an upgraded connection (WebSocket), in either direction.
    #[schemars(default = "tunnel", range(min = 1, max = 86_400))]
    pub tunnel: u32,
    /// Bytes a second that a client must send of a body until it is answered, and take of its answers; it may fall behind by `body`
    /// and `write` seconds. 0: any.
    #[schemars(default = "min_rate", range(min = 0, max = 100_000_000))]
    pub min_rate: u32,
}

/// How much clients of an http or https listener may ask for.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
pub struct HttpLimits {
    /// Bytes of a request's head; beyond them the client gets 431.
    #[schemars(default = "head_bytes", range(min = 1_024, max = 262_144))]
    pub head: usize,
    /// Header fields of a request; beyond them the client gets 431.
    #[schemars(default = "fields", range(min = 1, max = 1_000))]
    pub fields: usize,
    /// Bytes of a request's target; beyond them the client gets 414.
    #[schemars(default = "target", range(min = 256, max = 65_536))]
    pub target: usize,
    /// Requests at a time on a connection of HTTP/2.
    #[schemars(default = "streams", range(min = 1, max = 10_000))]
    pub streams: u32,
    /// Requests of HTTP/2 that a client may take back before the edge got to them; beyond them its connection ends.
    #[schemars(default = "resets", range(min = 1, max = 10_000))]
    pub resets: usize,
}

/// Where requests are written to when they have ended.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
pub struct AccessLog {
    /// Full path of the file. One that was moved away is made anew.
    #[schemars(regex(pattern = r"^/"))]
    pub path: String,
    /// What a line looks like.
    #[schemars(default = "json")]
    pub format: LogFormat,
    /// So many of a hundred requests are written, and all that failed.
    #[schemars(default = "all", range(min = 1, max = 100))]
    pub sample: u8,
}

/// What a line of the access log looks like.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// An object of JSON.
    Json,
    /// Words, much as HAProxy writes them.
    Text,
}

fn json() -> LogFormat {
    LogFormat::Json
}

fn all() -> u8 {
    100
}

fn seconds(of: fn(Waits) -> std::time::Duration) -> u32 {
    u32::try_from(of(Waits::default()).as_secs()).unwrap_or(u32::MAX)
}

fn first_byte() -> u32 {
    seconds(|waits| waits.first_byte)
}

fn head() -> u32 {
    seconds(|waits| waits.head)
}

fn body() -> u32 {
    seconds(|waits| waits.body)
}

fn write() -> u32 {
    seconds(|waits| waits.write)
}

fn connect() -> u32 {
    seconds(|waits| waits.connect)
}

fn stream() -> u32 {
    seconds(|waits| waits.stream)
}

fn tunnel() -> u32 {
    seconds(|waits| waits.tunnel)
}

fn min_rate() -> u32 {
    Waits::default().min_rate
}

fn head_bytes() -> usize {
    Sizes::default().head
}

fn fields() -> usize {
    Sizes::default().fields
}

fn target() -> usize {
    Sizes::default().target
}

fn streams() -> u32 {
    Sizes::default().streams
}

fn resets() -> usize {
    Sizes::default().resets
}
