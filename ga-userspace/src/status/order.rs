//! Answers to the verbs other than status.

use serde::{Deserialize, Serialize};

use super::{DropCount, Endpoint, EndpointPath, EndpointState, PassCount, SCHEMA_VERSION, Status};

/// Answer to `ga drops`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drops {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Dropped packets, one row for each reason and owner.
    pub drops: Vec<DropCount>,
    /// Packets given to the host untouched.
    pub passes: Vec<PassCount>,
}

impl Drops {
    /// The part of `status`.
    pub fn of(status: &Status) -> Self {
        Self { schema_version: SCHEMA_VERSION, drops: status.drops.clone(), passes: status.passes.clone() }
    }
}

/// Answer to `ga endpoints list`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndpointList {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// In file order; those of a group in the order of their addresses.
    pub endpoints: Vec<EndpointRow>,
}

/// An endpoint and where it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndpointRow {
    /// Its instance.
    pub instance: String,
    /// Its listener.
    pub listener: String,
    /// Its group.
    pub group: String,
    /// The endpoint.
    #[serde(flatten)]
    pub endpoint: Endpoint,
}

impl EndpointList {
    /// The part of `status`.
    pub fn of(status: &Status) -> Self {
        let row = |(path, endpoint): (EndpointPath, &Endpoint)| EndpointRow {
            instance: path.instance,
            listener: path.listener,
            group: path.group,
            endpoint: endpoint.clone(),
        };
        Self { schema_version: SCHEMA_VERSION, endpoints: status.endpoints().map(row).collect() }
    }
}

/// Answer to `ga reload`, given when the new plan is live.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reloaded {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The plan that packets see now.
    pub generation: u64,
    /// Whether the file said anything new.
    pub changed: bool,
    /// The changes, one sentence a line.
    pub summary: Vec<String>,
    /// The changes for programs: the report of `ga plan`.
    pub report: serde_json::Value,
}

/// Answer to `ga plan` against the running agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Whether applying the file would change anything.
    pub changes: bool,
    /// The changes, one sentence a line.
    pub summary: Vec<String>,
    /// The changes for programs.
    pub report: serde_json::Value,
}

/// Answer to `ga endpoints drain|undrain|weight`, given when the new plan is live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointChange {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Which endpoint.
    pub endpoint: EndpointPath,
    /// The weight in the file.
    pub configured_weight: u8,
    /// The weight that was in force.
    pub weight_before: u8,
    /// The weight in force now.
    pub weight: u8,
    /// Why.
    pub state: EndpointState,
    /// The plan that packets see now.
    pub generation: u64,
}
