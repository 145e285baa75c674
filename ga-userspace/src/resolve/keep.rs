//! The last good answers on disk, so that a restart while nobody answers takes no endpoint away.

use std::{
    collections::BTreeMap,
    fs, io,
    io::Write as _,
    net::IpAddr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::model::{Hosts, unusable};

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// By domain.
    #[serde(default)]
    pub domains: BTreeMap<String, KeptDomain>,
    /// The last good text of `inventory.file`, and of `inventory.url`, by path and address.
    #[serde(default)]
    pub inventories: BTreeMap<String, KeptInventory>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptDomain {
    /// Ascending.
    pub addresses: Vec<IpAddr>,
    /// In seconds since 1970.
    pub learned_at: u64,
}

/// An inventory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptInventory {
    /// Its names.
    pub hosts: Hosts,
    /// In seconds since 1970.
    pub learned_at: u64,
}

/// The file.
#[derive(Clone, Debug)]
pub struct KeptFile(PathBuf);

impl KeptFile {
    /// In the agent's state directory.
    pub fn in_dir(state_dir: &Path) -> Self {
        Self(state_dir.join("addresses.json"))
    }

    /// What was kept; nothing when there is no file, or one that is damaged: it is a memory, and names are asked for anyway.
    pub fn read(&self) -> Kept {
        let read = fs::read(&self.0).and_then(|bytes| Ok(serde_json::from_slice::<Kept>(&bytes)?));
        match read {
            Ok(mut kept) => {
                for domain in kept.domains.values_mut() {
                    domain.addresses.retain(|address| unusable(*address).is_none());
                }
                kept
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Kept::default(),
            Err(error) => {
                tracing::warn!("{}: {error}; addresses from before the start are not known", self.0.display());
                Kept::default()
            }
        }
    }

    /// Replaces what was kept; the file is never half written.
    pub fn write(&self, kept: &Kept) -> io::Result<()> {
        let new = self.0.with_extension("new");
        let mut file = fs::File::create(&new)?;
        file.write_all(&serde_json::to_vec(kept)?)?;
        file.sync_all()?;
        fs::rename(&new, &self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_survives_and_a_damaged_file_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = KeptFile::in_dir(dir.path());
        assert_eq!(file.read(), Kept::default());
        let domain = KeptDomain { addresses: vec!["192.0.2.1".parse().unwrap()], learned_at: 7 };
        let inventory = KeptInventory { hosts: [("web".to_owned(), vec!["10.0.0.1".parse().unwrap()])].into(), learned_at: 8 };
        let kept = Kept { domains: [("a.test".to_owned(), domain)].into(), inventories: [("/x".to_owned(), inventory)].into() };
        file.write(&kept).unwrap();
        assert_eq!(file.read(), kept);
        fs::write(dir.path().join("addresses.json"), "{ half").unwrap();
        assert_eq!(file.read(), Kept::default());
    }
}
