//! Conditions on one text of a request: its host, its path, the value of a header.
//!
//! Whole texts, beginnings and ends that rules name are in tables that one pass over the text asks. What is decided by none of
//! these is only narrowed down here, and left to an expression.

use std::collections::BTreeMap;

use regex::bytes::{Regex, RegexSet, RegexSetBuilder};
use regex_syntax::hir::{Look, literal::Extractor};

use super::{
    set::{Candidates, Row},
    table::{Rolling, Table},
};
use crate::model::Pattern;

/// A pattern in the form in which it is cheapest to compare.
#[derive(Clone, Debug)]
pub(super) enum Form {
    /// The whole text.
    Whole(Vec<u8>),
    /// What it begins with.
    Head(Vec<u8>),
    /// What it ends with.
    Tail(Vec<u8>),
    /// Whatever it is.
    Any,
    /// An expression, and what texts that it finds begin or end with.
    Expression(Box<Regex>, Vec<u8>, Vec<u8>),
    /// Nothing: no expression could be made, which the configuration refuses.
    Never,
}

impl Form {
    /// The form of `pattern`; with `fold`, ASCII letters are compared in any case.
    pub(super) fn new(pattern: &Pattern, fold: bool) -> Self {
        let bytes = |text: &str| if fold { text.to_ascii_lowercase().into_bytes() } else { text.as_bytes().to_vec() };
        let expression = |head: &str, tail: &str| match pattern.expression(fold) {
            Ok(expression) => Self::Expression(Box::new(expression), bytes(head), bytes(tail)),
            Err(_) => Self::Never,
        };
        match pattern {
            Pattern::Regex(text) => expression(&head_of(text), ""),
            Pattern::Wildcard(text) => {
                let is_wild = |c| matches!(c, '*' | '?');
                let (Some(first), Some(last)) = (text.find(is_wild), text.rfind(is_wild)) else {
                    return Self::Whole(bytes(text));
                };
                // Wild characters are one byte long.
                let (head, wild, tail) = (&text[..first], &text[first..=last], &text[last + 1..]);
                match (head, tail) {
                    ("", "") if wild.bytes().all(|byte| byte == b'*') => Self::Any,
                    (head, "") if wild.bytes().all(|byte| byte == b'*') => Self::Head(bytes(head)),
                    ("", tail) if wild.bytes().all(|byte| byte == b'*') => Self::Tail(bytes(tail)),
                    (head, tail) => expression(head, tail),
                }
            }
        }
    }

    /// Whether `text` is what it asks for.
    pub(super) fn is_met(&self, text: &[u8], fold: bool) -> bool {
        match self {
            Self::Whole(whole) => same(whole, text, fold),
            Self::Head(head) => text.get(..head.len()).is_some_and(|start| same(head, start, fold)),
            Self::Tail(tail) => {
                text.len().checked_sub(tail.len()).and_then(|at| text.get(at..)).is_some_and(|end| same(tail, end, fold))
            }
            Self::Any => true,
            Self::Expression(expression, ..) => expression.is_match(text),
            Self::Never => false,
        }
    }

    /// Whether tables say all there is to say.
    pub(super) const fn is_plain(&self) -> bool {
        !matches!(self, Self::Expression(..))
    }
}

/// What everything that the expression finds begins with; empty where it does not say.
fn head_of(text: &str) -> String {
    let head = || {
        let hir = regex_syntax::ParserBuilder::new().unicode(false).utf8(false).build().parse(text).ok()?;
        if !hir.properties().look_set_prefix().contains(Look::Start) {
            return None;
        }
        let mut literals = Extractor::new().extract(&hir);
        literals.keep_first_bytes(64);
        String::from_utf8(literals.longest_common_prefix()?.to_vec()).ok()
    };
    head().unwrap_or_default()
}

fn same(known: &[u8], text: &[u8], fold: bool) -> bool {
    if fold { known.eq_ignore_ascii_case(text) } else { known == text }
}

/// Expressions that say nothing of beginnings and ends: where there are many, all of them are searched for at once.
#[derive(Clone, Debug, Default)]
struct Loose(Option<Box<(RegexSet, Vec<Row>)>>);

impl Loose {
    /// Fewer are tried one by one, for rules that nothing else excludes: a search for all of them takes some memory.
    const MANY: usize = 4;

    /// Bytes that all of them may take compiled, and as many again for each thread that searches.
    const BYTES: usize = 4 << 20;

    /// Those that are not searched for here go to `unbound`.
    fn new(expressions: Vec<(usize, String)>, rules: usize, fold: bool, unbound: &mut Row) -> Self {
        let build = || {
            let texts = expressions.iter().map(|(_, text)| text);
            let mut builder = RegexSetBuilder::new(texts);
            builder.case_insensitive(fold).dot_matches_new_line(true).unicode(false);
            builder.size_limit(Self::BYTES).dfa_size_limit(Self::BYTES).build().ok()
        };
        let set = (expressions.len() > Self::MANY).then(build).flatten();
        let row = |(rule, _): &(usize, String)| {
            let mut row = Row::none(rules);
            row.insert(*rule);
            row
        };
        match set {
            Some(set) => Self(Some(Box::new((set, expressions.iter().map(row).collect())))),
            None => {
                expressions.iter().for_each(|(rule, _)| unbound.insert(*rule));
                Self(None)
            }
        }
    }

    fn add(&self, text: &[u8], allowed: &mut Candidates) {
        if let Some((set, rows)) = self.0.as_deref() {
            set.matches(text).iter().filter_map(|index| rows.get(index)).for_each(|row| allowed.join(row));
        }
    }
}

/// Which rules a text allows.
#[derive(Clone, Debug)]
pub(super) struct Texts {
    fold: bool,
    /// Those that allow any text, or whose expression says nothing of beginnings and ends.
    unbound: Row,
    loose: Loose,
    whole: Table,
    head: Table,
    tail: Table,
    /// How long the texts of the tables are.
    head_lengths: Vec<usize>,
    tail_lengths: Vec<usize>,
    longest_whole: usize,
}

impl Texts {
    /// The index of what each of `rules` rules asks for; one that is not in `asked` allows any text.
    pub(super) fn new<'f>(rules: usize, fold: bool, asked: impl Iterator<Item = (usize, &'f [Form])>) -> Self {
        let mut unbound = Row::all(rules);
        let mut loose = Vec::new();
        let [mut whole, mut head, mut tail] = [BTreeMap::new(), BTreeMap::new(), BTreeMap::new()];
        let note = |map: &mut BTreeMap<Vec<u8>, Row>, text: &[u8], rule| {
            map.entry(text.to_vec()).or_insert_with(|| Row::none(rules)).insert(rule);
        };
        for (rule, forms) in asked {
            unbound.remove(rule);
            for form in forms {
                match form {
                    Form::Whole(text) => note(&mut whole, text, rule),
                    Form::Head(text) => note(&mut head, text, rule),
                    Form::Tail(text) => note(&mut tail, text, rule),
                    Form::Expression(expression, start, end) if start.is_empty() && end.is_empty() => {
                        loose.push((rule, expression.as_str().to_owned()));
                    }
                    Form::Expression(_, start, end) if start.len() >= end.len() => note(&mut head, start, rule),
                    Form::Expression(_, _, end) => note(&mut tail, end, rule),
                    Form::Any => unbound.insert(rule),
                    Form::Never => {}
                }
            }
        }
        let loose = Loose::new(loose, rules, fold, &mut unbound);
        let forward = |text: &[u8]| Rolling::of(text.iter().copied());
        let backward = |text: &[u8]| Rolling::of(text.iter().rev().copied());
        let lengths = |map: &BTreeMap<Vec<u8>, Row>| {
            let mut lengths: Vec<usize> = map.keys().map(Vec::len).collect();
            lengths.sort_unstable();
            lengths.dedup();
            lengths
        };
        Self {
            fold,
            unbound,
            loose,
            head_lengths: lengths(&head),
            tail_lengths: lengths(&tail),
            longest_whole: whole.keys().map(Vec::len).max().unwrap_or(0),
            whole: Table::new(whole.into_iter().collect(), forward),
            head: Table::new(head.into_iter().collect(), forward),
            tail: Table::new(tail.into_iter().collect(), backward),
        }
    }

    /// Whether a text would narrow `candidates` down.
    pub(super) fn is_asked(&self, candidates: &Candidates) -> bool {
        candidates.has_outside(&self.unbound)
    }

    /// The rules that `text` allows.
    pub(super) fn allowed(&self, text: &[u8]) -> Candidates {
        let mut allowed = Candidates::of(&self.unbound);
        self.add(text, &mut allowed);
        allowed
    }

    /// Adds the rules that `text` allows, of those that ask something of it.
    pub(super) fn add(&self, text: &[u8], allowed: &mut Candidates) {
        self.loose.add(text, allowed);
        let hash = self.heads(text, allowed);
        if text.len() <= self.longest_whole
            && let Some(row) = self.whole.get(hash, |known| same(known, text, self.fold))
        {
            allowed.join(row);
        }
        if !self.tail.is_empty() {
            self.tails(text, allowed);
        }
    }

    /// Asks for all beginnings; gives the hash of the whole text when that will be needed.
    fn heads(&self, text: &[u8], allowed: &mut Candidates) -> Rolling {
        let (mut hash, mut done) = (Rolling::START, 0);
        for length in &self.head_lengths {
            let Some((start, part)) = text.get(..*length).zip(text.get(done..*length)) else { break };
            hash = part.iter().fold(hash, |hash, byte| hash.push(self.folded(*byte)));
            done = *length;
            if let Some(row) = self.head.get(hash, |known| same(known, start, self.fold)) {
                allowed.join(row);
            }
        }
        if text.len() > self.longest_whole {
            return hash;
        }
        text.iter().skip(done).fold(hash, |hash, byte| hash.push(self.folded(*byte)))
    }

    fn tails(&self, text: &[u8], allowed: &mut Candidates) {
        let (mut hash, mut done) = (Rolling::START, 0);
        for length in &self.tail_lengths {
            let Some(start) = text.len().checked_sub(*length) else { break };
            let (Some(end), Some(part)) = (text.get(start..), text.get(start..text.len() - done)) else { break };
            hash = part.iter().rev().fold(hash, |hash, byte| hash.push(self.folded(*byte)));
            done = *length;
            if let Some(row) = self.tail.get(hash, |known| same(known, end, self.fold)) {
                allowed.join(row);
            }
        }
    }

    const fn folded(&self, byte: u8) -> u8 {
        if self.fold { byte.to_ascii_lowercase() } else { byte }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(text: &str, fold: bool) -> Form {
        let pattern =
            text.strip_prefix('~').map_or_else(|| Pattern::Wildcard(text.to_owned()), |text| Pattern::Regex(text.to_owned()));
        Form::new(&pattern, fold)
    }

    fn found(texts: &Texts, text: &str) -> Vec<usize> {
        let allowed = texts.allowed(text.as_bytes());
        let mut found = Vec::new();
        let mut from = 0;
        while let Some(rule) = allowed.next(from) {
            found.push(rule);
            from = rule + 1;
        }
        found
    }

    #[test]
    fn the_cheapest_form_is_chosen() {
        assert!(matches!(form("/a/b", false), Form::Whole(text) if text == b"/a/b"));
        assert!(matches!(form("/a/*", false), Form::Head(text) if text == b"/a/"));
        assert!(matches!(form("*.Example.com", true), Form::Tail(text) if text == b".example.com"));
        assert!(matches!(form("**", true), Form::Any));
        assert!(matches!(form("/img/?.png", false), Form::Expression(_, head, tail) if head == b"/img/" && tail == b".png"));
        assert!(matches!(form("~^/v[12]/x", false), Form::Expression(_, head, _) if head == b"/v"));
        assert!(matches!(form("~^/a|^/b", false), Form::Expression(_, head, _) if head == b"/"));
        assert!(matches!(form("~/a", false), Form::Expression(_, head, _) if head.is_empty()));
        assert!(matches!(form("~^/ab?c", false), Form::Expression(_, head, _) if head == b"/a"));
        assert!(matches!(form("~(", false), Form::Never));
    }

    #[test]
    fn one_pass_finds_whole_texts_beginnings_and_ends() {
        let rules = [
            vec![form("/a", false)],
            vec![form("/a*", false)],
            vec![form("/b/*", false), form("/c", false)],
            vec![form("/*.png", false)],
            vec![form("~^/a", false)],
            vec![form("~x", false)],
            vec![form("*", false)],
        ];
        let texts = Texts::new(8, false, rules.iter().enumerate().map(|(rule, forms)| (rule, forms.as_slice())));
        assert_eq!(found(&texts, "/a"), [0, 1, 4, 5, 6, 7]);
        assert_eq!(found(&texts, "/abc"), [1, 4, 5, 6, 7]);
        assert_eq!(found(&texts, "/b/x"), [2, 5, 6, 7]);
        assert_eq!(found(&texts, "/b"), [5, 6, 7]);
        assert_eq!(found(&texts, "/c"), [2, 5, 6, 7]);
        assert_eq!(found(&texts, "/z.png"), [3, 5, 6, 7]);
        assert_eq!(found(&texts, "/A"), [5, 6, 7]);
        assert_eq!(found(&texts, ""), [5, 6, 7]);
    }

    #[test]
    fn with_fold_case_does_not_matter() {
        let rules = [vec![form("WWW.example.com", true)], vec![form("*.Example.COM", true)], vec![form("www.*", true)]];
        let texts = Texts::new(3, true, rules.iter().enumerate().map(|(rule, forms)| (rule, forms.as_slice())));
        assert_eq!(found(&texts, "www.EXAMPLE.com"), [0, 1, 2]);
        assert_eq!(found(&texts, "a.eXample.com"), [1]);
        assert!(found(&texts, "example.com").is_empty());
    }
}
