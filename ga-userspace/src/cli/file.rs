//! Configuration files on the command line.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown},
    path::Path,
};

use super::{Context, Exit, Failure};
use crate::config::{self, Loaded};

/// The text of a file.
pub(super) fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).map_err(|error| Failure::new(Exit::Usage, format!("{}: {error}", path.display())).into())
}

/// A file without errors; otherwise the errors are the failure.
pub(super) fn load(path: &Path, _context: &Context) -> anyhow::Result<Loaded> {
    let text = read(path)?;
    config::parse(&path.display().to_string(), &text).map_err(|report| {
        let mut message = String::new();
        // Writing to a String cannot fail.
        config::render::report(&mut message, &report, &text, config::render::Style::Plain).unwrap_or_default();
        Failure::new(Exit::Negative, message).into()
    })
}

/// Puts `new` in the place of `old`, all of it or nothing; mode and owner stay. What changed meanwhile is not overwritten.
pub(super) fn replace(path: &Path, old: &str, new: &str) -> anyhow::Result<()> {
    let refuse = |what: &str, error: &io::Error| Failure::new(Exit::Kernel, format!("{}: {what}: {error}", path.display()));
    // A link stays one: what it leads to is replaced.
    let real = fs::canonicalize(path).map_err(|error| refuse("cannot be found", &error))?;
    let mut name = std::ffi::OsString::from(".");
    name.push(real.file_name().unwrap_or_default());
    name.push(format!(".{}.new", std::process::id()));
    let beside = real.with_file_name(name);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside);
    let mut file = file.map_err(|error| refuse("nothing can be written beside it", &error))?;
    let exchanged = exchange(&mut file, &beside, &real, old, new);
    if exchanged.is_err() {
        fs::remove_file(&beside).unwrap_or_default();
    }
    match exchanged {
        Ok(true) => Ok(()),
        Ok(false) => {
            let message = format!("{} changed while it was looked at; nothing was written, try again", path.display());
            Err(Failure::new(Exit::Conflict, message).into())
        }
        Err(error) => Err(refuse("cannot be written", &error).into()),
    }
}

/// Whether it was done; not when the file is another one than it was.
fn exchange(file: &mut File, beside: &Path, real: &Path, old: &str, new: &str) -> io::Result<bool> {
    let (now, made) = (fs::metadata(real)?, file.metadata()?);
    file.write_all(new.as_bytes())?;
    if (now.uid(), now.gid()) != (made.uid(), made.gid()) {
        fchown(&*file, Some(now.uid()), Some(now.gid()))?;
    }
    file.set_permissions(now.permissions())?;
    file.sync_all()?;
    if fs::read_to_string(real)? != old {
        fs::remove_file(beside)?;
        return Ok(false);
    }
    fs::rename(beside, real)?;
    real.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_with_its_mode_through_a_link_and_not_when_it_changed() {
        let folder = tempfile::tempdir().expect("a writable /tmp");
        let (real, link) = (folder.path().join("real.toml"), folder.path().join("link.toml"));
        fs::write(&real, "old").expect("written");
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).expect("ours");
        std::os::unix::fs::symlink(&real, &link).expect("made");
        replace(&link, "old", "new").expect("replaced");
        assert_eq!(fs::read_to_string(&real).expect("there"), "new");
        assert_eq!(fs::metadata(&real).expect("there").mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink());

        let changed = replace(&real, "old", "newer").expect_err("it is \"new\" by now");
        assert!(changed.to_string().contains("changed while it was looked at"), "{changed}");
        assert_eq!(fs::read_to_string(&real).expect("there"), "new");
        assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 2, "nothing is left beside it");
    }
}
