//! A cursor over the spanned document: every question that has no good answer becomes a problem, and the walk goes on.

use std::{
    borrow::Cow,
    ops::{Range, RangeInclusive},
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    document::Context,
    keys::{self, Keys},
    problem::{Draft, Fault, Kind, Problems},
};

/// One value, its place and its path.
#[derive(Clone)]
pub(super) struct Value<'d> {
    value: &'d DeValue<'d>,
    pub(super) span: Range<usize>,
    pub(super) path: String,
}

/// One table: the same, and the keys it may have.
pub(super) struct Table<'d> {
    entries: &'d DeTable<'d>,
    keys: &'static Keys,
    pub(super) span: Range<usize>,
    pub(super) path: String,
}

impl<'d> Table<'d> {
    /// The document itself. Reports keys that it must not have.
    pub(super) fn document(root: &'d DeTable<'d>, problems: &mut Problems<'_>) -> Self {
        let table = Self { entries: root, keys: &keys::DOCUMENT, span: 0..0, path: String::new() };
        table.refuse_other_keys(problems);
        table
    }

    /// The value of `key`, if it is there.
    pub(super) fn optional(&self, key: &'static str) -> Option<Value<'d>> {
        debug_assert!(self.keys.known.contains(&key), "{key} is read but not a known key of {}", self.keys.table);
        let value = self.entries.get(key)?;
        Some(Value { value: value.get_ref(), span: value.span(), path: join(&self.path, key) })
    }

    /// The value of `key`; reports its absence.
    pub(super) fn required(&self, key: &'static str, help: &str, problems: &mut Problems<'_>) -> Option<Value<'d>> {
        let found = self.optional(key);
        if found.is_none() {
            let draft = Fault::new(Kind::MissingKey, format!("{} needs `{key}`", self.keys.table)).help(help);
            problems.push(self.span.clone(), &join(&self.path, key), draft);
        }
        found
    }

    /// The only entry of a table that has one; `what` names the table and `example` shows one in the message when it has not.
    pub(super) fn single(&self, what: &str, example: &str, cx: &mut Context<'_>) -> Option<(&'static str, Value<'d>)> {
        let mut known = self.keys.known.iter().filter_map(|key| Some((*key, self.optional(key)?)));
        let first = known.next();
        // Keys that it must not have are problems already.
        let count = self.entries.len();
        if count == 1 {
            return first;
        }
        let draft = Fault::new(Kind::Conflict, format!("{what} has one key, this one has {count}"));
        cx.problems.push(self.span.clone(), &self.path, draft.help(format!("write a table for each: `{example}`")));
        None
    }

    fn refuse_other_keys(&self, problems: &mut Problems<'_>) {
        for key in self.entries.keys() {
            let name = key.get_ref().as_ref();
            if self.keys.known.contains(&name) {
                continue;
            }
            let draft = if let Some(why) = self.keys.fixed(name) {
                Fault::new(Kind::NotAllowed, why).help("remove the key")
            } else if self.keys.later.contains(&name) {
                Fault::new(Kind::NotSupportedYet, format!("`{name}` is not supported yet in this version"))
                    .help("remove the key; this version does without it")
            } else {
                let draft = Fault::new(Kind::UnknownKey, format!("{} has no key `{}`", self.keys.table, shorten(name)));
                match self.keys.nearest(name) {
                    Some(near) => draft.help(format!("did you mean `{near}`?")),
                    None => draft.help(format!("its keys are: {}", self.keys.known.join(", "))),
                }
            };
            problems.push(key.span(), &join(&self.path, &shorten(name)), draft);
        }
    }
}

impl<'d> Value<'d> {
    /// Reports `draft` at this value.
    pub(super) fn problem(&self, draft: Draft, problems: &mut Problems<'_>) {
        problems.push(self.span.clone(), &self.path, draft);
    }

    /// Text.
    pub(super) fn string(&self, problems: &mut Problems<'_>) -> Option<&'d str> {
        match self.value {
            DeValue::String(text) => Some(text.as_ref()),
            DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => self.wrong_type("text in quotes", problems),
        }
    }

    /// Text, silently; for values that may also be something else.
    pub(super) fn as_string(&self) -> Option<&'d str> {
        self.value.as_str()
    }

    /// The elements of an array, silently; for values that may also be something else.
    pub(super) fn as_array(&self) -> Option<Vec<Value<'d>>> {
        let DeValue::Array(elements) = self.value else { return None };
        Some(self.elements(elements.iter()))
    }

    /// A whole number within `range`.
    pub(super) fn integer(&self, range: RangeInclusive<u32>, problems: &mut Problems<'_>) -> Option<u32> {
        let DeValue::Integer(number) = self.value else {
            return self.wrong_type("a whole number", problems);
        };
        // What does not fit is out of any range.
        let number = i64::from_str_radix(number.as_str(), number.radix()).ok().and_then(|number| u32::try_from(number).ok());
        let fits = number.filter(|number| range.contains(number));
        if fits.is_none() {
            let (low, high) = range.into_inner();
            let message = match self.key() {
                Some(key) => format!("`{key}` must be {low} to {high}"),
                None => format!("must be {low} to {high}"),
            };
            self.problem(Fault::new(Kind::OutOfRange, message).help("choose a number within these bounds"), problems);
        }
        fits
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self, problems: &mut Problems<'_>) -> Option<bool> {
        let DeValue::Boolean(value) = self.value else { return self.wrong_type("true or false", problems) };
        Some(*value)
    }

    /// One of `words`; `what` names them in the message.
    pub(super) fn word<T: Copy>(&self, words: &[(&'static str, T)], problems: &mut Problems<'_>) -> Option<T> {
        let text = self.string(problems)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
        if found.is_none() {
            self.problem(not_a_word(text, words.iter().map(|(word, _)| *word)), problems);
        }
        found
    }

    /// The elements of an array.
    pub(super) fn array(&self, problems: &mut Problems<'_>) -> Option<Vec<Value<'d>>> {
        let DeValue::Array(elements) = self.value else {
            return self.wrong_type("an array: [ … ]", problems);
        };
        Some(self.elements(elements.iter()))
    }

    /// The tables of an array of tables, `[[…]]`; at least one.
    pub(super) fn tables(&self, keys: &'static Keys, problems: &mut Problems<'_>) -> Option<Vec<Table<'d>>> {
        let DeValue::Array(elements) = self.value else {
            return self.wrong_type(&format!("an array of tables: {}", keys.table), problems);
        };
        if elements.is_empty() {
            let what = self.key().unwrap_or_default();
            self.problem(
                Fault::new(Kind::MissingKey, format!("at least one `{what}` is needed")).help("the list is empty: add an entry"),
                problems,
            );
            return None;
        }
        let elements = self.elements(elements.iter());
        Some(elements.into_iter().filter_map(|element| element.table(keys, problems)).collect())
    }

    /// A table. Reports keys that it must not have.
    pub(super) fn table(&self, keys: &'static Keys, problems: &mut Problems<'_>) -> Option<Table<'d>> {
        let DeValue::Table(entries) = self.value else {
            return self.wrong_type("a table", problems);
        };
        let table = Table { entries, keys, span: self.span.clone(), path: self.path.clone() };
        table.refuse_other_keys(problems);
        Some(table)
    }

    /// The entries of a table whose keys are names, in their order.
    pub(super) fn entries(&self, problems: &mut Problems<'_>) -> Option<Vec<(String, Value<'d>)>> {
        let DeValue::Table(entries) = self.value else {
            return self.wrong_type("a table", problems);
        };
        let entry = |(key, value): (&Spanned<Cow<'d, str>>, &'d Spanned<DeValue<'d>>)| {
            let name = key.get_ref().to_string();
            let path = join(&self.path, &shorten(&name));
            (name, Value { value: value.get_ref(), span: value.span(), path })
        };
        Some(entries.iter().map(entry).collect())
    }

    /// Where the bytes of this text stand in the file, for places within it.
    pub(super) fn parts(&self, problems: &Problems<'_>) -> Parts {
        let raw = problems.text().get(self.span.clone()).unwrap_or_default();
        let plain = self.value.as_str().is_some_and(|text| raw.get(1..raw.len().saturating_sub(1)) == Some(text));
        Parts { whole: self.span.clone(), plain }
    }

    fn elements(&self, elements: impl Iterator<Item = &'d Spanned<DeValue<'d>>>) -> Vec<Value<'d>> {
        let element = |(index, value): (usize, &'d Spanned<DeValue<'d>>)| Value {
            value: value.get_ref(),
            span: value.span(),
            path: format!("{}[{index}]", self.path),
        };
        elements.enumerate().map(element).collect()
    }

    fn wrong_type<T>(&self, expected: &str, problems: &mut Problems<'_>) -> Option<T> {
        let found = match self.value {
            DeValue::String(_) => "text",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Array(_) => "an array",
            DeValue::Table(_) => "a table",
        };
        let help = match (self.value, expected.as_bytes().first()) {
            (DeValue::String(_), _) => "text stands in quotation marks, numbers and lists do not",
            (DeValue::Table(_), _) => "`[[…]]` begins one of several tables, `[…]` the only one of its name",
            (_, Some(b't')) => "put it in quotation marks",
            (_, _) => "`ga config schema` prints every key with its type",
        };
        let draft = match self.key() {
            Some(key) => Fault::new(Kind::WrongType, format!("`{key}` must be {expected}, not {found}")),
            None => Fault::new(Kind::WrongType, format!("this must be {expected}, not {found}")),
        };
        self.problem(draft.help(help), problems);
        None
    }

    /// The last part of the path, if it is a key and not an index.
    fn key(&self) -> Option<&str> {
        self.path.rsplit('.').next().filter(|key| !key.is_empty() && !key.ends_with(']'))
    }
}

/// The places within a text.
pub(super) struct Parts {
    whole: Range<usize>,
    /// Between single quotation marks and without escapes: byte by byte what stands in the file.
    plain: bool,
}

impl Parts {
    /// The place of `part`, in bytes of the text. Where that is unclear, the whole text.
    pub(super) fn place(&self, part: Range<usize>) -> Range<usize> {
        let first = self.whole.start + 1;
        if self.plain { first + part.start..first + part.end } else { self.whole.clone() }
    }
}

/// The problem of a text that is none of `words`.
pub(super) fn not_a_word(text: &str, words: impl Iterator<Item = &'static str> + Clone) -> Draft {
    let draft = Fault::new(Kind::BadValue, format!("{:?} is not one of the known words", shorten(text)));
    let all = words.clone().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ");
    match keys::nearest(text, words) {
        Some(near) => draft.help(format!("did you mean {near:?}? The words are: {all}")),
        None => draft.help(format!("the words are: {all}")),
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Enough of `text` to recognise it.
pub(super) fn shorten(text: &str) -> String {
    const MAX: usize = 60;
    if text.chars().count() <= MAX { text.to_owned() } else { text.chars().take(MAX).chain(['…']).collect() }
}
