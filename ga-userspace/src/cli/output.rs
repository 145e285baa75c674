//! Where answers go: tables for people, views as JSON for programs.

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use comfy_table::{Attribute, Cell, CellAlignment, ColumnConstraint, ContentArrangement, Table, presets};
use serde::Serialize;

/// What answers look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs: stable, with `schema_version`.
    Json,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What rendering depends on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// Columns of the terminal; without one, lines are as long as they are.
    pub width: Option<u16>,
    /// Whether to use colours.
    pub color: bool,
}

/// Standard output.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// What answers look like.
    pub format: Format,
    /// What tables depend on.
    pub style: Style,
    terminal: bool,
}

impl Output {
    /// Looks at standard output and the environment.
    pub fn new(format: Format, color: ColorChoice) -> Self {
        let terminal = io::stdout().is_terminal();
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let color = match color {
            ColorChoice::Auto => terminal && !no_color && !dumb,
            ColorChoice::Always => true,
            ColorChoice::Never => false,
        };
        Self { format, style: Style { width: Table::new().width().filter(|_| terminal), color }, terminal }
    }

    /// Whether somebody looks.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Prints a view: as JSON, or as the text that `table` makes of it.
    pub fn view<T: Serialize>(&self, view: &T, table: impl FnOnce(&Style) -> String) -> anyhow::Result<()> {
        match self.format {
            Format::Table => self.text(&table(&self.style)),
            Format::Json => self.text(&serde_json::to_string_pretty(view)?),
        }
    }

    /// The same for a view that comes again and again: a terminal is redrawn, a pipe gets blocks, JSON one line each.
    pub fn repeated<T: Serialize>(&self, view: &T, table: impl FnOnce(&Style) -> String) -> anyhow::Result<()> {
        /// Cursor home, clear the screen.
        const CLEAR: &str = "\x1b[H\x1b[2J";
        match self.format {
            Format::Table if self.terminal => self.text(&format!("{CLEAR}{}", table(&self.style))),
            Format::Table => self.text(&format!("{}\n", table(&self.style))),
            Format::Json => self.text(&serde_json::to_string(view)?),
        }
    }

    /// One of many on a line of its own.
    pub fn line<T: Serialize>(&self, view: &T, line: impl FnOnce() -> String) -> anyhow::Result<()> {
        match self.format {
            Format::Table => self.text(&line()),
            Format::Json => self.text(&serde_json::to_string(view)?),
        }
    }

    /// Prints `text` and ends the line.
    pub fn text(&self, text: &str) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        if !text.ends_with('\n') {
            out.write_all(b"\n")?;
        }
        Ok(out.flush()?)
    }
}

/// Tab-separated values under a header line. No name, address or number of ours has a tab.
pub(super) fn tsv<R: IntoIterator<Item = String>>(header: &[&str], rows: impl Iterator<Item = R>) -> String {
    let mut out = header.join("\t") + "\n";
    for row in rows {
        out += &(row.into_iter().collect::<Vec<_>>().join("\t") + "\n");
    }
    out
}

impl Style {
    /// An empty table: columns of text to the left, of numbers to the right.
    pub(super) fn table(&self, columns: &[(&str, CellAlignment)]) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).force_no_tty();
        if self.color {
            table.enforce_styling();
        }
        let bold = |name: &str| Cell::new(name).add_attribute(Attribute::Bold);
        table.set_header(columns.iter().map(|(name, _)| bold(name)).collect::<Vec<_>>());
        for (column, (_, alignment)) in table.column_iter_mut().zip(columns) {
            column.set_cell_alignment(*alignment);
            column.set_padding((2, 0));
        }
        table
    }

    /// Columns that `table` needs to have no line broken.
    pub(super) fn natural_width(table: &Table) -> usize {
        table.column_max_content_widths().into_iter().map(|width| usize::from(width) + 2).sum()
    }

    /// Whether `table` fits without broken lines.
    pub(super) fn fits(&self, table: &Table) -> bool {
        self.width.is_none_or(|width| Self::natural_width(table) <= usize::from(width))
    }

    /// The text of `table`; where it does not fit, cells are broken, never lines.
    pub(super) fn draw(&self, mut table: Table) -> String {
        if let Some(width) = self.width.filter(|_| !self.fits(&table)) {
            // The first column names things: a broken name cannot be copied.
            table.column_iter_mut().take(1).for_each(|name| {
                name.set_constraint(ColumnConstraint::ContentWidth);
            });
            table.set_width(width).set_content_arrangement(ContentArrangement::Dynamic);
        }
        table.trim_fmt() + "\n"
    }
}
