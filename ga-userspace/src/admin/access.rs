//! Who may do what, by the credentials the kernel vouches for (`SO_PEERCRED`).

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::net::UnixStream;

use crate::status::{Code, Refusal};

/// Seconds that a connection may take longer than most.
#[derive(Clone, Debug, Default)]
pub(super) struct Patience(Arc<AtomicU64>);

impl Patience {
    /// A watch takes as long as it was told to.
    pub(super) fn extend(&self, seconds: u32) {
        self.0.store(u64::from(seconds), Ordering::Relaxed);
    }

    /// How much longer.
    pub(super) fn extra(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::Relaxed))
    }
}

/// What a peer may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Nothing.
    None,
    /// Look.
    Read,
    /// Look and change.
    Write,
}

/// Whose socket it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    /// The agent's user.
    uid: u32,
    /// The socket's group.
    gid: u32,
}

/// Whoever connected.
#[derive(Clone, Debug)]
struct Peer {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

impl Owner {
    /// Reads it off the socket's file.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { uid: rustix::process::geteuid().as_raw(), gid: fs::metadata(path)?.gid() })
    }

    /// What the peer of `stream` may do. A peer that the kernel cannot name may do nothing.
    pub(super) fn access(self, stream: &UnixStream) -> Access {
        match stream.peer_cred() {
            Ok(credentials) => self.grant(&Peer {
                uid: credentials.uid(),
                gid: credentials.gid(),
                groups: credentials.pid().map(supplementary_groups).unwrap_or_default(),
            }),
            Err(_) => Access::None,
        }
    }

    fn grant(self, peer: &Peer) -> Access {
        if peer.uid == 0 || peer.uid == self.uid {
            Access::Write
        } else if peer.gid == self.gid || peer.groups.contains(&self.gid) {
            Access::Read
        } else {
            Access::None
        }
    }
}

/// `SO_PEERCRED` has the primary group only. The process may have gone and its number been reused, which costs nothing: the
/// socket's mode already kept out whoever is not in its group, this is the second lock on the same door.
fn supplementary_groups(pid: i32) -> Vec<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:"));
    groups.unwrap_or_default().split_whitespace().filter_map(|group| group.parse().ok()).collect()
}

impl Access {
    /// Passes who may look.
    pub(super) fn to_read(self) -> Result<(), Refusal> {
        match self {
            Self::Read | Self::Write => Ok(()),
            Self::None => Err(Refusal::new(
                Code::Forbidden,
                "the admin socket is for root, the agent's user and members of the socket's group",
            )),
        }
    }

    /// Passes who may change.
    pub(super) fn to_write(self) -> Result<(), Refusal> {
        match self {
            Self::Write => Ok(()),
            Self::Read | Self::None => Err(Refusal::new(Code::Forbidden, "only root and the agent's user may change anything")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_the_agents_user_change_the_group_looks_and_others_get_nothing() {
        let owner = Owner { uid: 990, gid: 991 };
        let grant = |uid, gid, groups: &[u32]| owner.grant(&Peer { uid, gid, groups: groups.to_vec() });
        assert_eq!(grant(0, 0, &[]), Access::Write);
        assert_eq!(grant(990, 5, &[]), Access::Write);
        assert_eq!(grant(1000, 991, &[]), Access::Read);
        assert_eq!(grant(1000, 1000, &[27, 991]), Access::Read);
        assert_eq!(grant(1000, 1000, &[27]), Access::None);
        assert_eq!(grant(1000, 0, &[0]), Access::None, "group root is not root");
    }

    #[test]
    fn own_groups_are_those_the_kernel_says() {
        let pid = i32::try_from(std::process::id()).expect("a pid is positive");
        let mut expected: Vec<u32> =
            rustix::process::getgroups().expect("no reason to fail").iter().map(|g| g.as_raw()).collect();
        let mut found = supplementary_groups(pid);
        expected.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, expected);
    }
}
