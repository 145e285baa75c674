//! The agent's life: from its start to its end, or to the next agent's beginning.

use std::time::Duration;

use futures_util::FutureExt as _;
use socket2::SockRef;
use tokio::{
    net::TcpListener,
    select,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Interval, MissedTickBehavior, interval_at, sleep, timeout},
};

use super::{Agent, Error, Options, handover as others, passive::LOOK, proxy};
use crate::{
    admin,
    handover::{self, Kept, Sockets},
    metrics, status,
};

/// How often flow memory is swept, and interfaces, pins and next hops are looked at even when netlink says nothing.
const SWEEP: Duration = Duration::from_secs(1);
/// How often some of the neighbours in use are asked whether they are still there. Two rounds find one that is not.
const ASK: Duration = Duration::from_millis(400);
/// How often it is looked whether packets wait for hosts behind custom routing.
const HOSTS: Duration = Duration::from_millis(50);
/// How often the maps are compared with what they should hold, and everything that netlink reported with how it is.
const REPAIR: Duration = Duration::from_secs(10);
/// Notices that may wait for the agent.
const NOTICES: usize = 8;
/// Changes that netlink reports within this time are looked at together.
const SETTLE: Duration = Duration::from_millis(20);

/// Why an agent ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// It was told to.
    Told,
    /// Another one serves in its place.
    Replaced,
}

/// Runs until SIGTERM or SIGINT, or until another agent has taken over. The data path stays as it is: it outlives the agent.
/// `sockets` are those that somebody kept for it.
pub async fn run(options: Options, mut sockets: Sockets) -> Result<(), Error> {
    let system = |what| move |source| Error::System { what, source };
    let mut hangup = signal(SignalKind::hangup()).map_err(system("signal handler"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(system("signal handler"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("signal handler"))?;

    let (notify, mut notices) = mpsc::channel(NOTICES);
    let kept = Kept::of(&sockets);
    let (mut agent, predecessor) = Agent::start(options, notify, &mut sockets, kept).await?;
    let (handle, mut requests) = status::channel();
    let (stop, stopped) = watch::channel(false);
    let until_stopped = |mut stopped: watch::Receiver<bool>| async move {
        // The sender going away is a stop too.
        drop(stopped.wait_for(|&stop| stop).await);
    };
    let bound = bind(&mut agent, sockets).await;
    let (socket, listener) = agent.data_path.keep_or_undo(bound)?;
    // Last of all: a start that fails has taken no connection.
    agent.serve();
    agent.watch_certificates();
    let serve_admin = |socket| admin::serve(socket, handle.clone(), until_stopped(stopped.clone())).map(drop);
    let mut servers = JoinSet::new();
    servers.spawn(serve_admin(socket));
    if let Some(listener) = listener {
        servers.spawn(metrics::serve(listener, handle.clone(), until_stopped(stopped.clone())));
    }
    tracing::info!(generation = agent.plan.generation.0, socket = %agent.options.admin_socket.display(), "ready");
    if let Some(predecessor) = predecessor {
        predecessor.dismiss().await;
    }
    handover::ready(agent.plan.generation.0);

    let [mut sweep, mut ask, mut repair, mut look, mut hosts] = [SWEEP, ASK, REPAIR, LOOK, HOSTS].map(every);
    let why = loop {
        select! {
            Some(request) = requests.recv() => {
                agent.answer(request).await;
                let Some(successor) = agent.successor.take() else { continue };
                if agent.hand_over(successor, &mut requests).await? {
                    break Why::Replaced;
                }
                // The other one may have taken the socket's name.
                servers.spawn(serve_admin(admin::rebind(&agent.options.admin_socket)?));
            }
            Some(notice) = notices.recv() => agent.notice(notice),
            Some(_ended) = agent.tasks.join_next() => {}
            () = agent.resolver.changed() => agent.follow_names().await,
            report = agent.health.changed() => agent.judge(report).await,
            _ = hosts.tick(), if agent.is_custom() => agent.look_for_hosts().await,
            () = agent.net.changed() => {
                sleep(SETTLE).await;
                agent.heal().await;
            }
            _ = sweep.tick() => {
                agent.sweep();
                agent.heal().await;
            }
            _ = ask.tick() => agent.net.ask_neighbours().await,
            _ = repair.tick() => agent.repair().await,
            _ = look.tick() => agent.look().await,
            _ = hangup.recv() => {
                if let Err(error) = agent.reload().await {
                    tracing::error!("reload: {error}");
                }
            }
            _ = terminate.recv() => break Why::Told,
            _ = interrupt.recv() => break Why::Told,
        }
    };
    stop.send_replace(true);
    match why {
        Why::Told => {
            agent.stop_watching();
            tracing::info!("stopping; the data path goes on without the agent");
            handover::stopping();
        }
        Why::Replaced => tracing::info!("another agent has taken over; the connections of this one end"),
    }
    // Whatever else it does ends now: probes, names, the watching of files.
    let patience = agent.intent.node.drain_timeout;
    proxy::stop(agent.into_proxy(), patience).await;
    let tasks = async { while servers.join_next().await.is_some() {} };
    if timeout(Duration::from_secs(2), tasks).await.is_err() {
        tracing::warn!("open admin or metrics connections were cut");
    }
    Ok(())
}

fn every(period: Duration) -> Interval {
    // What a start has just looked at need not be looked at at once.
    let mut interval = interval_at(tokio::time::Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// Everything that others ask us through.
async fn bind(agent: &mut Agent, mut sockets: Sockets) -> Result<(admin::Bound, Option<TcpListener>), Error> {
    let listener = match agent.intent.node.metrics {
        Some(address) => {
            let error = |source| Error::Metrics { address, source };
            let listener = others::listen(address, &mut sockets).await.map_err(error)?;
            agent.metrics = Some(SockRef::from(&listener).try_clone().map_err(error)?.into());
            Some(listener)
        }
        None => None,
    };
    let options = &agent.options;
    let socket =
        if options.take_over { admin::rebind(&options.admin_socket)? } else { admin::bind(&options.admin_socket).await? };
    Ok((socket, listener))
}
