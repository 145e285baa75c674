//! Texts with variables, and the groups of path conditions that they refer to.

use std::{collections::BTreeSet, ops::Range};

use super::{
    super::{
        document::Context,
        problem::{Fault, Kind},
        tree::Value,
    },
    when::{characters, length},
};
use crate::model::{MAX_CAPTURES, Pattern, Piece, Rule, Template, TemplateError, Variable};

/// A text with variables, and where it stands.
pub(super) struct Used {
    span: Range<usize>,
    path: String,
    template: Template,
}

/// Most characters of a domain, a path or a query.
const MAX: usize = 128;

/// Lower-case letters, digits, `-` and `.`.
pub(super) fn domain(
    value: Option<Value<'_>>,
    is_redirect: bool,
    used: &mut Vec<Used>,
    cx: &mut Context<'_>,
) -> Option<Template> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    read(value, Variable::Host, 1, is_redirect, allowed, used, cx)
}

/// Begins with `/`; a `~` may stand before it, as the documented API has it.
pub(super) fn path(value: Option<Value<'_>>, is_redirect: bool, used: &mut Vec<Used>, cx: &mut Context<'_>) -> Option<Template> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "$-_.+/&~@:'%!*(),;=".contains(c);
    let template = read(value.clone(), Variable::Path, 1, is_redirect, allowed, used, cx)?;
    let begins = match template.pieces().first() {
        Some(Piece::Text(text)) => text.starts_with('/'),
        Some(Piece::Variable(variable)) => matches!(variable, Variable::Path | Variable::Capture(_)),
        None => false,
    };
    if let (false, Some(value)) = (begins, value) {
        let draft = Fault::new(Kind::BadValue, "a path begins with `/`");
        value.problem(draft.help("write \"/v2${path}\", or \"/new/${1}\""), &mut cx.problems);
        return None;
    }
    Some(template)
}

/// What stands behind `?`; the empty text removes the query.
pub(super) fn query(value: Option<Value<'_>>, is_redirect: bool, used: &mut Vec<Used>, cx: &mut Context<'_>) -> Option<Template> {
    read(value, Variable::Query, 0, is_redirect, |c| c.is_ascii_graphic() && !"#\"<>`{}\\^|".contains(c), used, cx)
}

fn read(
    value: Option<Value<'_>>,
    default: Variable,
    shortest: usize,
    is_redirect: bool,
    allowed: impl Fn(char) -> bool,
    used: &mut Vec<Used>,
    cx: &mut Context<'_>,
) -> Option<Template> {
    let Some(value) = value else { return Some(Template::of(default)) };
    let text = value.string(&mut cx.problems)?;
    let text = if default == Variable::Path { text.strip_prefix('~').unwrap_or(text) } else { text };
    length(&value, text, shortest, MAX, cx)?;
    let template = match Template::parse(text) {
        Ok(template) => template,
        Err(error) => {
            let help = match error {
                TemplateError::Unknown(_) => "variables are ${protocol}, ${host}, ${port}, ${path}, ${query} and ${1} to ${3}",
                TemplateError::Open => "close it: \"${path}\"",
            };
            value.problem(Fault::new(Kind::BadValue, error.to_string()).help(help), &mut cx.problems);
            return None;
        }
    };
    for piece in template.pieces() {
        match piece {
            Piece::Text(text) => characters(&value, text, &allowed, cx)?,
            Piece::Variable(Variable::Protocol | Variable::Port) if !is_redirect => {
                let draft = Fault::new(Kind::NotAllowed, "a rewrite knows ${host}, ${path}, ${query} and ${1} to ${3} only");
                value.problem(draft.help("write out what is meant"), &mut cx.problems);
                return None;
            }
            Piece::Variable(Variable::Capture(number)) if *number > MAX_CAPTURES => {
                let draft = Fault::new(Kind::OutOfRange, format!("`${{{number}}}`: a rule has at most {MAX_CAPTURES} groups"));
                value.problem(draft.help("use ${1} to ${3}"), &mut cx.problems);
                return None;
            }
            Piece::Variable(_) => {}
        }
    }
    if template.captures().next().is_some() {
        used.push(Used { span: value.span.clone(), path: value.path.clone(), template: template.clone() });
    }
    Some(template)
}

/// Groups are as many as variables, in whichever path the request has.
pub(super) fn captures(rule: &Rule, used: &[Used], cx: &mut Context<'_>) {
    let Some(last) = used.last() else { return };
    let numbers: BTreeSet<u8> = used.iter().flat_map(|used| used.template.captures()).collect();
    let wanted = usize::from(numbers.last().copied().unwrap_or(0));
    let mut report = |message: String, help: &str| {
        cx.problems.push(last.span.clone(), &last.path, Fault::new(Kind::Conflict, message).help(help));
    };
    if wanted != numbers.len() {
        let all = numbers.iter().map(|number| format!("${{{number}}}")).collect::<Vec<_>>().join(", ");
        report(format!("of the groups only {all} are used"), "number the variables from ${1} on, without a gap");
        return;
    }
    let mut paths = rule.paths().peekable();
    if paths.peek().is_none() {
        let help = "add `{ path = [\"~^/old/(.*)$\"] }` to `when`";
        report("`${1}` stands for a group of the path condition, and the rule has none".to_owned(), help);
        return;
    }
    let groups = |pattern: &Pattern| match pattern {
        Pattern::Regex(_) => pattern.expression(false).map_or(0, |expression| expression.captures_len() - 1),
        Pattern::Wildcard(_) => 0,
    };
    if let Some((pattern, groups)) = paths.map(|pattern| (pattern, groups(pattern))).find(|(_, groups)| *groups != wanted) {
        let message = format!("{wanted} variables, and the path condition `{pattern}` has {groups} groups");
        report(message, "they must be as many; write `(?:…)` for a group that no variable stands for");
    }
}
