//! The proxy in the agent: every plan becomes its view.

use std::{thread::available_parallelism, time::Duration};

use super::{Agent, Error};
use crate::{
    model::Node,
    plan,
    proxy::{Proxy, View},
};

/// How long connections may take to end when the agent stops.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn start(node: &Node) -> Result<Proxy, Error> {
    let threads = node.proxy_threads.map_or_else(|| available_parallelism().map_or(1, usize::from), usize::from);
    Proxy::start(threads).map_err(|source| Error::System { what: "threads of the proxy", source })
}

/// Lets connections end; those that have not after a while are cut.
pub(super) async fn stop(proxy: Proxy) {
    let open = proxy.connections();
    if open > 0 {
        tracing::info!(open, "waiting for connections of http and https listeners to end");
    }
    if let Ok(cut @ 1..) = tokio::task::spawn_blocking(move || proxy.stop(PATIENCE)).await {
        tracing::warn!(cut, "connections that had not ended were cut");
    }
}

impl Agent {
    /// The proxy serves what the plan says.
    pub(super) fn serve(&mut self) {
        let (whole, _) = plan::resolved(&self.intent, &self.addresses);
        let before = self.proxy.shared().view.load_full();
        let view = View::new(&self.plan, &whole, &before);
        for unbound in self.proxy.apply(view) {
            tracing::error!("{unbound}");
        }
    }
}
