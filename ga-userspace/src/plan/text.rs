//! Changes as lines for a terminal.

use std::fmt::Write;

use super::{Action, Change, Changes, Object};

impl Changes {
    /// One line a change, then what moves, then the notes; with ANSI colours if asked.
    pub fn render(&self, colour: bool) -> String {
        let mut text = self.headline();
        for change in &self.changes {
            push(&mut text, &paint(change, colour));
        }
        if self.seed_changed {
            push(&mut text, "~ hash seed: every flow chooses anew, on every listener");
        }
        if self.from.is_some_and(|from| from != self.to) {
            push(&mut text, &format!("new flows that would choose another endpoint: {:.2} %", self.moved_total * 100.0));
            for moved in &self.moved {
                push(&mut text, &format!("  {} {} {:.2} %", moved.listener, moved.family, moved.share * 100.0));
            }
            push(&mut text, "established flows stay where they are");
        }
        for note in &self.notes {
            push(&mut text, &format!("note: {note}"));
        }
        text
    }

    fn headline(&self) -> String {
        match (self.noop, self.from) {
            (true, _) => format!("nothing to do: generation {} holds all of it\n", self.to),
            (false, Some(from)) if from == self.to => {
                format!("generation {from} stays: only what the agent serves itself changes\n")
            }
            (false, Some(from)) => format!("generation {from} → {}\n", self.to),
            (false, None) => format!("generation {} (everything is new)\n", self.to),
        }
    }
}

fn push(text: &mut String, line: &str) {
    // Writing to a String cannot fail.
    writeln!(text, "{line}").unwrap_or_default();
}

fn paint(change: &Change, colour: bool) -> String {
    let (sign, code) = match change.action {
        Action::Added => ('+', 32),
        Action::Removed => ('-', 31),
        Action::Changed => ('~', 33),
    };
    let line = format!("{sign} {}", describe(change));
    if colour { format!("\x1b[{code}m{line}\x1b[0m") } else { line }
}

fn describe(change: &Change) -> String {
    let object = match change.object {
        Object::Instance => "instance",
        Object::Vip => "vip",
        Object::EgressIp => "egress_ip",
        Object::Listener => "listener",
        Object::Endpoint => "endpoint",
        Object::Rule => "rule",
        Object::Node => "",
    };
    let about = match change.action {
        Action::Changed if change.from.is_empty() && change.to.is_empty() => format!(": {}", change.field),
        Action::Changed => format!(": {} {} → {}", change.field, change.from, change.to),
        Action::Added if !change.to.is_empty() => format!(" ({})", change.to),
        Action::Removed if !change.from.is_empty() => format!(" ({})", change.from),
        Action::Added | Action::Removed => String::new(),
    };
    format!("{object} {}{about}", change.name).trim_start().to_owned()
}
