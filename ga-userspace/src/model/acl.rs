//! Access lists (specification §1.18).

use std::sync::Arc;

use ipnet::IpNet;

use super::Name;

/// One line of an access list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclEntry {
    /// Who; without bits behind the prefix.
    pub net: IpNet,
    /// Free text.
    pub description: String,
}

/// A named set of addresses of one IP version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl {
    /// Its name, unique in the file.
    pub name: Name,
    /// In file order, each once, all of one family. None: it keeps nobody out, in either mode.
    pub entries: Vec<AclEntry>,
}

/// What being listed means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AclMode {
    /// Only who is listed may open flows.
    White,
    /// Who is listed may not.
    Black,
}

impl AclMode {
    /// The TOML word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::White => "white",
            Self::Black => "black",
        }
    }
}

/// Who may open flows of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerAcl {
    /// What being listed means.
    pub mode: AclMode,
    /// One or two, of different families as far as they have entries.
    pub lists: Vec<Arc<Acl>>,
    /// Flows of sources that are not let in any more are ended; without it they go on.
    pub kill_established: bool,
}
