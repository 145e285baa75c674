//! `cargo xtask tidy`: what the compiler does not check about the layout. Each check is a function from the tree to its problems.

mod abi;
mod code;
mod layers;
mod prose;
mod shape;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{files, shell};

/// Something that is not as it must be, and how to mend it.
#[derive(Debug, PartialEq, Eq)]
struct Problem {
    file: PathBuf,
    /// Zero where the whole file is meant.
    line: usize,
    message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file.display(), self.message),
            line => write!(f, "{}:{line}: {}", self.file.display(), self.message),
        }
    }
}

/// The text files of the project.
struct Tree {
    root: PathBuf,
    files: Vec<File>,
}

/// One of them, its path relative to the root.
struct File {
    path: PathBuf,
    text: String,
}

impl File {
    fn is_rust(&self) -> bool {
        self.path.extension().is_some_and(|extension| extension == "rs")
    }

    fn problem(&self, line: usize, message: impl Into<String>) -> Problem {
        Problem { file: self.path.clone(), line, message: message.into() }
    }
}

impl Tree {
    /// Reads every text file; what is not UTF-8 is data and has no lines.
    fn read(root: &Path) -> Result<Self> {
        let mut texts = Vec::new();
        for path in files::list(root)? {
            let bytes = fs::read(root.join(&path)).with_context(|| format!("cannot read {}", path.display()))?;
            if let Ok(text) = String::from_utf8(bytes) {
                texts.push(File { path, text });
            }
        }
        Ok(Self { root: root.to_owned(), files: texts })
    }

    fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.is_rust())
    }

    fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == Path::new(path))
    }

    /// The folders directly inside `parent`, in order.
    fn folders(&self, parent: &str) -> Vec<&str> {
        let parent = Path::new(parent);
        let mut names: Vec<&str> = self
            .files
            .iter()
            .filter_map(|file| file.path.strip_prefix(parent).ok())
            .filter(|path| path.components().count() > 1)
            .filter_map(|path| path.iter().next()?.to_str())
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// A check, and what it looks after.
type Check = (&'static str, fn(&Tree) -> Vec<Problem>);

const CHECKS: [Check; 9] = [
    ("every file says what it is", shape::first_lines),
    ("files fit a reader's head", shape::lengths),
    ("unsafe stays in its rooms", shape::unsafe_rooms),
    ("every crate has the workspace's lints", shape::lints),
    ("imports follow the arrows", layers::arrows),
    ("pure rooms touch nothing", layers::purity),
    ("the README's map is whole", prose::map),
    ("links lead somewhere", prose::links),
    ("no file knows a machine", prose::machines),
];

/// Runs every check; with `bless`, first writes the lock of the map layouts.
pub(crate) fn run(bless: bool) -> Result<()> {
    let root = shell::root();
    if bless {
        abi::bless(&Tree::read(root)?)?;
        println!("tidy: wrote {}", abi::LOCK);
    }
    let tree = Tree::read(root)?;
    let mut count = 0;
    for (what, check) in CHECKS.iter().chain(&[("map layouts and their number agree", abi::check as fn(&Tree) -> Vec<Problem>)]) {
        let problems = check(&tree);
        println!("{} {what}", if problems.is_empty() { "✓" } else { "✗" });
        for problem in &problems {
            println!("    {problem}");
        }
        count += problems.len();
    }
    if count > 0 {
        bail!("tidy: {count} problems, listed above");
    }
    Ok(())
}

/// A tree of a few files, for the tests of the checks.
#[cfg(test)]
fn fixture(files: &[(&str, &str)]) -> (tempfile::TempDir, Tree) {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let tree = Tree::read(dir.path()).unwrap();
    (dir, tree)
}

/// The problems a check finds in such a tree.
#[cfg(test)]
fn found(check: fn(&Tree) -> Vec<Problem>, files: &[(&str, &str)]) -> Vec<String> {
    let (_dir, tree) = fixture(files);
    check(&tree).iter().map(ToString::to_string).collect()
}
