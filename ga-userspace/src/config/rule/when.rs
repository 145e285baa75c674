//! `when`: what must hold (specification §1.15.4).

use std::collections::{BTreeMap, BTreeSet};

use super::super::{
    acl,
    document::Context,
    keys, limits,
    problem::{Code, Fault, Kind},
    tree::{Value, not_a_word, shorten},
};
use crate::model::{Condition, Pattern, Protocol};

/// Words of `method`.
pub(super) const METHODS: [&str; 7] = ["HEAD", "GET", "POST", "OPTIONS", "PUT", "PATCH", "DELETE"];

/// Characters that no key or value of a query has.
const NOT_IN_QUERIES: &str = "[]{}<>\\;/?:@&=+,$%\"^~";

/// Characters that no key or value of a cookie has.
const NOT_IN_COOKIES: &str = "#[]{}\\<>&";

/// Characters of expressions for hosts, besides letters and digits.
const HOST_EXPRESSIONS: &str = ".-?=~_+/\\^*!$&|()[]";

/// Characters of paths, besides letters and digits.
const PATHS: &str = "$-_.+/&~@:'*?";

/// Most characters of a host, a path or a value.
const MAX_VALUE: usize = 128;

/// Reads `when`; `items` are the values of the listener's conditions so far.
pub(super) fn read(
    value: &Value<'_>,
    protocol: Option<Protocol>,
    items: &mut u32,
    cx: &mut Context<'_>,
) -> Option<Vec<Condition>> {
    let tables = value.tables(&keys::CONDITION, &mut cx.problems)?;
    let (mut conditions, mut singles) = (Vec::new(), BTreeMap::new());
    for table in &tables {
        let Some((word, value)) = table.single("a condition", "when = [{ host = [\"a.example\"] }, { path = [\"/v1/*\"] }]", cx)
        else {
            conditions.push(None);
            continue;
        };
        if protocol == Some(Protocol::Tcp) && word != "host" {
            let draft =
                Fault::new(Kind::NotAllowed, format!("a rule of a tcp listener cannot ask for `{word}`: only for `host`"))
                    .help("the server name of TLS is all that is seen there; an http or https listener sees the rest");
            value.problem(draft, &mut cx.problems);
            conditions.push(None);
            continue;
        }
        only_once(word, &value, &mut singles, cx);
        let condition = condition(word, &value, cx);
        quota(&value, condition.as_ref(), items, cx);
        conditions.push(condition);
    }
    // An array of what are no tables is a problem already.
    if conditions.len() < tables.len() || conditions.is_empty() { None } else { conditions.into_iter().collect() }
}

/// What a rule asks for at most once; alternatives are values of one condition.
fn only_once(word: &'static str, value: &Value<'_>, seen: &mut BTreeMap<&'static str, usize>, cx: &mut Context<'_>) {
    if !matches!(word, "host" | "method" | "source_ip") {
        return;
    }
    let line = cx.problems.line(value.span.start);
    if let Some(first) = seen.get(word) {
        let draft = Fault::new(Kind::Duplicate, format!("a rule has one condition on `{word}`; the other is on line {first}"))
            .help("write all values into one list: one of them is enough");
        value.problem(draft, &mut cx.problems);
    } else {
        seen.insert(word, line);
    }
}

fn condition(word: &str, value: &Value<'_>, cx: &mut Context<'_>) -> Option<Condition> {
    match word {
        "host" => list(value, cx, host).map(Condition::Host),
        "path" => list(value, cx, path).map(Condition::Path),
        "header" => header(value, cx),
        "query" => pairs(value, NOT_IN_QUERIES, cx).map(Condition::Query),
        "method" => list(value, cx, method).map(Condition::Method),
        "cookie" => pairs(value, NOT_IN_COOKIES, cx).map(Condition::Cookie),
        _ => list(value, cx, acl::net).map(Condition::SourceIp),
    }
}

fn quota(value: &Value<'_>, condition: Option<&Condition>, items: &mut u32, cx: &mut Context<'_>) {
    let limit = cx.limits.rule_condition_items_per_listener;
    let before = *items;
    *items += condition.map_or(1, |condition| u32::try_from(condition.items()).unwrap_or(u32::MAX));
    if before <= limit && *items > limit {
        let message = format!("`limits.rule_condition_items_per_listener` allows {limit}; these values bring them to {items}");
        let help = format!("raise the limit, up to {}, or use wildcards", limits::RULE_CONDITION_ITEMS_PER_LISTENER.end());
        let draft = Fault::new(Kind::Quota, message).help(help).code(Code::QuotaExceededRuleConditionConfig);
        value.problem(draft, &mut cx.problems);
    }
}

/// One value, or a list of different ones.
fn list<T: PartialEq>(
    value: &Value<'_>,
    cx: &mut Context<'_>,
    one: impl Fn(&Value<'_>, &mut Context<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    if value.as_string().is_some() {
        return one(value, cx).map(|one| vec![one]);
    }
    let elements = value.array(&mut cx.problems)?;
    if elements.is_empty() {
        let draft = Fault::new(Kind::MissingKey, "an empty list allows nothing: the rule would never apply");
        value.problem(draft.help("add a value, or remove the condition"), &mut cx.problems);
        return None;
    }
    let (mut all, mut is_right): (Vec<T>, bool) = (Vec::new(), true);
    for element in &elements {
        match one(element, cx) {
            Some(known) if all.contains(&known) => {
                let draft = Fault::new(Kind::Duplicate, "this value stands here a second time").help("keep one of the two");
                element.problem(draft, &mut cx.problems);
                is_right = false;
            }
            Some(new) => all.push(new),
            None => is_right = false,
        }
    }
    is_right.then_some(all)
}

fn host(value: &Value<'_>, cx: &mut Context<'_>) -> Option<Pattern> {
    let text = value.string(&mut cx.problems)?;
    length(value, text, 3, MAX_VALUE, cx)?;
    if let Some(expression) = text.strip_prefix('~') {
        characters(value, expression, |c| c.is_ascii_alphanumeric() || HOST_EXPRESSIONS.contains(c), cx)?;
        return compiled(value, Pattern::Regex(expression.to_owned()), true, cx);
    }
    characters(value, text, |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '*' | '?'), cx)?;
    compiled(value, Pattern::Wildcard(text.to_owned()), true, cx)
}

fn path(value: &Value<'_>, cx: &mut Context<'_>) -> Option<Pattern> {
    let text = value.string(&mut cx.problems)?;
    length(value, text, 1, MAX_VALUE, cx)?;
    if let Some(expression) = text.strip_prefix('~') {
        characters(value, expression, |c| c.is_ascii_graphic(), cx)?;
        return compiled(value, Pattern::Regex(expression.to_owned()), false, cx);
    }
    if !text.starts_with('/') {
        let draft = Fault::new(Kind::BadValue, format!("{:?} is no path: it begins without `/`", shorten(text)))
            .help("write \"/v1/*\", or an expression behind a `~`: \"~^/v[12]/\"");
        value.problem(draft, &mut cx.problems);
        return None;
    }
    characters(value, text, |c| c.is_ascii_alphanumeric() || PATHS.contains(c), cx)?;
    compiled(value, Pattern::Wildcard(text.to_owned()), false, cx)
}

/// An expression that can be compiled within its bounds.
fn compiled(value: &Value<'_>, pattern: Pattern, fold: bool, cx: &mut Context<'_>) -> Option<Pattern> {
    let Err(error) = pattern.expression(fold) else { return Some(pattern) };
    let text = error.to_string();
    // The last line says what is wrong; those before draw where.
    let why = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
    let draft = Fault::new(Kind::BadValue, format!("the expression cannot be used: {why}")).help(
        "the syntax is that of the Rust regex crate: without look-around and back-references, so that no request takes long",
    );
    value.problem(draft, &mut cx.problems);
    None
}

fn header(value: &Value<'_>, cx: &mut Context<'_>) -> Option<Condition> {
    let table = value.table(&keys::HEADER_CONDITION, &mut cx.problems)?;
    let name = table.required("name", "say which header: `name = \"x-tenant\"`", &mut cx.problems);
    let name = name.and_then(|value| header_name(&value, cx));
    let values = table.required("values", "say which values: `values = [\"a\", \"b\"]`", &mut cx.problems);
    let values = values.and_then(|value| list(&value, cx, header_value));
    Some(Condition::Header(name?, values?))
}

/// 1 to 40 letters, digits, `_` and `-`.
pub(super) fn header_name(value: &Value<'_>, cx: &mut Context<'_>) -> Option<String> {
    let text = value.string(&mut cx.problems)?;
    length(value, text, 1, 40, cx)?;
    characters(value, text, |c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'), cx)?;
    Some(text.to_owned())
}

/// 1 to 128 printable characters, no space at either end.
pub(super) fn header_value(value: &Value<'_>, cx: &mut Context<'_>) -> Option<String> {
    let text = value.string(&mut cx.problems)?;
    length(value, text, 1, MAX_VALUE, cx)?;
    characters(value, text, |c| c.is_ascii_graphic() || c == ' ', cx)?;
    if text.trim() != text {
        let draft = Fault::new(Kind::BadValue, "a header's value has no space at its ends");
        value.problem(draft.help("remove the spaces"), &mut cx.problems);
        return None;
    }
    Some(text.to_owned())
}

fn method(value: &Value<'_>, cx: &mut Context<'_>) -> Option<String> {
    let text = value.string(&mut cx.problems)?;
    if METHODS.contains(&text) {
        return Some(text.to_owned());
    }
    value.problem(not_a_word(text, METHODS.into_iter()), &mut cx.problems);
    None
}

/// One pair `{ key, value }`, or a list of different ones.
fn pairs(value: &Value<'_>, forbidden: &'static str, cx: &mut Context<'_>) -> Option<Vec<(String, String)>> {
    let elements = match value.as_array() {
        Some(elements) => elements,
        None => vec![value.clone()],
    };
    if elements.is_empty() {
        let draft = Fault::new(Kind::MissingKey, "an empty list allows nothing: the rule would never apply");
        value.problem(draft.help("add a pair: `{ key = \"version\", value = \"2\" }`"), &mut cx.problems);
        return None;
    }
    let (mut all, mut is_right) = (BTreeSet::new(), true);
    let mut pairs = Vec::new();
    for element in &elements {
        let Some(pair) = pair(element, forbidden, cx) else {
            is_right = false;
            continue;
        };
        if all.insert(pair.clone()) {
            pairs.push(pair);
        } else {
            let draft = Fault::new(Kind::Duplicate, "this pair stands here a second time").help("keep one of the two");
            element.problem(draft, &mut cx.problems);
            is_right = false;
        }
    }
    is_right.then_some(pairs)
}

fn pair(element: &Value<'_>, forbidden: &'static str, cx: &mut Context<'_>) -> Option<(String, String)> {
    let table = element.table(&keys::PAIR, &mut cx.problems)?;
    let mut part = |key: &'static str, longest| {
        let value = table.required(key, "a pair is `{ key = \"version\", value = \"2\" }`", &mut cx.problems)?;
        let text = value.string(&mut cx.problems)?;
        length(&value, text, 1, longest, cx)?;
        characters(&value, text, |c| c.is_ascii_graphic() && !c.is_ascii_uppercase() && !forbidden.contains(c), cx)?;
        Some(text.to_owned())
    };
    let (key, value) = (part("key", 100), part("value", MAX_VALUE));
    Some((key?, value?))
}

/// `None` when it is too short or too long.
pub(super) fn length(value: &Value<'_>, text: &str, low: usize, high: usize, cx: &mut Context<'_>) -> Option<()> {
    let length = text.chars().count();
    if (low..=high).contains(&length) {
        return Some(());
    }
    let draft = Fault::new(Kind::OutOfRange, format!("this has {low} to {high} characters, not {length}"));
    value.problem(draft.help(if length < low { "write it out" } else { "shorten it, or use wildcards" }), &mut cx.problems);
    None
}

/// `None` when a character is not one of those `allowed`.
pub(super) fn characters(value: &Value<'_>, text: &str, allowed: impl Fn(char) -> bool, cx: &mut Context<'_>) -> Option<()> {
    let Some(wrong) = text.chars().find(|c| !allowed(*c)) else { return Some(()) };
    let what = match wrong {
        ' ' => "a space".to_owned(),
        'A'..='Z' => format!("the upper-case letter {wrong:?}"),
        _ => format!("{wrong:?}"),
    };
    let draft = Fault::new(Kind::BadValue, format!("{what} cannot be in it"));
    value.problem(draft.help("`ga config schema` prints what it may be made of"), &mut cx.problems);
    None
}
