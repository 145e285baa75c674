//! What a rule changes of a request before it is forwarded.

use http::{
    HeaderValue, Uri,
    header::{HOST, HeaderName},
    request::Parts,
    uri::{Authority, PathAndQuery},
};

use super::{request::Request, values::Values};
use crate::model::{self, HeaderValue as From, Modifier, Template, Variable};

/// What is changed, in order.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    steps: Vec<Step>,
    rewrites_host: bool,
}

#[derive(Clone, Debug)]
enum Step {
    /// None of the three stays as it is.
    Rewrite {
        domain: Option<Template>,
        path: Template,
        query: Template,
        groups: Values,
    },
    Add(HeaderName, Source),
    Remove(HeaderName),
}

#[derive(Clone, Debug)]
enum Source {
    Text(HeaderValue),
    Header(HeaderName),
    Client,
}

/// A rewrite makes something that is no target of a request: 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what the rule makes of the request's target is none")]
pub struct NoTarget;

impl Changes {
    /// Nothing.
    pub(super) const NONE: Self = Self { steps: Vec::new(), rewrites_host: false };

    pub(super) fn new(rule: &model::Rule) -> Self {
        let mut changes = Self::NONE;
        for modifier in &rule.modifiers {
            match modifier {
                Modifier::Rewrite { domain, path, query } => {
                    let groups = Values::new([domain, path, query], rule.paths());
                    let domain = (!domain.is(Variable::Host)).then(|| domain.clone());
                    changes.rewrites_host |= domain.is_some();
                    changes.steps.push(Step::Rewrite { domain, path: path.clone(), query: query.clone(), groups });
                }
                Modifier::AddHeader(name, value) => {
                    let source = match value {
                        From::Text(text) => HeaderValue::from_str(text).ok().map(Source::Text),
                        From::Ref(name) => HeaderName::from_bytes(name.as_bytes()).ok().map(Source::Header),
                        From::ClientSrcIp => Some(Source::Client),
                    };
                    let step = HeaderName::from_bytes(name.as_bytes()).ok().zip(source);
                    changes.steps.extend(step.map(|(name, source)| Step::Add(name, source)));
                }
                Modifier::RemoveHeader(names) => {
                    let names = names.iter().filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok());
                    changes.steps.extend(names.map(Step::Remove));
                }
            }
        }
        changes
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Whether endpoints are asked for another host than the client asked for: their TLS is asked for it too.
    pub fn rewrites_host(&self) -> bool {
        self.rewrites_host
    }

    /// Changes `parts`; `client` is the peer's address as a header value. A rewritten host stands in the `Host` header, and in the
    /// target if that has one.
    ///
    /// # Errors
    ///
    /// The rewrite makes no target.
    pub fn apply(&self, parts: &mut Parts, client: &HeaderValue) -> Result<(), NoTarget> {
        for step in &self.steps {
            match step {
                Step::Rewrite { domain, path, query, groups } => rewrite(parts, domain.as_ref(), path, query, groups)?,
                Step::Add(name, source) => {
                    let value = match source {
                        Source::Text(value) => Some(value.clone()),
                        Source::Header(name) => parts.headers.get(name).cloned(),
                        Source::Client => Some(client.clone()),
                    };
                    match value {
                        Some(value) => drop(parts.headers.insert(name, value)),
                        None => drop(parts.headers.remove(name)),
                    }
                }
                Step::Remove(name) => drop(parts.headers.remove(name)),
            }
        }
        Ok(())
    }
}

fn rewrite(
    parts: &mut Parts,
    domain: Option<&Template>,
    path: &Template,
    query: &Template,
    groups: &Values,
) -> Result<(), NoTarget> {
    let (target, host) = {
        // Neither client nor place is what a rewrite can refer to.
        let nowhere = std::net::SocketAddr::from(([0, 0, 0, 0], 0));
        let values = groups.of(&Request::new(parts, nowhere.ip(), nowhere, false));
        let path = values.fill(path);
        if !path.starts_with('/') || has_dot_segment(&path) {
            return Err(NoTarget);
        }
        let query = values.fill(query);
        let target = if query.is_empty() { path } else { path + "?" + &query };
        (target, domain.map(|domain| values.fill(domain)))
    };
    let mut uri = std::mem::take(&mut parts.uri).into_parts();
    uri.path_and_query = Some(PathAndQuery::try_from(target).map_err(|_| NoTarget)?);
    if let Some(host) = host {
        if uri.authority.is_some() {
            uri.authority = Some(Authority::try_from(host.as_str()).map_err(|_| NoTarget)?);
        }
        parts.headers.insert(HOST, HeaderValue::try_from(host).map_err(|_| NoTarget)?);
    }
    parts.uri = Uri::from_parts(uri).map_err(|_| NoTarget)?;
    Ok(())
}

/// Pieces of a normalised path, put together anew, may make what no longer is.
fn has_dot_segment(path: &str) -> bool {
    path.split('/').any(|segment| matches!(segment, "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Action, Condition, Pattern};

    fn template(text: &str) -> Template {
        Template::parse(text).expect("a template")
    }

    fn changed(path: &str, modifiers: Vec<Modifier>, uri: &str, headers: &[(&str, &str)]) -> Result<Parts, NoTarget> {
        let condition = Condition::Path(vec![Pattern::Regex(path.to_owned())]);
        let name = model::Name::parse("rule", model::NameRule::Seed).expect("a name");
        let rule = model::Rule { name, priority: 1, conditions: vec![condition], modifiers, action: Action::Forward(Vec::new()) };
        let mut builder = http::Request::builder().uri(uri);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        let (mut parts, ()) = builder.body(()).expect("a request").into_parts();
        Changes::new(&rule).apply(&mut parts, &HeaderValue::from_static("192.0.2.1"))?;
        Ok(parts)
    }

    fn rewrite(domain: &str, path: &str, query: &str) -> Vec<Modifier> {
        vec![Modifier::Rewrite { domain: template(domain), path: template(path), query: template(query) }]
    }

    // proves: G12
    #[test]
    fn a_rewrite_changes_host_path_and_query_with_captures() {
        let host = [("host", "a.example:8080")];
        let parts =
            changed("^/(v1)/(.*)/(x)$", rewrite("b.example", "/${3}/${2}${path}", "q=${1}&${query}"), "/v1/m/x?old=1", &host);
        let parts = parts.expect("a target");
        assert_eq!(
            (parts.uri.to_string().as_str(), parts.headers[HOST].to_str().ok()),
            ("/x/m/v1/m/x?q=v1&old=1", Some("b.example"))
        );
        let parts = changed("/", rewrite("${host}", "/new", "${query}"), "/old?k=v", &host).expect("a target");
        assert_eq!((parts.uri.to_string().as_str(), parts.headers[HOST].to_str().ok()), ("/new?k=v", Some("a.example:8080")));
        let parts = changed("/", rewrite("x-${host}", "${path}", ""), "http://a.example/old?k=v", &[]).expect("a target");
        assert_eq!(
            (parts.uri.to_string().as_str(), parts.headers[HOST].to_str().ok()),
            ("http://x-a.example/old", Some("x-a.example"))
        );
    }

    #[test]
    fn a_rewrite_that_makes_no_target_is_refused() {
        assert_eq!(changed("^/(.)y(.)", rewrite("${host}", "/${1}${2}", ""), "/.y./a", &[]).err(), Some(NoTarget));
        assert_eq!(changed("^/(a)", rewrite("${host}", "${1}", ""), "/a", &[]).err(), Some(NoTarget));
    }

    // proves: G13
    #[test]
    fn headers_are_added_copied_and_removed() {
        let add = |name: &str, value| Modifier::AddHeader(name.to_owned(), value);
        let modifiers = vec![
            add("x-text", From::Text("yes".to_owned())),
            add("x-src", From::ClientSrcIp),
            add("x-copy", From::Ref("user-agent".to_owned())),
            add("x-missing", From::Ref("nobody".to_owned())),
            Modifier::RemoveHeader(vec!["Cookie".to_owned(), "user-agent".to_owned()]),
        ];
        let sent =
            [("x-src", "10.0.0.1"), ("x-src", "10.0.0.2"), ("user-agent", "curl"), ("cookie", "a=b"), ("x-missing", "forged")];
        let parts = changed("/", modifiers, "/", &sent).expect("a target");
        let mut found: Vec<_> =
            parts.headers.iter().map(|(name, value)| format!("{name}={}", value.to_str().unwrap_or("?"))).collect();
        found.sort();
        assert_eq!(found, ["x-copy=curl", "x-src=192.0.2.1", "x-text=yes"]);
    }
}
