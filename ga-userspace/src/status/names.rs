//! Where addresses are from, and what is known of names.

use serde::{Deserialize, Serialize};

/// Who says what an address is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The configuration has the address itself.
    #[default]
    Literal,
    /// `[inventory.hosts]`.
    Inventory,
    /// `inventory.file`.
    InventoryFile,
    /// `inventory.url`.
    InventoryUrl,
    /// A domain.
    Dns,
    /// A server group.
    ServerGroup,
}

impl Source {
    /// The word in tables, JSON and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Literal => "literal",
            Self::Inventory => "inventory",
            Self::InventoryFile => "inventory_file",
            Self::InventoryUrl => "inventory_url",
            Self::Dns => "dns",
            Self::ServerGroup => "server_group",
        }
    }
}

/// Where the address of an endpoint is from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Who says it.
    pub source: Source,
    /// The name that stands for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Seconds since that was learned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_s: Option<u64>,
    /// Seconds for which it still holds, of domains; 0 when nobody answers any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_s: Option<u64>,
    /// What was wrong with the last attempt to learn it anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Origin {
    /// For tables: `dns origin.example.net, 12 s old, 48 s left`.
    pub fn sentence(&self) -> String {
        let mut text = self.source.word().to_owned();
        if let Some(name) = &self.name {
            text += &format!(" {name}");
        }
        if let Some(age) = self.age_s {
            text += &format!(", {age} s old");
        }
        if let Some(left) = self.ttl_s {
            text += &format!(", {left} s left");
        }
        if let Some(error) = &self.error {
            text += &format!(" ({error})");
        }
        text
    }
}

/// A domain, or a source of the inventory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    /// What it is.
    pub source: Source,
    /// The domain, the path or the address.
    pub name: String,
    /// What a domain stands for.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Addresses of a domain that are too many.
    #[serde(default)]
    pub left_out: u64,
    /// Seconds since the last good answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_s: Option<u64>,
    /// Seconds for which it still holds, of domains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_s: Option<u64>,
    /// Attempts since the agent's start that were no good.
    #[serde(default)]
    pub failures: u64,
    /// What was wrong with the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
