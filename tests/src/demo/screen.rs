//! What the demo prints: headings, findings, bars. Readable on 80 columns, without colours and without Unicode.

use std::{
    env,
    io::{self, IsTerminal as _, Write as _},
    time::Instant,
};

use super::stop::Stop;

/// Standard output, and what was found wrong so far.
#[derive(Debug)]
pub(super) struct Screen {
    color: bool,
    unicode: bool,
    started: Instant,
    stop: Stop,
    /// Findings that should have been otherwise.
    pub(super) failures: Vec<String>,
}

/// How a piece of text looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ink {
    /// A heading.
    Bold,
    /// Less important.
    Dim,
    /// What was measured.
    Blue,
    /// As it should be.
    Green,
    /// As it should not be.
    Red,
}

impl Ink {
    const fn code(self) -> &'static str {
        match self {
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Blue => "34",
            Self::Green => "32",
            Self::Red => "31",
        }
    }
}

impl Screen {
    /// Looks at standard output and the environment.
    pub(super) fn new(stop: Stop) -> Self {
        let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let dumb = set("TERM").is_some_and(|term| term == "dumb");
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| set(name)).unwrap_or_default();
        let locale = locale.to_string_lossy().to_ascii_lowercase();
        Self {
            color: io::stdout().is_terminal() && set("NO_COLOR").is_none() && !dumb,
            unicode: locale.contains("utf-8") || locale.contains("utf8"),
            started: Instant::now(),
            stop,
            failures: Vec::new(),
        }
    }

    /// `text` in colour, where there are colours.
    pub(super) fn paint(&self, ink: Ink, text: &str) -> String {
        if self.color { format!("\x1b[{}m{text}\x1b[0m", ink.code()) } else { text.to_owned() }
    }

    /// A line. When nobody reads any more, the demo ends.
    pub(super) fn line(&self, text: &str) {
        let text = if self.unicode { text.to_owned() } else { ascii(text) };
        let mut out = io::stdout().lock();
        if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
            self.stop.set();
        }
    }

    /// The title of a part, after an empty line.
    pub(super) fn heading(&self, text: &str) {
        let at = format!("{:>5.1} s", self.started.elapsed().as_secs_f64());
        let rule = "─".repeat(78_usize.saturating_sub(text.chars().count() + at.len() + 3));
        self.line(&format!("\n{} {} {}", self.paint(Ink::Bold, text), self.paint(Ink::Dim, &rule), self.paint(Ink::Dim, &at)));
    }

    /// A remark.
    pub(super) fn note(&self, text: &str) {
        self.line(&format!("    {text}"));
    }

    /// What somebody could type.
    pub(super) fn command(&self, text: &str) {
        self.line(&format!("  {} {text}", self.paint(Ink::Dim, "$")));
    }

    /// A finding; one that is not as it should be makes the demo fail.
    pub(super) fn check(&mut self, good: bool, text: &str) {
        let sign = if good { self.paint(Ink::Green, "✓") } else { self.paint(Ink::Red, "✗") };
        self.line(&format!("  {sign} {text}"));
        if !good {
            self.failures.push(text.to_owned());
        }
    }

    /// Seconds since the start.
    pub(super) fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }
}

/// A bar of `part` of `width` columns.
pub(super) fn bar(part: f64, width: usize, fill: char) -> String {
    let columns = (part.clamp(0.0, 1.0) * width as f64).round() as usize;
    std::iter::repeat_n(fill, columns).collect()
}

/// Thousands with commas.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// One column of ASCII for each column of Unicode.
fn ascii(text: &str) -> String {
    let plain = |c: char| match c {
        '─' | '–' | '═' => '-',
        '│' => '|',
        '┌' | '┐' | '└' | '┘' | '├' | '┤' | '┬' | '┴' | '┼' | '╭' | '╮' | '╰' | '╯' => '+',
        '█' => '#',
        '░' => ':',
        '·' | '…' => '.',
        '→' | '▶' => '>',
        '←' | '◀' => '<',
        '✓' => '+',
        '✗' => '!',
        '×' => 'x',
        other if other.is_ascii() => other,
        _ => '?',
    };
    text.chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ascii_keeps_the_columns() {
        assert_eq!(ascii("┌─┐ █░ ✓ 5 × 3 …"), "+-+ #: + 5 x 3 .");
    }

    #[test]
    fn bars_are_as_long_as_the_part() {
        assert_eq!(bar(0.5, 10, '#'), "#####");
        assert_eq!(bar(2.0, 3, '#'), "###");
        assert_eq!(bar(-1.0, 3, '#'), "");
    }

    #[test]
    fn thousands_have_commas() {
        assert_eq!([7, 1000, 1_234_567].map(thousands), ["7", "1,000", "1,234,567"]);
    }
}
