//! Rust text without what is not code: good enough for house rules, not a parser.

/// A file's lines before its test module: test code is free to be long and to import what it likes.
pub(super) fn production(text: &str) -> &str {
    let mut at = 0;
    let mut gate = None;
    for line in text.split_inclusive('\n') {
        match gate {
            None if line.trim_end() == "#[cfg(test)]" => gate = Some(at),
            Some(from) if line.starts_with("mod ") && line.trim_end().ends_with('{') => return &text[..from],
            Some(_) if !line.starts_with("#[") => gate = None,
            None | Some(_) => {}
        }
        at += line.len();
    }
    text
}

/// The text with comments and the insides of literals blanked; lines stay where they are.
pub(super) fn bare(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let taken = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(len) = literal(rest, out.chars().next_back()) {
            len
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        out.extend(rest[..taken].chars().filter(|c| *c == '\n'));
        out.push(' ');
        rest = &rest[taken..];
    }
    out
}

/// The length of the string or character literal that begins here.
fn literal(text: &str, before: Option<char>) -> Option<usize> {
    let word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if let Some(raw) = text.strip_prefix('r').filter(|_| !word) {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let close = format!("\"{}", "#".repeat(hashes));
            let from = 1 + hashes + 1;
            return Some(text[from..].find(&close).map_or(text.len(), |end| from + end + close.len()));
        }
    }
    if let Some(inside) = text.strip_prefix('\'') {
        let mut chars = inside.chars();
        let first = chars.next()?;
        if first == '\\' {
            return Some(1 + 2 + inside.get(2..)?.find('\'')? + 1);
        }
        return (chars.next() == Some('\'')).then(|| 1 + first.len_utf8() + 1);
    }
    let inside = text.strip_prefix('"')?;
    let mut escaped = false;
    for (at, c) in inside.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(at + 2),
            _ => {}
        }
    }
    Some(text.len())
}

/// Where `word` stands as a whole word.
pub(super) fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        !code[..*at].chars().next_back().is_some_and(is_word) && !code[at + word.len()..].chars().next().is_some_and(is_word)
    })
}

/// The number of the line that holds byte `at`.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_and_lines_kept() {
        let text = "a // unsafe\n\"un\\\"safe\nunsafe\" b '\"' c r#\"un\"safe\"# d /* x\n */ 'l: e '\\n' '\\u{1}' f";
        let bare = bare(text);
        assert!(!bare.contains("safe"), "{bare}");
        assert_eq!(bare.lines().count(), text.lines().count());
        let left: Vec<&str> = bare.split_whitespace().collect();
        assert_eq!(left, ["a", "b", "c", "d", "'l:", "e", "f"]);
    }

    #[test]
    fn only_the_test_module_is_cut_off() {
        let text = "use a;\n#[cfg(test)]\nmod fixtures;\nfn f() {}\n#[cfg(test)]\n#[expect(x)]\nmod tests {\n}\n";
        assert_eq!(production(text), "use a;\n#[cfg(test)]\nmod fixtures;\nfn f() {}\n");
        assert_eq!(production("fn f() {}\n"), "fn f() {}\n");
    }

    #[test]
    fn words_are_whole() {
        assert_eq!(words("unsafe_code unsafe x_unsafe", "unsafe").count(), 1);
    }
}
