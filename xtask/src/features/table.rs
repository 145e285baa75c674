//! The README's table: our features, whether a test proves each, and what five peers do where that is clear.

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::{Context as _, Result, bail};

use super::{Proofs, Row, SECTIONS};

/// Between these lines of the README nothing is written by hand.
pub(super) const MARKERS: (&str, &str) = ("<!-- features:begin -->", "<!-- features:end -->");

const PEERS: &str = include_str!("peers.tsv");
const PEER_NAMES: [&str; 5] = ["Katran", "Cilium", "IPVS", "nginx", "HAProxy"];

/// The table of every section, as Markdown.
pub(super) fn render(rows: &[Row], proofs: &Proofs) -> Result<String> {
    let peers = peers(PEERS, rows)?;
    let mut text = format!("{} of {} features are proven by a test (✓).\n", proofs.len(), rows.len());
    for (letter, title) in SECTIONS {
        write!(text, "\n**{letter}. {title}**\n\n| | feature | ga | {} |\n", PEER_NAMES.join(" | "))?;
        text.push_str("|---|---|:-:|");
        text.push_str(&":-:|".repeat(PEER_NAMES.len()));
        text.push('\n');
        for row in rows.iter().filter(|row| row.id.starts_with(letter)) {
            let proven = if proofs.contains_key(row.id) { "✓" } else { "" };
            let cells = peers.get(row.id).map_or_else(|| [""; 5].join(" | "), |cells| cells.join(" | "));
            writeln!(text, "| {} | {} | {proven} | {cells} |", row.id, row.title)?;
        }
    }
    Ok(text)
}

/// The README with `table` between its markers.
pub(super) fn replace(readme: &str, table: &str) -> Result<String> {
    let (begin, end) = MARKERS;
    let (before, rest) = readme.split_once(begin).with_context(|| format!("README.md has no line {begin}"))?;
    let (_, after) = rest.split_once(end).with_context(|| format!("README.md has no line {end} after {begin}"))?;
    Ok(format!("{before}{begin}\n{table}{end}{after}"))
}

/// The columns of the peers by feature id: `yes`, `partial`, `no`, `–` (not its business), or nothing where it is not clear.
fn peers<'a>(text: &'a str, rows: &[Row]) -> Result<BTreeMap<&'a str, Vec<&'a str>>> {
    let mut table = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let mut cells: Vec<&str> = line.split('\t').map(|cell| if cell == "?" { "" } else { cell }).collect();
        let id = cells.remove(0);
        if !rows.iter().any(|row| row.id == id) {
            bail!("peers.tsv: `{id}` is no feature");
        }
        if cells.len() != PEER_NAMES.len() || cells.iter().any(|cell| !["yes", "partial", "no", "–", ""].contains(cell)) {
            bail!("peers.tsv: {id} needs five cells of yes, partial, no, – or ?");
        }
        table.insert(id, cells);
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::rows;

    #[test]
    fn the_table_marks_what_is_proven_and_only_that() {
        let proofs = Proofs::from([("A02".to_owned(), vec!["t::t".to_owned()])]);
        let text = render(&rows(), &proofs).unwrap();
        assert!(text.contains("| A02 | UDP listener | ✓ |"));
        assert!(text.contains("| A01 | TCP listener |  |"));
        assert!(text.starts_with("1 of 141"));
    }

    #[test]
    fn only_what_lies_between_the_markers_changes() {
        let readme = format!("before\n{}\nold\n{}\nafter\n", MARKERS.0, MARKERS.1);
        let new = replace(&readme, "new\n").unwrap();
        assert_eq!(new, format!("before\n{}\nnew\n{}\nafter\n", MARKERS.0, MARKERS.1));
        assert_eq!(replace(&new, "new\n").unwrap(), new);
        assert!(replace("no markers", "new").is_err());
    }

    #[test]
    fn a_peer_cell_is_one_of_four_words() {
        assert!(peers("A01\tyes\tyes\tyes\tyes\tperhaps\n", &rows()).is_err());
        assert!(peers("Z01\tyes\tyes\tyes\tyes\tyes\n", &rows()).is_err());
        assert!(peers("A01\tyes\tyes\tyes\tyes\n", &rows()).is_err());
        assert_eq!(peers("A01\tyes\tno\t–\t?\tpartial\n", &rows()).unwrap()["A01"], ["yes", "no", "–", "", "partial"]);
    }
}
