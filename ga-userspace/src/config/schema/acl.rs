//! The keys of access lists.

use schemars::JsonSchema;
use serde::Serialize;

/// A named set of addresses of one IP version.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
pub struct Acl {
    /// Its name, unique in the file.
    #[schemars(regex(pattern = r"^[A-Za-z][A-Za-z0-9._-]{0,127}$"))]
    pub name: String,
    /// Addresses and networks, all IPv4 or all IPv6, each once. A list without entries keeps nobody out, in either mode.
    #[schemars(length(max = 16_383))]
    pub entries: Vec<AclEntry>,
}

/// One line of an access list: an address or network, alone or with a description.
#[derive(JsonSchema, Serialize)]
#[serde(untagged)]
pub enum AclEntry {
    /// `192.0.2.7` or `192.0.2.0/24`.
    Plain(String),
    /// The same with a description.
    Described(AclDescribed),
}

/// An address or network with a description.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
pub struct AclDescribed {
    /// `192.0.2.7` or `192.0.2.0/24`.
    pub address: String,
    /// Free text.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "String", length(min = 1, max = 256))]
    pub description: Option<String>,
}

/// Who may open flows of a listener.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
pub struct ListenerAcl {
    /// What being listed means.
    pub mode: AclMode,
    /// Names of access lists: at most one IPv4 and one IPv6.
    #[schemars(length(min = 1, max = 2))]
    pub lists: Vec<String>,
    /// Established flows of sources that are not let in any more are ended; without it they go on.
    #[schemars(default)]
    pub kill_established: bool,
}

/// What being listed means.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AclMode {
    /// Only who is listed may open flows. A family without a list is kept out when the other one has one.
    White,
    /// Who is listed may not.
    Black,
}
