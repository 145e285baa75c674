//! Forwarding rules (specification §1.15).

use std::fmt;

use ipnet::IpNet;
use regex::bytes::{Regex, RegexBuilder};

use super::{Name, Template};

/// Bytes that a compiled expression may take, and as many again while it searches: 128 characters need far less unless they repeat
/// repetitions.
const EXPRESSION_BYTES: usize = 256 << 10;

/// One rule of a listener. It applies to what meets all its conditions, of which those on the path count as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name, unique in the listener.
    pub name: Name,
    /// 1–10000: lower ones are tried first.
    pub priority: u16,
    /// What must hold.
    pub conditions: Vec<Condition>,
    /// What is changed before it is forwarded, in order.
    pub modifiers: Vec<Modifier>,
    /// What is done.
    pub action: Action,
}

/// Text with wildcards, or a regular expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// `*` stands for any run of characters, `?` for one.
    Wildcard(String),
    /// Written with a `~` in front: found anywhere, unless `^` and `$` say where.
    Regex(String),
}

impl Pattern {
    /// The expression that finds it. Time to search is linear in what is searched; compiled, it is bounded in size.
    ///
    /// # Errors
    ///
    /// The text is no regular expression, or its compiled form is too large.
    pub fn expression(&self, fold: bool) -> Result<Regex, regex::Error> {
        let text = match self {
            Self::Regex(text) => text.clone(),
            Self::Wildcard(text) => {
                let part = |c| match c {
                    '*' => ".*".to_owned(),
                    '?' => ".".to_owned(),
                    other => regex::escape(other.encode_utf8(&mut [0; 4])),
                };
                format!("^{}$", text.chars().map(part).collect::<String>())
            }
        };
        RegexBuilder::new(&text)
            .case_insensitive(fold)
            .dot_matches_new_line(true)
            .unicode(false)
            .size_limit(EXPRESSION_BYTES)
            .dfa_size_limit(EXPRESSION_BYTES)
            .build()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wildcard(text) => f.write_str(text),
            Self::Regex(text) => write!(f, "~{text}"),
        }
    }
}

/// What a request must be like; one of the values of a condition is enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The host, or the server name of TLS, in any case and without port.
    Host(Vec<Pattern>),
    /// The path without query.
    Path(Vec<Pattern>),
    /// A header has one of the values.
    Header(String, Vec<String>),
    /// One of the pairs is in the query.
    Query(Vec<(String, String)>),
    /// The method.
    Method(Vec<String>),
    /// One of the cookies is there.
    Cookie(Vec<(String, String)>),
    /// The peer's address is in one of the networks.
    SourceIp(Vec<IpNet>),
}

/// What is changed of a request before it is forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Modifier {
    /// Host, path and query.
    Rewrite {
        /// `${host}` unless given.
        domain: Template,
        /// `${path}` unless given.
        path: Template,
        /// `${query}` unless given.
        query: Template,
    },
    /// A header is added, in the place of what the client sent by that name.
    AddHeader(String, HeaderValue),
    /// Headers are removed.
    RemoveHeader(Vec<String>),
}

/// Where the value of an added header is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderValue {
    /// The file.
    Text(String),
    /// Another header of the request.
    Ref(String),
    /// The client's address (`ClientSrcIp`).
    ClientSrcIp,
}

/// What a rule does in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// To endpoints of one or several groups of the listener.
    Forward(Vec<Name>),
    /// The client is sent elsewhere.
    Redirect(Redirect),
    /// The edge answers.
    Fixed(FixedResponse),
    /// Nobody answers.
    Drop,
}

/// Where clients are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// 301 (unless given), 302, 303, 307 or 308.
    pub code: u16,
    /// Whether to HTTPS; to what the client speaks unless given.
    pub https: Option<bool>,
    /// `${host}` unless given.
    pub domain: Template,
    /// `${port}` unless given.
    pub port: Option<u16>,
    /// `${path}` unless given.
    pub path: Template,
    /// `${query}` unless given.
    pub query: Template,
}

/// An answer of the edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedResponse {
    /// 2xx, 4xx or 5xx.
    pub code: u16,
    /// `text/plain`, `text/css`, `text/html`, `application/javascript` or `application/json`.
    pub content_type: String,
    /// At most 1000 ASCII characters.
    pub content: String,
}

impl Rule {
    /// The values of all conditions together: what the quota counts.
    pub fn items(&self) -> usize {
        self.conditions.iter().map(Condition::items).sum()
    }

    /// The patterns of its conditions on the path.
    pub fn paths(&self) -> impl Iterator<Item = &Pattern> {
        let paths = self.conditions.iter().filter_map(|condition| match condition {
            Condition::Path(patterns) => Some(patterns),
            Condition::Host(_)
            | Condition::Header(..)
            | Condition::Query(_)
            | Condition::Method(_)
            | Condition::Cookie(_)
            | Condition::SourceIp(_) => None,
        });
        paths.flatten()
    }
}

impl Condition {
    /// How many values it has.
    pub fn items(&self) -> usize {
        match self {
            Self::Host(patterns) | Self::Path(patterns) => patterns.len(),
            Self::Header(_, values) | Self::Method(values) => values.len(),
            Self::Query(pairs) | Self::Cookie(pairs) => pairs.len(),
            Self::SourceIp(nets) => nets.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_for_runs_and_single_characters_and_nothing_else_is_special() {
        let found = |pattern: &str, text: &str| {
            let expression = Pattern::Wildcard(pattern.to_owned()).expression(false);
            expression.is_ok_and(|expression| expression.is_match(text.as_bytes()))
        };
        assert!(found("/img/?.png", "/img/a.png") && !found("/img/?.png", "/img/ab.png") && !found("/img/?.png", "/img/axpng"));
        assert!(found("/a*b?", "/axxbc") && found("/a*b?", "/abc") && !found("/a*b?", "/ab"));
        assert!(found("/(a)+", "/(a)+") && !found("/(a)+", "/aa"));
    }

    #[test]
    fn an_expression_that_would_take_much_memory_is_an_error() {
        assert!(Pattern::Regex("((a{0,99}){0,99}){0,99}".to_owned()).expression(false).is_err());
    }
}
