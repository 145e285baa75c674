//! TOML to model: collects every problem of a file's text with its place, and hands out an intent only when there is none.
//!
//! Nothing here reads a file, a clock or a socket. Outside this room no value of the model can be wrong.
//!
//! Reading order: [`problem`] (what is reported), `keys` (every key there is), `tree` (a cursor over the spanned document that
//! reports instead of failing), then one file per table of the document, `across` (rules between instances, capacities),
//! `change` (rules between the running intent and the new one), [`schema`] (the same keys as JSON Schema).

pub mod problem;
pub mod render;

mod acl;
mod across;
mod address;
mod bounds;
mod change;
mod client_ip;
mod custom;
mod document;
pub mod edit;
mod endpoint;
mod group;
mod health_check;
mod http;
mod http_waits;
mod instance;
mod inventory;
mod keys;
mod limits;
mod listener;
mod node;
mod pool;
mod ports;
mod rule;
pub mod schema;
mod syntax;
mod tcp;
mod text;
mod tls;
mod tree;

use std::collections::BTreeMap;

use crate::model::Intent;
use problem::{Place, Problem, Report, Severity};

/// A file without errors.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it says.
    pub intent: Intent,
    /// What is legal but probably not meant.
    pub warnings: Vec<Problem>,
    places: BTreeMap<(String, String), ListenerPlaces>,
    files: BTreeMap<String, Place>,
}

/// Where a listener says what only [`check_change`] can judge.
#[derive(Clone, Debug)]
struct ListenerPlaces {
    ports: Place,
    protocol: Place,
    routing: Place,
}

/// Reads the text of a file; `file_name` is only repeated in the problems.
pub fn parse(file_name: &str, text: &str) -> Result<Loaded, Report> {
    document::read(file_name, text)
}

/// The problem of a listener that cannot have the ports it names, for a reason outside the file; none of a listener that it has not.
pub fn problem_of_ports(loaded: &Loaded, instance: &str, listener: &str, why: &str, help: &str) -> Option<Problem> {
    let places = loaded.places.get(&(instance.to_owned(), listener.to_owned()))?;
    Some(problem::Fault::new(problem::Kind::Change, why).help(help).at(Severity::Error, places.ports.clone()))
}

/// What is to be said of a file that the configuration names, which only a look at the file can tell; none of one that it does not
/// name.
pub fn problem_of_file(loaded: &Loaded, file: &str, severity: Severity, why: &str, help: &str) -> Option<Problem> {
    let place = loaded.files.get(file)?.clone();
    Some(problem::Fault::new(problem::Kind::File, why).help(help).at(severity, place))
}

/// What forbids replacing the running intent `old` by `new`; empty when nothing does.
pub fn check_change(old: &Intent, new: &Loaded) -> Vec<Problem> {
    change::check(old, new)
}
