//! Every file under `tests/broken` has exactly the problems that its first lines announce:
//! `# expect: LINE:COLUMN WORD`, the word being the documented code or, where there is none, the kind of problem.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

use std::{fs, path::Path};

use ga::config::{
    self,
    problem::Problem,
    render::{self, Style},
};

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/broken");
const AT_LEAST: usize = 200;

// proves: L01
#[test]
fn every_broken_file_is_reported_completely_and_to_the_character() {
    let mut files: Vec<_> = fs::read_dir(CORPUS).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let wrong: Vec<String> = files.iter().filter_map(|file| difference(file)).collect();
    assert!(wrong.is_empty(), "{} of {} files:\n{}", wrong.len(), files.len(), wrong.join("\n"));
    assert!(files.len() >= AT_LEAST, "{} files", files.len());
}

fn difference(file: &Path) -> Option<String> {
    let name = file.file_name().unwrap().to_string_lossy().into_owned();
    let text = fs::read_to_string(file).unwrap();
    let mut expected: Vec<String> = text.lines().map_while(|line| line.strip_prefix("# expect: ")).map(str::to_owned).collect();
    let report = match config::parse(&name, &text) {
        Ok(_) => return Some(format!("{name}: no problem found, expected {expected:?}")),
        Err(report) => report,
    };
    assert_eq!(report.omitted, 0);
    let mut found: Vec<String> = report.problems.iter().map(short).collect();
    let by_position = found.clone();
    expected.sort();
    found.sort();
    if expected == found {
        return every_problem_helps_and_can_be_shown(&name, &report, &text);
    }
    Some(format!("{name}:\n  expected {expected:?}\n  found    {by_position:?}"))
}

fn short(problem: &Problem) -> String {
    let word = problem.code.map_or(problem.kind.word(), |code| code.word());
    format!("{}:{} {word}", problem.place.line, problem.place.column)
}

fn every_problem_helps_and_can_be_shown(name: &str, report: &config::problem::Report, text: &str) -> Option<String> {
    let mut out = String::new();
    render::report(&mut out, report, text, Style::Plain).unwrap();
    if let Some(problem) = report.problems.iter().find(|problem| problem.help.is_empty()) {
        return Some(format!("{name}: no help: {}", problem.message));
    }
    let shown = |problem: &&Problem| out.contains(&format!("{name}:{}:{}", problem.place.line, problem.place.column));
    report.problems.iter().find(|problem| !shown(problem)).map(|problem| format!("{name}: not shown: {problem:?}\n{out}"))
}
