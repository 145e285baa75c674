//! The routes: from HTTP to the agent's handle and back.

use axum::{
    Extension, Json, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Request, State},
    http::{
        StatusCode,
        header::{CONNECTION, UPGRADE},
    },
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::stream;
use hyper::upgrade;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, sync::mpsc};

use super::access::{Access, Patience};
use crate::{
    handover::TOKEN,
    status::{
        Action, Code, Drops, EndpointChange, FlowList, FlowQuery, Handle, HttpTrace, HttpTraceOrder, MappingList, MappingQuery,
        Planned, Refusal, Reloaded, Selector, Status, Trace, TraceOrder, WatchLine, WatchOrder,
    },
};

/// Bytes a body may have: a configuration is far smaller.
const BODY_LIMIT: usize = 8 << 20;

/// Body of `POST /v1/plan`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanOrder {
    /// The file's name, for messages.
    pub file: String,
    /// Its TOML.
    pub text: String,
}

/// Body of `POST /v1/endpoints/drain` and `undrain`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointOrder {
    /// `instance/listener/address` or `address`.
    pub selector: String,
}

/// Body of `POST /v1/endpoints/weight`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightOrder {
    /// `instance/listener/address` or `address`.
    pub selector: String,
    /// 0 to 255.
    pub weight: u8,
}

/// The router for a peer whose [`Access`] is an extension of the request.
pub(super) fn router(handle: Handle) -> Router {
    let read = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/drops", get(drops))
        .route("/v1/plan", post(plan))
        .route("/v1/flows", post(flows))
        .route("/v1/mappings", post(mappings))
        .route("/v1/trace", post(trace))
        .route("/v1/trace/http", post(trace_http))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route_layer(middleware::from_fn(readers));
    let write = Router::new()
        .route("/v1/reload", post(reload))
        .route("/v1/watch", post(watch))
        .route("/v1/take-over", post(take_over))
        .route("/v1/endpoints/drain", post(drain))
        .route("/v1/endpoints/undrain", post(undrain))
        .route("/v1/endpoints/weight", post(weight))
        .route_layer(middleware::from_fn(writers));
    read.merge(write).fallback(nowhere).layer(DefaultBodyLimit::max(BODY_LIMIT)).with_state(handle)
}

/// What every route gives: a view, or why not.
struct Answer<T>(Result<T, Refusal>);

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        match self.0 {
            Ok(view) => Json(view).into_response(),
            Err(refusal) => (status_code(refusal.code), Json(refusal)).into_response(),
        }
    }
}

fn status_code(code: Code) -> StatusCode {
    match code {
        Code::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::Ambiguous | Code::Conflict => StatusCode::CONFLICT,
        Code::Forbidden => StatusCode::FORBIDDEN,
        Code::Kernel | Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    }
}

async fn readers(Extension(access): Extension<Access>, request: Request, next: Next) -> Response {
    match access.to_read() {
        Ok(()) => next.run(request).await,
        Err(refusal) => Answer::<()>(Err(refusal)).into_response(),
    }
}

async fn writers(Extension(access): Extension<Access>, request: Request, next: Next) -> Response {
    match access.to_write() {
        Ok(()) => next.run(request).await,
        Err(refusal) => Answer::<()>(Err(refusal)).into_response(),
    }
}

async fn nowhere() -> Answer<()> {
    Answer(Err(Refusal::new(Code::NotFound, "no such route")))
}

async fn status(State(handle): State<Handle>) -> Answer<Status> {
    Answer(handle.status().await)
}

async fn drops(State(handle): State<Handle>) -> Answer<Drops> {
    Answer(handle.status().await.map(|status| Drops::of(&status)))
}

async fn livez() -> &'static str {
    "ok\n"
}

async fn readyz(State(handle): State<Handle>) -> Answer<&'static str> {
    let ready = |status: Status| {
        status.ready().map_err(|missing| Refusal::new(Code::Unavailable, "this edge does not forward yet").with_problems(missing))
    };
    Answer(handle.status().await.and_then(ready).map(|()| "ready"))
}

async fn plan(State(handle): State<Handle>, body: Bytes) -> Answer<Planned> {
    Answer(match parse::<PlanOrder>(&body) {
        Ok(order) => handle.plan(order.file, order.text).await,
        Err(refusal) => Err(refusal),
    })
}

async fn flows(State(handle): State<Handle>, body: Bytes) -> Answer<FlowList> {
    Answer(match parse::<FlowQuery>(&body) {
        Ok(query) => handle.flows(query).await,
        Err(refusal) => Err(refusal),
    })
}

async fn mappings(State(handle): State<Handle>, body: Bytes) -> Answer<MappingList> {
    Answer(match parse::<MappingQuery>(&body) {
        Ok(query) => handle.mappings(query).await,
        Err(refusal) => Err(refusal),
    })
}

async fn trace(State(handle): State<Handle>, body: Bytes) -> Answer<Trace> {
    Answer(match parse::<TraceOrder>(&body) {
        Ok(order) => handle.trace(order).await,
        Err(refusal) => Err(refusal),
    })
}

async fn trace_http(State(handle): State<Handle>, body: Bytes) -> Answer<HttpTrace> {
    Answer(match parse::<HttpTraceOrder>(&body) {
        Ok(order) => handle.trace_http(order).await,
        Err(refusal) => Err(refusal),
    })
}

async fn reload(State(handle): State<Handle>) -> Answer<Reloaded> {
    Answer(handle.reload().await)
}

/// One JSON object a line, as they come. The watch ends with the connection.
async fn watch(State(handle): State<Handle>, Extension(patience): Extension<Patience>, body: Bytes) -> Response {
    let begun = match parse::<WatchOrder>(&body) {
        Ok(order) => {
            patience.extend(order.seconds);
            handle.watch(order).await
        }
        Err(refusal) => Err(refusal),
    };
    match begun {
        Ok(lines) => Body::from_stream(stream::unfold(lines, next_line)).into_response(),
        Err(refusal) => Answer::<()>(Err(refusal)).into_response(),
    }
}

/// The connection changes to what two agents speak, and the agent speaks it.
async fn take_over(State(handle): State<Handle>, mut request: Request) -> Response {
    let asked = request.headers().get(UPGRADE).and_then(|value| value.to_str().ok());
    if asked != Some(TOKEN) {
        let message = format!("this agent hands over by `{TOKEN}` only: stop it, then start the other");
        return Answer::<()>(Err(Refusal::new(Code::Invalid, message))).into_response();
    }
    let upgrade = upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        if let Ok(parts) = upgraded.downcast::<TokioIo<UnixStream>>() {
            handle.take_over(parts.io.into_inner()).await;
        }
    });
    let headers = [(CONNECTION, "upgrade"), (UPGRADE, TOKEN)];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

type Lines = mpsc::Receiver<WatchLine>;

async fn next_line(mut lines: Lines) -> Option<(Result<String, serde_json::Error>, Lines)> {
    let line = lines.recv().await?;
    Some((serde_json::to_string(&line).map(|text| text + "\n"), lines))
}

async fn drain(State(handle): State<Handle>, body: Bytes) -> Answer<EndpointChange> {
    Answer(match parse::<EndpointOrder>(&body) {
        Ok(order) => change(&handle, &order.selector, Action::Drain).await,
        Err(refusal) => Err(refusal),
    })
}

async fn undrain(State(handle): State<Handle>, body: Bytes) -> Answer<EndpointChange> {
    Answer(match parse::<EndpointOrder>(&body) {
        Ok(order) => change(&handle, &order.selector, Action::Undrain).await,
        Err(refusal) => Err(refusal),
    })
}

async fn weight(State(handle): State<Handle>, body: Bytes) -> Answer<EndpointChange> {
    Answer(match parse::<WeightOrder>(&body) {
        Ok(order) => change(&handle, &order.selector, Action::Weight(order.weight)).await,
        Err(refusal) => Err(refusal),
    })
}

/// The selector is resolved against the latest status, so that the agent is told of exactly one endpoint.
async fn change(handle: &Handle, selector: &str, action: Action) -> Result<EndpointChange, Refusal> {
    let selector: Selector = selector.parse()?;
    let status = handle.status().await?;
    let (endpoint, _) = selector.find(&status)?;
    handle.endpoint(endpoint, action).await
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body)
        .map_err(|error| Refusal::new(Code::Invalid, format!("the body is not what this route takes: {error}")))
}
