//! Conditions on pairs: `key=value` in the query and in cookies.

use std::collections::BTreeMap;

use super::{
    set::{Candidates, Row},
    table::{Rolling, Table},
};

/// Between key and value in the text that is hashed: a byte that is in none of both.
const BETWEEN: u8 = 0;

/// Which rules a pair of the request allows; the same for queries and for cookies.
#[derive(Clone, Debug)]
pub(super) struct Pairs {
    /// Those that allow anything.
    unbound: Row,
    table: Table,
    /// Length of the longest pair.
    longest: usize,
}

impl Pairs {
    /// The index of what each of `rules` rules asks for, one pair of several; one that is not in `asked` allows anything.
    pub(super) fn new<'p>(rules: usize, asked: impl Iterator<Item = (usize, &'p [(String, String)])>) -> Self {
        let (mut unbound, mut texts) = (Row::all(rules), BTreeMap::new());
        for (rule, pairs) in asked {
            unbound.remove(rule);
            for (key, value) in pairs {
                let text = [key.as_bytes(), &[BETWEEN], value.as_bytes()].concat();
                texts.entry(text).or_insert_with(|| Row::none(rules)).insert(rule);
            }
        }
        let longest = texts.keys().map(Vec::len).max().unwrap_or(0);
        Self { unbound, longest, table: Table::new(texts.into_iter().collect(), |text| Rolling::of(text.iter().copied())) }
    }

    /// Whether pairs would narrow `candidates` down.
    pub(super) fn is_asked(&self, candidates: &Candidates) -> bool {
        candidates.has_outside(&self.unbound)
    }

    /// The rules that a query allows.
    pub(super) fn in_query(&self, query: &str) -> Candidates {
        self.allowed(query_pairs(query).map(|(key, value)| (Decoded::of(key), Decoded::of(value))))
    }

    /// The rules that cookies allow; each text is the value of a `Cookie` header.
    pub(super) fn in_cookies<'r>(&self, headers: impl Iterator<Item = &'r [u8]>) -> Candidates {
        self.allowed(headers.flat_map(cookie_pairs).map(|(key, value)| (key.iter().copied(), value.iter().copied())))
    }

    fn allowed<I: Iterator<Item = u8> + Clone>(&self, pairs: impl Iterator<Item = (I, I)>) -> Candidates {
        let mut allowed = Candidates::of(&self.unbound);
        for (key, value) in pairs {
            let bytes = key.chain([BETWEEN]).chain(value);
            // One byte more than any has tells it from all of them.
            let hash = Rolling::of(bytes.clone().take(self.longest + 1));
            if let Some(row) = self.table.get(hash, |known| bytes.clone().eq(known.iter().copied())) {
                allowed.join(row);
            }
        }
        allowed
    }
}

/// The pairs of a query, as they stand there; a key without `=` has the empty value.
pub(super) fn query_pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// The pairs of a `Cookie` header (RFC 6265 §4.2.1).
pub(super) fn cookie_pairs(header: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    header.split(|byte| *byte == b';').filter_map(|pair| {
        let pair = pair.trim_ascii();
        let at = pair.iter().position(|byte| *byte == b'=')?;
        pair.split_at_checked(at)
            .map(|(key, value)| (key.trim_ascii_end(), value.get(1..).unwrap_or_default().trim_ascii_start()))
    })
}

/// The bytes of a part of a query with `%41` decoded; a `%` that no two digits follow is itself.
#[derive(Clone)]
pub(super) struct Decoded<'q> {
    rest: &'q [u8],
}

impl<'q> Decoded<'q> {
    pub(super) const fn of(text: &'q str) -> Self {
        Self { rest: text.as_bytes() }
    }
}

impl Iterator for Decoded<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let (&first, rest) = self.rest.split_first()?;
        if let (b'%', [high, low, behind @ ..]) = (first, rest)
            && let Some((high, low)) = digit(*high).zip(digit(*low))
        {
            self.rest = behind;
            return Some(high << 4 | low);
        }
        self.rest = rest;
        Some(first)
    }
}

const fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs() -> Pairs {
        let asked: [Vec<(String, String)>; 2] = [
            vec![("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())],
            vec![("long-key".to_owned(), "a'b".to_owned())],
        ];
        Pairs::new(3, asked.iter().enumerate().map(|(rule, pairs)| (rule, pairs.as_slice())))
    }

    fn rules(allowed: &Candidates) -> Vec<usize> {
        (0..3).filter(|rule| allowed.next(*rule) == Some(*rule)).collect()
    }

    #[test]
    fn one_of_the_pairs_is_enough_and_it_is_compared_after_decoding() {
        let query = |query: &str| rules(&pairs().in_query(query));
        assert_eq!(query("x=y&b=2"), [0, 2]);
        assert_eq!(query("%61=%31&long%2dkey=a%27b"), [0, 1, 2]);
        for none in ["", "a", "a=", "a=11", "A=1", "aa=1", "a%=1", "a=1%", "a%00=1", "a;a=1", "b=1", "a=2", "&&&", "=", "a%001"] {
            assert_eq!(query(none), [2], "{none}");
        }
        assert_eq!(query("a==1&a=1"), [0, 2]);
    }

    #[test]
    fn cookies_are_separated_by_semicolons_and_not_decoded() {
        let cookies = |headers: &[&str]| rules(&pairs().in_cookies(headers.iter().map(|header| header.as_bytes())));
        assert_eq!(cookies(&["x=y; b=2"]), [0, 2]);
        assert_eq!(cookies(&["x=y", "long-key=a'b;a = 1"]), [0, 1, 2]);
        assert_eq!(cookies(&["%61=1", "a", "b=2, x=y", "B=2"]), [2]);
    }

    #[test]
    fn a_percent_without_two_digits_is_a_percent() {
        let decoded = |text: &str| String::from_utf8(Decoded::of(text).collect()).expect("ASCII");
        assert_eq!(decoded("%"), "%");
        assert_eq!(decoded("%4"), "%4");
        assert_eq!(decoded("%zz%41%4a"), "%zzAJ");
    }
}
