//! Why the agent did not do as it was told.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A refusal: one sentence for people, a code for programs, and every problem found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What kind.
    pub code: Code,
    /// One sentence, lower case, no full stop.
    pub message: String,
    /// Sentences, or objects with a field `message`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Value>,
}

/// Kinds of refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// What was asked for, or the file, is wrong.
    Invalid,
    /// There is no such thing.
    NotFound,
    /// The selector fits several endpoints.
    Ambiguous,
    /// Somebody else holds what is needed: a foreign XDP program, a port.
    Conflict,
    /// The caller may not.
    Forbidden,
    /// The kernel said no.
    Kernel,
    /// The agent is starting, stopping or too slow.
    Unavailable,
    /// A fault of ours.
    Internal,
}

impl Refusal {
    /// A refusal without details.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), problems: Vec::new() }
    }

    /// The same with details: sentences or objects.
    #[must_use]
    pub fn with_problems<P: Into<Value>>(mut self, problems: impl IntoIterator<Item = P>) -> Self {
        self.problems.extend(problems.into_iter().map(Into::into));
        self
    }

    /// The details as text.
    pub fn problem_lines(&self) -> impl Iterator<Item = String> + '_ {
        self.problems.iter().map(|problem| match problem.as_str().or_else(|| problem.get("message").and_then(Value::as_str)) {
            Some(text) => text.to_owned(),
            None => problem.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn problems_are_sentences_or_objects_with_one() {
        let refusal = Refusal::new(Code::Invalid, "the file has 3 problems").with_problems([
            json!("port 0 is not a port"),
            json!({ "path": "node", "message": "no interfaces" }),
            json!(7),
        ]);
        assert_eq!(refusal.problem_lines().collect::<Vec<_>>(), ["port 0 is not a port", "no interfaces", "7"]);
        let text = serde_json::to_string(&Refusal::new(Code::NotFound, "no")).expect("plain data");
        assert_eq!(text, r#"{"code":"not_found","message":"no"}"#);
    }
}
