//! `ga check FILE`: every problem of a file, and what it would cost; changes nothing.

use std::{io::Read as _, path::PathBuf, time::SystemTime};

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use super::{Context, Exit, Format, Style as OutputStyle, file};
use crate::{
    config::{
        self,
        problem::{Problem, Report, Severity},
        render::{self, Style},
    },
    model::Intent,
    program::Sizes,
    proxy::tls,
};

pub(super) const EXAMPLES: &str = "Examples:
  ga check /etc/ga/ga.toml
  ga check - < ga.toml
  ga check --output json ga.toml | jq .problems";

/// Arguments of `ga check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// The file; `-` for standard input
    pub file: PathBuf,
}

/// Checks the file and prints the answer: 0 good, 1 problems, 2 cannot be read.
pub fn run(args: &CheckArgs, context: &Context) -> anyhow::Result<Exit> {
    let text = if args.file.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        text
    } else {
        file::read(&args.file)?
    };
    let (answer, good) = answer(&args.file.display().to_string(), &text, context.output.format, style(&context.output.style))?;
    context.output.text(&answer)?;
    Ok(if good { Exit::Ok } else { Exit::Negative })
}

/// How problems are drawn.
fn style(style: &OutputStyle) -> Style {
    if style.color { Style::Colour } else { Style::Plain }
}

/// What is printed, and whether the file is good.
fn answer(file: &str, text: &str, output: Format, style: Style) -> anyhow::Result<(String, bool)> {
    let checked = config::parse(file, text).and_then(with_files);
    let good = checked.is_ok();
    let answer = match output {
        Format::Table => human(file, text, checked, style)?,
        Format::Json => json(file, checked)?,
    };
    Ok((answer, good))
}

/// What is to be said of the files that the configuration names, where this host has them.
fn with_files(mut loaded: config::Loaded) -> Result<config::Loaded, Report> {
    let mut problems: Vec<Problem> = Vec::new();
    for found in tls::check(&loaded.intent, SystemTime::now()) {
        let severity = if found.is_error { Severity::Error } else { Severity::Warning };
        let problem = config::problem_of_file(&loaded, &found.file, severity, &found.message, found.help);
        let list = if found.is_error { &mut problems } else { &mut loaded.warnings };
        // Several listeners may name one file.
        list.extend(problem.filter(|problem| !list.contains(problem)));
    }
    let warnings = std::mem::take(&mut loaded.warnings);
    let by_place = |mut list: Vec<Problem>| {
        list.sort_by_key(|problem| (problem.place.offset, problem.place.len));
        list
    };
    let (problems, warnings) = (by_place(problems), by_place(warnings));
    if problems.is_empty() {
        loaded.warnings = warnings;
        return Ok(loaded);
    }
    Err(Report { problems, omitted: 0, warnings })
}

fn human(file: &str, text: &str, checked: Result<config::Loaded, Report>, style: Style) -> anyhow::Result<String> {
    let mut out = String::new();
    match checked {
        Ok(loaded) => {
            render::problems(&mut out, &loaded.warnings, 0, text, style).context("cannot render the warnings")?;
            out += &format!("{file}: OK: {}\n", Summary::of(&loaded.intent).sentence(loaded.warnings.len()));
        }
        Err(report) => {
            render::report(&mut out, &report, text, style).context("cannot render the problems")?;
            out += &format!("{file}: {}\n", plural(report.problems.len() + report.omitted, "problem"));
        }
    }
    Ok(out)
}

fn json(file: &str, checked: Result<config::Loaded, Report>) -> anyhow::Result<String> {
    let answer = match checked {
        Ok(loaded) => {
            let summary = Some(Summary::of(&loaded.intent));
            Answer { file, ok: true, summary, problems: Vec::new(), omitted: 0, warnings: loaded.warnings }
        }
        Err(Report { problems, omitted, warnings }) => Answer { file, ok: false, summary: None, problems, omitted, warnings },
    };
    serde_json::to_string_pretty(&answer).map(|text| text + "\n").context("cannot write JSON")
}

/// The JSON document.
#[derive(Serialize)]
struct Answer<'f> {
    file: &'f str,
    ok: bool,
    summary: Option<Summary>,
    problems: Vec<Problem>,
    omitted: usize,
    warnings: Vec<Problem>,
}

/// What a good file holds, and the memory its flow tables cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Instances.
    pub instances: usize,
    /// Listeners of all instances.
    pub listeners: usize,
    /// Endpoints of all listeners.
    pub endpoints: usize,
    /// Slots of the flow table of each family.
    pub flow_slots: u64,
    /// Bytes of the IPv4 flow table.
    pub flow_bytes_ipv4: u64,
    /// Bytes of the IPv6 flow table.
    pub flow_bytes_ipv6: u64,
}

impl Summary {
    /// Counts what `intent` holds.
    pub fn of(intent: &Intent) -> Self {
        // A flow takes an entry for each direction; above half load the search for a free slot grows long.
        let flow_slots = u64::from(Sizes::for_flows(intent.node.flows).flows4);
        Self {
            instances: intent.instances.len(),
            listeners: intent.listeners().count(),
            endpoints: intent
                .listeners()
                .flat_map(|(_, listener)| &listener.groups)
                .map(|group| group.endpoints.len() + group.named.len())
                .sum(),
            flow_slots,
            flow_bytes_ipv4: flow_slots * 64,
            flow_bytes_ipv6: flow_slots * 128,
        }
    }

    fn sentence(&self, warnings: usize) -> String {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let mut sentence = format!(
            "{}, {}, {}; flow tables take {} MiB for IPv4 and {} MiB for IPv6",
            plural(self.instances, "instance"),
            plural(self.listeners, "listener"),
            plural(self.endpoints, "endpoint"),
            mib(self.flow_bytes_ipv4),
            mib(self.flow_bytes_ipv6),
        );
        if warnings > 0 {
            sentence += &format!("; {}", plural(warnings, "warning"));
        }
        sentence
    }
}

fn plural(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = include_str!("../../../config/minimal.toml");

    // proves: L01
    #[test]
    fn a_good_file_is_answered_with_what_it_holds_and_costs() {
        let (answer, good) = answer("ga.toml", GOOD, Format::Table, Style::Plain).unwrap();
        assert!(good);
        assert_eq!(
            answer,
            "ga.toml: OK: 1 instance, 1 listener, 2 endpoints; flow tables take 16 MiB for IPv4 and 32 MiB for IPv6\n"
        );
    }

    // proves: L01
    #[test]
    fn all_problems_of_a_file_are_printed_and_counted() {
        let text = GOOD.replace("ports = ", "wieght = 1\nports = ").replace("address = \"10.", "address = \"x10.");
        let (answer, good) = answer("ga.toml", &text, Format::Table, Style::Plain).unwrap();
        assert!(!good);
        assert!(answer.ends_with("ga.toml: 3 problems\n"), "{answer}");
    }

    #[test]
    fn json_names_the_place_of_each_problem() {
        let text = GOOD.replace("ports = \"", "ports = \"0,");
        let (answer, good) = answer("ga.toml", &text, Format::Json, Style::Plain).unwrap();
        assert!(!good);
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        let problem = &answer["problems"][0];
        assert_eq!(problem["code"], "PortRangeIllegal.Listener");
        assert_eq!(problem["path"], "instance[0].listener[0].ports");
        assert_eq!(problem["text"], "0");
        assert!(problem["line"].is_u64() && problem["column"].is_u64());
    }
}
