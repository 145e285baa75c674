//! The scrape listener: bounded in connections and in time.

use std::{convert::Infallible, pin::pin, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::render;
use crate::status::Handle;

/// Connections at a time; more wait in the backlog.
const CONNECTIONS: usize = 16;
/// Time to send the head of a request.
const HEAD: Duration = Duration::from_secs(5);
/// Time for one scrape from connect to close.
const CONNECTION: Duration = Duration::from_secs(Handle::STATUS_DEADLINE.as_secs() + 15);
/// Pause after a failed accept: it is want of file descriptors, as a rule, and lasts.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const OPENMETRICS: HeaderValue = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Serves `GET /metrics` on `listener` until `shutdown` resolves.
pub async fn serve(listener: TcpListener, handle: Handle, shutdown: impl Future<Output = ()>) {
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(answer(stream, handle.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a scrape");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

async fn answer(stream: TcpStream, handle: Handle) {
    let service = service_fn(|request| respond(request, &handle));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a scrape ended badly"),
        Err(_) => tracing::debug!("a scrape took too long"),
    }
}

async fn respond(request: Request<Incoming>, handle: &Handle) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() != "/metrics" {
        return Ok(plain(StatusCode::NOT_FOUND, "only /metrics is here\n"));
    }
    if request.method() != Method::GET {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return Ok(response);
    }
    let status = handle.status().await;
    if let Err(refusal) = &status {
        tracing::warn!(%refusal, "a scrape without the agent");
    }
    Ok(match render(status.ok()) {
        Ok(text) => {
            let mut response = Response::new(Full::from(text));
            response.headers_mut().insert(CONTENT_TYPE, OPENMETRICS);
            response
        }
        Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be written\n"),
    })
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, PLAIN);
    response
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        sync::oneshot,
    };

    use super::*;
    use crate::status::{Request as Question, channel, example::example};

    #[tokio::test]
    async fn a_scrape_is_answered_with_and_without_the_agent() {
        let (handle, mut queue) = channel();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(serve(listener, handle, async { drop(stopped.await) }));
        let ask = async |request: &str| {
            let mut stream = TcpStream::connect(address).await.expect("the server listens");
            stream.write_all(format!("{request} HTTP/1.1\r\nhost: ga\r\n\r\n").as_bytes()).await.expect("the server reads");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.expect("the server answers and closes");
            answer
        };

        let agent = async {
            if let Some(Question::Status(reply)) = queue.recv().await {
                reply.send(Ok(example()));
            }
        };
        let (answer, ()) = tokio::join!(ask("GET /metrics"), agent);
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && answer.contains("application/openmetrics-text; version=1.0.0"),
            "{answer}"
        );
        assert!(answer.contains("\nga_agent_up 1\n") && answer.ends_with("# EOF\n"), "{answer}");
        drop(queue);
        assert!(ask("GET /metrics").await.contains("\nga_agent_up 0\n"));
        assert!(ask("GET /").await.starts_with("HTTP/1.1 404 "));
        assert!(ask("POST /metrics").await.starts_with("HTTP/1.1 405 "));

        drop(stop);
        server.await.expect("no panic");
    }
}
