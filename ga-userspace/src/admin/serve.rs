//! The accept loop: bounded in connections and in time.

use std::{io, pin::pin, time::Duration};

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::UnixStream,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    access::{Access, Patience},
    routes,
    socket::Bound,
};
use crate::status::Handle;

/// Connections at a time; more wait in the backlog.
const CONNECTIONS: usize = 32;
/// Time to send the head of a request.
const HEAD: Duration = Duration::from_secs(5);
/// Time for one request from connect to close: the longest answer, and a little more.
const CONNECTION: Duration = Duration::from_secs(Handle::STATUS_DEADLINE.as_secs() + Handle::CHANGE_DEADLINE.as_secs() + 15);
/// Time that running answers get at shutdown.
const FAREWELL: Duration = Duration::from_secs(2);
/// Pause after a failed accept: it is want of file descriptors, as a rule, and lasts.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the admin API on `socket` until `shutdown` resolves. The socket's file is left: the next agent replaces it.
pub async fn serve(socket: Bound, handle: Handle, shutdown: impl Future<Output = ()>) -> io::Result<()> {
    let Bound { listener, owner } = socket;
    let router = routes::router(handle);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    let access = owner.access(&stream);
                    connections.spawn(answer(stream, access, router.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an admin connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    // Whoever is left after that is dropped with the set.
    if timeout(FAREWELL, async { while connections.join_next().await.is_some() {} }).await.is_err() {
        tracing::debug!(connections = connections.len(), "admin connections cut off at shutdown");
    }
    Ok(())
}

async fn answer(stream: UnixStream, access: Access, router: Router) {
    let patience = Patience::default();
    let service = TowerToHyperService::new(router.layer(Extension(access)).layer(Extension(patience.clone())));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let mut given = CONNECTION;
    let ended = loop {
        match (timeout(given, &mut connection).await, patience.extra()) {
            (Ok(ended), _) => break Some(ended),
            (Err(_), extra) if extra > Duration::ZERO && given == CONNECTION => given = extra,
            (Err(_), _) => break None,
        }
    };
    match ended {
        Some(Ok(())) => {}
        Some(Err(error)) => tracing::debug!(%error, "an admin connection ended badly"),
        None => tracing::debug!("an admin connection took too long"),
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        sync::{mpsc, oneshot},
    };

    use super::*;
    use crate::{
        admin::bind,
        status::{
            Action, Code, EndpointChange, EndpointState, FlowList, Planned, Refusal, Reloaded, Request, SCHEMA_VERSION, WatchEnd,
            WatchLine, channel, example::example,
        },
    };

    /// An agent that knows the example, refuses to reload, and drains what it is told to.
    async fn fake_agent(mut queue: mpsc::Receiver<Request>) {
        while let Some(request) = queue.recv().await {
            match request {
                Request::Status(reply) => reply.send(Ok(example())),
                Request::Reload(reply) => reply.send(Err::<Reloaded, _>(
                    Refusal::new(Code::Invalid, "the file has 1 problem").with_problems(["port 0 is not a port"]),
                )),
                Request::Plan { file, text, reply } => reply.send(Ok(Planned {
                    schema_version: SCHEMA_VERSION,
                    changes: !text.is_empty(),
                    summary: vec![format!("{file} was read")],
                    report: serde_json::Value::Null,
                })),
                Request::Flows { query, reply } => {
                    reply.send(Ok(FlowList { matched: u64::from(query.limit), ..FlowList::default() }));
                }
                Request::TakeOver(_) => {}
                Request::Mappings { reply, .. } => reply.send(Err(Refusal::new(Code::NotFound, "no such listener"))),
                Request::Trace { reply, .. } => reply.send(Err(Refusal::new(Code::NotFound, "no such interface"))),
                Request::TraceHttp { reply, .. } => reply.send(Err(Refusal::new(Code::NotFound, "no such listener"))),
                Request::Watch { order, reply } => {
                    let (tell, told) = mpsc::channel(8);
                    for number in 0..u64::from(order.count) {
                        let end = WatchEnd { because: "test".to_owned(), told: number, ..WatchEnd::default() };
                        tell.try_send(WatchLine::Ended(end)).expect("room");
                    }
                    reply.send(Ok(told));
                }
                Request::Endpoint { endpoint, action, reply } => {
                    let weight = match action {
                        Action::Drain => 0,
                        Action::Undrain => 255,
                        Action::Weight(weight) => weight,
                    };
                    reply.send(Ok(EndpointChange {
                        schema_version: SCHEMA_VERSION,
                        endpoint,
                        configured_weight: 255,
                        weight_before: 255,
                        weight,
                        state: EndpointState::Drained,
                        generation: 43,
                    }));
                }
            }
        }
    }

    async fn exchange(mut stream: UnixStream, method: &str, path: &str, body: &str) -> (u16, String) {
        let length = body.len();
        let request = format!("{method} {path} HTTP/1.1\r\nhost: ga\r\ncontent-length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).await.expect("the server reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("the server answers and closes");
        let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line");
        (code, answer.split_once("\r\n\r\n").expect("a head").1.to_owned())
    }

    #[tokio::test]
    async fn every_route_answers_over_a_real_socket() {
        let directory = tempfile::tempdir().expect("a writable /tmp");
        let path = directory.path().join("admin.sock");
        let (handle, queue) = channel();
        let agent = tokio::spawn(fake_agent(queue));
        let (stop, stopped) = oneshot::channel::<()>();
        let listener = bind(&path).await.expect("nothing is there");
        let server = tokio::spawn(serve(listener, handle, async { drop(stopped.await) }));
        let ask = async |method: &str, route: &str, body: &str| {
            exchange(UnixStream::connect(&path).await.expect("the server listens"), method, route, body).await
        };

        let (code, body) = ask("GET", "/v1/status", "").await;
        assert_eq!((code, serde_json::from_str::<crate::status::Status>(&body).expect("a status")), (200, example()));
        let (code, body) = ask("GET", "/v1/drops", "").await;
        assert!(code == 200 && body.contains(r#""reason":"no_flow""#) && !body.contains("instances"), "{body}");
        assert_eq!(ask("GET", "/livez", "").await, (200, "ok\n".to_owned()));
        assert_eq!(ask("GET", "/readyz", "").await, (200, r#""ready""#.to_owned()));
        let (code, body) = ask("POST", "/v1/plan", r#"{"file":"ga.toml","text":"[node]"}"#).await;
        assert!(code == 200 && body.contains("ga.toml was read"), "{body}");
        let (code, body) = ask("POST", "/v1/flows", r#"{"limit":7,"protocol":"udp","client":"192.0.2.0/24"}"#).await;
        assert!(code == 200 && body.contains(r#""matched":7"#), "{body}");
        assert_eq!(ask("POST", "/v1/flows", r#"{"protocol":"icmp"}"#).await.0, 422);
        let order =
            r#"{"packet":{"fields":{"src":"192.0.2.7:1","dst":"[::1]:2","protocol":"tcp","flags":2,"ttl":9,"payload":0}}}"#;
        assert_eq!(ask("POST", "/v1/trace", order).await.0, 404);
        assert_eq!(ask("POST", "/v1/trace", "{}").await.0, 422);
        let order = r#"{"every":1,"per_second":1,"seconds":1,"count":3,"snap":0}"#;
        let (code, body) = ask("POST", "/v1/watch", order).await;
        assert!(code == 200 && body.matches(r#"{"event":"ended","because":"test""#).count() == 3, "{body}");
        assert_eq!(ask("POST", "/v1/watch", "{}").await.0, 422);
        let (code, body) = ask("POST", "/v1/reload", "").await;
        assert_eq!(
            (code, body.as_str()),
            (422, r#"{"code":"invalid","message":"the file has 1 problem","problems":["port 0 is not a port"]}"#)
        );
        let (code, body) = ask("POST", "/v1/endpoints/drain", r#"{"selector":"10.0.0.12"}"#).await;
        assert!(code == 200 && body.contains(r#""address":"10.0.0.12""#) && body.contains(r#""weight":0"#), "{body}");
        let (code, body) = ask("POST", "/v1/endpoints/undrain", r#"{"selector":"10.0.0.11"}"#).await;
        assert!(code == 409 && body.contains("ga-demo/voice/near/10.0.0.11"), "{body}");
        let (code, body) = ask("POST", "/v1/endpoints/weight", r#"{"selector":"ga-demo/game/10.0.0.11","weight":7}"#).await;
        assert!(code == 200 && body.contains(r#""weight":7"#), "{body}");
        let (code, body) = ask("POST", "/v1/endpoints/weight", r#"{"selector":"10.0.0.12","weight":256}"#).await;
        assert!(code == 422 && body.contains("256"), "{body}");
        assert_eq!(ask("POST", "/v1/endpoints/drain", r#"{"selector":"10.9.9.9"}"#).await.0, 404);
        assert_eq!(ask("GET", "/v2/status", "").await.0, 404);
        assert_eq!(ask("GET", "/v1/reload", "").await.0, 405);

        drop(stop);
        server.await.expect("no panic").expect("a clean end");
        agent.await.expect("the agent ends with the last handle");
    }

    async fn asked_with(access: Access, method: &str, path: &str) -> (u16, String) {
        let (handle, queue) = channel();
        let agent = tokio::spawn(fake_agent(queue));
        let (ours, theirs) = UnixStream::pair().expect("two descriptors");
        let server = tokio::spawn(answer(theirs, access, routes::router(handle)));
        let answer = exchange(ours, method, path, "").await;
        server.await.expect("no panic");
        agent.await.expect("no panic");
        answer
    }

    #[tokio::test]
    async fn readers_may_not_change_and_others_may_not_even_look() {
        assert_eq!(asked_with(Access::Read, "GET", "/v1/status").await.0, 200);
        let (code, body) = asked_with(Access::Read, "POST", "/v1/reload").await;
        assert_eq!(
            (code, body.as_str()),
            (403, r#"{"code":"forbidden","message":"only root and the agent's user may change anything"}"#)
        );
        assert_eq!(asked_with(Access::Read, "POST", "/v1/watch").await.0, 403, "it replaces the program for a while");
        for (method, path) in [("GET", "/v1/status"), ("GET", "/livez"), ("POST", "/v1/endpoints/drain")] {
            assert_eq!(asked_with(Access::None, method, path).await.0, 403, "{path}");
        }
    }
}
