//! `do`: what is changed, and what is done in the end (specification §1.15.5).

use std::collections::BTreeMap;

use super::{
    super::{
        document::Context,
        keys,
        problem::{Fault, Kind},
        tree::{Table, Value, not_a_word, shorten},
    },
    Around, template,
    template::Used,
    when::{header_name, header_value},
};
use crate::model::{
    Action, FixedResponse, GroupKind, HeaderValue, Modifier, Name, Profile, Protocol, Redirect, Template, Variable,
};

/// Words of `type` of a fixed response.
const TYPES: [&str; 5] = ["text/plain", "text/css", "text/html", "application/javascript", "application/json"];

/// Statuses of a redirect; the first is the default.
const REDIRECTS: [u32; 5] = [301, 302, 303, 307, 308];

/// Most characters of a fixed response.
const MAX_CONTENT: usize = 1_000;

/// Headers that say where a message ends, what becomes of its connection, or whom it is for: proxy and rules would disagree.
const FIXED_HEADERS: [&str; 13] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-for",
    "via",
];

/// What `do` says.
pub(super) struct Actions {
    pub(super) modifiers: Vec<Modifier>,
    pub(super) terminal: Terminal,
    /// The texts with variables among them.
    pub(super) templates: Vec<Used>,
}

/// The last action.
pub(super) enum Terminal {
    Known(Action),
    /// There is one, which is a problem.
    Wrong,
}

/// What is added and removed, in lower case, with lines.
#[derive(Default)]
struct Headers {
    added: BTreeMap<String, usize>,
    removed: BTreeMap<String, usize>,
}

/// Reads `do`.
pub(super) fn read(value: &Value<'_>, around: &Around<'_>, cx: &mut Context<'_>) -> Option<Actions> {
    let tables = value.tables(&keys::ACTION, &mut cx.problems)?;
    let before = cx.problems.count();
    let (mut modifiers, mut templates, mut headers) = (Vec::new(), Vec::new(), Headers::default());
    let mut terminal: Option<(Terminal, &'static str, usize)> = None;
    let mut first_modifier: Option<(Value<'_>, &'static str)> = None;
    for table in &tables {
        let Some((word, value)) = table.single("an action", "do = [{ forward = \"api-group\" }]", cx) else { continue };
        if around.protocol == Some(Protocol::Tcp) && !matches!(word, "forward" | "drop") {
            let draft =
                Fault::new(Kind::NotAllowed, format!("a rule of a tcp listener cannot `{word}`: only `forward` and `drop`"))
                    .help("an http or https listener can");
            value.problem(draft, &mut cx.problems);
            continue;
        }
        let is_modifier = matches!(word, "rewrite" | "add_header" | "remove_header" | "remove_header_config");
        let line = cx.problems.line(value.span.start);
        match &terminal {
            Some((_, first, on)) if is_modifier => {
                let draft = Fault::new(Kind::Conflict, format!("`{word}` stands behind `{first}` on line {on}"))
                    .help("what is changed stands before `forward`");
                value.problem(draft, &mut cx.problems);
            }
            Some((_, first, on)) => {
                let draft = Fault::new(Kind::Conflict, format!("a rule does one thing: `{first}` on line {on} is it already"))
                    .help("keep one of `forward`, `redirect`, `fixed_response` and `drop`");
                value.problem(draft, &mut cx.problems);
            }
            None => {}
        }
        if is_modifier {
            let modifier = modifier(word, &value, &mut headers, &mut templates, cx);
            modifiers.extend(modifier.into_iter().flatten());
            first_modifier.get_or_insert((value, word));
            continue;
        }
        let action = match word {
            "forward" => forward(&value, around, cx).map(Action::Forward),
            "redirect" => redirect(&value, around, &mut templates, cx).map(Action::Redirect),
            "fixed_response" => fixed(&value, cx).map(Action::Fixed),
            _ => dropped(&value, cx).map(|()| Action::Drop),
        };
        terminal.get_or_insert((action.map_or(Terminal::Wrong, Terminal::Known), word, line));
    }
    let Some((terminal, word, _)) = terminal else {
        if cx.problems.count() == before || first_modifier.is_some() {
            let draft = Fault::new(Kind::MissingKey, "a rule needs one of `forward`, `redirect`, `fixed_response` and `drop`")
                .help("add `{ forward = \"GROUP\" }` at the end");
            value.problem(draft, &mut cx.problems);
        }
        return None;
    };
    if let (true, Some((value, changed))) = (word != "forward", first_modifier) {
        let draft = Fault::new(Kind::Conflict, format!("`{changed}` needs `forward`: `{word}` sends nothing to an endpoint"))
            .help("remove it, or forward");
        value.problem(draft, &mut cx.problems);
    }
    Some(Actions { modifiers, terminal, templates })
}

/// The groups: default or virtual ones of the same listener.
fn forward(value: &Value<'_>, around: &Around<'_>, cx: &mut Context<'_>) -> Option<Vec<Name>> {
    let elements = match value.as_string() {
        Some(_) => vec![value.clone()],
        None => value.array(&mut cx.problems)?,
    };
    if elements.is_empty() {
        let draft = Fault::new(Kind::MissingKey, "the rule forwards to nobody");
        value.problem(draft.help("name an endpoint group of the listener, or `drop`"), &mut cx.problems);
        return None;
    }
    let (mut names, mut is_right): (Vec<Name>, bool) = (Vec::new(), true);
    for element in &elements {
        match group(element, around, cx) {
            Some(name) if names.contains(&name) => {
                let draft = Fault::new(Kind::Duplicate, format!("the group `{name}` stands here a second time"));
                element.problem(draft.help("name it once"), &mut cx.problems);
                is_right = false;
            }
            Some(name) => names.push(name),
            None => is_right = false,
        }
    }
    is_right.then_some(names)
}

fn group(value: &Value<'_>, around: &Around<'_>, cx: &mut Context<'_>) -> Option<Name> {
    let text = value.string(&mut cx.problems)?;
    // What is wrong with a group is said there.
    let groups = around.groups?;
    let Some(group) = groups.iter().find(|group| group.name.as_str() == text) else {
        let names = groups.iter().map(|group| format!("`{}`", group.name)).collect::<Vec<_>>().join(", ");
        let draft = Fault::new(Kind::BadValue, format!("the listener has no endpoint group `{}`", shorten(text)))
            .help(format!("a rule forwards to groups of its own listener: {names}"));
        value.problem(draft, &mut cx.problems);
        return None;
    };
    let is_http = around.protocol.is_some_and(Protocol::is_http);
    if group.kind == GroupKind::Default && is_http && cx.limits.profile == Profile::Subscription {
        let message = format!(
            "`{text}` is a default endpoint group: under `profile = \"subscription\"` only rules of tcp listeners name those"
        );
        let draft =
            Fault::new(Kind::NotAllowed, message).help("forward to a group of `kind = \"virtual\"`, or use the profile \"payg\"");
        value.problem(draft, &mut cx.problems);
        return None;
    }
    Some(group.name.clone())
}

fn redirect(value: &Value<'_>, around: &Around<'_>, used: &mut Vec<Used>, cx: &mut Context<'_>) -> Option<Redirect> {
    let table = value.table(&keys::REDIRECT, &mut cx.problems)?;
    let code = match table.optional("code") {
        Some(value) => status(&value, &REDIRECTS, cx),
        None => Some(301),
    };
    let https = match table.optional("protocol") {
        Some(value) => protocol(&value, cx),
        None => Some(None),
    };
    let port = match table.optional("port") {
        Some(value) => port(&value, cx),
        None => Some(None),
    };
    let domain = template::domain(table.optional("domain"), true, used, cx);
    let path = template::path(table.optional("path"), true, used, cx);
    let query = template::query(table.optional("query"), true, used, cx);
    let redirect = Redirect { code: code?, https: https?, domain: domain?, port: port?, path: path?, query: query? };
    leads_elsewhere(&table, &redirect, around, cx)?;
    Some(redirect)
}

/// `None` when the client would ask for the same again.
fn leads_elsewhere(table: &Table<'_>, redirect: &Redirect, around: &Around<'_>, cx: &mut Context<'_>) -> Option<()> {
    let is_https = around.protocol? == Protocol::Https;
    let listens = around.ports.and_then(|ports| ports.iter().next()).map(|port| port.get());
    let same_protocol = redirect.https.is_none_or(|https| https == is_https);
    let same_port = redirect.port.is_none_or(|port| Some(port) == listens);
    let same_rest = redirect.domain.is(Variable::Host) && redirect.path.is(Variable::Path) && redirect.query.is(Variable::Query);
    if same_protocol && same_port && same_rest {
        let draft = Fault::new(Kind::NotAllowed, "the redirect changes nothing: clients would ask for the same again, for ever")
            .help("change one of `protocol`, `domain`, `port`, `path` and `query`");
        cx.problems.push(table.span.clone(), &table.path, draft);
        return None;
    }
    if !same_protocol && same_port && redirect.domain.is(Variable::Host) {
        let (to, port) = if is_https { ("HTTP", 80) } else { ("HTTPS", 443) };
        let message = format!("the redirect to {to} keeps the port, where this listener does not speak {to}");
        let draft = Fault::new(Kind::NoEffect, message).help(format!("add `port = {port}`, or the port of the {to} listener"));
        cx.problems.warn(table.span.clone(), &table.path, draft);
    }
    Some(())
}

fn status(value: &Value<'_>, allowed: &[u32], cx: &mut Context<'_>) -> Option<u16> {
    let code = value.integer(100..=599, &mut cx.problems)?;
    if allowed.contains(&code) {
        return u16::try_from(code).ok();
    }
    let words = allowed.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    let draft = Fault::new(Kind::NotAllowed, format!("{code} is no status of a redirect")).help(format!("choose one of {words}"));
    value.problem(draft, &mut cx.problems);
    None
}

/// Whether HTTPS; what the client speaks is none.
fn protocol(value: &Value<'_>, cx: &mut Context<'_>) -> Option<Option<bool>> {
    let text = value.string(&mut cx.problems)?;
    match text.to_ascii_lowercase().as_str() {
        "${protocol}" => Some(None),
        "http" => Some(Some(false)),
        "https" => Some(Some(true)),
        _ => {
            value.problem(not_a_word(text, ["HTTP", "HTTPS", "${protocol}"].into_iter()), &mut cx.problems);
            None
        }
    }
}

/// A port, as a number or as text; the listener's is none.
fn port(value: &Value<'_>, cx: &mut Context<'_>) -> Option<Option<u16>> {
    let Some(text) = value.as_string() else {
        return value.integer(1..=65_535, &mut cx.problems).and_then(|port| u16::try_from(port).ok()).map(Some);
    };
    if text == "${port}" {
        return Some(None);
    }
    let port = Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit())).and_then(|text| text.parse().ok());
    if port.is_none_or(|port: u16| port == 0) {
        let draft = Fault::new(Kind::OutOfRange, format!("{:?} is no port", shorten(text)));
        value.problem(draft.help("write 1 to 65535, or \"${port}\" for the listener's"), &mut cx.problems);
        return None;
    }
    Some(port)
}

fn fixed(value: &Value<'_>, cx: &mut Context<'_>) -> Option<FixedResponse> {
    let table = value.table(&keys::FIXED_RESPONSE, &mut cx.problems)?;
    let code =
        table.required("code", "say which status: `code = 503`", &mut cx.problems).and_then(|value| fixed_status(&value, cx));
    let content_type = match table.optional("type") {
        Some(value) => content_type(&value, cx),
        None => Some(TYPES[0].to_owned()),
    };
    let content = match table.optional("content") {
        Some(value) => content(&value, code, cx),
        None => Some(String::new()),
    };
    Some(FixedResponse { code: code?, content_type: content_type?, content: content? })
}

fn fixed_status(value: &Value<'_>, cx: &mut Context<'_>) -> Option<u16> {
    let code = value.integer(200..=599, &mut cx.problems)?;
    if (300..400).contains(&code) {
        let draft = Fault::new(Kind::NotAllowed, format!("{code} sends clients elsewhere, which a fixed response does not"));
        value.problem(draft.help("choose 2xx, 4xx or 5xx, or use `redirect`"), &mut cx.problems);
        return None;
    }
    u16::try_from(code).ok()
}

fn content_type(value: &Value<'_>, cx: &mut Context<'_>) -> Option<String> {
    let text = value.string(&mut cx.problems)?;
    if TYPES.contains(&text) {
        return Some(text.to_owned());
    }
    value.problem(not_a_word(text, TYPES.into_iter()), &mut cx.problems);
    None
}

fn content(value: &Value<'_>, code: Option<u16>, cx: &mut Context<'_>) -> Option<String> {
    let text = value.string(&mut cx.problems)?;
    let count = text.chars().count();
    let (fault, help) = if count > MAX_CONTENT {
        let message = format!("a fixed response has at most {MAX_CONTENT} characters, this one has {count}");
        (Fault::new(Kind::OutOfRange, message), "shorten it, or let an endpoint answer")
    } else if !text.chars().all(|c| c.is_ascii_graphic() || matches!(c, ' ' | '\n' | '\r' | '\t')) {
        (Fault::new(Kind::BadValue, "a fixed response is of printable ASCII characters"), "write others as HTML or JSON escapes")
    } else if !text.is_empty() && matches!(code, Some(204 | 205)) {
        (Fault::new(Kind::Conflict, "an answer of this status has no content"), "remove `content`, or choose 200")
    } else {
        return Some(text.to_owned());
    };
    value.problem(fault.help(help), &mut cx.problems);
    None
}

fn dropped(value: &Value<'_>, cx: &mut Context<'_>) -> Option<()> {
    if value.boolean(&mut cx.problems)? {
        return Some(());
    }
    value.problem(Fault::new(Kind::BadValue, "`drop = false` does nothing").help("write `drop = true`"), &mut cx.problems);
    None
}

fn modifier(
    word: &str,
    value: &Value<'_>,
    headers: &mut Headers,
    used: &mut Vec<Used>,
    cx: &mut Context<'_>,
) -> Option<Vec<Modifier>> {
    match word {
        "rewrite" => rewrite(value, used, cx).map(|rewrite| vec![rewrite]),
        "add_header" => {
            let elements = value.as_array().unwrap_or_else(|| vec![value.clone()]);
            elements.iter().map(|element| add_header(element, headers, cx)).collect()
        }
        _ => remove_header(value, headers, cx).map(|removed| vec![removed]),
    }
}

fn rewrite(value: &Value<'_>, used: &mut Vec<Used>, cx: &mut Context<'_>) -> Option<Modifier> {
    let table = value.table(&keys::REWRITE, &mut cx.problems)?;
    let domain = template::domain(table.optional("domain"), false, used, cx);
    let path = template::path(table.optional("path"), false, used, cx);
    let query = template::query(table.optional("query"), false, used, cx);
    let (domain, path, query): (Template, Template, Template) = (domain?, path?, query?);
    if domain.is(Variable::Host) && path.is(Variable::Path) && query.is(Variable::Query) {
        let draft = Fault::new(Kind::NotAllowed, "the rewrite changes nothing");
        value.problem(draft.help("give one of `domain`, `path` and `query`"), &mut cx.problems);
        return None;
    }
    Some(Modifier::Rewrite { domain, path, query })
}

fn add_header(value: &Value<'_>, headers: &mut Headers, cx: &mut Context<'_>) -> Option<Modifier> {
    let table = value.table(&keys::ADD_HEADER, &mut cx.problems)?;
    let name = table.required("name", "say which header: `name = \"x-src\"`", &mut cx.problems);
    let name = name.and_then(|value| noted(&value, true, headers, cx));
    let source = source(&table, cx);
    Some(Modifier::AddHeader(name?, source?))
}

/// What `value`, `ref`, `system` and `type` say together.
fn source(table: &Table<'_>, cx: &mut Context<'_>) -> Option<HeaderValue> {
    let help = "write one of `value = \"text\"`, `ref = \"another-header\"` and `system = \"ClientSrcIp\"`";
    let (text, copy, system) = (table.optional("value"), table.optional("ref"), table.optional("system"));
    let kind = match table.optional("type") {
        Some(value) => Some(kind(&value, cx)?),
        None => None,
    };
    match (text, copy, system, kind) {
        (Some(value), None, None, None | Some("user-defined")) => header_value(&value, cx).map(HeaderValue::Text),
        (Some(value), None, None, Some("ref")) | (None, Some(value), None, None | Some("ref")) => {
            header_name(&value, cx).map(HeaderValue::Ref)
        }
        (Some(value), None, None, Some("system-defined")) | (None, None, Some(value), None | Some("system-defined")) => {
            value.word(&[("ClientSrcIp", ())], &mut cx.problems).map(|()| HeaderValue::ClientSrcIp)
        }
        (None, None, None, _) => {
            let draft = Fault::new(Kind::MissingKey, "the header that is added needs a value").help(help);
            cx.problems.push(table.span.clone(), &table.path, draft);
            None
        }
        (..) => {
            let draft =
                Fault::new(Kind::Conflict, "the value of the header that is added is given in more than one way").help(help);
            cx.problems.push(table.span.clone(), &table.path, draft);
            None
        }
    }
}

fn kind(value: &Value<'_>, cx: &mut Context<'_>) -> Option<&'static str> {
    const WORDS: [(&str, &str); 4] =
        [("user-defined", "user-defined"), ("userdefined", "user-defined"), ("ref", "ref"), ("system-defined", "system-defined")];
    value.word(&WORDS, &mut cx.problems)
}

fn remove_header(value: &Value<'_>, headers: &mut Headers, cx: &mut Context<'_>) -> Option<Modifier> {
    let elements = match value.as_string() {
        Some(_) => vec![value.clone()],
        None => value.array(&mut cx.problems)?,
    };
    if elements.is_empty() {
        let draft = Fault::new(Kind::MissingKey, "no header is named");
        value.problem(draft.help("name one: `remove_header = [\"x-debug\"]`"), &mut cx.problems);
        return None;
    }
    let names: Vec<Option<String>> = elements.iter().map(|element| noted(element, false, headers, cx)).collect();
    names.into_iter().collect::<Option<Vec<_>>>().map(Modifier::RemoveHeader)
}

/// The name of a header that is added or removed; each once in a rule.
fn noted(value: &Value<'_>, is_added: bool, headers: &mut Headers, cx: &mut Context<'_>) -> Option<String> {
    let name = header_name(value, cx)?;
    let key = name.to_ascii_lowercase();
    if FIXED_HEADERS.contains(&key.as_str()) || key.starts_with("ga-") {
        let draft = Fault::new(Kind::NotAllowed, format!("rules do not change the header `{name}`"));
        let help = "it says where messages end, whom they are for, or whom they are from, which is the edge's; `rewrite` changes the host";
        value.problem(draft.help(help), &mut cx.problems);
        return None;
    }
    let line = cx.problems.line(value.span.start);
    if let Some((first, what)) =
        headers.added.get(&key).map(|line| (line, "added")).or_else(|| headers.removed.get(&key).map(|line| (line, "removed")))
    {
        let draft = Fault::new(Kind::Duplicate, format!("the header `{name}` is {what} on line {first} already"));
        value.problem(draft.help("a rule adds or removes a header once; adding replaces what the client sent"), &mut cx.problems);
        return None;
    }
    if is_added { &mut headers.added } else { &mut headers.removed }.insert(key, line);
    Some(name)
}
