//! What is wrong with a file, where, and how to mend it.

use std::{cell::Cell, ops::Range};

use serde::Serialize;

/// Problems kept of one file; the rest is only counted. About 500 bytes each.
pub const MAX_PROBLEMS: usize = 1_000;

/// Characters of the offending text that a problem repeats.
const MAX_TEXT: usize = 80;

/// Whether a file with this problem can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It cannot.
    Error,
    /// It can, but probably does not do what was meant.
    Warning,
}

/// What sort of problem it is; stable, for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Not TOML.
    Syntax,
    /// No version of the product has this key.
    UnknownKey,
    /// The product will have it; this version has not.
    NotSupportedYet,
    /// A required key is absent.
    MissingKey,
    /// Text where a number belongs, and the like.
    WrongType,
    /// A number, length or time outside its documented bounds.
    OutOfRange,
    /// A text that is not what it should be: no address, no port, no known word.
    BadValue,
    /// The same thing twice.
    Duplicate,
    /// Two parts of the file that exclude each other.
    Conflict,
    /// A limit of `[limits]` is exceeded.
    Quota,
    /// A fixed capacity of the data path is exceeded.
    Capacity,
    /// Addresses of the wrong family, or none of the right one.
    Family,
    /// Refused by the product's documentation, whatever the version.
    NotAllowed,
    /// The running configuration forbids this change.
    Change,
    /// Legal and without effect.
    NoEffect,
    /// Legal and less safe than without it.
    Unsafe,
    /// A file that the configuration names cannot be used.
    File,
}

impl Kind {
    /// The stable word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::UnknownKey => "unknown_key",
            Self::NotSupportedYet => "not_supported_yet",
            Self::MissingKey => "missing_key",
            Self::WrongType => "wrong_type",
            Self::OutOfRange => "out_of_range",
            Self::BadValue => "bad_value",
            Self::Duplicate => "duplicate",
            Self::Conflict => "conflict",
            Self::Quota => "quota",
            Self::Capacity => "capacity",
            Self::Family => "family",
            Self::NotAllowed => "not_allowed",
            Self::Change => "change",
            Self::NoEffect => "no_effect",
            Self::Unsafe => "unsafe",
            Self::File => "file",
        }
    }
}

/// Error codes of the product's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Code {
    /// A second default endpoint group in one region.
    #[serde(rename = "Exist.EndpointGroup")]
    ExistEndpointGroup,
    /// The same port on two listeners of one transport.
    #[serde(rename = "PortConflict.Listener")]
    PortConflictListener,
    /// A port or range that cannot be.
    #[serde(rename = "PortRangeIllegal.Listener")]
    PortRangeIllegalListener,
    /// No such protocol; spelled as documented.
    #[serde(rename = "ProtocalIllegal.Listener")]
    ProtocalIllegalListener,
    /// Too many endpoints in a group.
    #[serde(rename = "QuotaExceeded.EndPoint")]
    QuotaExceededEndPoint,
    /// Too many endpoint groups in a listener.
    #[serde(rename = "QuotaExceeded.EndpointGroup")]
    QuotaExceededEndpointGroup,
    /// Too many forwarding rules in a listener.
    #[serde(rename = "QuotaExceeded.ForwardingRule")]
    QuotaExceededForwardingRule,
    /// Too many listeners in an instance.
    #[serde(rename = "QuotaExceeded.Listener")]
    QuotaExceededListener,
    /// Too many ports in a listener.
    #[serde(rename = "QuotaExceeded.ListenerPort")]
    QuotaExceededListenerPort,
    /// Too many port mappings in a group.
    #[serde(rename = "QuotaExceeded.PortOverride")]
    QuotaExceededPortOverride,
    /// Too many values in the conditions of a listener's rules.
    #[serde(rename = "QuotaExceeded.RuleConditionConfig")]
    QuotaExceededRuleConditionConfig,
}

impl Code {
    /// As documented.
    pub const fn word(self) -> &'static str {
        match self {
            Self::ExistEndpointGroup => "Exist.EndpointGroup",
            Self::PortConflictListener => "PortConflict.Listener",
            Self::PortRangeIllegalListener => "PortRangeIllegal.Listener",
            Self::ProtocalIllegalListener => "ProtocalIllegal.Listener",
            Self::QuotaExceededEndPoint => "QuotaExceeded.EndPoint",
            Self::QuotaExceededEndpointGroup => "QuotaExceeded.EndpointGroup",
            Self::QuotaExceededForwardingRule => "QuotaExceeded.ForwardingRule",
            Self::QuotaExceededListener => "QuotaExceeded.Listener",
            Self::QuotaExceededListenerPort => "QuotaExceeded.ListenerPort",
            Self::QuotaExceededPortOverride => "QuotaExceeded.PortOverride",
            Self::QuotaExceededRuleConditionConfig => "QuotaExceeded.RuleConditionConfig",
        }
    }
}

/// A place in the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The file, as it was named to [`parse`](super::parse).
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// In bytes from the start of the file.
    pub offset: usize,
    /// In bytes.
    pub len: usize,
    /// As in `instance[0].listener[2].ports`; empty for the document itself.
    pub path: String,
    /// What stands there, shortened.
    pub text: String,
}

/// One thing that is wrong, or probably not meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Whether the file can be used nevertheless.
    pub severity: Severity,
    /// The sort of problem.
    pub kind: Kind,
    /// The documented code, where one exists.
    pub code: Option<Code>,
    /// Where.
    #[serde(flatten)]
    pub place: Place,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub help: String,
}

/// What stands between a file and its use.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// By position; at most [`MAX_PROBLEMS`].
    pub problems: Vec<Problem>,
    /// Errors that are not in `problems` because there are too many.
    pub omitted: usize,
    /// By position.
    pub warnings: Vec<Problem>,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.problems.as_slice() {
            [] => f.write_str("no problem"),
            [one] if self.omitted == 0 => {
                write!(f, "{}:{}:{}: {}", one.place.file, one.place.line, one.place.column, one.message)
            }
            [first, rest @ ..] => {
                let Place { file, line, column, .. } = &first.place;
                write!(f, "{file}:{line}:{column}: {}, and {} more problems", first.message, rest.len() + self.omitted)
            }
        }
    }
}

impl std::error::Error for Report {}

/// A problem before its place is worked out: made where it is found, given to [`Problems::push`].
pub(super) struct Draft {
    kind: Kind,
    code: Option<Code>,
    message: String,
    help: String,
}

/// What is wrong; no problem without a word on how to mend it.
pub(super) struct Fault {
    kind: Kind,
    message: String,
}

impl Fault {
    pub(super) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub(super) fn help(self, help: impl Into<String>) -> Draft {
        Draft { kind: self.kind, code: None, message: self.message, help: help.into() }
    }
}

impl Draft {
    pub(super) fn code(mut self, code: Code) -> Self {
        self.code = Some(code);
        self
    }

    pub(super) fn at(self, severity: Severity, place: Place) -> Problem {
        Problem { severity, kind: self.kind, code: self.code, place, message: self.message, help: self.help }
    }
}

/// Collects problems and knows where lines begin.
pub(super) struct Problems<'t> {
    file: &'t str,
    text: &'t str,
    lines: Vec<usize>,
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
    omitted: usize,
    /// Offset and column of the last place: the next one is often further right on the same, possibly endless, line.
    last: Cell<(usize, usize)>,
}

impl<'t> Problems<'t> {
    pub(super) fn new(file: &'t str, text: &'t str) -> Self {
        let lines =
            std::iter::once(0).chain(text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at + 1)).collect();
        Self { file, text, lines, errors: Vec::new(), warnings: Vec::new(), omitted: 0, last: Cell::new((0, 1)) }
    }

    /// Adds an error at `span`.
    pub(super) fn push(&mut self, span: Range<usize>, path: &str, draft: Draft) {
        if self.errors.len() == MAX_PROBLEMS {
            self.omitted += 1;
            return;
        }
        let place = self.place(span, path);
        self.errors.push(draft.at(Severity::Error, place));
    }

    /// Adds a warning at `span`.
    pub(super) fn warn(&mut self, span: Range<usize>, path: &str, draft: Draft) {
        if self.warnings.len() < MAX_PROBLEMS {
            let place = self.place(span, path);
            self.warnings.push(draft.at(Severity::Warning, place));
        }
    }

    /// How many errors so far.
    pub(super) fn count(&self) -> usize {
        self.errors.len() + self.omitted
    }

    /// The name of the file.
    pub(super) fn file(&self) -> &'t str {
        self.file
    }

    /// The text of the whole file.
    pub(super) fn text(&self) -> &'t str {
        self.text
    }

    /// The line, counted from 1, on which the byte at `offset` stands.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.lines.partition_point(|start| *start <= offset)
    }

    pub(super) fn place(&self, span: Range<usize>, path: &str) -> Place {
        let start = floor(self.text, span.start);
        let end = floor(self.text, span.end).max(start);
        let line = self.line(start);
        // `line` is at least 1: the first line begins at 0, which is never above `start`.
        let column = self.column(self.lines[line - 1], start);
        let mut text: String = self.text[start..end].chars().take(MAX_TEXT + 1).collect();
        if text.chars().count() > MAX_TEXT {
            text = text.chars().take(MAX_TEXT - 1).chain(['…']).collect();
        }
        Place { file: self.file.to_owned(), line, column, offset: start, len: end - start, path: path.to_owned(), text }
    }

    fn column(&self, line_start: usize, offset: usize) -> usize {
        let (known, column) = self.last.get();
        let (from, column) = if (line_start..=offset).contains(&known) { (known, column) } else { (line_start, 1) };
        let column = column + self.text[from..offset].chars().count();
        self.last.set((offset, column));
        column
    }

    /// Ends the collection.
    pub(super) fn finish(mut self) -> Report {
        let position = |problem: &Problem| (problem.place.offset, problem.place.len);
        self.errors.sort_by_key(position);
        self.warnings.sort_by_key(position);
        Report { problems: self.errors, omitted: self.omitted, warnings: self.warnings }
    }
}

/// The nearest character boundary at or before `offset`.
fn floor(text: &str, offset: usize) -> usize {
    let mut at = offset.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_counts_lines_and_characters_from_one() {
        let problems = Problems::new("f", "a = 1\nβ = 2\n");
        let place = problems.place(11..12, "x");
        assert_eq!((place.line, place.column, place.text.as_str()), (2, 5, "2"));
    }

    #[test]
    fn a_place_behind_the_end_is_the_end() {
        let problems = Problems::new("f", "a = 1");
        let place = problems.place(50..60, "");
        assert_eq!((place.line, place.column, place.len), (1, 6, 0));
    }

    #[test]
    fn problems_come_sorted_by_position_and_the_excess_is_counted() {
        let mut problems = Problems::new("f", "0123456789");
        for at in (0..10).rev() {
            problems.push(at..at + 1, "", Fault::new(Kind::Syntax, "x").help("y"));
        }
        for _ in 0..MAX_PROBLEMS {
            problems.push(0..1, "", Fault::new(Kind::Syntax, "x").help("y"));
        }
        let report = problems.finish();
        assert_eq!((report.problems.len(), report.omitted), (MAX_PROBLEMS, 10));
        assert!(report.problems.is_sorted_by_key(|problem| problem.place.offset));
    }
}
