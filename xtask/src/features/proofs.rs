//! Finds proofs: `// proves: A01, C03` above a `#[test]`, and `# proves: A05` in a corpus file.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::{Proofs, Row};

const CODE_MARK: &str = "// proves:";
const DATA_MARK: &str = "# proves:";

/// Every proof in `files` (relative to `root`). This folder's own tests speak of proofs without being any.
pub(super) fn scan(root: &Path, files: &[PathBuf], rows: &[Row]) -> Result<Proofs> {
    let mut proofs = Proofs::new();
    for file in files {
        let code = file.extension().is_some_and(|extension| extension == "rs");
        let data = file.extension().is_some_and(|extension| extension == "toml") && file.starts_with("tests");
        if file.starts_with("xtask") || !(code || data) {
            continue;
        }
        let text = fs::read_to_string(root.join(file)).with_context(|| format!("cannot read {}", file.display()))?;
        let found = if code { in_code(file, &text)? } else { in_data(file, &text) };
        for Found { line, ids, test } in found {
            for id in ids.split(',').map(str::trim) {
                if !rows.iter().any(|row| row.id == id) {
                    bail!("{}:{line}: `{id}` is no feature; `cargo xtask features` lists them", file.display());
                }
                let tests = proofs.entry(id.to_owned()).or_default();
                if !tests.contains(&test) {
                    tests.push(test.clone());
                }
            }
        }
    }
    Ok(proofs)
}

struct Found<'a> {
    line: usize,
    ids: &'a str,
    test: String,
}

fn in_data<'a>(file: &Path, text: &'a str) -> Vec<Found<'a>> {
    let numbered = text.lines().enumerate();
    let test = file.display().to_string();
    numbered
        .filter_map(|(at, line)| Some(Found { line: at + 1, ids: line.trim().strip_prefix(DATA_MARK)?, test: test.clone() }))
        .collect()
}

fn in_code<'a>(file: &Path, text: &'a str) -> Result<Vec<Found<'a>>> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(ids) = line.strip_prefix(CODE_MARK) else { continue };
        let Some(name) = test_below(&lines[at + 1..]) else {
            bail!("{}:{}: `{CODE_MARK}` must stand directly above a #[test]", file.display(), at + 1);
        };
        found.push(Found { line: at + 1, ids, test: format!("{}::{name}", module(file)) });
    }
    Ok(found)
}

/// The function under a mark: comments and attributes may stand between, one of them makes it a test, none ignores it.
fn test_below<'a>(lines: &[&'a str]) -> Option<&'a str> {
    let mut is_test = false;
    let mut in_attribute = false;
    for line in lines {
        if in_attribute {
            in_attribute = !line.ends_with(']');
        } else if line.starts_with("#[") {
            is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            if line.starts_with("#[ignore") {
                return None;
            }
            in_attribute = !line.contains(']');
        } else if !line.starts_with("//") {
            let name = line.split("fn ").nth(1)?.split(['(', '<']).next()?;
            return is_test.then_some(name);
        }
    }
    None
}

/// `ga-userspace/src/plan/maglev.rs` is `ga-userspace::plan::maglev`; `tests/tests/netns_tcp.rs` is `netns_tcp`.
fn module(file: &Path) -> String {
    let text = file.with_extension("").display().to_string();
    let text = text.strip_prefix("tests/tests/").unwrap_or(&text).replace("/src/", "/");
    let text = text.strip_suffix("/mod").or(text.strip_suffix("/lib")).or(text.strip_suffix("/main")).unwrap_or(&text);
    text.replace('/', "::")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::rows;

    fn scan_one(name: &str, text: &str) -> Result<Proofs> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        scan(dir.path(), &[PathBuf::from(name)], &rows())
    }

    #[test]
    fn a_mark_above_a_test_proves_every_id_it_names() {
        let text = "// proves: A01, C03\n#[tokio::test(flavor = \"current_thread\")]\n/// why\nasync fn holds() {}\n";
        let proofs = scan_one("ga-userspace/src/plan/mod.rs", text).unwrap();
        assert_eq!(proofs["A01"], ["ga-userspace::plan::holds"]);
        assert_eq!(proofs["C03"], ["ga-userspace::plan::holds"]);
    }

    #[test]
    fn attributes_may_stand_between_over_several_lines() {
        let text = "// proves: A05\n#[expect(\n    clippy::x,\n    reason = \"y\"\n)]\n#[test]\nfn holds() {}\n";
        assert_eq!(scan_one("tests/tests/netns_tcp.rs", text).unwrap()["A05"], ["netns_tcp::holds"]);
    }

    #[test]
    fn a_data_file_proves_by_its_path() {
        let proofs = scan_one("tests/corpus/syn.toml", "# proves: A05\n# proves: A05\nx = 1\n").unwrap();
        assert_eq!(proofs["A05"], ["tests/corpus/syn.toml"]);
        assert!(scan_one("config/ga.toml", "# proves: A05\n").unwrap().is_empty());
    }

    #[test]
    fn an_unknown_id_is_an_error() {
        let error = scan_one("ga-common/src/lib.rs", "// proves: Z99\n#[test]\nfn holds() {}\n").unwrap_err();
        assert!(error.to_string().contains("Z99"), "{error}");
    }

    #[test]
    fn a_mark_above_anything_else_is_an_error() {
        for below in ["fn helper() {}\n", "\n#[test]\nfn late() {}\n", "#[test]\n#[ignore]\nfn asleep() {}\n", ""] {
            assert!(scan_one("ga-common/src/lib.rs", &format!("// proves: A01\n{below}")).is_err(), "{below}");
        }
    }
}
