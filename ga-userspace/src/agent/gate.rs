//! Flows of clients that are not let in any more.
//!
//! Packets of known flows are not asked who they are from: that costs nobody anything. What a plan keeps out is looked for in flow
//! memory when the plan is in place, and once more with the next sweep: a packet that was on its way may have opened a flow
//! meanwhile.

use std::{collections::BTreeMap, net::IpAddr};

use ga_common::abi::id::EndpointId;

use super::{Agent, clock};
use crate::plan::AclView;

impl Agent {
    /// Ends the flows that the running plan does not let in, where listeners want that.
    pub(super) fn end_denied(&mut self) {
        let strict = |listener: &crate::plan::ListenerView| {
            let acl = listener.acl.clone().filter(|acl| acl.kill_established)?;
            Some((listener.id, acl))
        };
        let gates: BTreeMap<_, AclView> = self.plan.listeners.iter().filter_map(strict).collect();
        if gates.is_empty() {
            return;
        }
        let endpoints = &self.data_path.running().endpoints;
        let is_over = |client: IpAddr, endpoint: EndpointId, _at: (IpAddr, u16)| {
            let gate = endpoints.get(&endpoint).and_then(|endpoint| gates.get(&endpoint.listener));
            gate.is_some_and(|gate| !gate.lets_in(client))
        };
        for ended in self.data_path.flow_tables().end(clock::tick(), is_over) {
            if let Err(error) = self.resets.send(&ended) {
                tracing::debug!(client = %ended.client.0, "reset of a flow that is not let in any more: {error}");
            }
        }
    }
}
