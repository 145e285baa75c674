//! Names, descriptions and labels.

use super::{
    document::Context,
    problem::{Fault, Kind},
    tree::{Value, shorten},
};
use crate::model::{Name, NameError, NameRule};

const MAX_DESCRIPTION: usize = 200;
const MAX_LABEL: usize = 64;

/// A name under the rule of `limits.name_rule`.
pub(super) fn name(value: &Value<'_>, cx: &mut Context<'_>) -> Option<Name> {
    let text = value.string(&mut cx.problems)?;
    let rule = cx.limits.name_rule;
    let error = match Name::parse(text, rule) {
        Ok(name) => return Some(name),
        Err(error) => error,
    };
    let kind = match error {
        NameError::Length { .. } => Kind::OutOfRange,
        NameError::Start(_) | NameError::Character(_) => Kind::BadValue,
    };
    let help = match rule {
        NameRule::Seed => "2 to 128 letters, digits, `_` and `-`, a letter first; `limits.name_rule = \"extended\"` allows more",
        NameRule::Extended => "1 to 128 letters, digits, `.`, `_` and `-`, a letter first",
    };
    value.problem(Fault::new(kind, error.to_string()).help(help), &mut cx.problems);
    None
}

/// Up to 200 characters that are not a link.
pub(super) fn description(value: Option<Value<'_>>, cx: &mut Context<'_>) -> String {
    let Some(value) = value else { return String::new() };
    let Some(text) = value.string(&mut cx.problems) else { return String::new() };
    let len = text.chars().count();
    if len > MAX_DESCRIPTION {
        let message = format!("a description has at most {MAX_DESCRIPTION} characters, this one has {len}");
        value.problem(
            Fault::new(Kind::OutOfRange, message).help("shorten it; a comment in the file may be longer"),
            &mut cx.problems,
        );
    }
    if text.starts_with("http://") || text.starts_with("https://") {
        value.problem(
            Fault::new(Kind::NotAllowed, "a description must not start with http:// or https://")
                .help("begin with a word: \"see https://…\""),
            &mut cx.problems,
        );
    }
    text.to_owned()
}

/// The label of a region or an access point: it is shown in metrics and in status.
pub(super) fn label(value: &Value<'_>, cx: &mut Context<'_>) -> Option<String> {
    let text = value.string(&mut cx.problems)?;
    let fits = (1..=MAX_LABEL).contains(&text.len());
    if fits && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
        return Some(text.to_owned());
    }
    let help = format!("1 to {MAX_LABEL} letters, digits, `.`, `_` and `-`");
    value.problem(Fault::new(Kind::BadValue, format!("{:?} is not a label", shorten(text))).help(help), &mut cx.problems);
    None
}
