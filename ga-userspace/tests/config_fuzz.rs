//! Files that were right or wrong once, mutated: whatever comes out, nothing panics, every problem is inside the file and can be
//! shown, and what is accepted can be planned. `GA_SEED` and `GA_FILES` choose what is run.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

use std::{
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use ga::{
    config::{
        self,
        problem::Problem,
        render::{self, Style},
    },
    health::Beliefs,
    plan::{self, Overrides, State},
};

/// Some seconds without optimisation.
const FILES: u64 = 6_000;

/// Planning fills tables of 65,537 slots: every so many accepted files only.
const PLAN_EVERY: u64 = 100;

const WORDS: [&str; 30] = [
    "\"",
    "'",
    "\"\"\"",
    "'''",
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "=",
    ".",
    ",",
    "#",
    "\n",
    "\r\n",
    "\t",
    "\\",
    "\\u0000",
    "\u{0}",
    "é",
    "\u{1F980}",
    "\u{feff}",
    "-1",
    "18446744073709551616",
    "1e400",
    "nan",
    "true",
    "1979-05-27T07:32:00Z",
    "::ffff:1.2.3.4",
];

/// SplitMix64 (Steele et al. 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound.max(1) as u64) as usize
    }
}

fn from_environment(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |value| value.parse().unwrap())
}

fn originals() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = [root.join("../config"), root.join("tests/broken")];
    let mut files: Vec<_> =
        folders.iter().flat_map(|dir| fs::read_dir(dir).unwrap()).map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    files.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
}

/// Up to four changes of characters, words or lines.
fn mutate(text: &str, other: &str, random: &mut Random) -> String {
    let mut text: Vec<char> = text.chars().collect();
    for _ in 0..=random.below(4) {
        let at = random.below(text.len() + 1);
        let end = (at + 1 + random.below(12)).min(text.len());
        match random.below(9) {
            0 if at < text.len() => text[at] = char::from(32 + random.below(95) as u8),
            1 => drop(text.drain(at..end)),
            2 => drop(text.splice(at..at, WORDS[random.below(WORDS.len())].chars())),
            3 => text.truncate(at),
            4 => {
                let copy = text[at..end].to_vec();
                text.splice(at..at, copy);
            }
            5 => {
                let digits: Vec<usize> = (0..text.len()).filter(|&i| text[i].is_ascii_digit()).collect();
                if let Some(&place) = digits.get(random.below(digits.len())) {
                    text[place] = char::from(b'0' + random.below(10) as u8);
                }
            }
            way => {
                let whole: String = text.iter().collect();
                let mut lines: Vec<&str> = whole.split_inclusive('\n').collect();
                let from = random.below(lines.len());
                let to = random.below(lines.len() + 1);
                let theirs: Vec<&str> = other.split_inclusive('\n').collect();
                match way {
                    6 if from < lines.len() => drop(lines.remove(from)),
                    7 if from < lines.len() => lines.insert(to, lines[from]),
                    _ if !theirs.is_empty() => lines.insert(to, theirs[random.below(theirs.len())]),
                    _ => {}
                }
                text = lines.concat().chars().collect();
            }
        }
    }
    text.into_iter().collect()
}

/// What is wrong with a problem, if anything.
fn complaint(problem: &Problem, text: &str) -> Option<String> {
    let place = &problem.place;
    let end = place.offset + place.len;
    if !(text.is_char_boundary(place.offset) && text.is_char_boundary(end)) {
        return Some(format!("bytes {}..{end} are no place in {} bytes", place.offset, text.len()));
    }
    let before = &text[..place.offset];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    if (line, column) != (place.line, place.column) {
        return Some(format!("byte {} is at {line}:{column}, not at {}:{}", place.offset, place.line, place.column));
    }
    (problem.message.is_empty() || problem.help.is_empty()).then(|| "it says nothing or does not help".to_owned())
}

/// Reads a file and looks at everything that comes out; true when it was accepted.
fn look(text: &str, is_planned: bool) -> Result<bool, String> {
    let (problems, warnings) = match config::parse("fuzz.toml", text) {
        Ok(loaded) => {
            if is_planned {
                let plan = plan::build(&loaded.intent, &Overrides::default(), &Beliefs::default(), &State::default(), [1, 2]);
                let plan = plan.map_err(|error| format!("accepted, but it cannot be planned: {error}"))?;
                let violations = plan.target.check();
                if !violations.is_empty() {
                    return Err(format!("accepted, but its plan is not whole: {violations:?}"));
                }
            }
            (Vec::new(), loaded.warnings)
        }
        Err(report) => {
            let mut out = String::new();
            render::report(&mut out, &report, text, Style::Plain).map_err(|error| error.to_string())?;
            if report.problems.is_empty() {
                return Err("refused without a problem".to_owned());
            }
            (report.problems, report.warnings)
        }
    };
    for problem in problems.iter().chain(&warnings) {
        if let Some(complaint) = complaint(problem, text) {
            return Err(format!("{complaint}: {problem:?}"));
        }
    }
    Ok(problems.is_empty())
}

// proves: L01
#[test]
fn mutated_files_are_refused_or_planned_and_never_panic() {
    let (seed, files) = (from_environment("GA_SEED", 0xa409_3822_299f_31d0), from_environment("GA_FILES", FILES));
    println!("GA_SEED={seed} GA_FILES={files}");
    let originals = originals();
    let mut random = Random(seed);
    let (mut accepted, mut bad) = (0, Vec::new());
    for number in 0..files {
        // Every other one comes from a file that is right: the first three are.
        let original = if number % 2 == 0 { random.below(3) } else { random.below(originals.len()) };
        let other = random.below(originals.len());
        let text = mutate(&originals[original], &originals[other], &mut random);
        match catch_unwind(AssertUnwindSafe(|| look(&text, accepted % PLAN_EVERY == 0))) {
            Ok(Ok(is_accepted)) => accepted += u64::from(is_accepted),
            Ok(Err(error)) => bad.push(format!("file {number}: {error}\n{text}")),
            Err(_) => bad.push(format!("file {number}: a panic\n{text}")),
        }
    }
    println!("{accepted} of {files} accepted");
    assert!(bad.is_empty(), "{} of {files} files, the first:\n{}", bad.len(), bad[0]);
    assert!(accepted * 20 > files, "only {accepted} of {files} were accepted: mutations are too coarse to prove much");
}
