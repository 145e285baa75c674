//! Attaching to interfaces by pinned links; a link that is there already is given the new program, atomically.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aya::programs::{
    ProgramError, Xdp, XdpMode as Flags,
    links::{FdLink, PinnedLink},
    loaded_programs,
    xdp::XdpLink,
};

use ga_common::abi::limits::MAX_IFINDEX;

use super::Error;
use crate::{model::XdpMode, net::Interface};

/// What became of one interface.
#[derive(Debug)]
pub struct Attached {
    /// Its name.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// Native, or generic.
    pub native: bool,
    /// Why not native although that was preferred.
    pub fallback: Option<String>,
    /// The link was there before and was given the new program.
    pub adopted: bool,
    held: Option<Held>,
}

impl Attached {
    /// Pins the link again if its pin was removed; true when it was.
    pub fn pin_again(&mut self) -> Result<bool, Error> {
        self.held.as_mut().map_or(Ok(false), Held::pin_again)
    }
}

/// A pinned link, held open: removing its pin does not detach the program as long as the agent runs.
#[derive(Debug)]
struct Held {
    pin: PathBuf,
    /// The same link, held as often as it can be: the one that is to be pinned again is lost when that fails.
    links: Vec<PinnedLink>,
}

const HELD: usize = 2;

impl Held {
    fn new(pin: &Path) -> Result<Self, Error> {
        let mut held = Self { pin: pin.to_owned(), links: Vec::new() };
        held.fill()?;
        Ok(held)
    }

    fn fill(&mut self) -> Result<(), Error> {
        while self.links.len() < HELD {
            self.links.push(PinnedLink::from_pin(&self.pin).map_err(|error| Error::kernel("open the pinned link", error))?);
        }
        Ok(())
    }

    fn pin_again(&mut self) -> Result<bool, Error> {
        if self.pin.exists() {
            return Ok(false);
        }
        if self.links.len() < HELD {
            return Err(Error::Unpinned { path: self.pin.clone() });
        }
        if let Some(link) = self.links.pop() {
            let pinned = FdLink::from(link).pin(&self.pin).map_err(|error| Error::kernel("pin the link again", error))?;
            self.links.push(pinned);
        }
        self.fill()?;
        Ok(true)
    }
}

/// Attaches `program` to `interface`. The pin, when there is a directory for it, keeps it attached after we are gone.
pub fn attach(program: &mut Xdp, interface: &Interface, mode: XdpMode, pin_dir: Option<&Path>) -> Result<Attached, Error> {
    if interface.ifindex > MAX_IFINDEX {
        return Err(Error::HighIndex { name: interface.name.clone(), ifindex: interface.ifindex, limit: MAX_IFINDEX });
    }
    let pin = pin_dir.map(|dir| dir.join("links").join(&interface.name));
    if let Some(pin) = pin.as_deref().filter(|pin| pin.exists()) {
        match adopt(program, interface, pin) {
            Ok(held) => {
                let native = interface.xdp.is_none_or(|xdp| xdp.native);
                return Ok(Attached {
                    name: interface.name.clone(),
                    ifindex: interface.ifindex,
                    native,
                    fallback: None,
                    adopted: true,
                    held: Some(held),
                });
            }
            // The interface was deleted and made again, or the link was detached: it is dead, and the name is free.
            Err(message) => {
                tracing::warn!(interface = interface.name, "the pinned link is of no use any more and is replaced: {message}");
                fs::remove_file(pin).map_err(|source| Error::Io { path: pin.to_owned(), source })?;
            }
        }
    } else if let Some(xdp) = interface.xdp {
        return Err(foreign(interface, xdp.program));
    }
    let attach = |program: &mut Xdp, flags| attach_new(program, interface, flags, pin.as_deref());
    let (native, fallback, held) = match mode {
        XdpMode::Generic => (false, None, attach(program, Flags::Skb)?),
        XdpMode::Native => (true, None, attach(program, Flags::Driver)?),
        XdpMode::Auto => match attach(program, Flags::Driver) {
            Ok(held) => (true, None, held),
            Err(why @ (Error::NativeRefused { .. } | Error::NoLink { .. })) => {
                (false, Some(why.to_string()), attach(program, Flags::Skb)?)
            }
            Err(other) => return Err(other),
        },
    };
    Ok(Attached { name: interface.name.clone(), ifindex: interface.ifindex, native, fallback, adopted: false, held })
}

/// Gives the pinned link the new program. The link must be the one that runs on `interface` now: an interface can have been given
/// another one's name.
fn adopt(program: &mut Xdp, interface: &Interface, pin: &Path) -> Result<Held, String> {
    let link: FdLink = PinnedLink::from_pin(pin).map_err(|error| error.to_string())?.into();
    let runs = link.info().map_err(|error| error.to_string())?.program_id();
    if interface.xdp.is_none_or(|xdp| xdp.program != runs) {
        return Err("it does not run on this interface".to_owned());
    }
    let held = Held::new(pin).map_err(|error| error.to_string())?;
    let link = XdpLink::try_from(link).map_err(|error| error.to_string())?;
    let id = program.attach_to_link(link).map_err(|error| Error::kernel("replace the program", error).to_string())?;
    // What we hold is enough.
    drop(program.take_link(id).map_err(|error| error.to_string())?);
    Ok(held)
}

fn attach_new(program: &mut Xdp, interface: &Interface, flags: Flags, pin: Option<&Path>) -> Result<Option<Held>, Error> {
    let id = program.attach_to_if_index(interface.ifindex, flags).map_err(|error| refused(interface, flags, error))?;
    let link = program.take_link(id).map_err(|error| Error::kernel("keep the link", error))?;
    // A netlink attachment is not an `FdLink`; the conversion fails and drops it, which detaches.
    let link = FdLink::try_from(link).map_err(|_not_a_link| Error::NoLink { name: interface.name.clone() })?;
    match pin {
        Some(pin) => {
            let pinned = link.pin(pin).map_err(|error| Error::kernel("pin the link", error))?;
            let held = Held::new(pin);
            drop(pinned);
            held.map(Some)
        }
        None => {
            let link = XdpLink::try_from(link).map_err(|error| Error::kernel("keep the link", error))?;
            // Without a pin the link lives as long as the program object.
            program.attach_to_link(link).map_err(|error| Error::kernel("keep the link", error))?;
            Ok(None)
        }
    }
}

fn refused(interface: &Interface, flags: Flags, error: ProgramError) -> Error {
    if matches!(error, ProgramError::UnknownInterface { .. }) {
        return Error::NoInterface { name: interface.name.clone() };
    }
    let errno = if let ProgramError::SyscallError(syscall) = &error { syscall.io_error.raw_os_error() } else { None };
    match (errno.map(rustix::io::Errno::from_raw_os_error), flags) {
        (Some(rustix::io::Errno::BUSY), _) => foreign(interface, 0),
        (Some(errno), Flags::Driver) if errno != rustix::io::Errno::PERM => {
            Error::NativeRefused { name: interface.name.clone(), source: io::Error::from(errno) }
        }
        (_, Flags::Default | Flags::Skb | Flags::Driver | Flags::Hardware) => {
            Error::kernel(format!("attach to {}", interface.name), error)
        }
    }
}

fn foreign(interface: &Interface, id: u32) -> Error {
    // Listing programs needs CAP_SYS_ADMIN; without it the number must do.
    let name = loaded_programs().flatten().find(|info| info.id() == id).and_then(|info| info.name_as_str().map(str::to_owned));
    Error::Foreign { name: interface.name.clone(), id, program: name }
}

/// Detaches from interfaces that have a pinned link and are not among `wanted`; returns their names.
pub fn detach_stale(pin_dir: &Path, wanted: &[String]) -> Result<Vec<String>, Error> {
    let dir = pin_dir.join("links");
    let io = |source| Error::Io { path: dir.clone(), source };
    let mut detached = Vec::new();
    for entry in fs::read_dir(&dir).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !wanted.contains(&name) {
            fs::remove_file(entry.path()).map_err(io)?;
            detached.push(name);
        }
    }
    Ok(detached)
}
