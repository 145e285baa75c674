//! What a family is, and one of its lines.

use std::borrow::Cow;

use crate::status::Status;

/// One metric family.
#[derive(Clone, Copy, Debug)]
pub(super) struct Family {
    /// Without the prefix `ga_`, and without the suffix that the format adds (`_total`, `_info`).
    pub(super) name: &'static str,
    /// One sentence.
    pub(super) help: &'static str,
    /// Its type and where its lines come from.
    pub(super) source: Source,
}

/// A family's type and where its lines come from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    /// Grows only; a name with `_total` on the wire.
    Counter(fn(&Status) -> Vec<Series<'_, u64>>),
    /// A level.
    Gauge(fn(&Status) -> Vec<Series<'_, f64>>),
    /// Text as labels; a name with `_info` on the wire.
    Info(fn(&Status) -> Vec<Series<'_, ()>>),
    /// Known without the agent: the process, and whether the agent answered.
    Process(Process),
}

/// Families that are known without the agent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Process {
    /// `ga_build_info`.
    Build,
    /// `ga_agent_up`.
    AgentUp,
}

/// Label names and values.
pub(super) type Labels<'a> = Vec<(&'static str, Cow<'a, str>)>;

/// One line.
#[derive(Clone, Debug)]
pub(super) struct Series<'a, V> {
    pub(super) labels: Labels<'a>,
    pub(super) value: V,
}

impl<'a, V> Series<'a, V> {
    /// A line with labels.
    pub(super) fn new<const N: usize>(labels: [(&'static str, &'a str); N], value: V) -> Self {
        Self { labels: labels.into_iter().map(|(name, value)| (name, Cow::Borrowed(value))).collect(), value }
    }

    /// The only line of its family.
    pub(super) fn only(value: V) -> Vec<Self> {
        vec![Self { labels: Vec::new(), value }]
    }
}
