//! What is written for people: the README's map, links, and words that only one machine understands.

use std::path::{Component, Path, PathBuf};

use super::{Problem, Tree};

const README: &str = "README.md";

/// Folders whose own folders are rooms.
const ROOMS: [&str; 2] = ["ga-common/src", "ga-userspace/src"];

/// Paths and hosts of somebody's machine. In two halves, so that this file does not hold them.
const MACHINE_PATHS: [(&str, &str); 3] = [("/wo", "rk/"), ("/ro", "ot/"), ("/tmp", "/wt")];
const MACHINE_HOSTS: [(&str, &str); 9] = [
    ("index.cra", "tes.io"),
    ("static.cra", "tes.io"),
    ("proxy.gol", "ang.org"),
    ("registry.np", "mjs.org"),
    ("files.python", "hosted.org"),
    ("deb.deb", "ian.org"),
    ("art", "ifactory"),
    ("jfr", "og.io"),
    ("sparse+h", "ttp"),
];

/// The README names every folder at the top and every room.
pub(super) fn map(tree: &Tree) -> Vec<Problem> {
    let Some(readme) = tree.file(README) else {
        return vec![Problem { file: README.into(), line: 0, message: "is missing; it holds the map of the folders".into() }];
    };
    let top = tree.folders("").into_iter().filter(|name| !name.starts_with('.'));
    let rooms = ROOMS.iter().flat_map(|parent| tree.folders(parent));
    let unnamed =
        top.chain(rooms).filter(|name| !readme.text.contains(&format!("{name}/")) && !readme.text.contains(&format!("`{name}`")));
    unnamed
        .map(|name| readme.problem(0, format!("the map does not name `{name}/`: add a line that says what is in it")))
        .collect()
}

/// Every relative link of a Markdown file leads to a file or folder.
pub(super) fn links(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for file in tree.files.iter().filter(|file| file.path.extension().is_some_and(|extension| extension == "md")) {
        let mut in_code = false;
        for (at, line) in file.text.lines().enumerate() {
            in_code ^= line.trim_start().starts_with("```");
            if in_code {
                continue;
            }
            for target in line.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next()) {
                let path = target.split('#').next().unwrap_or_default();
                if !path.is_empty() && !is_elsewhere(path) && !leads_somewhere(tree, &file.path, path) {
                    problems.push(file.problem(at + 1, format!("link to `{target}` leads nowhere")));
                }
            }
        }
    }
    problems
}

fn is_elsewhere(target: &str) -> bool {
    target.contains("://") || target.starts_with("mailto:")
}

/// A link may not leave the project, nor point at something that is not part of it.
fn leads_somewhere(tree: &Tree, from: &Path, target: &str) -> bool {
    let mut path = PathBuf::new();
    for part in from.parent().unwrap_or(Path::new("")).join(target).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::ParentDir if !path.pop() => return false,
            Component::ParentDir | Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    tree.root.join(&path).exists() && (path.as_os_str().is_empty() || tree.files.iter().any(|file| file.path.starts_with(&path)))
}

/// No line holds a path or a host of one machine.
pub(super) fn machines(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for file in &tree.files {
        for (at, line) in file.text.lines().enumerate() {
            let path = MACHINE_PATHS.iter().map(|(a, b)| format!("{a}{b}")).find(|path| has_path(line, path));
            let host = || MACHINE_HOSTS.iter().map(|(a, b)| format!("{a}{b}")).find(|host| line.contains(host.as_str()));
            if let Some(found) = path.or_else(host) {
                problems.push(file.problem(at + 1, format!("`{found}` means something on one machine only: say it without")));
            }
        }
    }
    problems
}

/// Whether an absolute path begins so; the same letters inside a longer path mean something else.
fn has_path(line: &str, path: &str) -> bool {
    let begins = |before: Option<char>| before.is_none_or(|c| c.is_whitespace() || "\"'`(=<[:,".contains(c));
    line.match_indices(path).any(|(at, _)| begins(line[..at].chars().next_back()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::found;

    #[test]
    fn a_folder_or_room_that_the_map_leaves_out_is_found() {
        let files = [
            (README, "ga-common/ and `ga-userspace` with plan/\n"),
            (".ci/run", ""),
            ("ga-common/src/wire/mod.rs", ""),
            ("ga-userspace/src/plan/mod.rs", ""),
            ("extra/file", ""),
        ];
        let found = found(map, &files);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("`extra/`") && found[1].contains("`wire/`"));
    }

    #[test]
    fn a_project_without_a_readme_has_no_map() {
        assert_eq!(found(map, &[("a/b", "")]).len(), 1);
    }

    #[test]
    fn a_dead_link_is_found_and_living_ones_are_not() {
        let text =
            "[a](b.md#part) [c](../x/) [d](https://e.f/g) [h](#i)\n```\n[no](link.md)\n```\n[dead](gone.md) [out](../../etc)\n";
        let found = found(links, &[("docs/a.md", text), ("docs/b.md", ""), ("x/y", "")]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("docs/a.md:5: link to `gone.md`"));
    }

    #[test]
    fn every_machine_word_is_found_and_its_likes_are_not() {
        for (a, b) in MACHINE_PATHS.iter().chain(&MACHINE_HOSTS) {
            let line = format!("see \"{a}{b}x\"\n");
            assert_eq!(found(machines, &[("a.toml", &line)]).len(), 1, "{line}");
        }
        let line = format!("https://example.org{}{}x and target{0}{1}\n", MACHINE_PATHS[0].0, MACHINE_PATHS[0].1);
        assert_eq!(found(machines, &[("a.md", &line)]), Vec::<String>::new());
    }
}
