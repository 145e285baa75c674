//! What happened, as serialisable views: the one shape that the admin socket, the metrics and the command line share.
//!
//! Nothing here reads a clock, a map or a socket. The agent fills a [`Status`] and answers [`Request`]s; `admin` and `metrics`
//! ask through a [`Handle`].

#[cfg(test)]
pub(crate) mod example;
mod flows;
mod mappings;
mod names;
mod order;
mod proxy;
mod rates;
mod refusal;
mod request;
mod selector;
mod sums;
mod trace;
mod trace_http;
mod view;
mod watch;

pub use flows::{FLOWS_LIMIT, FlowFilter, FlowList, FlowQuery, FlowRow, FlowState, Protocol, Top, TopRow};
pub use mappings::{MAX_PAGE_SIZE, Mapping, MappingList, MappingQuery, PAGE_SIZE, SocketAddress};
pub use names::{Name, Origin, Source};
pub use order::{Drops, EndpointChange, EndpointList, EndpointRow, Planned, Reloaded};
pub use proxy::{Certificate, Circuit, Proxied, ProxiedEndpoint, RuleHits};
pub use refusal::{Code, Refusal};
pub use request::{Action, Handle, Reply, Request, channel};
pub use selector::{EndpointPath, Selector, SelectorError};
pub use trace::{TRACE_LENGTH, Trace, TraceOrder, TracePacket, TraceStep};
pub use trace_http::{HttpCandidate, HttpRewritten, HttpTrace, HttpTraceOrder, RuleTried, TlsShown};
pub use view::{
    AttachMode, Counters, DropCount, Endpoint, EndpointState, FlowTable, Flows, Group, Health, Instance, Interface, LastReload,
    Listener, MapFill, NextHop, PassCount, Probes, ReasonCount, Repairs, SCHEMA_VERSION, Status,
};
pub use watch::{
    Frame, PacketEnds, PacketEvent, PacketFilter, VerdictWord, WATCH_COUNT, WATCH_RATE, WATCH_SECONDS, WatchEnd, WatchLine,
    WatchOrder,
};
