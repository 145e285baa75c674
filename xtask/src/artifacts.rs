//! What cargo says about the workspace: which privileged tests exist, and where built programs lie.

use std::{
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::Stdio,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::shell::cargo;

/// The package of what needs more than one crate, and the feature that guards what needs root.
pub(crate) const TESTS: &str = "ga-tests";
pub(crate) const PRIVILEGED: &str = "privileged";

/// The package of the agent; its programs are named to tests by this variable.
pub(crate) const AGENT: &str = "ga-userspace";
pub(crate) const AGENT_VARIABLE: &str = "GA_BIN";

/// A program that cargo built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Program {
    /// The target's name.
    pub(crate) name: String,
    /// `bin`, `test`, `lib` ...
    pub(crate) kind: String,
    /// Where it lies.
    pub(crate) path: PathBuf,
}

/// What the workspace offers, from `cargo metadata`.
pub(crate) struct Workspace {
    metadata: Value,
}

impl Workspace {
    /// Asks cargo.
    pub(crate) fn read() -> Result<Self> {
        let output = cargo().args(["metadata", "--no-deps", "--format-version", "1"]).output().context("cannot start cargo")?;
        if !output.status.success() {
            bail!("cargo metadata failed:\n{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(Self { metadata: serde_json::from_slice(&output.stdout).context("cargo metadata printed no JSON")? })
    }

    fn package(&self, name: &str) -> Option<&Value> {
        list(&self.metadata["packages"]).find(|package| package["name"] == name)
    }

    /// Whether the test package has its privileged part.
    pub(crate) fn has_privileged(&self) -> bool {
        self.package(TESTS).is_some_and(|package| package["features"].get(PRIVILEGED).is_some())
    }

    /// The names of the test programs that need root, in order.
    pub(crate) fn privileged_tests(&self) -> Vec<String> {
        let Some(package) = self.package(TESTS) else { return Vec::new() };
        let mut names: Vec<String> = list(&package["targets"])
            .filter(|target| list(&target["kind"]).any(|kind| kind == "test"))
            .filter(|target| list(&target["required-features"]).any(|feature| feature == PRIVILEGED))
            .filter_map(|target| Some(target["name"].as_str()?.to_owned()))
            .collect();
        names.sort();
        names
    }

    /// The features that a program of the test package requires.
    pub(crate) fn features_of(&self, program: &str) -> Vec<String> {
        let Some(package) = self.package(TESTS) else { return Vec::new() };
        let target =
            list(&package["targets"]).find(|target| target["name"] == program && list(&target["kind"]).any(|kind| kind == "bin"));
        let features = target.map(|target| list(&target["required-features"])).into_iter().flatten();
        features.filter_map(|feature| Some(feature.as_str()?.to_owned())).collect()
    }

    /// `--features` that switch the privileged part on, if there is one.
    pub(crate) fn privileged_features(&self) -> Vec<String> {
        if self.has_privileged() { vec!["--features".to_owned(), format!("{TESTS}/{PRIVILEGED}")] } else { Vec::new() }
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Runs a cargo command that builds, with its progress on the screen, and returns the programs it names.
pub(crate) fn build(args: &[&str]) -> Result<Vec<Program>> {
    let mut command = cargo();
    command.args(args).arg("--message-format=json-render-diagnostics").stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot start cargo")?;
    let output = child.stdout.take().context("cargo has no output")?;
    let mut programs = Vec::new();
    for line in BufReader::new(output).lines() {
        let line = line.context("cannot read what cargo prints")?;
        if let Ok(message) = serde_json::from_str(&line) {
            programs.extend(program(&message));
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("cargo {} failed ({status})", args.join(" "));
    }
    Ok(programs)
}

fn program(message: &Value) -> Option<Program> {
    let target = &message["target"];
    Some(Program {
        name: target["name"].as_str()?.to_owned(),
        kind: target["kind"][0].as_str()?.to_owned(),
        path: PathBuf::from(message["executable"].as_str()?),
    })
}

/// The program of one name and kind, or what to do about its absence.
pub(crate) fn pick<'a>(programs: &'a [Program], kind: &str, name: &str) -> Result<&'a Program> {
    programs
        .iter()
        .find(|program| program.kind == kind && program.name == name)
        .with_context(|| format!("the build made no {kind} named `{name}`: it must be a target of {TESTS} or {AGENT}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn workspace() -> Workspace {
        let target =
            |name: &str, kind: &str, features: &[&str]| json!({"name": name, "kind": [kind], "required-features": features});
        let targets = [
            target("netns_tcp", "test", &["privileged"]),
            target("corpus", "test", &[]),
            target("demo", "bin", &["privileged"]),
            target("kernel_corpus", "test", &["privileged"]),
        ];
        Workspace { metadata: json!({"packages": [{"name": "ga-tests", "features": {"privileged": []}, "targets": targets}]}) }
    }

    #[test]
    fn privileged_tests_are_the_test_targets_that_require_the_feature() {
        assert_eq!(workspace().privileged_tests(), ["kernel_corpus", "netns_tcp"]);
        assert!(workspace().has_privileged());
    }

    #[test]
    fn a_program_is_built_with_the_features_it_requires() {
        assert_eq!(workspace().features_of("demo"), ["privileged"]);
        assert!(workspace().features_of("corpus").is_empty(), "that one is a test");
    }

    #[test]
    fn a_workspace_without_the_feature_has_none() {
        let bare = Workspace { metadata: json!({"packages": [{"name": "ga-tests", "features": {}, "targets": []}]}) };
        assert!(bare.privileged_tests().is_empty());
        assert!(bare.privileged_features().is_empty());
    }

    #[test]
    fn only_messages_with_a_program_count() {
        let message = json!({"target": {"name": "ga", "kind": ["bin"]}, "executable": "/x/ga"});
        let programs: Vec<Program> = [message, json!({"reason": "build-finished"})].iter().filter_map(program).collect();
        assert!(pick(&programs, "bin", "ga").is_ok());
        assert!(pick(&programs, "bin", "demo").is_err());
    }
}
