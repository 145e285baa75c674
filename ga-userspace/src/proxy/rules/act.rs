//! What a rule does, made ready when the plan is made: status codes, header names and bodies are built once.

use http::{
    HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, HeaderName, LOCATION},
};
use hyper::body::Bytes;

use super::{change::Changes, request::Request, values::Values};
use crate::model::{self, Pattern, Template};

/// What becomes of a request.
#[derive(Clone, Debug)]
pub enum Act {
    /// It goes to an endpoint.
    Forward {
        /// The place in [`Listener::targets`](crate::proxy::Listener::targets).
        target: usize,
        /// What is changed of it before.
        changes: Changes,
    },
    /// The client is sent elsewhere.
    Redirect(Redirect),
    /// The edge answers.
    Fixed(Fixed),
    /// Nobody answers: the connection ends, or the stream is reset.
    Drop,
}

impl Act {
    /// What no rule applies to goes to the default groups as it is.
    pub(super) const DEFAULT: Self = Self::Forward { target: 0, changes: Changes::NONE };

    /// What `rule` does; `target` is the place of its groups if it forwards.
    pub(super) fn new(rule: &model::Rule, target: usize) -> Self {
        match &rule.action {
            model::Action::Forward(_) => Self::Forward { target, changes: Changes::new(rule) },
            model::Action::Redirect(redirect) => Self::Redirect(Redirect::new(redirect, rule.paths())),
            model::Action::Fixed(fixed) => Self::Fixed(Fixed::new(fixed)),
            model::Action::Drop => Self::Drop,
        }
    }
}

/// Where clients are sent.
#[derive(Clone, Debug)]
pub struct Redirect {
    code: StatusCode,
    https: Option<bool>,
    domain: Template,
    port: Option<u16>,
    path: Template,
    query: Template,
    groups: Values,
}

impl Redirect {
    fn new<'p>(redirect: &model::Redirect, paths: impl Iterator<Item = &'p Pattern>) -> Self {
        let model::Redirect { code, https, domain, port, path, query } = redirect.clone();
        let groups = Values::new([&domain, &path, &query], paths);
        let code = StatusCode::from_u16(code).unwrap_or(StatusCode::MOVED_PERMANENTLY);
        Self { code, https, domain, port, path, query, groups }
    }

    /// Where `request` is sent: always a whole URL, whose port is there when it is not the protocol's own. None when what the
    /// client sent makes no header.
    pub fn location(&self, request: &Request<'_>) -> Option<HeaderValue> {
        let values = self.groups.of(request);
        let https = self.https.unwrap_or(request.https);
        let (scheme, own) = if https { ("https", 443) } else { ("http", 80) };
        let mut host = values.fill(&self.domain);
        if host.is_empty() {
            let address = request.local.ip().to_canonical();
            host = if address.is_ipv6() { format!("[{address}]") } else { address.to_string() };
        }
        let port = self.port.unwrap_or(request.local.port());
        let port = if port == own { String::new() } else { format!(":{port}") };
        let path = values.fill(&self.path);
        let slash = if path.starts_with('/') { "" } else { "/" };
        let query = values.fill(&self.query);
        let mark = if query.is_empty() { "" } else { "?" };
        HeaderValue::try_from(format!("{scheme}://{host}{port}{slash}{path}{mark}{query}")).ok()
    }

    /// The whole answer.
    pub fn response<B: Default>(&self, request: &Request<'_>) -> Response<B> {
        let mut response = Response::new(B::default());
        match self.location(request) {
            Some(location) => {
                *response.status_mut() = self.code;
                response.headers_mut().insert(LOCATION, location);
            }
            None => *response.status_mut() = StatusCode::BAD_REQUEST,
        }
        response
    }
}

/// An answer of the edge.
#[derive(Clone, Debug)]
pub struct Fixed {
    code: StatusCode,
    content_type: (HeaderName, HeaderValue),
    content: Bytes,
}

impl Fixed {
    fn new(fixed: &model::FixedResponse) -> Self {
        Self {
            code: StatusCode::from_u16(fixed.code).unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
            content_type: (
                CONTENT_TYPE,
                HeaderValue::from_str(&fixed.content_type).unwrap_or(HeaderValue::from_static("text/plain")),
            ),
            content: Bytes::from(fixed.content.clone()),
        }
    }

    /// The whole answer.
    pub fn response<B: From<Bytes>>(&self) -> Response<B> {
        let mut response = Response::new(B::from(self.content.clone()));
        *response.status_mut() = self.code;
        if !self.content.is_empty() {
            let (name, value) = self.content_type.clone();
            response.headers_mut().insert(name, value);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};

    use super::*;
    use crate::model::Variable;

    fn redirect() -> model::Redirect {
        model::Redirect {
            code: 301,
            https: None,
            domain: Template::of(Variable::Host),
            port: None,
            path: Template::of(Variable::Path),
            query: Template::of(Variable::Query),
        }
    }

    fn to(redirect: &model::Redirect, host: &str, local: &str, https: bool) -> String {
        let request = Request {
            client: [192, 0, 2, 1].into(),
            local: local.parse().expect("an address"),
            https,
            method: &Method::GET,
            host,
            path: "/a/b",
            query: Some("x=1"),
            headers: &HeaderMap::new(),
        };
        let path = [Pattern::Regex("^/(a)/(.*)$".to_owned())];
        let location = Redirect::new(redirect, path.iter()).location(&request);
        location.and_then(|value| value.to_str().map(str::to_owned).ok()).unwrap_or_default()
    }

    // proves: G10
    #[test]
    fn a_location_keeps_what_is_not_changed_and_omits_default_ports() {
        let template = |text: &str| Template::parse(text).expect("a template");
        let (http, https) = ("198.51.100.10:80", "198.51.100.10:443");
        let other_host = model::Redirect { domain: template("new.example"), ..redirect() };
        assert_eq!(to(&other_host, "old.example", http, false), "http://new.example/a/b?x=1");
        assert_eq!(to(&other_host, "old.example", https, true), "https://new.example/a/b?x=1");
        assert_eq!(to(&other_host, "old.example", "198.51.100.10:8080", false), "http://new.example:8080/a/b?x=1");
        let secure = model::Redirect { https: Some(true), port: Some(443), ..redirect() };
        assert_eq!(to(&secure, "old.example", http, false), "https://old.example/a/b?x=1");
        let port = model::Redirect { port: Some(8443), ..redirect() };
        assert_eq!(to(&port, "old.example", https, true), "https://old.example:8443/a/b?x=1");
        assert_eq!(to(&port, "", "[2001:db8::1]:443", true), "https://[2001:db8::1]:8443/a/b?x=1");
        let parts = model::Redirect { path: template("/v2/${2}/${1}${path}"), query: template("from=${host}"), ..redirect() };
        assert_eq!(to(&parts, "old.example", http, false), "http://old.example/v2/b/a/a/b?from=old.example");
        let bare = model::Redirect { path: template("/"), query: template(""), ..redirect() };
        assert_eq!(to(&bare, "old.example", http, false), "http://old.example/");
        let all = model::Redirect { query: template("${protocol}-${port}-${query}"), ..redirect() };
        assert_eq!(to(&all, "old.example", https, true), "https://old.example/a/b?https-443-x=1");
    }

    // proves: G11
    #[test]
    fn a_fixed_answer_is_exactly_what_the_file_says() {
        let fixed = model::FixedResponse { code: 503, content_type: "application/json".to_owned(), content: "{}".to_owned() };
        let response: Response<Bytes> = Fixed::new(&fixed).response();
        assert_eq!((response.status().as_u16(), response.headers()[CONTENT_TYPE].to_str().ok()), (503, Some("application/json")));
        assert_eq!(response.body(), "{}");
    }
}
