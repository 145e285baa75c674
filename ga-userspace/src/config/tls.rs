//! Certificates and policies of HTTPS listeners, and whom their endpoints are believed to be (specification §1.12–1.14).

use std::{collections::BTreeMap, path::Path};

use super::{
    document::Context,
    keys, limits,
    problem::{Fault, Kind},
    tree::{Table, Value, not_a_word, shorten},
};
use crate::model::{BackendTls, Certificate, Protocol, Tls, TlsPolicy};

/// Words of `security_policy`.
pub(super) const POLICIES: [(&str, TlsPolicy); 3] = [
    (TlsPolicy::Tls12.word(), TlsPolicy::Tls12),
    (TlsPolicy::Tls12Strict.word(), TlsPolicy::Tls12Strict),
    (TlsPolicy::Tls12StrictWith13.word(), TlsPolicy::Tls12StrictWith13),
];

/// Documented policies that cannot be honoured, with the version that they begin with.
const OLD: [(&str, &str); 2] = [("tls_cipher_policy_1_0", "TLS 1.0 and 1.1"), ("tls_cipher_policy_1_1", "TLS 1.1")];

/// Keys that only HTTPS listeners have.
const ONLY_HTTPS: [&str; 3] = ["certificates", "security_policy", "security_policy_id"];

const CERTIFICATES_HELP: &str = "as in `certificates = { default = \"a.pem\" }`: PEM, the certificate, those that issued it, and the \
                                 key; with the key apart `{ cert = \"a.crt\", key = \"a.key\" }`";

/// What the listener says of TLS: nothing when it is no HTTPS listener; `Err` when that is a problem.
pub(super) fn read(listener: &Table<'_>, protocol: Option<Protocol>, cx: &mut Context<'_>) -> Result<Option<Tls>, ()> {
    let before = cx.problems.count();
    if protocol != Some(Protocol::Https) {
        for value in ONLY_HTTPS.into_iter().filter(|_| protocol.is_some()).filter_map(|key| listener.optional(key)) {
            let draft = Fault::new(Kind::NotAllowed, "this key is for https listeners");
            value.problem(draft.help("remove the key, or set `protocol = \"https\"`"), &mut cx.problems);
        }
        return if cx.problems.count() == before { Ok(None) } else { Err(()) };
    }
    let policy = policy(listener, cx);
    let value = listener.required("certificates", CERTIFICATES_HELP, &mut cx.problems);
    let certificates = value.and_then(|value| certificates(&value, cx));
    let read = || {
        let (default, additional) = certificates?;
        Some(Tls { policy: policy?, default, additional })
    };
    read().map(Some).ok_or(())
}

fn policy(listener: &Table<'_>, cx: &mut Context<'_>) -> Option<TlsPolicy> {
    let (value, other) = (listener.optional("security_policy"), listener.optional("security_policy_id"));
    if let (Some(_), Some(other)) = (&value, &other) {
        let draft = Fault::new(Kind::Duplicate, "`security_policy` and `security_policy_id` are two names of one key");
        other.problem(draft.help("remove one of them"), &mut cx.problems);
        return None;
    }
    let Some(value) = value.or(other) else { return Some(TlsPolicy::default()) };
    let text = value.string(&mut cx.problems)?;
    if let Some((_, versions)) = OLD.iter().find(|(word, _)| *word == text) {
        let message = format!("{text:?} allows {versions}, which are broken (RFC 8996) and which the TLS library does not have");
        let draft = Fault::new(Kind::NotAllowed, message);
        value.problem(
            draft.help("use \"tls_cipher_policy_1_2\", or better \"tls_cipher_policy_1_2_strict_with_1_3\""),
            &mut cx.problems,
        );
        return None;
    }
    let found = POLICIES.iter().find(|(word, _)| *word == text).map(|(_, policy)| *policy);
    if found.is_none() {
        value.problem(not_a_word(text, POLICIES.iter().map(|(word, _)| *word)), &mut cx.problems);
    }
    found
}

/// `{ default = …, additional = [ … ] }`.
fn certificates(value: &Value<'_>, cx: &mut Context<'_>) -> Option<(Certificate, Vec<(String, Certificate)>)> {
    let table = value.table(&keys::CERTIFICATES, &mut cx.problems)?;
    let default = table.required("default", CERTIFICATES_HELP, &mut cx.problems).and_then(|value| default(&value, cx));
    let additional = table.optional("additional").map_or(Some(Vec::new()), |value| additional(&value, cx));
    Some((default?, additional?))
}

fn default(value: &Value<'_>, cx: &mut Context<'_>) -> Option<Certificate> {
    if value.as_string().is_some() {
        let cert = file(value, cx)?;
        return Some(Certificate { key: cert.clone(), cert });
    }
    files(&value.table(&keys::CERTIFICATE, &mut cx.problems)?, cx)
}

/// `cert`, and `key` where that is a file of its own.
fn files(table: &Table<'_>, cx: &mut Context<'_>) -> Option<Certificate> {
    let cert = table.required("cert", CERTIFICATES_HELP, &mut cx.problems).and_then(|value| file(&value, cx));
    let key = table.optional("key").map_or_else(|| cert.clone(), |value| file(&value, cx));
    Some(Certificate { cert: cert?, key: key? })
}

fn additional(value: &Value<'_>, cx: &mut Context<'_>) -> Option<Vec<(String, Certificate)>> {
    let before = cx.problems.count();
    let elements = value.array(&mut cx.problems)?;
    let limit = cx.limits.additional_certs_per_listener as usize;
    if let Some(excess) = elements.get(limit) {
        let message = format!("`limits.additional_certs_per_listener` allows {limit}; this is one more");
        let most = limits::ADDITIONAL_CERTS_PER_LISTENER.end();
        excess.problem(Fault::new(Kind::Quota, message).help(format!("raise the limit, up to {most}")), &mut cx.problems);
    }
    let mut lines: BTreeMap<String, usize> = BTreeMap::new();
    let mut found = Vec::new();
    for element in &elements {
        let Some(table) = element.table(&keys::ADDITIONAL, &mut cx.problems) else { continue };
        let value = table.required("domain", "name who it is for: `domain = \"b.example\"`", &mut cx.problems);
        let domain = value.as_ref().and_then(|value| domain(value, &mut lines, cx));
        if let (Some(domain), Some(files)) = (domain, files(&table, cx)) {
            found.push((domain, files));
        }
    }
    (cx.problems.count() == before).then_some(found)
}

/// A name of at least one label, or one after `*.`; each once.
fn domain(value: &Value<'_>, lines: &mut BTreeMap<String, usize>, cx: &mut Context<'_>) -> Option<String> {
    let text = value.string(&mut cx.problems)?;
    let domain = text.to_ascii_lowercase();
    let name = domain.strip_prefix("*.").unwrap_or(&domain);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if domain.len() > 253 || !name.split('.').all(is_label) || name.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        let draft = Fault::new(Kind::BadValue, format!("{:?} is not a domain", shorten(text)))
            .help("as in \"b.example\", or \"*.b.example\" for all names that end with it; other than ASCII as `xn--…`");
        value.problem(draft, &mut cx.problems);
        return None;
    }
    let line = cx.problems.line(value.span.start);
    if let Some(first) = lines.get(&domain) {
        let draft = Fault::new(Kind::Duplicate, format!("{domain} has a certificate on line {first} already"));
        value.problem(draft.help("a domain has one additional certificate"), &mut cx.problems);
        return None;
    }
    lines.insert(domain.clone(), line);
    Some(domain)
}

/// The path of a file; one that does not begin with `/` is beside the configuration.
fn file(value: &Value<'_>, cx: &mut Context<'_>) -> Option<String> {
    let text = value.string(&mut cx.problems)?;
    if text.is_empty() || text.len() >= 4_096 || text.contains('\0') {
        let draft = Fault::new(Kind::BadValue, format!("{:?} is not the path of a file", shorten(text)));
        value.problem(draft.help("begin with `/`; what does not is looked for beside the configuration"), &mut cx.problems);
        return None;
    }
    let beside = Path::new(cx.problems.file()).parent().unwrap_or(Path::new(""));
    let path = beside.join(text).display().to_string();
    let place = cx.problems.place(value.span.clone(), &value.path);
    cx.files.entry(path.clone()).or_insert(place);
    Some(path)
}

/// `verify` and `ca` of an endpoint group, and that endpoints are spoken to by TLS at all.
pub(super) fn backend(group: &Table<'_>, is_tls: bool, cx: &mut Context<'_>) -> Option<BackendTls> {
    let (verify_value, ca_value) = (group.optional("verify"), group.optional("ca"));
    if !is_tls {
        for value in [verify_value, ca_value].into_iter().flatten() {
            let draft = Fault::new(Kind::NotAllowed, "only endpoints that are spoken to by https have certificates");
            value.problem(draft.help("remove the key, or set `backend_protocol = \"https\"`"), &mut cx.problems);
        }
        return None;
    }
    let verify = verify_value.as_ref().map_or(Some(true), |value| value.boolean(&mut cx.problems));
    let ca = ca_value.as_ref().map_or(Some(None), |value| file(value, cx).map(Some));
    if let (Some(value), Some(false)) = (&verify_value, verify) {
        let draft = Fault::new(Kind::Unsafe, "certificates of these endpoints are not verified: anybody on the way can be one")
            .help("name the certificates that vouch for them, `ca = \"/etc/ga/endpoints.pem\"`, and remove the key");
        cx.problems.warn(value.span.clone(), &value.path, draft);
        if let Some(ca) = &ca_value {
            let draft = Fault::new(Kind::NoEffect, "`ca` says who vouches for endpoints, which `verify = false` does not ask");
            cx.problems.warn(ca.span.clone(), &ca.path, draft.help("remove one of the two"));
        }
    }
    Some(BackendTls { verify: verify?, ca: ca? })
}
