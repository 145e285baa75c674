//! Problems for people: the line, the place in it, what is wrong, how to mend it.

use std::fmt;

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError, MietteSpanContents, SourceCode, SourceSpan,
    SpanContents,
};

use super::problem::{Problem, Report, Severity};

/// Problems shown one by one; the rest is counted.
const MAX_SHOWN: usize = 50;

/// Bytes of a line that are shown; longer ones are cut around the place.
const MAX_LINE: usize = 160;

/// How the text will be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Colours and box-drawing characters.
    Colour,
    /// Box-drawing characters only.
    Plain,
}

/// Writes errors and warnings of `report` with snippets of `text`, the file they were found in.
pub fn report(out: &mut impl fmt::Write, report: &Report, text: &str, style: Style) -> fmt::Result {
    problems(out, &report.problems, report.omitted, text, style)?;
    problems(out, &report.warnings, 0, text, style)
}

/// Writes `problems`, and how many more there are.
pub fn problems(out: &mut impl fmt::Write, problems: &[Problem], omitted: usize, text: &str, style: Style) -> fmt::Result {
    let theme = match style {
        Style::Colour => GraphicalTheme::unicode(),
        Style::Plain => GraphicalTheme::unicode_nocolor(),
    };
    let handler = GraphicalReportHandler::new_themed(theme).with_width(130).with_context_lines(0).with_links(false);
    for problem in problems.iter().take(MAX_SHOWN) {
        handler.render_report(out, &Shown { problem, snippet: Snippet::new(problem, text) })?;
        writeln!(out)?;
    }
    match problems.len().saturating_sub(MAX_SHOWN) + omitted {
        0 => Ok(()),
        more => writeln!(out, "and {more} more"),
    }
}

/// A problem as miette wants it.
#[derive(Debug)]
struct Shown<'p> {
    problem: &'p Problem,
    snippet: Snippet<'p>,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem.message)
    }
}

impl std::error::Error for Shown<'_> {}

impl Diagnostic for Shown<'_> {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        let word = self.problem.code.map_or(self.problem.kind.word(), |code| code.word());
        Some(Box::new(word))
    }

    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.problem.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(&self.problem.help))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.snippet)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let label = if self.problem.place.path.is_empty() { "here" } else { &self.problem.place.path };
        Some(Box::new(std::iter::once(LabeledSpan::new_with_span(Some(label.to_owned()), self.snippet.span))))
    }
}

/// The one line that matters: miette would look for it from the start of the file, for every problem again.
#[derive(Debug)]
struct Snippet<'p> {
    problem: &'p Problem,
    line: &'p str,
    /// Within `line`.
    span: SourceSpan,
}

impl<'p> Snippet<'p> {
    fn new(problem: &'p Problem, text: &'p str) -> Self {
        let at = problem.place.offset.min(text.len());
        let (before, after) = text.split_at_checked(at).unwrap_or((text, ""));
        let mut start = before.rfind('\n').map_or(0, |newline| newline + 1);
        if at - start > MAX_LINE / 2 {
            start = (at - MAX_LINE / 2..=at).find(|start| text.is_char_boundary(*start)).unwrap_or(at);
        }
        let mut end = at + after.find('\n').unwrap_or(after.len());
        if end - at > MAX_LINE {
            end = (at..=at + MAX_LINE).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(at);
        }
        let line = text.get(start..end).unwrap_or_default();
        let len = problem.place.len.min(end - at);
        Self { problem, line, span: (at - start, len).into() }
    }
}

impl SourceCode for Snippet<'_> {
    fn read_span<'a>(
        &'a self,
        _span: &SourceSpan,
        _lines_before: usize,
        _lines_after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let place = &self.problem.place;
        let whole = SourceSpan::from((0, self.line.len()));
        let contents =
            MietteSpanContents::new_named(place.file.clone(), self.line.as_bytes(), whole, place.line - 1, place.column - 1, 1);
        Ok(Box::new(contents))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(text: &str) -> String {
        let found = super::super::parse("ga.toml", text).unwrap_err();
        let mut out = String::new();
        report(&mut out, &found, text, Style::Plain).unwrap();
        out
    }

    #[test]
    fn a_problem_shows_its_line_its_place_and_its_remedy() {
        let out = rendered("[node]\ninterfaces = [\"eth0\"]\nxdp_mod = \"auto\"\n");
        assert!(out.contains("ga.toml:3:1"), "{out}");
        assert!(out.contains("xdp_mod = \"auto\""), "{out}");
        assert!(out.contains("did you mean `xdp_mode`?"), "{out}");
        assert!(out.contains("3 │"), "{out}");
    }

    #[test]
    fn plain_text_has_no_escape_sequences() {
        assert!(!rendered("[node]\nx = 1\n").contains('\u{1b}'));
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let text = format!("x = \"{}\"\n[node]\n", "é".repeat(5_000));
        assert!(rendered(&text).len() < 5_000);
    }

    #[test]
    fn many_problems_are_counted_not_shown() {
        let text: String = (0..200).map(|index| format!("unknown{index} = 1\n")).collect();
        let out = rendered(&text);
        assert!(out.contains("and 152 more"), "{out}");
    }
}
