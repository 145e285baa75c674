//! What must hold before anything is touched: capabilities, a BPF file system, and nobody else at work.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::Path,
};

use rustix::{
    fs::{FlockOperation, flock},
    thread::{CapabilitySet, capabilities},
};

use super::Error;

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// Keeps other agents away from a pin directory as long as it lives.
#[derive(Debug)]
pub struct PinLock(File);

impl PinLock {
    /// Keeps nobody away any more.
    pub(super) fn release(&self) -> io::Result<()> {
        Ok(flock(&self.0, FlockOperation::NonBlockingUnlock)?)
    }

    /// Whether `pin_dir` still is the directory that was locked.
    pub(super) fn is_of(&self, pin_dir: &Path) -> bool {
        let same = |ours: fs::Metadata, theirs: fs::Metadata| (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino());
        self.0.metadata().and_then(|ours| Ok(same(ours, fs::metadata(pin_dir)?))).unwrap_or(false)
    }
}

/// Checks the BPF file system, makes the pin directory and takes its lock.
pub fn preflight(pin_dir: &Path) -> Result<PinLock, Error> {
    check_bpffs(pin_dir)?;
    make_dirs(pin_dir)?;
    let dir = File::open(pin_dir).map_err(|source| Error::Io { path: pin_dir.to_owned(), source })?;
    match flock(&dir, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(PinLock(dir)),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Locked { path: pin_dir.to_owned() }),
        Err(errno) => Err(Error::Io { path: pin_dir.to_owned(), source: io::Error::from(errno) }),
    }
}

/// Makes the directories of the pins where they are not there.
pub(super) fn make_dirs(pin_dir: &Path) -> Result<(), Error> {
    for dir in [pin_dir.to_owned(), pin_dir.join("maps"), pin_dir.join("links")] {
        // Whoever can write a pin can replace the program: only the owner may.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(|source| Error::Io { path: dir, source })?;
    }
    Ok(())
}

/// Says which capability is missing, before anything else can fail for the lack of it.
pub fn check_capabilities() -> Result<(), Error> {
    let held = capabilities(None)
        .map_err(|errno| Error::Kernel { what: "show this process's capabilities".to_owned(), message: errno.to_string() })?
        .effective;
    // Before CAP_BPF there was CAP_SYS_ADMIN, which still holds it.
    let bpf = CapabilitySet::BPF | CapabilitySet::SYS_ADMIN;
    let wanted = [
        (bpf, "CAP_BPF"),
        (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
        // Resets of idle flows leave by raw sockets.
        (CapabilitySet::NET_RAW, "CAP_NET_RAW"),
    ];
    match wanted.into_iter().find(|(any, _)| !held.intersects(*any)) {
        Some((_, missing)) => Err(Error::Capability { missing }),
        None => Ok(()),
    }
}

fn check_bpffs(pin_dir: &Path) -> Result<(), Error> {
    let existing = pin_dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let stat =
        rustix::fs::statfs(existing).map_err(|errno| Error::Io { path: existing.to_owned(), source: io::Error::from(errno) })?;
    if stat.f_type == BPF_FS_MAGIC { Ok(()) } else { Err(Error::NoBpffs { path: pin_dir.to_owned() }) }
}
