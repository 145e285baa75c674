//! Changes of `[[vserver_group]]` in the text of a file (specification §1.20, §2.6): what is not changed stays, byte for byte.

use std::ops::Range;

use toml_edit::{Document, Item, Table, TableLike, Value};

/// A column of the servers of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Where the server is.
    Server,
    /// The port it serves.
    Port,
    /// Its part of the group's traffic.
    Weight,
}

/// Which rows get the value of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replicate {
    /// Those after it.
    Below,
    /// Those before it.
    Above,
    /// All of them.
    All,
}

/// Why a change cannot be made.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The text is not TOML.
    #[error("the file is not TOML: {0}")]
    Syntax(String),
    /// There is no group of this name, or it has no servers.
    #[error("there is no `[[vserver_group]]` named {0:?} with servers")]
    NoGroup(String),
    /// Rows are counted from 1.
    #[error("there is no row {row}: the group has {rows}")]
    NoRow {
        /// The one that was wanted.
        row: usize,
        /// How many there are.
        rows: usize,
    },
    /// A value that the column cannot have.
    #[error("{value:?} is no {what}", what = column.bounds())]
    BadValue {
        /// The column.
        column: Column,
        /// The value.
        value: String,
    },
    /// Each server is in a row of its own.
    #[error("only ports and weights are replicated and reset")]
    NotAServer,
    /// Not one value for each row.
    #[error("{values} values for {rows} rows")]
    WrongNumber {
        /// How many are given.
        values: usize,
        /// How many there are.
        rows: usize,
    },
    /// A group with an empty cell cannot be saved.
    #[error("the group cannot be saved: {column} is empty in row {rows}; fill it in the same command", column = column.word())]
    Empty {
        /// The column.
        column: Column,
        /// The rows, counted from 1.
        rows: String,
    },
}

impl Column {
    /// All of them, from left to right.
    pub const ALL: [Self; 3] = [Self::Server, Self::Port, Self::Weight];

    /// As people call it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Port => "port",
            Self::Weight => "weight",
        }
    }

    const fn key(self) -> &'static str {
        match self {
            Self::Server => "address",
            Self::Port => "port",
            Self::Weight => "weight",
        }
    }

    const fn bounds(self) -> &'static str {
        match self {
            Self::Server => "address and no name of a host",
            Self::Port => "port: 1 to 65535",
            Self::Weight => "weight of a server: 0 to 100",
        }
    }

    fn takes(self, value: &str) -> bool {
        let number = || value.parse::<u32>().ok();
        match self {
            Self::Server => {
                !value.is_empty() && value.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\'' | b'\\'))
            }
            Self::Port => number().is_some_and(|port| (1..=65_535).contains(&port)),
            Self::Weight => number().is_some_and(|weight| weight <= 100),
        }
    }

    /// As the file has it.
    fn written(self, value: &str) -> String {
        match self {
            Self::Server => format!("\"{value}\""),
            Self::Port | Self::Weight => value.to_owned(),
        }
    }
}

/// One server: its cells from left to right, empty ones as `None`.
type Row = [Option<String>; 3];

/// Where a row stands in the text.
#[derive(Debug)]
struct Place {
    cells: [Option<Range<usize>>; 3],
    /// Where its last value ends.
    end: usize,
    /// `{ … }`, not lines of their own.
    is_inline: bool,
}

/// The servers of a group, as a table in which cells are changed.
#[derive(Debug)]
pub struct Sheet<'t> {
    text: &'t str,
    places: Vec<Place>,
    before: Vec<Row>,
    rows: Vec<Row>,
}

impl<'t> Sheet<'t> {
    /// The servers of a group; the rest of the text need not be right.
    pub fn read(text: &'t str, group: &str) -> Result<Self, EditError> {
        let document = parse(text)?;
        let table = named(&document, group).ok_or_else(|| EditError::NoGroup(group.to_owned()))?;
        let item = table.get("servers").unwrap_or(&Item::None);
        let servers = tables(item);
        let places: Vec<Place> = servers.iter().map(|table| place(*table, item.is_value())).collect();
        let rows: Vec<Row> = servers.iter().copied().map(row).collect();
        if rows.is_empty() {
            return Err(EditError::NoGroup(group.to_owned()));
        }
        Ok(Self { text, places, before: rows.clone(), rows })
    }

    /// Changes one cell; rows are counted from 1.
    pub fn set(&mut self, row: usize, column: Column, value: &str) -> Result<(), EditError> {
        let rows = self.rows.len();
        if !column.takes(value) {
            return Err(EditError::BadValue { column, value: value.to_owned() });
        }
        let index = row.checked_sub(1).filter(|index| *index < rows).ok_or(EditError::NoRow { row, rows })?;
        self.rows[index][column as usize] = Some(value.to_owned());
        Ok(())
    }

    /// Changes a column in all rows, from the first to the last.
    pub fn fill(&mut self, column: Column, values: &[String]) -> Result<(), EditError> {
        if values.len() != self.rows.len() {
            return Err(EditError::WrongNumber { values: values.len(), rows: self.rows.len() });
        }
        (1..).zip(values).try_for_each(|(row, value)| self.set(row, column, value))
    }

    /// Gives other rows the value that one has, which may be none.
    pub fn replicate(&mut self, row: usize, column: Column, to: Replicate) -> Result<(), EditError> {
        let rows = self.rows.len();
        let index = row.checked_sub(1).filter(|index| *index < rows).ok_or(EditError::NoRow { row, rows })?;
        let range = match to {
            _ if column == Column::Server => return Err(EditError::NotAServer),
            Replicate::Below => index..rows,
            Replicate::Above => 0..index,
            Replicate::All => 0..rows,
        };
        let value = self.rows[index][column as usize].clone();
        self.rows[range].iter_mut().for_each(|row| row[column as usize].clone_from(&value));
        Ok(())
    }

    /// Empties a column in all rows.
    pub fn reset(&mut self, column: Column) -> Result<(), EditError> {
        if column == Column::Server {
            return Err(EditError::NotAServer);
        }
        self.rows.iter_mut().for_each(|row| row[column as usize] = None);
        Ok(())
    }

    /// The text with the changes; refused as long as a cell is empty.
    pub fn text(&self) -> Result<String, EditError> {
        let mut pieces = Vec::new();
        for column in Column::ALL {
            let empty = (1..).zip(&self.rows).filter(|(_, row)| row[column as usize].is_none());
            let empty: Vec<_> = empty.map(|(row, _)| row.to_string()).collect();
            if !empty.is_empty() {
                return Err(EditError::Empty { column, rows: empty.join(", ") });
            }
        }
        for ((place, before), row) in self.places.iter().zip(&self.before).zip(&self.rows) {
            for column in Column::ALL {
                if let Some(value) = row[column as usize].as_ref().filter(|_| row[column as usize] != before[column as usize]) {
                    pieces.push(self.piece(place, column, &column.written(value)));
                }
            }
        }
        Ok(spliced(self.text, pieces))
    }

    /// What stands where, instead of what stands there now.
    fn piece(&self, place: &Place, column: Column, value: &str) -> (Range<usize>, String) {
        let key = column.key();
        match &place.cells[column as usize] {
            Some(span) => (span.clone(), value.to_owned()),
            None if place.is_inline => (place.end..place.end, format!(", {key} = {value}")),
            None => {
                let (line, end) = line_around(self.text, place.end);
                let indent: String = self.text[line..].chars().take_while(|c| matches!(c, ' ' | '\t')).collect();
                let newline = if self.text[..end].ends_with('\r') { "\r\n" } else { "\n" };
                let end = self.text[..end].trim_end_matches('\r').len();
                (end..end, format!("{newline}{indent}{key} = {value}"))
            }
        }
    }
}

/// The text without a group, and without the comment right above it.
pub fn without(text: &str, group: &str) -> Result<String, EditError> {
    let document = parse(text)?;
    let nobody = || EditError::NoGroup(group.to_owned());
    let pieces = match document.get("vserver_group").ok_or_else(nobody)? {
        Item::ArrayOfTables(groups) => {
            let table = groups.iter().find(|table| is_named(*table, group)).ok_or_else(nobody)?;
            let mut pieces = Vec::new();
            collect(text, table, &mut pieces);
            pieces
        }
        Item::Value(Value::Array(array)) => {
            let is_it = |value: &Value| value.as_inline_table().is_some_and(|table| is_named(table, group));
            let index = array.iter().position(is_it).ok_or_else(nobody)?;
            let span = |index: usize| array.get(index).and_then(Value::span);
            let own = span(index).ok_or_else(nobody)?;
            // The comma goes with it.
            let piece = match (span(index + 1), index.checked_sub(1).and_then(span)) {
                (Some(next), _) => own.start..next.start,
                (None, Some(last)) => last.end..own.end,
                (None, None) => own,
            };
            vec![piece]
        }
        Item::None | Item::Value(_) | Item::Table(_) => return Err(nobody()),
    };
    Ok(spliced(text, pieces.into_iter().map(|range| (range, String::new())).collect()))
}

fn parse(text: &str) -> Result<Document<&str>, EditError> {
    Document::parse(text).map_err(|error| EditError::Syntax(error.message().to_owned()))
}

fn named<'d>(document: &'d Document<&str>, group: &str) -> Option<&'d dyn TableLike> {
    document.get("vserver_group").map(tables)?.into_iter().find(|table| is_named(*table, group))
}

fn is_named(table: &dyn TableLike, group: &str) -> bool {
    table.get("name").and_then(Item::as_str) == Some(group)
}

/// The tables of an array, however it is written.
fn tables(item: &Item) -> Vec<&dyn TableLike> {
    match item {
        Item::ArrayOfTables(array) => array.iter().map(|table| -> &dyn TableLike { table }).collect(),
        Item::Value(Value::Array(array)) => {
            array.iter().filter_map(|value| Some(value.as_inline_table()? as &dyn TableLike)).collect()
        }
        Item::None | Item::Value(_) | Item::Table(_) => Vec::new(),
    }
}

fn row(table: &dyn TableLike) -> Row {
    let number = |key| table.get(key).and_then(Item::as_integer).map(|number| number.to_string());
    let weight = if table.contains_key("weight") { number("weight") } else { Some("100".to_owned()) };
    [table.get("address").and_then(Item::as_str).map(str::to_owned), number("port"), weight]
}

fn place(table: &dyn TableLike, is_inline: bool) -> Place {
    let spans = || table.iter().filter_map(|(_, item)| item.span());
    Place {
        cells: Column::ALL.map(|column| table.get(column.key()).and_then(Item::span)),
        end: spans().map(|span| span.end).max().unwrap_or_default(),
        is_inline,
    }
}

/// The lines of a table and of the tables in it, each with the comment right above.
fn collect(text: &str, table: &Table, pieces: &mut Vec<Range<usize>>) {
    let Some(header) = table.span() else { return };
    let values = table.iter().filter(|(_, item)| item.is_value()).filter_map(|(_, item)| item.span());
    let end = values.map(|span| span.end).max().unwrap_or(header.start).max(header.start);
    let (mut start, _) = line_around(text, header.start);
    while start > 0 {
        let (above, _) = line_around(text, start - 1);
        if !text[above..start].trim_start().starts_with('#') {
            break;
        }
        start = above;
    }
    let (_, end) = line_around(text, end);
    let end = text.len().min(end + 1);
    // One of the blank lines around goes too.
    let blank = text[end..].split_inclusive('\n').next().filter(|line| line.trim().is_empty()).map_or(0, str::len);
    pieces.push(start..end + blank);
    for (_, item) in table.iter() {
        match item {
            Item::Table(table) => collect(text, table, pieces),
            Item::ArrayOfTables(array) => array.iter().for_each(|table| collect(text, table, pieces)),
            Item::None | Item::Value(_) => {}
        }
    }
}

/// Where the line of a byte begins, and where its newline stands.
fn line_around(text: &str, at: usize) -> (usize, usize) {
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    (start, text[at..].find('\n').map_or(text.len(), |newline| at + newline))
}

fn spliced(text: &str, mut pieces: Vec<(Range<usize>, String)>) -> String {
    pieces.sort_by_key(|(range, _)| (range.start, range.end));
    let (mut out, mut at) = (String::with_capacity(text.len()), 0);
    for (range, new) in pieces {
        out += &text[at..range.start.max(at)];
        out += &new;
        at = range.end.max(at);
    }
    out + &text[at..]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ways to write servers, with comments wherever they may stand.
    const FILE: &str = "# the edge\n[node] # here\ninterfaces = [ 'eth0' ]\n\n# Servers.\n\n# of the shop\n[[vserver_group]]  # a\n\
                        name = \"pool-a\"\nservers = [ # first to last\n  { address = \"10.0.0.1\", port = 8_080 }, # one\n  \
                        {address='10.0.0.2',port=0x51,weight = 50 }, # two\n  { address = \"10.0.0.3\", port = 82, weight = 7 },\n]\n\
                        # after\n\n# of the office\n[[vserver_group]]\nname = \"pool-b\"\n\n  [[vserver_group.servers]]\n  \
                        address = \"10.0.0.1\" # one\n  port = 90\n  # none\n\n  [[vserver_group.servers]]\n  address = \"10.0.0.2\"\n  \
                        port = 91\n  weight = 9 # nine\n\n# the end\n[limits]\n";

    /// The lines of `FILE` that a change of `group` makes others, and what they are then.
    fn changed(group: &str, change: impl FnOnce(&mut Sheet<'_>) -> Result<(), EditError>) -> Result<Vec<String>, EditError> {
        let mut sheet = Sheet::read(FILE, group)?;
        change(&mut sheet)?;
        let new = sheet.text()?;
        let gone: Vec<_> = FILE.lines().filter(|line| !new.lines().any(|new| new == *line)).collect();
        let come: Vec<_> = new.lines().filter(|line| !FILE.lines().any(|old| old == *line)).map(str::to_owned).collect();
        assert!(gone.len() <= come.len() && new.lines().count() == FILE.lines().count() + come.len() - gone.len(), "{new}");
        Ok(come)
    }

    // proves: K06
    #[test]
    fn a_value_is_replicated_below_above_or_to_all_and_no_other_row_changes() {
        let replicate = |column, row, to| changed("pool-a", |sheet| sheet.replicate(row, column, to));
        let (two, three) =
            ("  {address='10.0.0.2',port=0x51,weight = 50 }, # two", "  { address = \"10.0.0.3\", port = 82, weight = 7 },");
        let weight_50 = ["  { address = \"10.0.0.1\", port = 8_080, weight = 50 }, # one", &three.replace("= 7", "= 50")];
        assert_eq!(replicate(Column::Weight, 2, Replicate::Above).unwrap(), weight_50[..1]);
        assert_eq!(replicate(Column::Weight, 2, Replicate::Below).unwrap(), weight_50[1..]);
        assert_eq!(replicate(Column::Weight, 2, Replicate::All).unwrap(), weight_50);
        let from_first = [two.replace("50", "100"), three.replace("= 7", "= 100")];
        assert_eq!(replicate(Column::Weight, 1, Replicate::All).unwrap(), from_first, "a weight that is left away is 100");
        let ports = [two.replace("0x51", "8080"), three.replace("82", "8080")];
        assert_eq!(replicate(Column::Port, 1, Replicate::Below).unwrap(), ports);
        assert_eq!(replicate(Column::Port, 1, Replicate::Above).unwrap(), [""; 0]);
        assert_eq!(replicate(Column::Server, 1, Replicate::All), Err(EditError::NotAServer));
        assert_eq!(replicate(Column::Port, 4, Replicate::All), Err(EditError::NoRow { row: 4, rows: 3 }));
        assert_eq!(replicate(Column::Port, 0, Replicate::All), Err(EditError::NoRow { row: 0, rows: 3 }));
    }

    // proves: K07
    #[test]
    fn a_reset_empties_a_column_in_all_rows_and_nothing_is_saved_until_it_is_filled() {
        for column in [Column::Port, Column::Weight] {
            let mut sheet = Sheet::read(FILE, "pool-a").unwrap();
            sheet.reset(column).unwrap();
            let empty = |rows: &str| Err(EditError::Empty { column, rows: rows.to_owned() });
            assert_eq!(sheet.text(), empty("1, 2, 3"));
            sheet.set(2, column, "40").unwrap();
            assert_eq!(sheet.text(), empty("1, 3"));
            sheet.replicate(2, column, Replicate::Below).unwrap();
            assert_eq!(sheet.text(), empty("1"));
            sheet.set(1, column, "9").unwrap();
            let key = column.key();
            let text = sheet.text().unwrap();
            let values = |text: &str| text.matches(&format!("{key} = 40")).count() + text.matches(&format!("{key}=40")).count();
            assert_eq!((values(FILE), values(&text)), (0, 2), "{text}");
        }
        assert_eq!(changed("pool-a", |sheet| sheet.reset(Column::Server)), Err(EditError::NotAServer));
    }

    #[test]
    fn cells_are_set_where_they_stand_and_added_where_they_did_not() {
        let set = |group, row, column, value| changed(group, |sheet| sheet.set(row, column, value));
        assert_eq!(set("pool-b", 2, Column::Weight, "10").unwrap(), ["  weight = 10 # nine"]);
        assert_eq!(set("pool-b", 1, Column::Weight, "10").unwrap(), ["  weight = 10"]);
        assert_eq!(set("pool-b", 1, Column::Server, "web-1").unwrap(), ["  address = \"web-1\" # one"]);
        assert_eq!(set("pool-b", 1, Column::Port, "90").unwrap(), [""; 0], "what is so already stays as it is written");
        for (column, value) in [
            (Column::Weight, "101"),
            (Column::Weight, "-1"),
            (Column::Weight, ""),
            (Column::Port, "0"),
            (Column::Port, "65536"),
            (Column::Server, "a\" }"),
            (Column::Server, ""),
        ] {
            assert_eq!(set("pool-b", 1, column, value), Err(EditError::BadValue { column, value: value.to_owned() }));
        }
        let fill = |values: &[&str]| {
            changed("pool-b", |sheet| sheet.fill(Column::Port, &values.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>()))
        };
        assert_eq!(fill(&["1", "2"]).unwrap(), ["  port = 1", "  port = 2"]);
        assert_eq!(fill(&["1"]), Err(EditError::WrongNumber { values: 1, rows: 2 }));
        assert_eq!(set("pool-c", 1, Column::Port, "1"), Err(EditError::NoGroup("pool-c".to_owned())));
        assert!(matches!(Sheet::read("a = = 1", "pool-a").map(|_| ()), Err(EditError::Syntax(_))));
    }

    #[test]
    fn line_ends_of_another_system_stay() {
        let file = FILE.replace('\n', "\r\n");
        let mut sheet = Sheet::read(&file, "pool-b").unwrap();
        sheet.set(1, Column::Weight, "10").unwrap();
        let mut as_here = Sheet::read(FILE, "pool-b").unwrap();
        as_here.set(1, Column::Weight, "10").unwrap();
        assert_eq!(sheet.text().unwrap(), as_here.text().unwrap().replace('\n', "\r\n"));
    }

    #[test]
    fn a_group_goes_with_the_comment_right_above_it_and_nothing_else_does() {
        let without_a = "# the edge\n[node] # here\ninterfaces = [ 'eth0' ]\n\n# Servers.\n\n# after\n\n# of the office\n";
        let a = without(FILE, "pool-a").unwrap();
        assert!(a.starts_with(without_a) && a.ends_with(&FILE[FILE.find("[[vserver_group]]\n").unwrap()..]), "{a}");
        let b = without(FILE, "pool-b").unwrap();
        let end = "]\n# after\n\n  # none\n\n# the end\n[limits]\n";
        assert!(b.ends_with(end) && FILE.starts_with(b.strip_suffix(end).unwrap()), "{b}");
        assert_eq!(without(&b, "pool-b"), Err(EditError::NoGroup("pool-b".to_owned())));
        let none = without(&b, "pool-a").unwrap();
        assert_eq!(none.parse::<toml::Table>().unwrap().keys().collect::<Vec<_>>(), ["limits", "node"]);

        let scattered = "[[vserver_group]]\nname = \"a\"\n[node]\n[[vserver_group.servers]]\nport = 1\n";
        assert_eq!(without(scattered, "a").unwrap(), "[node]\n");
        let inline = "vserver_group = [{ name = \"a\" }, { name = \"b\" }, { name = \"c\" }]";
        assert_eq!(without(inline, "b").unwrap(), "vserver_group = [{ name = \"a\" }, { name = \"c\" }]");
        assert_eq!(without(inline, "c").unwrap(), "vserver_group = [{ name = \"a\" }, { name = \"b\" }]");
    }
}
