//! `cargo xtask features`: which promised feature is proven by which test; the lock and the README's table that follow from it.

mod proofs;
mod table;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::{ErrorKind, Write as _},
    path::Path,
};

use anyhow::{Context as _, Result, bail};

use crate::{files, shell};

const ROWS: &str = include_str!("rows.tsv");
const LOCK: &str = "docs/features.lock";
const README: &str = "README.md";

/// A section of the checklist: its letter and its title.
const SECTIONS: [(char, &str); 12] = [
    ('A', "Listeners"),
    ('B', "Endpoint groups"),
    ('C', "Endpoints and weights"),
    ('D', "Port mapping and backend protocol"),
    ('E', "Health checks"),
    ('F', "Client address"),
    ('G', "Forwarding rules"),
    ('H', "TLS and HTTP versions"),
    ('I', "Access lists"),
    ('J', "Custom routing"),
    ('K', "Server groups"),
    ('L', "Operation"),
];

/// A row of the checklist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    /// `A01` ...
    pub(crate) id: &'static str,
    /// The feature in a few words.
    pub(crate) title: &'static str,
}

/// Feature id to the tests that prove it.
pub(crate) type Proofs = BTreeMap<String, Vec<String>>;

/// What the subcommand does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// One line a row.
    Print,
    /// Compare with the lock and the README.
    Check,
    /// Rewrite both.
    Write,
}

/// Scans the workspace and acts.
pub(crate) fn run(action: Action) -> Result<()> {
    let root = shell::root();
    let rows = rows();
    let proofs = proofs::scan(root, &files::list(root)?, &rows)?;
    match action {
        Action::Print => print(&rows, &proofs),
        Action::Check => check(root, &rows, &proofs),
        Action::Write => write(root, &rows, &proofs),
    }
}

fn print(rows: &[Row], proofs: &Proofs) -> Result<()> {
    let mut text = String::new();
    for row in rows {
        let tests = proofs.get(row.id).map(|tests| tests.join(" ")).unwrap_or_default();
        writeln!(text, "{}\t{}\t{tests}", row.id, if tests.is_empty() { "missing" } else { "proven" })?;
    }
    match std::io::stdout().write_all(text.as_bytes()) {
        // A reader such as `head` that has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        written => written.context("cannot print")?,
    }
    eprintln!("{} of {} features proven", proofs.len(), rows.len());
    Ok(())
}

fn rows() -> Vec<Row> {
    let lines = ROWS.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once('\t')).map(|(id, title)| Row { id, title }).collect()
}

fn check(root: &Path, rows: &[Row], proofs: &Proofs) -> Result<()> {
    let lock = fs::read_to_string(root.join(LOCK))
        .with_context(|| format!("cannot read {LOCK}; `cargo xtask features --write` makes it"))?;
    let locked: Vec<&str> = lock.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let lost: Vec<&str> = locked.iter().copied().filter(|id| !proofs.contains_key(*id)).collect();
    if !lost.is_empty() {
        bail!("no longer proven: {}; bring their tests back (a proof is `// proves: ID` above a #[test])", lost.join(", "));
    }
    let new: Vec<&str> = proofs.keys().map(String::as_str).filter(|id| !locked.contains(id)).collect();
    if !new.is_empty() {
        bail!("newly proven, not in {LOCK}: {}; run `cargo xtask features --write` and commit", new.join(", "));
    }
    let readme = read_readme(root)?;
    if table::replace(&readme, &table::render(rows, proofs)?)? != readme {
        bail!("the feature table of {README} is out of date; run `cargo xtask features --write` and commit");
    }
    println!("features: {} of {} proven, none lost, {README} agrees", proofs.len(), rows.len());
    Ok(())
}

fn write(root: &Path, rows: &[Row], proofs: &Proofs) -> Result<()> {
    let mut lock =
        "# Features proven by a test; written by `cargo xtask features --write`. A line leaves only with its feature.\n"
            .to_owned();
    for id in proofs.keys() {
        lock.push_str(id);
        lock.push('\n');
    }
    let path = root.join(LOCK);
    fs::create_dir_all(root.join("docs")).context("cannot create docs/")?;
    fs::write(&path, lock).with_context(|| format!("cannot write {LOCK}"))?;
    let readme = read_readme(root)?;
    fs::write(root.join(README), table::replace(&readme, &table::render(rows, proofs)?)?)
        .with_context(|| format!("cannot write {README}"))?;
    println!("features: wrote {LOCK} and the table of {README}, {} of {} proven", proofs.len(), rows.len());
    Ok(())
}

fn read_readme(root: &Path) -> Result<String> {
    let (begin, end) = table::MARKERS;
    fs::read_to_string(root.join(README))
        .with_context(|| format!("cannot read {README}; it holds the table between {begin} and {end}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(lock: &str, proven: &[&str]) -> (tempfile::TempDir, Proofs) {
        let dir = tempfile::tempdir().unwrap();
        let proofs: Proofs = proven.iter().map(|id| ((*id).to_owned(), vec!["t::t".to_owned()])).collect();
        let table = table::render(&rows(), &proofs).unwrap();
        let readme = format!("x\n{}\n{}\n", table::MARKERS.0, table::MARKERS.1);
        fs::write(dir.path().join(README), table::replace(&readme, &table).unwrap()).unwrap();
        fs::create_dir(dir.path().join("docs")).unwrap();
        fs::write(dir.path().join(LOCK), lock).unwrap();
        (dir, proofs)
    }

    #[test]
    fn the_checklist_is_whole_ordered_and_sectioned() {
        let rows = rows();
        assert_eq!(rows.len(), 141);
        assert!(rows.windows(2).all(|pair| pair[0].id < pair[1].id));
        assert!(rows.iter().all(|row| SECTIONS.iter().any(|(letter, _)| row.id.starts_with(*letter))));
    }

    #[test]
    fn a_feature_that_lost_its_proof_fails_the_check() {
        let (dir, proofs) = fixture("A01\nA02\n", &["A01"]);
        assert!(check(dir.path(), &rows(), &proofs).unwrap_err().to_string().contains("no longer proven: A02"));
    }

    #[test]
    fn a_new_proof_asks_for_a_new_lock() {
        let (dir, proofs) = fixture("A01\n", &["A01", "A02"]);
        assert!(check(dir.path(), &rows(), &proofs).unwrap_err().to_string().contains("A02"));
    }

    #[test]
    fn a_stale_readme_fails_the_check_and_write_mends_it() {
        let (dir, proofs) = fixture("A01\n", &["A01"]);
        let readme = dir.path().join(README);
        let text = fs::read_to_string(&readme).unwrap().replace("TCP listener", "TCP listner");
        fs::write(&readme, text).unwrap();
        assert!(check(dir.path(), &rows(), &proofs).unwrap_err().to_string().contains("out of date"));
        write(dir.path(), &rows(), &proofs).unwrap();
        check(dir.path(), &rows(), &proofs).unwrap();
    }
}
