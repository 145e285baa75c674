//! What a benchmark hands back: a table for people, an object for programs, and whether what is wanted holds.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::stats::{Spread, short};

/// The value that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// Not more.
    AtMost(f64),
    /// Not less.
    AtLeast(f64),
}

/// A measured value beside the one that is wanted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Goal {
    /// What was derived from the measurement.
    pub what: &'static str,
    /// What it came to.
    pub measured: f64,
    /// What it should come to.
    #[serde(flatten)]
    pub wanted: Wanted,
    /// Whether it does.
    pub holds: bool,
}

impl Goal {
    /// Not more than `limit`.
    pub fn at_most(what: &'static str, measured: f64, limit: f64) -> Self {
        Self { what, measured: short(measured), wanted: Wanted::AtMost(limit), holds: measured <= limit }
    }

    /// Not less than `limit`.
    pub fn at_least(what: &'static str, measured: f64, limit: f64) -> Self {
        Self { what, measured: short(measured), wanted: Wanted::AtLeast(limit), holds: measured >= limit }
    }
}

/// One figure, with the floors and peers of the same run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// Of all values.
    pub unit: &'static str,
    /// Of the rounds.
    pub value: Spread,
    /// What it is compared with, by name: medians of the same run.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub beside: BTreeMap<&'static str, f64>,
    /// What is wanted of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub goals: Vec<Goal>,
}

impl Figure {
    /// Of the values of all rounds.
    pub fn new(name: impl Into<String>, unit: &'static str, values: &[f64]) -> Self {
        Self { name: name.into(), unit, value: Spread::of(values).short(), beside: BTreeMap::new(), goals: Vec::new() }
    }

    /// Puts a floor or a peer of the same run beside it.
    #[must_use]
    pub fn beside(mut self, name: &'static str, value: f64) -> Self {
        self.beside.insert(name, short(value));
        self
    }

    /// Says what is wanted of it.
    #[must_use]
    pub fn wants(mut self, goal: Goal) -> Self {
        self.goals.push(goal);
        self
    }
}

/// The figures of one benchmark.
#[derive(Clone, Debug)]
pub struct Report {
    /// Which benchmark.
    pub bench: &'static str,
    /// How it was measured.
    pub about: BTreeMap<&'static str, Value>,
    /// In the order of the table.
    pub figures: Vec<Figure>,
}

impl Report {
    /// Without figures yet.
    pub fn new(bench: &'static str) -> Self {
        Self { bench, about: BTreeMap::new(), figures: Vec::new() }
    }

    /// As one JSON object.
    pub fn json(&self) -> Value {
        let mut object = json!({ "bench": self.bench, "figures": self.figures, "holds": self.missed() == 0 });
        if let Some(fields) = object.as_object_mut() {
            fields.extend(self.about.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        }
        object
    }

    /// How many goals are missed.
    pub fn missed(&self) -> usize {
        self.figures.iter().flat_map(|figure| &figure.goals).filter(|goal| !goal.holds).count()
    }

    /// As a table.
    pub fn table(&self) -> String {
        let width = self.figures.iter().map(|figure| figure.name.chars().count()).max().unwrap_or_default();
        let mut text = String::new();
        for Figure { name, unit, value, beside, goals } in &self.figures {
            let spread = format!("{}/{}/{}", people(value.min), people(value.median), people(value.max));
            text += &format!("{name:<width$} {spread:>26} {unit:<6}");
            let beside: Vec<_> = beside.iter().map(|(name, value)| format!("{name} {}", people(*value))).collect();
            text += &beside.join(", ");
            for Goal { what, measured, wanted, holds } in goals {
                let (mark, sign, limit) = match (*holds, *wanted) {
                    (true, Wanted::AtMost(limit)) => ("✓", '≤', limit),
                    (false, Wanted::AtMost(limit)) => ("✗", '≤', limit),
                    (true, Wanted::AtLeast(limit)) => ("✓", '≥', limit),
                    (false, Wanted::AtLeast(limit)) => ("✗", '≥', limit),
                };
                text += &format!("\n{:>width$}   {mark} {what}: {} (wanted {sign} {})", "", people(*measured), people(limit));
            }
            text.push('\n');
        }
        text
    }
}

/// Three digits that count.
fn people(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || size == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_what_is_missed() {
        let mut report = Report::new("test");
        let figure = Figure::new("one", "ms", &[3.0, 1.0, 2.0]).beside("floor", 1.5);
        report.figures.push(figure.wants(Goal::at_most("median", 2.0, 2.0)).wants(Goal::at_least("ratio", 0.5, 0.75)));
        report.about.insert("rounds", json!(3));
        assert_eq!(report.missed(), 1);
        assert_eq!(
            report.json(),
            json!({
                "bench": "test", "rounds": 3, "holds": false, "figures": [{
                    "name": "one", "unit": "ms", "value": {"min": 1.0, "median": 2.0, "max": 3.0}, "beside": {"floor": 1.5},
                    "goals": [
                        {"what": "median", "measured": 2.0, "at_most": 2.0, "holds": true},
                        {"what": "ratio", "measured": 0.5, "at_least": 0.75, "holds": false},
                    ],
                }],
            })
        );
        let table = report.table();
        assert!(table.contains("✓ median: 2.00 (wanted ≤ 2.00)") && table.contains("✗ ratio: 0.50 (wanted ≥ 0.75)"), "{table}");
    }
}
