//! The pins of the maps, held open: what somebody removes while the agent runs is pinned again.

use std::path::{Path, PathBuf};

use aya::maps::MapData;

use super::{
    Error,
    load::MAPS,
    preflight::{PinLock, make_dirs, preflight},
};

/// The pinned maps of a directory, and its lock.
#[derive(Debug)]
pub struct Pins {
    dir: PathBuf,
    lock: PinLock,
    maps: Vec<(PathBuf, MapData)>,
}

impl Pins {
    /// Opens the pins that a load has made or found under `dir`.
    pub fn open(dir: &Path, lock: PinLock) -> Result<Self, Error> {
        let open = |name: &str| {
            let pin = dir.join("maps").join(name);
            let map = MapData::from_pin(&pin).map_err(|error| Error::kernel(format!("open the pinned map {name}"), error))?;
            Ok((pin, map))
        };
        Ok(Self { dir: dir.to_owned(), lock, maps: MAPS.into_iter().map(open).collect::<Result<_, Error>>()? })
    }

    /// Where they are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Lets another agent take them.
    pub fn unlock(&self) -> Result<(), Error> {
        self.lock.release().map_err(|source| Error::Io { path: self.dir.clone(), source })
    }

    /// Pins again what is not pinned any more, and returns how many maps that were. The directories are made again where they are
    /// gone, and locked.
    pub fn restore(&mut self) -> Result<usize, Error> {
        if !self.lock.is_of(&self.dir) {
            self.lock = preflight(&self.dir)?;
        }
        make_dirs(&self.dir)?;
        let missing = self.maps.iter().filter(|(pin, _)| !pin.exists());
        let pin_again = |(pin, map): &(PathBuf, MapData)| {
            map.pin(pin).map_err(|error| Error::kernel(format!("pin {} again", pin.display()), error))
        };
        missing.map(pin_again).try_fold(0, |count, pinned| pinned.map(|()| count + 1))
    }
}
