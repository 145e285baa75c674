//! The keys of forwarding rules.

use schemars::JsonSchema;
use serde::Serialize;

/// A forwarding rule: it applies to what meets all its conditions, of which those on the path count as one.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
pub struct Rule {
    /// Its name, unique in the listener; `default` is what the rule is called that comes last and nobody writes.
    #[schemars(regex(pattern = r"^[A-Za-z][A-Za-z0-9._-]{1,127}$"))]
    pub name: String,
    /// Unique in the listener; lower ones are tried first. Rules without it come after the others, in file order.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "u32", range(min = 1, max = 10_000))]
    pub priority: Option<u32>,
    /// What must hold. A tcp listener knows the host only: the server name of TLS.
    #[schemars(length(min = 1))]
    pub when: Vec<Condition>,
    /// What is changed, in order, and then what is done: one of `forward`, `redirect`, `fixed_response` and `drop`.
    #[schemars(length(min = 1))]
    pub r#do: Vec<Action>,
}

/// One condition: a table with one key. One of its values is enough.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
pub struct Condition {
    /// The host without port, in any case: 3–128 letters, digits, `-`, `.`; `*` stands for any run of characters, `?` for one; behind
    /// a `~` an expression. Once in a rule.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "OneOrMore<String>")]
    pub host: Option<OneOrMore<String>>,
    /// The path without query, with case, as it is forwarded: 1–128 letters, digits, `$-_.+/&~@:'`, `/` first; `*` stands for any
    /// run of characters, `?` for one; behind a `~` an expression, which is found anywhere unless `^` and `$` say where.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "OneOrMore<String>")]
    pub path: Option<OneOrMore<String>>,
    /// A header has one of the values.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "HeaderCondition")]
    pub header: Option<HeaderCondition>,
    /// One of the pairs is in the query, after decoding: lower case, without spaces and `[ ] { } < > \ ; / ? : @ & = + , $ % " ^ ~`.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "OneOrMore<Pair>")]
    pub query: Option<OneOrMore<Pair>>,
    /// The method. Once in a rule.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "OneOrMore<Method>")]
    pub method: Option<OneOrMore<Method>>,
    /// One of the cookies is there: lower case, without spaces and `# [ ] { } \ < > &`.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "OneOrMore<Pair>")]
    pub cookie: Option<OneOrMore<Pair>>,
    /// Addresses or networks that the client's connection comes from. Once in a rule.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "OneOrMore<String>")]
    pub source_ip: Option<OneOrMore<String>>,
}

/// One value, or a list of different ones.
#[derive(JsonSchema, Serialize)]
#[serde(untagged)]
pub enum OneOrMore<T> {
    /// One.
    One(T),
    /// Several.
    More(#[schemars(length(min = 1))] Vec<T>),
}

/// A header and its values.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
pub struct HeaderCondition {
    /// Its name, in any case.
    #[schemars(regex(pattern = r"^[A-Za-z0-9_-]{1,40}$"))]
    pub name: String,
    /// 1–128 printable characters each, without a space at the ends.
    pub values: OneOrMore<String>,
}

/// A pair of a query or a cookie.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
pub struct Pair {
    /// Its key.
    #[schemars(length(min = 1, max = 100))]
    pub key: String,
    /// Its value.
    #[schemars(length(min = 1, max = 128))]
    pub value: String,
}

/// A method.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    Head,
    Get,
    Post,
    Options,
    Put,
    Patch,
    Delete,
}

/// One action: a table with one key. `rewrite`, `add_header` and `remove_header` stand before `forward` and need it.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
pub struct Action {
    /// To endpoints of one or several groups of the listener, default or virtual.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "OneOrMore<String>")]
    pub forward: Option<OneOrMore<String>>,
    /// The client is sent elsewhere.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "Redirect")]
    pub redirect: Option<Redirect>,
    /// The edge answers.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "FixedResponse")]
    pub fixed_response: Option<FixedResponse>,
    /// `true`: nobody answers; the connection ends, or the stream is reset.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "bool")]
    pub drop: Option<bool>,
    /// Host, path and query are changed.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "Rewrite")]
    pub rewrite: Option<Rewrite>,
    /// Headers are added, in the place of what the client sent by their names.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "OneOrMore<AddHeader>")]
    pub add_header: Option<OneOrMore<AddHeader>>,
    /// Headers are removed.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "OneOrMore<String>")]
    pub remove_header: Option<OneOrMore<String>>,
    /// The same by its other documented name.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "OneOrMore<String>")]
    pub remove_header_config: Option<OneOrMore<String>>,
}

/// Where clients are sent; something must change. In `domain`, `path` and `query` stand `${protocol}`, `${host}`, `${port}`,
/// `${path}` and `${query}` for what the request has, and `${1}` to `${3}` for what groups of the path condition found.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
pub struct Redirect {
    /// `HTTP`, `HTTPS` or `${protocol}`.
    #[schemars(default = "protocol")]
    pub protocol: String,
    /// Lower-case letters, digits, `-` and `.`.
    #[schemars(default = "host", length(min = 1, max = 128))]
    pub domain: String,
    /// 1 to 65535 or `${port}`, which is the listener's. A protocol's own port is left out of the address.
    #[schemars(default = "port")]
    pub port: PortOrText,
    /// Begins with `/`.
    #[schemars(default = "path", length(min = 1, max = 128))]
    pub path: String,
    /// What stands behind `?`; the empty text removes it.
    #[schemars(default = "query", length(max = 128))]
    pub query: String,
    /// 301, 302, 303, 307 or 308.
    #[schemars(default = "moved", range(min = 301, max = 308))]
    pub code: u16,
}

/// A port, as a number or as text.
#[derive(JsonSchema, Serialize)]
#[serde(untagged)]
pub enum PortOrText {
    /// A number.
    Port(#[schemars(range(min = 1, max = 65_535))] u16),
    /// Text.
    Text(String),
}

/// An answer of the edge.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
pub struct FixedResponse {
    /// 2xx, 4xx or 5xx.
    #[schemars(range(min = 200, max = 599))]
    pub code: u16,
    /// What the content is.
    #[schemars(default = "plain")]
    pub r#type: ContentType,
    /// At most 1000 printable ASCII characters.
    #[schemars(default = "nothing", length(max = 1_000))]
    pub content: String,
}

/// Types of content.
#[derive(JsonSchema, Serialize)]
pub enum ContentType {
    #[serde(rename = "text/plain")]
    Plain,
    #[serde(rename = "text/css")]
    Css,
    #[serde(rename = "text/html")]
    Html,
    #[serde(rename = "application/javascript")]
    Javascript,
    #[serde(rename = "application/json")]
    Json,
}

/// What endpoints are asked for instead; something must change. `${host}`, `${path}` and `${query}` stand for what the request has,
/// `${1}` to `${3}` for what groups of the path condition found, which must be as many.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
pub struct Rewrite {
    /// Lower-case letters, digits, `-` and `.`.
    #[schemars(default = "host", length(min = 1, max = 128))]
    pub domain: String,
    /// Begins with `/`; a `~` may stand before it.
    #[schemars(default = "path", length(min = 1, max = 129))]
    pub path: String,
    /// What stands behind `?`; the empty text removes it.
    #[schemars(default = "query", length(max = 128))]
    pub query: String,
}

/// A header, and one of `value`, `ref` and `system`.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields)]
pub struct AddHeader {
    /// Its name. Headers that say where messages end or whom they are for and from are not for rules.
    #[schemars(regex(pattern = r"^[A-Za-z0-9_-]{1,40}$"))]
    pub name: String,
    /// 1–128 printable characters, without a space at the ends.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "String", length(min = 1, max = 128))]
    pub value: Option<String>,
    /// The header of the request whose value it has; it is left out when the request has none.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "String", length(min = 1, max = 40))]
    pub r#ref: Option<String>,
    /// `ClientSrcIp`: the client's address.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "String")]
    pub system: Option<String>,
    /// What `value` is, as in the documented API: `user-defined`, `ref` or `system-defined`.
    #[schemars(default, skip_serializing_if = "Option::is_none", with = "String")]
    pub r#type: Option<String>,
}

fn protocol() -> String {
    "${protocol}".to_owned()
}

fn host() -> String {
    "${host}".to_owned()
}

fn port() -> PortOrText {
    PortOrText::Text("${port}".to_owned())
}

fn path() -> String {
    "${path}".to_owned()
}

fn query() -> String {
    "${query}".to_owned()
}

fn moved() -> u16 {
    301
}

fn plain() -> ContentType {
    ContentType::Plain
}

fn nothing() -> String {
    String::new()
}
