//! Frames for people: hex lines, differing bytes marked.

use std::fmt::Write as _;

/// Both frames side by side, sixteen bytes a line, differing lines doubled and differing bytes named.
pub fn difference(want: &[u8], seen: &[u8]) -> String {
    let mut text = format!("wanted {} bytes, saw {} bytes\n", want.len(), seen.len());
    for start in (0..want.len().max(seen.len())).step_by(16) {
        let (w, s) = (part(want, start), part(seen, start));
        if w == s {
            push(&mut text, start, "      ", w, &[]);
        } else {
            push(&mut text, start, "wanted", w, s);
            push(&mut text, start, "saw   ", s, w);
        }
    }
    text
}

/// One frame.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ok = write!(text, "{byte:02x}");
        text
    })
}

fn part(bytes: &[u8], start: usize) -> &[u8] {
    &bytes[start.min(bytes.len())..(start + 16).min(bytes.len())]
}

fn push(text: &mut String, start: usize, label: &str, bytes: &[u8], other: &[u8]) {
    let _ok = write!(text, "  {start:4} {label}");
    for (i, byte) in bytes.iter().enumerate() {
        let mark = if other.is_empty() || other.get(i) == Some(byte) { ' ' } else { '>' };
        let _ok = write!(text, " {mark}{byte:02x}");
    }
    text.push('\n');
}
