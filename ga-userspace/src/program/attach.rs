//! Attaching to interfaces by pinned links; a link that is there already is given the new program, atomically.

use std::{fs, io, path::Path};

use aya::programs::{
    ProgramError, Xdp, XdpMode as Flags,
    links::{FdLink, PinnedLink},
    loaded_programs,
    xdp::XdpLink,
};

use super::Error;
use crate::{model::XdpMode, net::Interface};

/// What became of one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
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
}

/// Attaches `program` to `interface`. The pin, when there is a directory for it, keeps it attached after we are gone.
pub fn attach(program: &mut Xdp, interface: &Interface, mode: XdpMode, pin_dir: Option<&Path>) -> Result<Attached, Error> {
    let pin = pin_dir.map(|dir| dir.join("links").join(&interface.name));
    if let Some(pin) = pin.as_deref().filter(|pin| pin.exists()) {
        match adopt(program, pin) {
            Ok(()) => {
                let native = interface.xdp.is_none_or(|xdp| xdp.native);
                return Ok(Attached {
                    name: interface.name.clone(),
                    ifindex: interface.ifindex,
                    native,
                    fallback: None,
                    adopted: true,
                });
            }
            // The interface was deleted and made again: the link is dead, the name is free.
            Err(message) => {
                tracing::warn!(interface = interface.name, "the pinned link is of no use any more and is replaced: {message}");
                fs::remove_file(pin).map_err(|source| Error::Io { path: pin.to_owned(), source })?;
            }
        }
    } else if let Some(xdp) = interface.xdp {
        return Err(foreign(interface, xdp.program));
    }
    let (native, fallback) = match mode {
        XdpMode::Generic => (attach_new(program, interface, Flags::Skb, pin.as_deref()).map(|()| false)?, None),
        XdpMode::Native => (attach_new(program, interface, Flags::Driver, pin.as_deref()).map(|()| true)?, None),
        XdpMode::Auto => match attach_new(program, interface, Flags::Driver, pin.as_deref()) {
            Ok(()) => (true, None),
            Err(why @ (Error::NativeRefused { .. } | Error::NoLink { .. })) => {
                attach_new(program, interface, Flags::Skb, pin.as_deref())?;
                (false, Some(why.to_string()))
            }
            Err(other) => return Err(other),
        },
    };
    Ok(Attached { name: interface.name.clone(), ifindex: interface.ifindex, native, fallback, adopted: false })
}

fn adopt(program: &mut Xdp, pin: &Path) -> Result<(), String> {
    let link: FdLink = PinnedLink::from_pin(pin).map_err(|error| error.to_string())?.into();
    let link = XdpLink::try_from(link).map_err(|error| error.to_string())?;
    program.attach_to_link(link).map(|_id| ()).map_err(|error| Error::kernel("replace the program", error).to_string())
}

fn attach_new(program: &mut Xdp, interface: &Interface, flags: Flags, pin: Option<&Path>) -> Result<(), Error> {
    let id = program.attach_to_if_index(interface.ifindex, flags).map_err(|error| refused(interface, flags, error))?;
    let link = program.take_link(id).map_err(|error| Error::kernel("keep the link", error))?;
    // A netlink attachment is not an `FdLink`; the conversion fails and drops it, which detaches.
    let link = FdLink::try_from(link).map_err(|_not_a_link| Error::NoLink { name: interface.name.clone() })?;
    match pin {
        Some(pin) => {
            link.pin(pin).map_err(|error| Error::kernel("pin the link", error))?;
        }
        None => {
            let link = XdpLink::try_from(link).map_err(|error| Error::kernel("keep the link", error))?;
            // Without a pin the link lives as long as the program object.
            program.attach_to_link(link).map_err(|error| Error::kernel("keep the link", error))?;
        }
    }
    Ok(())
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
