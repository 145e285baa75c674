//! From one agent to the next: sockets and maps go over, connections that are open stay where they are.
//!
//! The old agent gives its sockets, lets go of the maps and only serves; the new one takes the maps as a restart would. When it serves
//! too, the old one accepts no more, and ends with its last connection. When it fails, the old one takes the maps back.

use std::{
    net::SocketAddr,
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use tokio::{
    net::{TcpListener, UnixStream},
    select,
    sync::mpsc,
    time::{sleep, timeout},
};

use super::{Agent, Error, Options, RESOLVE, data_path::DataPath, names, passive::Failures};
use crate::{
    handover::{self, AskError, Line, Said, Sockets},
    program,
    status::Request,
};

/// How long a new agent may take to serve. One that still works at it then is left to it.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long maps that a failed agent held may take to be free.
const FREE: Duration = Duration::from_secs(5);

/// The agent that ran before us, until it is told that we serve.
pub(super) struct Predecessor(Line);

impl Predecessor {
    /// It ends.
    pub(super) async fn dismiss(self) {
        if let Err(error) = self.0.ready().await {
            tracing::warn!("the agent of before cannot be told that this one serves: {error}");
        }
    }
}

/// Takes over from the agent that runs, when that is wanted and one does: its sockets are added to `sockets`.
pub(super) async fn take_over(options: &Options, sockets: &mut Sockets) -> Result<Option<Predecessor>, Error> {
    if !options.take_over {
        return Ok(None);
    }
    match handover::ask(&options.admin_socket).await {
        Ok((line, theirs)) => {
            let count: usize = theirs.values().map(Vec::len).sum();
            tracing::info!(sockets = count, "taking over from the agent that runs");
            // Those of the service manager are the same ones.
            sockets.extend(theirs);
            Ok(Some(Predecessor(line)))
        }
        Err(AskError::Nobody(error)) => {
            tracing::info!("there is no agent to take over from ({error}): this is a start like any other");
            Ok(None)
        }
        Err(error) => Err(Error::TakeOver(error)),
    }
}

/// The socket that listens at `address`: one that was taken over, or a new one.
pub(super) async fn listen(address: SocketAddr, taken: &mut Sockets) -> std::io::Result<TcpListener> {
    match taken.remove(&address).and_then(|mut sockets| sockets.pop()) {
        Some(socket) => TcpListener::from_std(socket),
        None => TcpListener::bind(address).await,
    }
}

impl Agent {
    /// Hands over to the agent at the other end. True when that one serves and this one has only its connections to end; false when
    /// it failed and this one goes on.
    pub(super) async fn hand_over(&mut self, stream: UnixStream, requests: &mut mpsc::Receiver<Request>) -> Result<bool, Error> {
        let line = Line::new(stream);
        if timeout(FREE, line.hear()).await != Ok(Said::Give) {
            return Ok(false);
        }
        tracing::info!("another agent takes over: this one serves on, and changes nothing until it is ready");
        self.stop_watching();
        if let Err(error) = self.give(&line).await {
            tracing::warn!("the other agent is gone: {error}");
            return Ok(false);
        }
        self.data_path.unlock()?;
        let said = match line.let_go().await {
            Ok(()) => {
                let refuse = async {
                    // Who asks is told that this agent is stopping.
                    while let Some(request) = requests.recv().await {
                        drop(request);
                    }
                };
                select! {
                    said = timeout(PATIENCE, line.hear()) => said.unwrap_or(Said::Gone),
                    () = refuse => Said::Gone,
                }
            }
            Err(_gone) => Said::Gone,
        };
        if said == Said::Ready {
            return Ok(true);
        }
        self.take_back().await
    }

    async fn give(&self, line: &Line) -> std::io::Result<()> {
        let sockets: Vec<_> = self.proxy.sockets().values().flatten().map(|socket| socket.as_fd()).collect();
        line.give(&sockets).await?;
        let metrics = self.metrics.as_ref().map(|socket| socket.as_fd());
        line.give(metrics.as_slice()).await
    }

    /// Takes the maps back, as a start would. False; true when the other agent has them and works after all.
    async fn take_back(&mut self) -> Result<bool, Error> {
        let start = Instant::now();
        let lock = loop {
            match program::preflight(&self.options.pin_dir) {
                Ok(lock) => break lock,
                Err(program::Error::Locked { .. }) if start.elapsed() < FREE => sleep(Duration::from_millis(20)).await,
                Err(program::Error::Locked { .. }) => {
                    tracing::warn!("the other agent did not say that it serves, but it has the maps: it is left to it");
                    return Ok(true);
                }
                Err(error) => return Err(error.into()),
            }
        };
        tracing::error!("the agent that was to take over is gone: this one goes on");
        let node = &self.intent.node;
        let mut data_path = DataPath::open(lock, &self.options.pin_dir, node, &self.net).await?;
        let plan = names::plan(&self.intent, &self.overrides, &self.addresses, &self.beliefs, data_path.running())?;
        data_path.apply(&plan, None).await?;
        data_path.resolve(&mut self.net, RESOLVE).await?;
        data_path.attach(node, &self.net).await?;
        self.failures = Failures::new(data_path.counters(), &plan)?;
        (self.data_path, self.plan) = (data_path, plan);
        self.serve();
        self.is_gate_new = true;
        let roster = names::roster(&self.intent, &self.addresses);
        self.probe(roster).await;
        Ok(false)
    }
}
