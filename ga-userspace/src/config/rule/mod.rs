//! `[[instance.listener.rule]]` (specification §1.15): names, priorities, quotas and what holds between the parts of a rule. What
//! must hold is in `when`, what is done in `action`, texts with variables in `template`.

mod action;
mod template;
mod when;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use self::action::Terminal;
use super::{
    document::Context,
    keys, limits,
    problem::{Code, Fault, Kind},
    tree::{Table, Value},
};
use crate::model::{Action, EndpointGroup, GroupKind, Name, NameError, NameRule, Ports, Protocol, Rule};

/// Documented bounds of `priority`.
pub(super) const PRIORITY: RangeInclusive<u32> = 1..=10_000;

/// What the rule is called that nobody writes.
const DEFAULT: &str = "default";

/// Why nobody writes it.
const IMMUTABLE: &str = "the default rule is made with the listener, comes last and cannot be changed: what no rule applies to goes to \
                         the default endpoint groups";

/// What a rule is read against.
pub(super) struct Around<'a> {
    pub(super) protocol: Option<Protocol>,
    pub(super) ports: Option<&'a Ports>,
    /// None when one of them is wrong: then nothing can be said of who rules forward to.
    pub(super) groups: Option<&'a [EndpointGroup]>,
}

/// Reads the rules of a listener, in the order in which they are tried.
pub(super) fn read_all(listener: &Table<'_>, around: &Around<'_>, cx: &mut Context<'_>) -> Option<Vec<Rule>> {
    let Some(value) = listener.optional("rule") else {
        unused_groups(listener, around, Some(&[]), cx);
        return Some(Vec::new());
    };
    if around.protocol == Some(Protocol::Udp) {
        let draft = Fault::new(Kind::NotAllowed, "a udp listener has no forwarding rules: datagrams name no domain");
        value.problem(draft.help("remove the rules; the default endpoint groups serve everything"), &mut cx.problems);
        return None;
    }
    let tables = value.tables(&keys::RULE, &mut cx.problems)?;
    number_of_rules(&tables, cx);
    let (mut names, mut priorities, mut items) = (BTreeMap::new(), BTreeMap::new(), 0);
    let rules: Vec<Option<(Option<u16>, Rule)>> =
        tables.iter().map(|table| read(table, around, &mut names, &mut priorities, &mut items, cx)).collect();
    let rules = rules.into_iter().collect::<Option<Vec<_>>>().map(in_order);
    unused_groups(listener, around, rules.as_deref(), cx);
    rules
}

/// By priority; those without one come after the others, in file order.
fn in_order(rules: Vec<(Option<u16>, Rule)>) -> Vec<Rule> {
    let mut last = rules.iter().filter_map(|(priority, _)| *priority).max().unwrap_or(0);
    let number = |(priority, mut rule): (Option<u16>, Rule)| {
        rule.priority = priority.unwrap_or_else(|| {
            last = last.saturating_add(1);
            last
        });
        rule
    };
    let mut rules: Vec<Rule> = rules.into_iter().map(number).collect();
    rules.sort_by_key(|rule| rule.priority);
    rules
}

fn number_of_rules(tables: &[Table<'_>], cx: &mut Context<'_>) {
    let limit = cx.limits.rules_per_listener;
    if let Some(excess) = tables.get(limit as usize) {
        let message = format!("{} rules; `limits.rules_per_listener` allows {limit}", tables.len());
        let help = format!("raise the limit, up to {}, or join rules that do the same", limits::RULES_PER_LISTENER.end());
        let draft = Fault::new(Kind::Quota, message).help(help).code(Code::QuotaExceededForwardingRule);
        cx.problems.push(excess.span.clone(), &excess.path, draft);
    }
}

fn read(
    table: &Table<'_>,
    around: &Around<'_>,
    names: &mut BTreeMap<Name, usize>,
    priorities: &mut BTreeMap<u32, usize>,
    items: &mut u32,
    cx: &mut Context<'_>,
) -> Option<(Option<u16>, Rule)> {
    let name = table
        .required("name", "give the rule a name: `name = \"api\"`", &mut cx.problems)
        .and_then(|value| name(&value, names, cx));
    let priority = match table.optional("priority") {
        Some(value) => priority(&value, priorities, cx).map(Some),
        None => Some(None),
    };
    let conditions = match table.optional("when") {
        Some(value) => when::read(&value, around.protocol, items, cx),
        None => {
            nothing_asked(table, cx);
            None
        }
    };
    let actions = table
        .required("do", "say what is done: `do = [{ forward = \"GROUP\" }]`", &mut cx.problems)
        .and_then(|value| action::read(&value, around, cx));
    let (conditions, actions) = (conditions?, actions?);
    let mut rule = Rule {
        name: name?,
        priority: 0,
        conditions,
        modifiers: actions.modifiers,
        action: match actions.terminal {
            Terminal::Known(action) => action,
            Terminal::Wrong => return None,
        },
    };
    template::captures(&rule, &actions.templates, cx);
    // The order among conditions of one kind does not matter; the file's is kept.
    rule.conditions.shrink_to_fit();
    Some((priority?, rule))
}

fn nothing_asked(table: &Table<'_>, cx: &mut Context<'_>) {
    let draft = Fault::new(Kind::MissingKey, format!("a rule needs `when`; {IMMUTABLE}"))
        .help("say what it applies to: `when = [{ host = [\"www.example.com\"] }]`, or move its endpoints into a default group");
    cx.problems.push(table.span.clone(), &format!("{}.when", table.path), draft);
}

/// 2 to 128 characters, with `.` under any rule for names.
fn name(value: &Value<'_>, names: &mut BTreeMap<Name, usize>, cx: &mut Context<'_>) -> Option<Name> {
    let text = value.string(&mut cx.problems)?;
    if text == DEFAULT {
        let draft = Fault::new(Kind::NotAllowed, format!("no rule is called `{DEFAULT}`: {IMMUTABLE}"));
        value.problem(draft.help("choose another name, or change the default endpoint groups"), &mut cx.problems);
        return None;
    }
    let parsed = Name::parse(text, NameRule::Extended).and_then(|name| match text.len() {
        1 => Name::parse(text, NameRule::Seed),
        _ => Ok(name),
    });
    let name = match parsed {
        Ok(name) => name,
        Err(error) => {
            let kind = match error {
                NameError::Length { .. } => Kind::OutOfRange,
                NameError::Start(_) | NameError::Character(_) => Kind::BadValue,
            };
            let help = "2 to 128 letters, digits, `.`, `_` and `-`, a letter first";
            value.problem(Fault::new(kind, error.to_string()).help(help), &mut cx.problems);
            return None;
        }
    };
    let line = cx.problems.line(value.span.start);
    if let Some(first) = names.get(&name) {
        let draft = Fault::new(Kind::Duplicate, format!("rule name `{name}` is taken by the rule on line {first}"));
        value.problem(draft.help("names of rules are unique in a listener"), &mut cx.problems);
        return None;
    }
    names.insert(name.clone(), line);
    Some(name)
}

fn priority(value: &Value<'_>, priorities: &mut BTreeMap<u32, usize>, cx: &mut Context<'_>) -> Option<u16> {
    let priority = value.integer(PRIORITY, &mut cx.problems)?;
    let line = cx.problems.line(value.span.start);
    if let Some(first) = priorities.get(&priority) {
        let draft = Fault::new(Kind::Duplicate, format!("priority {priority} is taken by the rule on line {first}"))
            .help("priorities are unique in a listener, lower ones first; without the key a rule comes after those that have it");
        value.problem(draft, &mut cx.problems);
        return None;
    }
    priorities.insert(priority, line);
    u16::try_from(priority).ok()
}

/// Warns of virtual groups that no rule names: nothing reaches them.
fn unused_groups(listener: &Table<'_>, around: &Around<'_>, rules: Option<&[Rule]>, cx: &mut Context<'_>) {
    let (Some(groups), Some(rules)) = (around.groups, rules) else { return };
    let used: BTreeSet<&Name> = rules
        .iter()
        .filter_map(|rule| match &rule.action {
            Action::Forward(names) => Some(names),
            Action::Redirect(_) | Action::Fixed(_) | Action::Drop => None,
        })
        .flatten()
        .collect();
    let elements = listener.optional("endpoint_group").and_then(|value| value.array(&mut cx.problems)).unwrap_or_default();
    for (group, element) in groups.iter().zip(elements) {
        if group.kind == GroupKind::Virtual && !used.contains(&group.name) {
            let draft = Fault::new(Kind::NoEffect, format!("no rule forwards to the virtual group `{}`", group.name))
                .help("name it in the `forward` of a rule, or remove it");
            cx.problems.warn(element.span.clone(), &element.path, draft);
        }
    }
}
