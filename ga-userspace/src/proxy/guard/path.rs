//! The one spelling of a path: rules match it and endpoints get it.
//!
//! | in a path | what becomes of it |
//! |---|---|
//! | `%` before two hexadecimal digits of a letter, a digit, `-`, `.`, `_` or `~` | decoded (RFC 3986 §6.2.2.2) |
//! | segments `.` and `..`, spelled with `%2e` too | removed (RFC 3986 §5.2.4) |
//! | `..` that would leave the root | refused |
//! | segments that begin with `.;` or `..;`, which some servers read as dot segments | refused |
//! | `%2f`, `%5c`, `%00`, `\`, control characters, spaces and `#`, bytes outside ASCII | refused |
//! | `%` before anything else than two hexadecimal digits | refused |
//! | other encoded bytes, empty segments | left as they are |
//!
//! `*`, the target of `OPTIONS`, is a path of its own. Queries are left as they are.

use std::borrow::Cow;

use thiserror::Error;

/// Why a path is refused, with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadPath {
    /// It is neither `*` nor begins with `/`.
    #[error("the path does not begin with a slash")]
    NotAbsolute,
    /// A byte that no path has unencoded.
    #[error("the path has a character that must not be there unencoded")]
    Character,
    /// `%` without two hexadecimal digits after it.
    #[error("the path has a percent sign that encodes nothing")]
    Encoding,
    /// A separator or NUL that hides behind an encoding.
    #[error("the path has an encoded slash, backslash or NUL")]
    Separator,
    /// More `..` than segments before them.
    #[error("the path leaves the root")]
    AboveRoot,
    /// A dot segment with parameters.
    #[error("the path has a dot segment with parameters")]
    DotParameters,
}

/// `path`, without a query, in its one spelling. Borrowed when it is spelled so already, as nearly all are.
///
/// # Errors
/// What is wrong with it: such a path means different things to different servers.
pub fn normalise(path: &str) -> Result<Cow<'_, str>, BadPath> {
    let bytes = path.as_bytes();
    if bytes == b"*" {
        return Ok(Cow::Borrowed(path));
    }
    if bytes.first() != Some(&b'/') {
        return Err(BadPath::NotAbsolute);
    }
    if bytes.iter().any(|byte| matches!(byte, 0..=b' ' | b'#' | b'?' | b'\\' | 0x7f..)) {
        return Err(BadPath::Character);
    }
    let decoded = if bytes.contains(&b'%') { Cow::Owned(decode(path)?) } else { Cow::Borrowed(path) };
    if !decoded.contains("/.") {
        return Ok(decoded);
    }
    if decoded.split('/').any(|segment| segment.starts_with(".;") || segment.starts_with("..;")) {
        return Err(BadPath::DotParameters);
    }
    if decoded.split('/').any(|segment| matches!(segment, "." | "..")) {
        return without_dots(&decoded).map(Cow::Owned);
    }
    Ok(decoded)
}

/// `path` with what need not be encoded decoded.
fn decode(path: &str) -> Result<String, BadPath> {
    let mut decoded = String::with_capacity(path.len());
    let mut parts = path.split('%');
    decoded.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let digits = part.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).ok_or(BadPath::Encoding)?;
        let rest = part.get(2..).unwrap_or_default();
        match byte {
            b'/' | b'\\' | 0 => return Err(BadPath::Separator),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => decoded.push(char::from(byte)),
            _ => {
                decoded.push('%');
                decoded.push_str(digits.unwrap_or_default());
            }
        }
        decoded.push_str(rest);
    }
    Ok(decoded)
}

/// `path` without dot segments.
fn without_dots(path: &str) -> Result<String, BadPath> {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "." => {}
            ".." => drop(kept.pop().ok_or(BadPath::AboveRoot)?),
            other => {
                kept.push(other);
                continue;
            }
        }
        // A dot segment at the end names a folder.
        if segments.peek().is_none() {
            kept.push("");
        }
    }
    Ok(kept.iter().flat_map(|segment| ["/", segment]).collect())
}

#[cfg(test)]
mod tests {
    use proptest::{prop_assert, prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn usual_paths_are_left_as_they_are_and_borrowed() {
        for path in ["/", "*", "/a", "/a/b.c", "/a//b/", "/.well-known/x", "/a/...", "/a;b=c", "/%C3%a4%20x", "/a/..b", "/a.;b"] {
            assert_eq!(normalise(path), Ok(Cow::Borrowed(path)));
        }
        assert!(matches!(normalise("/.well-known/acme-challenge"), Ok(Cow::Borrowed(_))));
    }

    #[test]
    fn dot_segments_are_removed_however_they_are_spelled() {
        let cases = [
            ("/a/../admin", "/admin"),
            ("/a/%2e%2e/admin", "/admin"),
            ("/a/.%2E/admin", "/admin"),
            ("/a/./b", "/a/b"),
            ("/a/%2e/b", "/a/b"),
            ("/a/b/..", "/a/"),
            ("/a/b/.", "/a/b/"),
            ("/a/..", "/"),
            ("/.", "/"),
            ("/a//../b", "/a/b"),
            ("/a/b/../../c/", "/c/"),
            ("/%61dmin", "/admin"),
            ("/a%2eb%7e", "/a.b~"),
        ];
        for (path, normal) in cases {
            assert_eq!(normalise(path).as_deref(), Ok(normal), "{path}");
        }
    }

    #[test]
    fn what_servers_disagree_about_is_refused() {
        let cases = [
            ("", BadPath::NotAbsolute),
            ("a", BadPath::NotAbsolute),
            ("**", BadPath::NotAbsolute),
            ("/..", BadPath::AboveRoot),
            ("/a/../../b", BadPath::AboveRoot),
            ("/%2e%2e/b", BadPath::AboveRoot),
            ("/a/%2e%2e%2fadmin", BadPath::Separator),
            ("/a%2Fb", BadPath::Separator),
            ("/a%5cb", BadPath::Separator),
            ("/a%5Cb", BadPath::Separator),
            ("/a%00b", BadPath::Separator),
            ("/a\\b", BadPath::Character),
            ("/a b", BadPath::Character),
            ("/a\r\nb", BadPath::Character),
            ("/a#b", BadPath::Character),
            ("/a?b", BadPath::Character),
            ("/ä", BadPath::Character),
            ("/a%", BadPath::Encoding),
            ("/a%2", BadPath::Encoding),
            ("/a%zz", BadPath::Encoding),
            ("/a%+1", BadPath::Encoding),
            ("/a%%32f", BadPath::Encoding),
            ("/a/..;x=y/admin", BadPath::DotParameters),
            ("/a/.%2e;/admin", BadPath::DotParameters),
            ("/.;/admin", BadPath::DotParameters),
        ];
        for (path, problem) in cases {
            assert_eq!(normalise(path), Err(problem), "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_normal_path_is_normal(path in "/([a.%2eEfF5cC;/~]|%2e|\\.\\./){0,12}") {
            if let Ok(normal) = normalise(&path) {
                prop_assert_eq!(normalise(&normal), Ok(Cow::Borrowed(&*normal)));
                prop_assert!(!normal.split('/').any(|segment| matches!(segment, "." | "..")));
                prop_assert!(!normal.to_ascii_lowercase().contains("%2e") && !normal.to_ascii_lowercase().contains("%2f"));
            }
        }

        #[test]
        fn no_path_makes_it_panic(path in "\\PC*") {
            drop(normalise(&path));
            drop(normalise(&format!("/{path}")));
        }
    }
}
