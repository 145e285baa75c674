//! The asking side of the admin socket: one connection, one request, one answer, one deadline.

use std::{
    io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, StatusCode,
    body::Bytes,
    client::conn::http1,
    header::{CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, time::timeout};

use crate::{
    admin::{EndpointOrder, PlanOrder, WeightOrder},
    status::{
        Action, Drops, EndpointChange, FlowList, FlowQuery, Handle, HttpTrace, HttpTraceOrder, MappingList, MappingQuery,
        Planned, Refusal, Reloaded, Selector, Status, Trace, TraceOrder, WatchLine, WatchOrder,
    },
};

/// Bytes an answer may have.
const ANSWER_LIMIT: usize = 256 << 20;
/// What the way costs on top of the agent's own deadline, so that the agent's answer comes first.
const WAY: Duration = Duration::from_secs(5);

type Sender = http1::SendRequest<Full<Bytes>>;
type Connection = http1::Connection<TokioIo<UnixStream>, Full<Bytes>>;

/// A client of one agent.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

/// Why there is no answer, or a bad one.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("cannot reach the agent at {} (is `ga run` running?)", socket.display())]
    Unreachable {
        /// Where.
        socket: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The socket's mode keeps us out.
    #[error("no permission to use {}; it is for root and the members of its group", socket.display())]
    Permission {
        /// Where.
        socket: PathBuf,
    },
    /// Too slow.
    #[error("the agent did not answer within {seconds} s")]
    Deadline {
        /// How long we waited.
        seconds: u64,
    },
    /// The agent said no.
    #[error(transparent)]
    Refused(Refusal),
    /// The connection broke, or what listens is not an agent.
    #[error("the connection to the agent failed")]
    Protocol(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// An answer that we do not understand: another version, as a rule.
    #[error("the answer of the agent ({status}) makes no sense to this version of ga")]
    Answer {
        /// HTTP status.
        status: StatusCode,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

impl Client {
    /// A client of the agent that listens on `socket`.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// `GET /v1/status`.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.ask::<(), _>(Method::GET, "/v1/status", None, Handle::STATUS_DEADLINE).await
    }

    /// `GET /v1/drops`.
    pub async fn drops(&self) -> Result<Drops, ClientError> {
        self.ask::<(), _>(Method::GET, "/v1/drops", None, Handle::STATUS_DEADLINE).await
    }

    /// `POST /v1/reload`.
    pub async fn reload(&self) -> Result<Reloaded, ClientError> {
        self.ask::<(), _>(Method::POST, "/v1/reload", None, Handle::CHANGE_DEADLINE).await
    }

    /// `POST /v1/plan`.
    pub async fn plan(&self, file: String, text: String) -> Result<Planned, ClientError> {
        self.ask(Method::POST, "/v1/plan", Some(&PlanOrder { file, text }), Handle::CHANGE_DEADLINE).await
    }

    /// `POST /v1/mappings`.
    pub async fn mappings(&self, query: &MappingQuery) -> Result<MappingList, ClientError> {
        self.ask(Method::POST, "/v1/mappings", Some(query), Handle::CHANGE_DEADLINE).await
    }

    /// `POST /v1/flows`.
    pub async fn flows(&self, query: &FlowQuery) -> Result<FlowList, ClientError> {
        self.ask(Method::POST, "/v1/flows", Some(query), Handle::CHANGE_DEADLINE).await
    }

    /// `POST /v1/endpoints/…`.
    pub async fn endpoint(&self, selector: &Selector, action: Action) -> Result<EndpointChange, ClientError> {
        let selector = selector.to_string();
        // The agent looks the selector up before it acts.
        let deadline = Handle::STATUS_DEADLINE + Handle::CHANGE_DEADLINE;
        let route = match action {
            Action::Drain => "/v1/endpoints/drain",
            Action::Undrain => "/v1/endpoints/undrain",
            Action::Weight(weight) => {
                return self.ask(Method::POST, "/v1/endpoints/weight", Some(&WeightOrder { selector, weight }), deadline).await;
            }
        };
        self.ask(Method::POST, route, Some(&EndpointOrder { selector }), deadline).await
    }

    async fn ask<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        route: &str,
        body: Option<&B>,
        deadline: Duration,
    ) -> Result<T, ClientError> {
        let body = body.map(serde_json::to_vec).transpose().map_err(protocol)?.unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(route)
            .header(HOST, "ga")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(protocol)?;
        let deadline = deadline + WAY;
        let (status, answer) = timeout(deadline, self.exchange(request))
            .await
            .unwrap_or(Err(ClientError::Deadline { seconds: deadline.as_secs() }))?;
        if status == StatusCode::OK {
            return serde_json::from_slice(&answer).map_err(|source| ClientError::Answer { status, source });
        }
        Err(refused(status, &answer))
    }

    /// `POST /v1/trace`.
    pub async fn trace(&self, order: &TraceOrder) -> Result<Trace, ClientError> {
        self.ask(Method::POST, "/v1/trace", Some(order), Handle::CHANGE_DEADLINE).await
    }

    /// `POST /v1/trace/http`.
    pub async fn trace_http(&self, order: &HttpTraceOrder) -> Result<HttpTrace, ClientError> {
        self.ask(Method::POST, "/v1/trace/http", Some(order), Handle::CHANGE_DEADLINE).await
    }

    /// `POST /v1/watch`: shows `line` every line until it breaks off or the agent ends the stream.
    pub async fn watch(
        &self,
        order: &WatchOrder,
        mut line: impl FnMut(WatchLine) -> anyhow::Result<ControlFlow<()>>,
    ) -> anyhow::Result<()> {
        let body = serde_json::to_vec(order)?;
        let request = Request::builder().method(Method::POST).uri("/v1/watch").header(HOST, "ga");
        let request = request.header(CONTENT_TYPE, "application/json").body(Full::new(Bytes::from(body)))?;
        let (mut sender, connection) = self.connect().await?;
        let told = async move {
            let response = sender.send_request(request).await.map_err(protocol)?;
            let status = response.status();
            if status != StatusCode::OK {
                let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await.map_err(ClientError::Protocol)?;
                return Err(refused(status, &body.to_bytes()).into());
            }
            let (mut body, mut text) = (response.into_body(), Vec::new());
            while let Some(part) = body.frame().await {
                if let Ok(data) = part.map_err(protocol)?.into_data() {
                    text.extend_from_slice(&data);
                }
                while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                    let one: Vec<u8> = text.drain(..=end).collect();
                    let one = serde_json::from_slice(&one).map_err(|source| ClientError::Answer { status, source })?;
                    if line(one)?.is_break() {
                        return Ok(());
                    }
                }
            }
            Ok(())
        };
        let (told, _) = tokio::join!(told, connection);
        told
    }

    async fn connect(&self) -> Result<(Sender, Connection), ClientError> {
        let socket = || self.socket.clone();
        let stream = UnixStream::connect(&self.socket).await.map_err(|source| {
            if source.kind() == io::ErrorKind::PermissionDenied {
                ClientError::Permission { socket: socket() }
            } else {
                ClientError::Unreachable { socket: socket(), source }
            }
        })?;
        http1::handshake(TokioIo::new(stream)).await.map_err(protocol)
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), ClientError> {
        let (mut sender, connection) = self.connect().await?;
        let exchange = async move {
            let response = sender.send_request(request).await.map_err(protocol)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await.map_err(ClientError::Protocol)?;
            Ok((status, body.to_bytes()))
        };
        // The connection ends with its sender; if it ends badly before, the exchange says so.
        let (answer, _) = tokio::join!(exchange, connection);
        answer
    }
}

/// What an answer other than 200 says.
fn refused(status: StatusCode, answer: &[u8]) -> ClientError {
    match serde_json::from_slice(answer) {
        Ok(refusal) => ClientError::Refused(refusal),
        Err(source) => ClientError::Answer { status, source },
    }
}

fn protocol(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ClientError {
    ClientError::Protocol(error.into())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use tokio::sync::oneshot;

    use super::*;
    use crate::{
        admin,
        status::{Code, Request as Question, SCHEMA_VERSION, channel, example::example},
    };

    #[tokio::test]
    async fn the_client_speaks_with_a_real_server() {
        let directory = tempfile::tempdir().expect("a writable /tmp");
        let path = directory.path().join("admin.sock");
        let client = Client::new(&path);
        let nobody = client.status().await.expect_err("nothing is there");
        assert!(matches!(nobody, ClientError::Unreachable { .. }), "{nobody}");

        let (handle, mut queue) = channel();
        let listener = admin::bind(&path).await.expect("nothing is there");
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(admin::serve(listener, handle, async { drop(stopped.await) }));
        let agent = tokio::spawn(async move {
            while let Some(question) = queue.recv().await {
                match question {
                    Question::TakeOver(_) => {}
                    Question::Status(reply) => reply.send(Ok(example())),
                    Question::Reload(reply) => reply.send(Err(Refusal::new(Code::Conflict, "eth0 has a foreign program"))),
                    Question::Plan { file, reply, .. } => reply.send(Ok(Planned {
                        schema_version: SCHEMA_VERSION,
                        changes: true,
                        summary: vec![file],
                        report: Value::Null,
                    })),
                    Question::Endpoint { .. }
                    | Question::Flows { .. }
                    | Question::Mappings { .. }
                    | Question::Trace { .. }
                    | Question::TraceHttp { .. }
                    | Question::Watch { .. } => {}
                }
            }
        });
        assert_eq!(client.status().await.expect("an agent"), example());
        assert_eq!(client.drops().await.expect("an agent"), Drops::of(&example()));
        assert_eq!(client.plan("new.toml".to_owned(), String::new()).await.expect("an agent").summary, ["new.toml"]);
        let refused = client.reload().await.expect_err("it is refused");
        assert!(matches!(&refused, ClientError::Refused(refusal) if refusal.code == Code::Conflict), "{refused}");
        let selector: Selector = "10.0.0.12".parse().expect("an address");
        let dropped = client.endpoint(&selector, Action::Weight(9)).await.expect_err("the agent drops the question");
        assert!(matches!(&dropped, ClientError::Refused(refusal) if refusal.code == Code::Unavailable), "{dropped}");

        drop(stop);
        server.await.expect("no panic").expect("a clean end");
        agent.await.expect("no panic");
        assert!(matches!(client.status().await, Err(ClientError::Unreachable { .. })), "the file is there, nobody listens");
    }
}
