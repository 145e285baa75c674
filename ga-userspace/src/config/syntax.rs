//! Text to tree, and what the TOML parser has to say about it.

use std::collections::BTreeSet;

use toml::{Spanned, de::DeTable};

use super::problem::{Fault, Kind, Problems, Report};

/// A file above this size is refused unread: one that fills the data path (16,384 endpoints) has half of it.
const MAX_BYTES: usize = 4 << 20;

/// The report on a file that is too large to be looked at.
pub(super) fn too_large(file_name: &str, text: &str) -> Option<Report> {
    if text.len() <= MAX_BYTES {
        return None;
    }
    let mut problems = Problems::new(file_name, "");
    let message = format!("the file has {} bytes; {MAX_BYTES} is the limit", text.len());
    problems.push(0..0, "", Fault::new(Kind::Capacity, message).help("share the instances out to several edges"));
    Some(problems.finish())
}

/// The document; `None` when it cannot be trusted to be what was meant.
pub(super) fn read<'t>(problems: &mut Problems<'t>) -> Option<Spanned<DeTable<'t>>> {
    let text = problems.text();
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut readable = true;
    // One slip often confuses the parser more than once: the first word about a line is the one that helps.
    let mut lines = BTreeSet::new();
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        if error.message() == "duplicate key" {
            let draft = Fault::new(Kind::Duplicate, "this key stands here a second time").help("keep one of the two");
            problems.push(span, "", draft);
            continue;
        }
        readable = false;
        if lines.insert(problems.line(span.start)) {
            let draft = Fault::new(Kind::Syntax, format!("this is not TOML: {}", error.message()))
                .help("the rest of the file is checked when it can be read");
            problems.push(span, "", draft);
        }
    }
    readable.then_some(document)
}
