//! How flows spread over endpoints, against the configured weights.

use anyhow::{Context as _, Result};
use ga::status::Status;

use super::{
    screen::{Ink, Screen, bar, thousands},
    servers,
    traffic::{Answers, Family, Protocol},
};
use crate::lab::{server4, server6};

/// A share may be off by this much: five in a hundred flows.
pub(super) const TOLERANCE: f64 = 0.05;

/// The endpoints of one family of one listener.
#[derive(Clone, Debug)]
pub(super) struct Spread {
    /// The listener's name.
    pub(super) listener: String,
    /// Its protocol.
    pub(super) protocol: Protocol,
    /// Its ports.
    pub(super) ports: String,
    /// The family.
    pub(super) family: Family,
    /// One for each server, in order.
    pub(super) rows: Vec<Row>,
}

/// One endpoint.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// The server's name.
    pub(super) server: String,
    /// The configured share.
    pub(super) configured: f64,
    /// Flows seen.
    pub(super) flows: u64,
    /// The share of flows seen.
    pub(super) seen: f64,
}

impl Spread {
    /// Compares answers with the weights that the agent reports.
    pub(super) fn new(status: &Status, listener: &str, protocol: Protocol, family: Family, answers: &Answers) -> Result<Self> {
        let mut all = status.instances.iter().flat_map(|instance| &instance.listeners);
        let found = all.find(|candidate| candidate.name == listener).context("the agent does not report the listener")?;
        let endpoints = || found.groups.iter().flat_map(|group| &group.endpoints);
        let weight = |number: usize| {
            let address = match family {
                Family::V4 => server4(number).to_string(),
                Family::V6 => server6(number).to_string(),
            };
            let endpoint = endpoints().find(|endpoint| endpoint.address == address);
            endpoint.map(|endpoint| endpoint.configured_weight).context("an endpoint is missing in the agent's report")
        };
        let weights = (1..=3).map(weight).collect::<Result<Vec<u8>>>()?;
        let sum: f64 = weights.iter().copied().map(f64::from).sum();
        let rows = weights.iter().zip(1..).map(|(&weight, number)| {
            let server = servers::name(number);
            let flows = answers.of(&server);
            Row { server, configured: f64::from(weight) / sum, flows, seen: flows as f64 / answers.answered().max(1) as f64 }
        });
        Ok(Self { listener: listener.to_owned(), protocol, ports: found.ports.clone(), family, rows: rows.collect() })
    }

    /// The largest difference between a configured and a seen share.
    pub(super) fn worst(&self) -> f64 {
        self.rows.iter().map(|row| (row.seen - row.configured).abs()).fold(0.0, f64::max)
    }

    /// All flows.
    pub(super) fn flows(&self) -> u64 {
        self.rows.iter().map(|row| row.flows).sum()
    }

    /// Two bars for each server.
    pub(super) fn show(&self, screen: &mut Screen) {
        const WIDTH: usize = 50;
        let what = format!("{} over {}", self.protocol.name(), self.family.name());
        screen.line(&format!("  {} {what}, {} flows", screen.paint(Ink::Bold, &self.listener), thousands(self.flows())));
        for row in &self.rows {
            let configured = screen.paint(Ink::Dim, &bar(row.configured, WIDTH, '░'));
            let seen = screen.paint(Ink::Blue, &bar(row.seen, WIDTH, '█'));
            screen.line(&format!("    {}  configured {:>5.1} % {configured}", row.server, row.configured * 100.0));
            screen.line(&format!("        seen       {:>5.1} % {seen} {}", row.seen * 100.0, thousands(row.flows)));
        }
    }
}
