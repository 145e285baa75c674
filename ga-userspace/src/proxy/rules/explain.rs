//! Why rules apply or do not: the same judgement as the matcher's, condition by condition, for `ga trace http`.

use std::fmt;

use super::{pairs, request::Request, text::Form};
use crate::model::{Condition, Pattern, Rule};

/// What one rule makes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged<'m> {
    /// The rule.
    pub rule: &'m Rule,
    /// Why it does not apply; none when it does.
    pub unmet: Option<String>,
}

/// The rules that are tried for `request`, in order, up to and with the one that applies.
pub fn judge<'m>(rules: &'m [Rule], request: &Request<'_>) -> Vec<Judged<'m>> {
    let mut judged = Vec::new();
    for rule in rules {
        let unmet = unmet(rule, request);
        let applies = unmet.is_none();
        judged.push(Judged { rule, unmet });
        if applies {
            break;
        }
    }
    judged
}

/// The first condition that does not hold; those on the path count as one.
fn unmet(rule: &Rule, request: &Request<'_>) -> Option<String> {
    let paths: Vec<&Pattern> = rule.paths().collect();
    if !paths.is_empty() && !paths.iter().any(|pattern| Form::new(pattern, false).is_met(request.path.as_bytes(), false)) {
        return Some(format!("the path {:?} is not {}", request.path, listed(&paths)));
    }
    rule.conditions.iter().find_map(|condition| of_one(condition, request))
}

fn of_one(condition: &Condition, request: &Request<'_>) -> Option<String> {
    let (is_met, why) = match condition {
        Condition::Host(patterns) => (
            patterns.iter().any(|pattern| Form::new(pattern, true).is_met(request.host.as_bytes(), true)),
            format!("the host {:?} is not {}", request.host, listed(patterns)),
        ),
        Condition::Path(_) => return None,
        Condition::Header(name, values) => (
            request
                .headers
                .get_all(name.as_str())
                .iter()
                .any(|sent| values.iter().any(|value| value.as_bytes() == sent.as_bytes())),
            match request.headers.get(name.as_str()) {
                Some(sent) => format!("the header {name} is {sent:?}, not {}", listed(values)),
                None => format!("there is no header {name}"),
            },
        ),
        Condition::Query(asked) => (
            pairs::query_pairs(request.query.unwrap_or_default()).any(|(key, value)| {
                let is = |text: &str, known: &str| pairs::Decoded::of(text).eq(known.bytes());
                asked.iter().any(|(known, wanted)| is(key, known) && is(value, wanted))
            }),
            format!("the query {:?} has not {}", request.query.unwrap_or_default(), listed_pairs(asked)),
        ),
        Condition::Method(methods) => (
            methods.iter().any(|method| method == request.method.as_str()),
            format!("the method {} is not {}", request.method, listed(methods)),
        ),
        Condition::Cookie(asked) => (
            request
                .headers
                .get_all(http::header::COOKIE)
                .iter()
                .flat_map(|header| pairs::cookie_pairs(header.as_bytes()))
                .any(|(key, value)| asked.iter().any(|(known, wanted)| key == known.as_bytes() && value == wanted.as_bytes())),
            format!("no cookie is {}", listed_pairs(asked)),
        ),
        Condition::SourceIp(nets) => (
            nets.iter().any(|net| net.contains(&request.client)),
            format!("the client {} is not in {}", request.client, listed(nets)),
        ),
    };
    (!is_met).then_some(why)
}

/// `a`, or `any of a, b`; long lists are cut.
fn listed<T: fmt::Display>(all: &[T]) -> String {
    const SHOWN: usize = 5;
    let mut text = all.iter().take(SHOWN).map(T::to_string).collect::<Vec<_>>().join(", ");
    if all.len() > SHOWN {
        text += &format!(", and {} more", all.len() - SHOWN);
    }
    if all.len() > 1 { format!("any of {text}") } else { text }
}

fn listed_pairs(all: &[(String, String)]) -> String {
    listed(&all.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>())
}
