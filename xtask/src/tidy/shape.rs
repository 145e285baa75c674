//! The shape of single files: first line, length, `unsafe`, lints.

use super::{
    File, Problem, Tree,
    code::{bare, line_of, production, words},
};

/// Past this a file is two rooms.
const LONGEST: usize = 600;

/// Where `unsafe` may stand: the kernel program, the map types, and what loads and maps them.
/// Besides the rooms, the build script: it sets variables for the compiler it starts.
const UNSAFE_ROOMS: [&str; 5] =
    ["ga-ebpf", "ga-common", "ga-userspace/src/program", "ga-userspace/src/maps", "ga-userspace/build.rs"];

/// Every Rust file begins with a `//!` sentence.
pub(super) fn first_lines(tree: &Tree) -> Vec<Problem> {
    let silent = tree.rust().filter(|file| !file.text.starts_with("//! "));
    silent.map(|file| file.problem(1, "the first line must be `//!` and one sentence that says what the file is")).collect()
}

/// No file is longer than a reader can hold; tests excepted.
pub(super) fn lengths(tree: &Tree) -> Vec<Problem> {
    let code = tree.rust().filter(|file| !is_test(file));
    code.filter_map(|file| {
        let lines = production(&file.text).lines().count();
        (lines > LONGEST).then(|| file.problem(0, format!("{lines} lines, {LONGEST} at most: split it by what its parts touch")))
    })
    .collect()
}

fn is_test(file: &File) -> bool {
    file.path.iter().any(|part| part == "tests" || part == "tests.rs")
}

/// `unsafe` only where it is unavoidable.
pub(super) fn unsafe_rooms(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for file in tree.rust().filter(|file| !UNSAFE_ROOMS.iter().any(|room| file.path.starts_with(room))) {
        let code = bare(&file.text);
        for at in words(&code, "unsafe") {
            let message = format!("`unsafe` may stand only in {}: move it there, or use a safe crate", UNSAFE_ROOMS.join(", "));
            problems.push(file.problem(line_of(&code, at), message));
        }
    }
    problems
}

/// Every crate of the workspace takes its lints from there.
pub(super) fn lints(tree: &Tree) -> Vec<Problem> {
    let manifests = tree.files.iter().filter(|file| file.path.file_name().is_some_and(|name| name == "Cargo.toml"));
    let crates = manifests.filter(|file| has_line(&file.text, "[package]") && !has_line(&file.text, "[workspace]"));
    crates
        .filter(|file| {
            let below = file.text.lines().map(str::trim).skip_while(|line| *line != "[lints]").skip(1);
            !below.take_while(|line| !line.starts_with('[')).any(|line| line.replace(' ', "") == "workspace=true")
        })
        .map(|file| file.problem(0, "add `[lints]` with `workspace = true`"))
        .collect()
}

fn has_line(text: &str, wanted: &str) -> bool {
    text.lines().any(|line| line.trim() == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::found;

    #[test]
    fn a_file_without_its_sentence_is_found() {
        let files = [("a/src/lib.rs", "//! Says it.\n"), ("a/src/mute.rs", "use x;\n"), ("a/build.rs", "fn main() {}\n")];
        assert_eq!(found(first_lines, &files).len(), 2);
    }

    #[test]
    fn a_long_file_is_found_and_long_tests_are_not() {
        let long = "x\n".repeat(LONGEST + 1);
        let with_tests = format!("x\n#[cfg(test)]\nmod tests {{\n{long}}}\n");
        let files = [("a/src/long.rs", long.as_str()), ("a/src/short.rs", &with_tests), ("a/tests/long.rs", &long)];
        let found = found(lengths, &files);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("a/src/long.rs: 601 lines"));
    }

    #[test]
    fn unsafe_outside_its_rooms_is_found_and_talk_of_it_is_not() {
        let files = [
            ("ga-userspace/src/plan/mod.rs", "//! unsafe\n#![forbid(unsafe_code)]\nlet s = \"unsafe\";\nunsafe { x() }\n"),
            ("ga-userspace/src/maps/mod.rs", "unsafe { x() }\n"),
            ("ga-ebpf/src/main.rs", "unsafe { x() }\n"),
        ];
        let found = found(unsafe_rooms, &files);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("ga-userspace/src/plan/mod.rs:4:"), "{found:?}");
    }

    #[test]
    fn a_crate_without_the_lints_is_found() {
        let files = [
            ("Cargo.toml", "[workspace]\nmembers = []\n"),
            ("good/Cargo.toml", "[package]\nname = \"g\"\n\n[lints]\nworkspace = true\n"),
            ("own/Cargo.toml", "[package]\nname = \"o\"\n[workspace]\n"),
            (
                "bad/Cargo.toml",
                "[package]\nname = \"b\"\nversion.workspace = true\n\n[lints]\nrust.x = \"warn\"\n[a]\nworkspace = true\n",
            ),
        ];
        let found = found(lints, &files);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("bad/Cargo.toml"));
    }
}
