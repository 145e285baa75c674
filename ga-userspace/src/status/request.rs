//! How the agent is asked: a bounded queue of requests, each with a place for its one answer.

use std::time::Duration;

use tokio::{
    net::UnixStream,
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    Code, EndpointChange, EndpointPath, FlowList, FlowQuery, HttpTrace, HttpTraceOrder, MappingList, MappingQuery, Planned,
    Refusal, Reloaded, Status, Trace, TraceOrder, WatchLine, WatchOrder,
};

/// Requests that may wait for the agent.
const QUEUE: usize = 32;

/// What the agent can be asked.
#[derive(Debug)]
pub enum Request {
    /// How are things?
    Status(Reply<Status>),
    /// Read the configuration again and apply it. Answer when it is live, or refused.
    Reload(Reply<Reloaded>),
    /// What would change if `text` were applied? Change nothing.
    Plan {
        /// The file's name, for messages.
        file: String,
        /// Its TOML.
        text: String,
        /// Where the answer goes.
        reply: Reply<Planned>,
    },
    /// Change the weight in force of one endpoint. Answer when it is live.
    Endpoint {
        /// Which one; it existed in the latest [`Status`].
        endpoint: EndpointPath,
        /// What to do.
        action: Action,
        /// Where the answer goes.
        reply: Reply<EndpointChange>,
    },
    /// Which flows are there?
    Flows {
        /// Which ones, and how they are to be told.
        query: FlowQuery,
        /// Where the answer goes.
        reply: Reply<FlowList>,
    },
    /// Which port leads where?
    Mappings {
        /// Which rows.
        query: MappingQuery,
        /// Where the answer goes.
        reply: Reply<MappingList>,
    },
    /// What would become of a packet?
    Trace {
        /// Which packet.
        order: TraceOrder,
        /// Where the answer goes.
        reply: Reply<Trace>,
    },
    /// What would become of a request?
    TraceHttp {
        /// Which request.
        order: HttpTraceOrder,
        /// Where the answer goes.
        reply: Reply<HttpTrace>,
    },
    /// Tell of packets as they come. Answer when that has begun; the lines end with the watch, and the watch with the receiver.
    Watch {
        /// Which packets.
        order: WatchOrder,
        /// Where the answer goes.
        reply: Reply<mpsc::Receiver<WatchLine>>,
    },
    /// Hand over to the agent at the other end of this connection.
    TakeOver(UnixStream),
}

/// What may be done to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// No new flows; known ones stay.
    Drain,
    /// Back to the weight in the file.
    Undrain,
    /// This weight instead of the one in the file.
    Weight(u8),
}

/// Where one answer goes.
#[derive(Debug)]
pub struct Reply<T>(oneshot::Sender<Result<T, Refusal>>);

impl<T> Reply<T> {
    /// Answers. Whoever asked may have stopped waiting: that is no error.
    pub fn send(self, answer: Result<T, Refusal>) {
        drop(self.0.send(answer));
    }
}

/// The asking end; cheap to clone. Every call ends within its deadline.
#[derive(Clone, Debug)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
}

/// The two ends of the queue: one for whoever asks, one for the agent.
pub fn channel() -> (Handle, mpsc::Receiver<Request>) {
    let (requests, queue) = mpsc::channel(QUEUE);
    (Handle { requests }, queue)
}

impl Handle {
    /// Deadline of [`status`](Self::status).
    pub const STATUS_DEADLINE: Duration = Duration::from_secs(5);
    /// Deadline of all else.
    pub const CHANGE_DEADLINE: Duration = Duration::from_secs(60);

    /// How are things?
    pub async fn status(&self) -> Result<Status, Refusal> {
        self.ask(Self::STATUS_DEADLINE, Request::Status).await
    }

    /// Read the configuration again and apply it.
    pub async fn reload(&self) -> Result<Reloaded, Refusal> {
        self.ask(Self::CHANGE_DEADLINE, Request::Reload).await
    }

    /// Which port leads where?
    pub async fn mappings(&self, query: MappingQuery) -> Result<MappingList, Refusal> {
        self.ask(Self::CHANGE_DEADLINE, |reply| Request::Mappings { query, reply }).await
    }

    /// What would change?
    pub async fn plan(&self, file: String, text: String) -> Result<Planned, Refusal> {
        self.ask(Self::CHANGE_DEADLINE, |reply| Request::Plan { file, text, reply }).await
    }

    /// Change the weight in force of one endpoint.
    pub async fn endpoint(&self, endpoint: EndpointPath, action: Action) -> Result<EndpointChange, Refusal> {
        self.ask(Self::CHANGE_DEADLINE, |reply| Request::Endpoint { endpoint, action, reply }).await
    }

    /// Which flows are there?
    pub async fn flows(&self, query: FlowQuery) -> Result<FlowList, Refusal> {
        self.ask(Self::CHANGE_DEADLINE, |reply| Request::Flows { query, reply }).await
    }

    /// What would become of a packet?
    pub async fn trace(&self, order: TraceOrder) -> Result<Trace, Refusal> {
        self.ask(Self::CHANGE_DEADLINE, |reply| Request::Trace { order, reply }).await
    }

    /// What would become of a request?
    pub async fn trace_http(&self, order: HttpTraceOrder) -> Result<HttpTrace, Refusal> {
        self.ask(Self::CHANGE_DEADLINE, |reply| Request::TraceHttp { order, reply }).await
    }

    /// Tell of packets as they come.
    pub async fn watch(&self, order: WatchOrder) -> Result<mpsc::Receiver<WatchLine>, Refusal> {
        self.ask(Self::CHANGE_DEADLINE, |reply| Request::Watch { order, reply }).await
    }

    /// Hand over to the agent at the other end of `stream`: all else is said there. False when nobody is left who could.
    pub async fn take_over(&self, stream: UnixStream) -> bool {
        self.requests.send(Request::TakeOver(stream)).await.is_ok()
    }

    async fn ask<T>(&self, deadline: Duration, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        let stopping = || Refusal::new(Code::Unavailable, "the agent is stopping");
        let exchange = async {
            self.requests.send(request(Reply(reply))).await.map_err(|_| stopping())?;
            answer.await.map_err(|_| stopping())?
        };
        timeout(deadline, exchange).await.unwrap_or_else(|_| {
            let seconds = deadline.as_secs();
            Err(Refusal::new(Code::Unavailable, format!("the agent did not answer within {seconds} s; it may still do as asked")))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_reaches_whoever_asked() {
        let (handle, mut queue) = channel();
        let agent = tokio::spawn(async move {
            while let Some(request) = queue.recv().await {
                if let Request::Status(reply) = request {
                    reply.send(Ok(Status { generation: 7, ..Status::default() }));
                }
            }
        });
        assert_eq!(handle.status().await.map(|status| status.generation), Ok(7));
        drop(handle);
        agent.await.expect("the agent ends with its queue");
    }

    #[tokio::test]
    async fn an_agent_that_is_gone_or_drops_the_question_is_unavailable() {
        let (handle, queue) = channel();
        drop(queue);
        assert_eq!(handle.status().await.map_err(|refusal| refusal.code), Err(Code::Unavailable));

        let (handle, mut queue) = channel();
        let agent = tokio::spawn(async move { drop(queue.recv().await) });
        assert_eq!(handle.reload().await.map_err(|refusal| refusal.code), Err(Code::Unavailable));
        agent.await.expect("no panic");
    }

    #[tokio::test]
    async fn a_slow_agent_is_not_waited_for() {
        let (handle, _queue) = channel();
        let answer = handle.ask(Duration::from_millis(1), Request::Status).await;
        assert!(answer.is_err_and(|refusal| refusal.message.contains("did not answer")));
    }
}
