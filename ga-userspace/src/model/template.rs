//! Texts of rules in which `${…}` stands for a part of the request (specification §1.15.5).

use std::fmt;

/// The most groups of a path condition that a rule can refer to.
pub const MAX_CAPTURES: u8 = 3;

/// What `${…}` stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Variable {
    /// `${protocol}`: `http` or `https`, as the client speaks it.
    Protocol,
    /// `${host}`: the host that the client asks for, without port.
    Host,
    /// `${port}`: the listener's port.
    Port,
    /// `${path}`: the path without query.
    Path,
    /// `${query}`: what stands behind `?`.
    Query,
    /// `${1}` to `${3}`: what a group of the path condition found.
    Capture(u8),
}

impl Variable {
    /// Those that have a name.
    const NAMED: [(&str, Self); 5] =
        [("protocol", Self::Protocol), ("host", Self::Host), ("port", Self::Port), ("path", Self::Path), ("query", Self::Query)];
}

impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Capture(number) = self {
            return write!(f, "${{{number}}}");
        }
        let name = Self::NAMED.iter().find(|(_, variable)| variable == self).map_or("", |(name, _)| name);
        write!(f, "${{{name}}}")
    }
}

/// A piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// As it stands.
    Text(String),
    /// What it stands for.
    Variable(Variable),
}

/// A text with variables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
}

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Nothing is called so.
    #[error("`${{{0}}}` stands for nothing")]
    Unknown(String),
    /// `${` without `}`.
    #[error("`${{` without `}}`")]
    Open,
}

impl Template {
    /// The template that is one variable.
    pub fn of(variable: Variable) -> Self {
        Self { pieces: vec![Piece::Variable(variable)] }
    }

    /// Reads `text`; a `$` without `{` is a `$`.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let (mut pieces, mut rest) = (Vec::new(), text);
        while let Some((before, behind)) = rest.split_once("${") {
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            let (name, behind) = behind.split_once('}').ok_or(TemplateError::Open)?;
            let named = Variable::NAMED.iter().find(|(known, _)| *known == name).map(|(_, variable)| *variable);
            let numbered =
                || name.parse().ok().filter(|number| (1..=9).contains(number) && name.len() == 1).map(Variable::Capture);
            let variable = named.or_else(numbered).ok_or_else(|| TemplateError::Unknown(name.chars().take(20).collect()))?;
            pieces.push(Piece::Variable(variable));
            rest = behind;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self { pieces })
    }

    /// In order.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Whether it is `variable` and nothing else.
    pub fn is(&self, variable: Variable) -> bool {
        self.pieces == [Piece::Variable(variable)]
    }

    /// Its text when nothing in it is a variable.
    pub fn literal(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [] => Some(""),
            [Piece::Text(text)] => Some(text),
            [Piece::Variable(_), ..] | [Piece::Text(_), ..] => None,
        }
    }

    /// The variables in it.
    pub fn variables(&self) -> impl Iterator<Item = Variable> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Variable(variable) => Some(*variable),
            Piece::Text(_) => None,
        })
    }

    /// The numbers of the groups in it.
    pub fn captures(&self) -> impl Iterator<Item = u8> {
        self.variables().filter_map(|variable| match variable {
            Variable::Capture(number) => Some(number),
            Variable::Protocol | Variable::Host | Variable::Port | Variable::Path | Variable::Query => None,
        })
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => f.write_str(text)?,
                Piece::Variable(variable) => variable.fmt(f)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_what_is_written() {
        for text in ["", "/a", "${path}", "/v2${path}?${query}", "${1}-${2}-${3}", "a$b", "$", "${host}.example"] {
            assert_eq!(Template::parse(text).map(|template| template.to_string()).as_deref(), Ok(text));
        }
        assert!(Template::parse("${path}").is_ok_and(|template| template.is(Variable::Path)));
        assert_eq!(Template::parse("/a/${2}${path}${1}").map(|template| template.captures().collect()), Ok(vec![2, 1]));
    }

    #[test]
    fn unknown_variables_and_open_ones_are_errors() {
        for name in ["", "0", "10", "01", "paths", "Host"] {
            assert_eq!(Template::parse(&format!("a${{{name}}}b")), Err(TemplateError::Unknown(name.to_owned())));
        }
        assert_eq!(Template::parse("/${path"), Err(TemplateError::Open));
    }
}
