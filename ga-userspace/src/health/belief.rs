//! Beliefs as plain values: what the plan is told of health.

use std::{collections::BTreeMap, time::Duration};

use crate::model::{EndpointName, GroupName};

/// What is believed of one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Belief {
    /// New flows may go there.
    pub up: bool,
    /// It failed attempts of clients and is left alone for a while; counts where its group is not probed.
    pub paused: bool,
    /// 1–100 %: the part of its weight that counts while it starts slowly.
    pub share_percent: u8,
}

impl Default for Belief {
    /// What is believed of an endpoint that nobody knows anything of.
    fn default() -> Self {
        Self { up: true, paused: false, share_percent: 100 }
    }
}

/// All beliefs at one moment; who is missing is up with its full share, and at no known distance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beliefs {
    /// By endpoint.
    pub endpoints: BTreeMap<EndpointName, Belief>,
    /// Smoothed round-trip time to the endpoints of a group.
    pub latency: BTreeMap<GroupName, Duration>,
    /// Where a group stands in the scheduling priority of its listener, from 0; groups of unknown latency are missing.
    pub priority: BTreeMap<GroupName, usize>,
}

impl Beliefs {
    /// What is believed of `endpoint`.
    pub fn of(&self, endpoint: &EndpointName) -> Belief {
        self.endpoints.get(endpoint).copied().unwrap_or_default()
    }
}
