//! Prometheus: `GET /metrics` over TCP, in the OpenMetrics text format.
//!
//! Every family stands in the one table of `families`; labels have values from the configuration only, never from packets.
//! Each scrape asks the agent once. An agent that does not answer is a scrape with `ga_agent_up 0`, not a failed one.

mod families;
mod render;
mod series;
mod serve;

pub use render::render;
pub use serve::serve;
