//! The map layouts and their number: a changed layout under an old number would make a new agent misread pinned maps.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use super::{Problem, Tree, code::production};

/// Where the number and the fingerprint are kept.
pub(super) const LOCK: &str = "ga-common/abi.lock";

const LAYOUTS: &str = "ga-common/src/abi";
const CONSTANT: &str = "const ABI_VERSION: u32 =";

/// What the lock holds.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Abi {
    version: String,
    hash: String,
}

/// Compares the layouts with the lock.
pub(super) fn check(tree: &Tree) -> Vec<Problem> {
    let problem = |message: String| vec![Problem { file: LOCK.into(), line: 0, message }];
    let Some(now) = read(tree) else { return problem(format!("{LAYOUTS} has no line `pub {CONSTANT} …;`")) };
    let Some(locked) = tree.file(LOCK).and_then(|file| parse(&file.text)) else {
        return problem("is missing or unreadable; `cargo xtask tidy --bless` writes it".into());
    };
    if now == locked {
        Vec::new()
    } else if now.version == locked.version {
        problem(format!(
            "the layouts in {LAYOUTS} changed but ABI_VERSION is still {}: an agent that adopts maps pinned by the old one would \
             misread them. Raise ABI_VERSION if a release has carried it, then run `cargo xtask tidy --bless`",
            now.version
        ))
    } else {
        problem(format!("holds ABI_VERSION {}, the code says {}: run `cargo xtask tidy --bless`", locked.version, now.version))
    }
}

/// Writes the lock.
pub(super) fn bless(tree: &Tree) -> Result<()> {
    let abi = read(tree).with_context(|| format!("{LAYOUTS} has no line `pub {CONSTANT} …;`"))?;
    let text = format!(
        "# The map layouts that ABI_VERSION stands for; written by `cargo xtask tidy --bless`.\nversion = {}\nhash = {}\n",
        abi.version, abi.hash
    );
    fs::write(tree.root.join(LOCK), text).with_context(|| format!("cannot write {LOCK}"))
}

fn parse(lock: &str) -> Option<Abi> {
    let value = |key: &str| lock.lines().find_map(|line| Some(line.strip_prefix(key)?.strip_prefix(" = ")?.to_owned()));
    Some(Abi { version: value("version")?, hash: value("hash")? })
}

fn read(tree: &Tree) -> Option<Abi> {
    let layouts = || tree.rust().filter(|file| file.path.parent() == Some(Path::new(LAYOUTS)));
    let version = layouts().find_map(|file| Some(file.text.split_once(CONSTANT)?.1.split(';').next()?.trim().to_owned()))?;
    let mut hash = Fnv::NEW;
    for file in layouts() {
        hash = hash.add(file.path.as_os_str().as_encoded_bytes());
        for line in production(&file.text).lines().map(str::trim).filter(|line| is_code(line)) {
            hash = hash.add(line.as_bytes());
        }
    }
    Some(Abi { version, hash: format!("{:016x}", hash.0) })
}

/// Comments move no field; neither does the number itself.
fn is_code(line: &str) -> bool {
    !line.is_empty() && !line.starts_with("//") && !line.contains(CONSTANT)
}

/// FNV-1a, 64 bits: the standard library's hasher may change between releases.
#[derive(Clone, Copy)]
struct Fnv(u64);

impl Fnv {
    const NEW: Self = Self(0xcbf2_9ce4_8422_2325);

    fn add(self, bytes: &[u8]) -> Self {
        let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        // A zero byte after each part, so that moving text between parts is a change.
        Self(step(bytes.iter().fold(self.0, step), &0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::fixture;

    const LIMITS: (&str, &str) = ("ga-common/src/abi/limits.rs", "//! x\npub const ABI_VERSION: u32 = 1;\n");
    const ENTRY: &str = "ga-common/src/abi/entry.rs";

    fn after_bless(change: impl FnOnce(&Path)) -> Vec<Problem> {
        let (dir, tree) = fixture(&[LIMITS, (ENTRY, "struct A { a: u32 }\n")]);
        bless(&tree).unwrap();
        change(dir.path());
        check(&Tree::read(dir.path()).unwrap())
    }

    #[test]
    fn blessed_layouts_pass_and_comments_change_nothing() {
        let problems = after_bless(|root| fs::write(root.join(ENTRY), "//! New words.\nstruct A { a: u32 }\n").unwrap());
        assert_eq!(problems, []);
    }

    #[test]
    fn a_changed_layout_under_the_old_number_is_found() {
        let problems = after_bless(|root| fs::write(root.join(ENTRY), "struct A { a: u64 }\n").unwrap());
        assert!(problems[0].message.contains("still 1"), "{problems:?}");
    }

    #[test]
    fn a_raised_number_asks_for_the_lock_alone() {
        let problems = after_bless(|root| fs::write(root.join(LIMITS.0), LIMITS.1.replace("= 1", "= 2")).unwrap());
        assert!(problems[0].message.contains("the code says 2"), "{problems:?}");
    }

    #[test]
    fn a_missing_lock_or_number_is_found() {
        assert_eq!(check(&fixture(&[LIMITS]).1).len(), 1);
        assert_eq!(check(&fixture(&[(ENTRY, "struct A;\n")]).1).len(), 1);
    }

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(Fnv::NEW.0, 0xcbf2_9ce4_8422_2325);
        // FNV-1a of "a" is af63dc4c8601ec8c; the closing zero byte multiplies once more.
        assert_eq!(Fnv::NEW.add(b"a").0, 0xaf63_dc4c_8601_ec8c_u64.wrapping_mul(0x0000_0100_0000_01b3));
    }
}
