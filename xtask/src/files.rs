//! Which files belong to the project: what git tracks or would track; without git, everything but build output.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::shell::read;

/// Every file under `root`, relative to it, in order.
pub(crate) fn list(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = match by_git(root) {
        Some(files) => files,
        None => {
            let mut files = Vec::new();
            walk(root, Path::new(""), &mut files)?;
            files
        }
    };
    files.sort();
    files.dedup();
    Ok(files)
}

/// New files count too: what is checked before a commit is what will be in it.
fn by_git(root: &Path) -> Option<Vec<PathBuf>> {
    if !root.join(".git").exists() {
        return None;
    }
    let mut git = Command::new("git");
    git.current_dir(root).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let names = read(&mut git)?;
    let files = names.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from);
    Some(files.filter(|file| root.join(file).is_file()).collect())
}

fn walk(root: &Path, dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let here = root.join(dir);
    for entry in fs::read_dir(&here).with_context(|| format!("cannot read {}", here.display()))? {
        let entry = entry.with_context(|| format!("cannot read {}", here.display()))?;
        let path = dir.join(entry.file_name());
        let kind = entry.file_type().with_context(|| format!("cannot look at {}", path.display()))?;
        if kind.is_dir() && !["target", ".git"].iter().any(|skip| entry.file_name() == *skip) {
            walk(root, &path, files)?;
        } else if kind.is_file() {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_output_is_no_file_of_the_project() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["a/b.rs", "target/debug/c.rs", "d.md"] {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        assert_eq!(list(dir.path()).unwrap(), [PathBuf::from("a/b.rs"), PathBuf::from("d.md")]);
    }
}
