//! What operators set by hand, kept across restarts in one file that is never half written.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use super::Error;
use crate::plan::Overrides;

/// The file.
#[derive(Debug)]
pub(super) struct OverrideFile(PathBuf);

impl OverrideFile {
    pub(super) fn open(state_dir: &Path) -> Result<Self, Error> {
        fs::create_dir_all(state_dir).map_err(|source| Error::State { path: state_dir.to_owned(), source })?;
        Ok(Self(state_dir.join("overrides.json")))
    }

    pub(super) fn read(&self) -> Result<Overrides, Error> {
        match fs::read(&self.0) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| self.error(error.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Overrides::default()),
            Err(error) => Err(self.error(error)),
        }
    }

    pub(super) fn write(&self, overrides: &Overrides) -> Result<(), Error> {
        let bytes = serde_json::to_vec_pretty(overrides).map_err(|error| self.error(error.into()))?;
        write_whole(&self.0, &bytes).map_err(|source| self.error(source))
    }

    fn error(&self, source: io::Error) -> Error {
        Error::State { path: self.0.clone(), source }
    }
}

/// Puts `bytes` in the place of what `path` holds, all of them or none.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = fs::File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)
}
