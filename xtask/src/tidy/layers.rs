//! Who may import whom among the rooms of ga-userspace, and which rooms touch nothing outside. A new arrow is a reviewed change of
//! this file, with its why.

use std::path::Path;

use super::{
    File, Problem, Tree,
    code::{bare, line_of, production, words},
};

const SRC: &str = "ga-userspace/src";

/// A room, the rooms it may import, and whether it may import `ga_common`.
struct Room {
    name: &'static str,
    may: &'static [&'static str],
    common: bool,
}

const fn room(name: &'static str, may: &'static [&'static str], common: bool) -> Room {
    Room { name, may, common }
}

/// Everything but the two rooms that nobody imports.
const INNER: &[&str] = &[
    "source", "config", "model", "net", "trust", "resolve", "health", "plan", "maps", "program", "proxy", "fleet", "status",
    "metrics", "admin", "handover",
];

/// `agent` wires the rooms and `cli` is the way in, `ga run` included.
const INNER_AND_AGENT: &[&str] = &[
    "source", "config", "model", "net", "trust", "resolve", "health", "plan", "maps", "program", "proxy", "fleet", "status",
    "metrics", "admin", "handover", "agent",
];

const ROOMS: [Room; 18] = [
    room("source", &[], false),
    // Capacities of the maps are checked where the file is.
    room("config", &["model"], true),
    room("model", &[], false),
    // Whom others are believed to be: TLS as a client.
    room("trust", &[], false),
    room("health", &["model", "trust"], false),
    // What names stand for; the values go to the plan.
    room("resolve", &["model", "trust"], false),
    room("plan", &["model", "health", "resolve"], true),
    room("maps", &["plan"], true),
    // The mode is the model's word; interfaces are described by what netlink says of them.
    room("program", &["model", "net", "plan"], true),
    room("net", &[], true),
    room("proxy", &["model", "plan", "trust"], false),
    room("fleet", &["model", "health", "plan"], false),
    // The views that metrics, admin and the command line share.
    room("status", &["model", "plan"], true),
    room("metrics", &["status"], false),
    // It names what two agents speak when one takes over from the other.
    room("admin", &["status", "handover"], false),
    // Sockets from one process to the next.
    room("handover", &[], false),
    room("agent", INNER, true),
    room("cli", INNER_AND_AGENT, true),
];

/// Rooms, and the state machine of another, that take time and bytes as values.
const PURE: [&str; 8] = [
    "ga-userspace/src/config",
    "ga-userspace/src/model",
    "ga-userspace/src/plan",
    "ga-userspace/src/resolve/domain.rs",
    "ga-userspace/src/resolve/inventory.rs",
    "ga-userspace/src/health/belief.rs",
    "ga-userspace/src/health/order.rs",
    "ga-userspace/src/health/machine.rs",
];

/// Ways to the clock, to files, to sockets and to other processes.
const IMPURE: [&str; 13] = [
    "Instant::now",
    "SystemTime::now",
    "std::fs",
    "fs::read",
    "fs::read_to_string",
    "fs::write",
    "File::open",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "tokio",
    "env::var",
    "process::Command",
];

/// Imports go only along the arrows.
pub(super) fn arrows(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for file in tree.rust() {
        let Ok(inside) = file.path.strip_prefix(SRC) else { continue };
        let Some(name) = room_of(inside) else { continue };
        let Some(room) = ROOMS.iter().find(|room| room.name == name) else {
            problems.push(
                file.problem(0, format!("room `{name}` is in no table: say in xtask/src/tidy/layers.rs whom it may import")),
            );
            continue;
        };
        check_file(file, inside, room, &mut problems);
    }
    problems
}

fn check_file(file: &File, inside: &Path, room: &Room, problems: &mut Vec<Problem>) {
    let code = bare(production(&file.text));
    for (at, target) in imports(&code, depth(inside)) {
        // Names that are no room are the crate's own front door, not an arrow.
        let is_room = ROOMS.iter().any(|other| other.name == target);
        if is_room && target != room.name && !room.may.contains(&target) {
            let may = if room.may.is_empty() { "no other room".to_owned() } else { format!("only {}", room.may.join(", ")) };
            problems.push(file.problem(line_of(&code, at), format!("`{}` may import {may}, not `{target}`", room.name)));
        }
    }
    if !room.common {
        for at in words(&code, "ga_common") {
            problems.push(file.problem(line_of(&code, at), format!("`{}` may not know `ga_common`", room.name)));
        }
    }
}

/// The folder or file directly under src; `lib.rs` and `main.rs` only name the rooms.
fn room_of(inside: &Path) -> Option<&str> {
    let first = inside.iter().next()?.to_str()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (name != "lib" && name != "main").then_some(name)
}

/// How many `super` lead from a file's module to the crate's root.
fn depth(inside: &Path) -> usize {
    let parts = inside.components().count();
    if inside.file_name().is_some_and(|name| name == "mod.rs") { parts - 1 } else { parts }
}

/// Every name taken from the crate's root, and where: `crate::x`, `crate::{x, y::z}`, and `super::` chains that reach it.
fn imports(code: &str, depth: usize) -> Vec<(usize, &str)> {
    let up = "super::".repeat(depth);
    let by_name =
        words(code, "crate").filter(|at| code[at + "crate".len()..].starts_with("::")).map(|at| (at, at + "crate::".len()));
    let by_super = code.match_indices(&up).map(|(at, _)| (at, at + up.len())).filter(|(at, end)| {
        !code[..*at].ends_with("super::")
            && !code[..*at].ends_with(|c: char| c.is_alphanumeric())
            && !code[*end..].starts_with("super::")
    });
    by_name.chain(by_super).flat_map(|(at, end)| heads(&code[end..]).into_iter().map(move |head| (at, head))).collect()
}

/// The first name of a path, or of every path in a group.
fn heads(path: &str) -> Vec<&str> {
    let name = |text: &str| text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let Some(group) = path.strip_prefix('{') else { return vec![&path[..name(path)]] };
    let (mut depth, mut from, mut heads) = (0_usize, 0, Vec::new());
    for (at, c) in group.char_indices() {
        let ends = matches!(c, ',' | '}') && depth == 0;
        if ends {
            let item = group[from..at].trim_start();
            heads.push(&item[..name(item)]);
            from = at + 1;
        }
        match c {
            '{' => depth += 1,
            '}' if ends => break,
            '}' => depth -= 1,
            _ => {}
        }
    }
    heads.retain(|head| !head.is_empty());
    heads
}

/// The rooms that decide take `now` and bytes, and return values.
pub(super) fn purity(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for file in tree.rust().filter(|file| PURE.iter().any(|room| file.path.starts_with(room))) {
        let code = bare(production(&file.text));
        for impure in IMPURE {
            for at in words(&code, impure) {
                let message = format!("`{impure}` in a room that reads no clock, file or socket: pass the value in");
                problems.push(file.problem(line_of(&code, at), message));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::found;

    #[test]
    fn an_arrow_against_the_table_is_found_however_it_is_written() {
        for text in [
            "use crate::plan::Plan;\n",
            "use crate::{\n    model::Name,\n    plan::{Plan, Step},\n};\n",
            "use super::super::plan::Plan;\n",
            "fn f() { crate::plan::build() }\n",
        ] {
            let found = found(arrows, &[("ga-userspace/src/config/listener.rs", text)]);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(found[0].contains("`config` may import only model, not `plan`"), "{found:?}");
        }
    }

    #[test]
    fn arrows_of_the_table_and_inside_a_room_are_free() {
        let files = [
            ("ga-userspace/src/config/mod.rs", "use crate::{model::{Name, Port}, config::Span};\nuse super::model::Name;\n"),
            ("ga-userspace/src/plan/diff.rs", "use super::Plan;\nuse crate::health::Belief;\nuse ga_common::abi;\n"),
            ("ga-userspace/src/model/mod.rs", "// use crate::plan;\n#[cfg(test)]\nmod tests {\n use crate::plan;\n}\n"),
            ("ga-userspace/src/cli/run.rs", "use crate::agent::Agent;\n"),
            ("ga-userspace/src/main.rs", "use ga::cli;\n"),
            ("ga-userspace/src/lib.rs", "pub mod plan;\n"),
        ];
        assert_eq!(found(arrows, &files), Vec::<String>::new());
    }

    #[test]
    fn nobody_imports_agent_or_cli() {
        let files = [
            ("ga-userspace/src/admin/mod.rs", "use crate::agent::Agent;\n"),
            ("ga-userspace/src/agent/mod.rs", "use crate::cli::Args;\n"),
        ];
        assert_eq!(found(arrows, &files).len(), 2);
    }

    #[test]
    fn the_kernel_side_stays_out_of_the_model() {
        let found = found(arrows, &[("ga-userspace/src/model/port.rs", "\nuse ga_common::abi::Port;\n")]);
        assert!(found[0].starts_with("ga-userspace/src/model/port.rs:2:"), "{found:?}");
    }

    #[test]
    fn a_room_without_a_line_in_the_table_is_found() {
        assert_eq!(found(arrows, &[("ga-userspace/src/utils/mod.rs", "//! Things.\n")]).len(), 1);
    }

    #[test]
    fn a_clock_in_a_pure_room_is_found_and_one_in_its_tests_is_not() {
        let tests = "#[cfg(test)]\nmod tests {\n fn f() { Instant::now(); }\n}\n";
        let text = format!("fn f() {{ Instant::now(); }}\n{tests}");
        let files = [
            ("ga-userspace/src/plan/mod.rs", text.as_str()),
            ("ga-userspace/src/model/mod.rs", tests),
            ("ga-userspace/src/agent/mod.rs", "fn f() { Instant::now(); }\n"),
        ];
        let found = found(purity, &files);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("ga-userspace/src/plan/mod.rs:1:"));
    }
}
