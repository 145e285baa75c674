//! The admin socket: HTTP/1.1 over a unix socket, one request a connection, JSON both ways.
//!
//! | route | body | answer |
//! |---|---|---|
//! | `GET /v1/status` | | [`Status`](crate::status::Status) |
//! | `GET /v1/drops` | | [`Drops`](crate::status::Drops) |
//! | `POST /v1/plan` | `{"file", "text"}` | [`Planned`](crate::status::Planned); changes nothing |
//! | `POST /v1/mappings` | [`MappingQuery`](crate::status::MappingQuery) | [`MappingList`](crate::status::MappingList); changes nothing |
//! | `POST /v1/flows` | [`FlowQuery`](crate::status::FlowQuery) | [`FlowList`](crate::status::FlowList); changes nothing |
//! | `POST /v1/reload` | | [`Reloaded`](crate::status::Reloaded), when live |
//! | `POST /v1/endpoints/drain` | `{"selector"}` | [`EndpointChange`](crate::status::EndpointChange), when live |
//! | `POST /v1/endpoints/undrain` | `{"selector"}` | the same |
//! | `POST /v1/endpoints/weight` | `{"selector", "weight"}` | the same |
//! | `POST /v1/trace` | [`TraceOrder`](crate::status::TraceOrder) | [`Trace`](crate::status::Trace); changes nothing |
//! | `POST /v1/trace/http` | [`HttpTraceOrder`](crate::status::HttpTraceOrder) | [`HttpTrace`](crate::status::HttpTrace); changes nothing |
//! | `POST /v1/watch` | [`WatchOrder`](crate::status::WatchOrder) | [`WatchLine`](crate::status::WatchLine)s, one a line, as they come |
//! | `POST /v1/take-over` | | 101 to `ga-take-over/1`, the speech of two agents of which one takes over from the other |
//! | `GET /livez` | | 200 while this task lives |
//! | `GET /readyz` | | 200 when a plan is live and every interface attached, otherwise 503 and what is missing |
//!
//! Whatever is refused comes as a [`Refusal`](crate::status::Refusal) with a status code other than 200. Reading (the `GET`s,
//! the plan, the flows and the trace) is for root, the agent's own user and members of the socket's group; changing is for root and the agent's user.
//! Nothing here decides: the agent does, behind its [`Handle`](crate::status::Handle).

mod access;
mod routes;
mod serve;
mod socket;

pub use routes::{EndpointOrder, PlanOrder, WeightOrder};
pub use serve::serve;
pub use socket::{BindError, Bound, bind, rebind};

/// Where the socket is unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/ga/admin.sock";
