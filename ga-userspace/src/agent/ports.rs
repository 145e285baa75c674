//! Which ports of custom routing listeners lead where, kept across restarts in one file that is never half written.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{Error, overrides::write_whole};
use crate::{
    config::{self, Loaded, problem::Report},
    plan::{self, Allocation},
};

/// What was given away, and its file.
#[derive(Debug)]
pub(super) struct Ports {
    path: PathBuf,
    given: Allocation,
}

impl Ports {
    pub(super) fn open(state_dir: &Path) -> Result<Self, Error> {
        let path = state_dir.join("custom-ports.json");
        let given = match fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|error| Error::State { path: path.clone(), source: error.into() })?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Allocation::default(),
            Err(source) => return Err(Error::State { path, source }),
        };
        Ok(Self { path, given })
    }

    /// Gives the listeners of `loaded` their ports, and says what is given away then; `text` is the file's.
    pub(super) fn settle(&self, loaded: &mut Loaded, text: &str) -> Result<Allocation, Error> {
        plan::settle(&mut loaded.intent, &self.given).map_err(|refused| {
            let problem = |refused: &plan::Refused| {
                config::problem_of_ports(loaded, &refused.instance, &refused.listener, &refused.why, &refused.help)
            };
            let report = Report { problems: refused.iter().filter_map(problem).collect(), omitted: 0, warnings: Vec::new() };
            Error::Config { report: Box::new(report), text: text.to_owned() }
        })
    }

    /// Keeps what is given away from now; what was before.
    pub(super) fn keep(&mut self, given: Allocation) -> Result<Allocation, Error> {
        if given != self.given {
            let bytes = serde_json::to_vec(&given).map_err(|error| self.error(error.into()))?;
            write_whole(&self.path, &bytes).map_err(|source| self.error(source))?;
        }
        Ok(std::mem::replace(&mut self.given, given))
    }

    fn error(&self, source: io::Error) -> Error {
        Error::State { path: self.path.clone(), source }
    }
}
