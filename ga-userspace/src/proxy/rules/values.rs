//! What the variables of a rule's templates stand for in a request.

use regex::bytes::Regex;

use super::request::Request;
use crate::model::{MAX_CAPTURES, Pattern, Piece, Template, Variable};

/// The expressions whose groups templates refer to; none where no template does.
#[derive(Clone, Debug, Default)]
pub(super) struct Values {
    groups: Vec<Regex>,
}

/// A request's values.
pub(super) struct Found<'r> {
    request: Request<'r>,
    groups: [&'r str; MAX_CAPTURES as usize],
}

impl Values {
    pub(super) const NONE: Self = Self { groups: Vec::new() };

    /// For `templates` of a rule whose conditions on the path are `paths`.
    pub(super) fn new<'p, const N: usize>(templates: [&Template; N], paths: impl Iterator<Item = &'p Pattern>) -> Self {
        let is_used = templates.iter().any(|template| template.captures().next().is_some());
        if !is_used {
            return Self::NONE;
        }
        Self { groups: paths.filter_map(|pattern| pattern.expression(false).ok()).collect() }
    }

    /// What they are for `request`.
    pub(super) fn of<'r>(&self, request: &Request<'r>) -> Found<'r> {
        let path = request.path;
        let mut groups = [""; MAX_CAPTURES as usize];
        if let Some(captures) = self.groups.iter().find_map(|expression| expression.captures(path.as_bytes())) {
            for (number, group) in (1..).zip(&mut groups) {
                *group = captures.get(number).and_then(|found| path.get(found.range())).unwrap_or_default();
            }
        }
        Found { request: *request, groups }
    }
}

impl Found<'_> {
    /// The text that `template` makes.
    pub(super) fn fill(&self, template: &Template) -> String {
        let mut text = String::new();
        for piece in template.pieces() {
            match piece {
                Piece::Text(piece) => text += piece,
                Piece::Variable(Variable::Protocol) => text += if self.request.https { "https" } else { "http" },
                Piece::Variable(Variable::Host) => text += self.request.host,
                Piece::Variable(Variable::Port) => text += &self.request.local.port().to_string(),
                Piece::Variable(Variable::Path) => text += self.request.path,
                Piece::Variable(Variable::Query) => text += self.request.query.unwrap_or_default(),
                Piece::Variable(Variable::Capture(number)) => {
                    text += usize::from(*number).checked_sub(1).and_then(|at| self.groups.get(at)).copied().unwrap_or_default();
                }
            }
        }
        text
    }
}
