//! The kernel program: loaded, attached, pinned, adopted, replaced. The only room that changes what runs on an interface.
//!
//! Pins, under one directory of a BPF file system: `maps/NAME` and `links/INTERFACE`. As long as they are there the data path
//! runs, whatever becomes of the agent.

mod attach;
mod load;
mod pins;
mod preflight;
mod tool;

use std::{io, path::PathBuf};

pub use attach::{Attached, attach, detach_stale};
#[cfg(feature = "bench")]
pub use load::BENCH_OBJECT;
pub use load::{Loaded, MAPS, OBJECT, Sizes, id, load, program, unpin};
pub use pins::Pins;
pub use preflight::{PinLock, check_capabilities, preflight};
pub use tool::{Ran, Tool, load_tool, replace, run_once, tool_program};

/// What can go wrong, and how to mend it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not enough capabilities.
    #[error(
        "the capability {missing} is missing: run as root, or give the binary CAP_BPF, CAP_NET_ADMIN and CAP_NET_RAW (setcap or systemd's AmbientCapabilities)"
    )]
    Capability {
        /// Its name.
        missing: &'static str,
    },
    /// The pin directory is not on a BPF file system.
    #[error("{} is not on a BPF file system: `mount -t bpf bpf /sys/fs/bpf`, or name another place with --pin-dir", path.display())]
    NoBpffs {
        /// Where pins were wanted.
        path: PathBuf,
    },
    /// Another agent holds the pin directory.
    #[error("another agent runs with the pins in {}: stop it first, or give this one its own --pin-dir and interfaces", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// There is no such interface.
    #[error("there is no interface {name:?}: `ip link` lists them; mend `node.interfaces`")]
    NoInterface {
        /// Its name.
        name: String,
    },
    /// Flow memory has no room for the index.
    #[error(
        "interface {name:?} has the index {ifindex}, and indexes above {limit} are not supported: make it again in a fresh network namespace, or with `ip link add ... index N`"
    )]
    HighIndex {
        /// Its name.
        name: String,
        /// Its index.
        ifindex: u32,
        /// The highest that fits.
        limit: u32,
    },
    /// Somebody else's program is attached.
    #[error("interface {name:?} already runs another XDP program (id {id}{}): it was left alone; detach it (`ip link set dev {name} xdp off`) or take {name} out of `node.interfaces`", .program.as_deref().map(|p| format!(", name {p}")).unwrap_or_default())]
    Foreign {
        /// The interface.
        name: String,
        /// Kernel id of the program.
        id: u32,
        /// Its name, when we may ask.
        program: Option<String>,
    },
    /// The driver does not run native XDP here.
    #[error(
        "interface {name:?} refuses native XDP ({source}): use `xdp_mode = \"auto\"` or \"generic\", or see the driver's limits (MTU, queues, LRO)"
    )]
    NativeRefused {
        /// The interface.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel attached without a link object, which cannot be pinned.
    #[error(
        "interface {name:?}: this kernel attaches XDP only without a BPF link (needs 5.9 or newer); the data path would die with the agent"
    )]
    NoLink {
        /// The interface.
        name: String,
    },
    /// A link whose pin was removed could not be pinned again.
    #[error("{}: the pin was removed and could not be made again; the program stays attached as long as this agent runs", path.display())]
    Unpinned {
        /// The pin.
        path: PathBuf,
    },
    /// The kernel or the verifier said no.
    #[error("the kernel refused to {what}: {message}")]
    Kernel {
        /// What was tried.
        what: String,
        /// What it said.
        message: String,
    },
    /// A file operation on the pins failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Error {
    fn kernel(what: impl Into<String>, error: impl std::error::Error) -> Self {
        // aya's messages name the call; their sources name the errno.
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(inner) = source {
            let inner_text = inner.to_string();
            if !message.contains(&inner_text) {
                message = format!("{message}: {inner_text}");
            }
            source = inner.source();
        }
        Self::Kernel { what: what.into(), message }
    }
}
