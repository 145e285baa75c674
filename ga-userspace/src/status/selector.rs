//! Which endpoint is meant: `instance/listener/address`, or just `address` when only one endpoint has it.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{Code, Endpoint, Refusal, Status};

/// Where an endpoint is, in full.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EndpointPath {
    /// Its instance.
    pub instance: String,
    /// Its listener.
    pub listener: String,
    /// Its group.
    pub group: String,
    /// Its address.
    pub address: String,
}

impl fmt::Display for EndpointPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{}", self.instance, self.listener, self.group, self.address)
    }
}

/// What an operator typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    instance: Option<String>,
    listener: Option<String>,
    group: Option<String>,
    address: String,
}

/// Why a selector names no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// Not of a known form.
    #[error("`{0}` is not `address`, `instance/listener/address` or `instance/listener/group/address`")]
    Form(String),
    /// Fits nothing.
    #[error("no endpoint is `{selector}`")]
    NotFound {
        /// As typed.
        selector: String,
        /// What there is.
        known: Vec<EndpointPath>,
    },
    /// Fits several.
    #[error("`{selector}` fits {} endpoints: say which", candidates.len())]
    Ambiguous {
        /// As typed.
        selector: String,
        /// All that fit.
        candidates: Vec<EndpointPath>,
    },
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let parts: Vec<&str> = text.split('/').collect();
        let some = |part: &str| Some(part.to_owned());
        let (instance, listener, group, address) = match parts[..] {
            [address] => (None, None, None, address),
            [instance, listener, address] => (some(instance), some(listener), None, address),
            [instance, listener, group, address] => (some(instance), some(listener), some(group), address),
            _ => return Err(SelectorError::Form(text.to_owned())),
        };
        if parts.iter().any(|part| part.is_empty()) {
            return Err(SelectorError::Form(text.to_owned()));
        }
        Ok(Self { instance, listener, group, address: address.to_owned() })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.instance, &self.listener, &self.group].into_iter().flatten() {
            write!(f, "{part}/")?;
        }
        f.write_str(&self.address)
    }
}

impl Selector {
    /// The one endpoint of `status` that is meant.
    pub fn find<'a>(&self, status: &'a Status) -> Result<(EndpointPath, &'a Endpoint), SelectorError> {
        let mut found: Vec<_> = status.endpoints().filter(|(path, _)| self.fits(path)).collect();
        match (found.pop(), found.is_empty()) {
            (Some(only), true) => Ok(only),
            (Some(last), false) => {
                let candidates = found.into_iter().chain([last]).map(|(path, _)| path).collect();
                Err(SelectorError::Ambiguous { selector: self.to_string(), candidates })
            }
            (None, _) => {
                let known = status.endpoints().map(|(path, _)| path).collect();
                Err(SelectorError::NotFound { selector: self.to_string(), known })
            }
        }
    }

    fn fits(&self, path: &EndpointPath) -> bool {
        let same = |wanted: &Option<String>, has: &str| wanted.as_deref().is_none_or(|wanted| wanted == has);
        same(&self.instance, &path.instance)
            && same(&self.listener, &path.listener)
            && same(&self.group, &path.group)
            && same_address(&self.address, &path.address)
    }
}

/// IPv6 has many spellings of one address.
fn same_address(one: &str, other: &str) -> bool {
    match (one.parse::<IpAddr>(), other.parse::<IpAddr>()) {
        (Ok(one), Ok(other)) => one == other,
        (Ok(_), Err(_)) | (Err(_), Ok(_)) | (Err(_), Err(_)) => one == other,
    }
}

impl From<SelectorError> for Refusal {
    fn from(error: SelectorError) -> Self {
        /// Candidates named in an answer; a long list helps nobody.
        const SHOWN: usize = 20;
        let message = error.to_string();
        let (code, paths) = match error {
            SelectorError::Form(_) => (Code::Invalid, Vec::new()),
            SelectorError::NotFound { known, .. } => (Code::NotFound, known),
            SelectorError::Ambiguous { candidates, .. } => (Code::Ambiguous, candidates),
        };
        let left_out = paths.len().saturating_sub(SHOWN);
        let shown = paths.iter().take(SHOWN).map(EndpointPath::to_string);
        Self::new(code, message).with_problems(shown.chain((left_out > 0).then(|| format!("and {left_out} more"))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::example::example;

    fn find(text: &str) -> Result<String, SelectorError> {
        text.parse::<Selector>()?.find(&example()).map(|(path, _)| path.to_string())
    }

    #[test]
    fn a_full_path_and_an_unambiguous_address_name_one_endpoint() {
        assert_eq!(find("ga-demo/game/10.0.0.11"), Ok("ga-demo/game/near/10.0.0.11".to_owned()));
        assert_eq!(find("ga-demo/game/near/10.0.0.11"), Ok("ga-demo/game/near/10.0.0.11".to_owned()));
        assert_eq!(find("10.0.0.12"), Ok("ga-demo/game/near/10.0.0.12".to_owned()));
        assert_eq!(find("2001:DB8:0::11"), Ok("ga-demo/voice/near/2001:db8::11".to_owned()));
    }

    #[test]
    fn an_address_of_two_listeners_lists_both() {
        let error = find("10.0.0.11").expect_err("two listeners have it");
        assert_eq!(error.to_string(), "`10.0.0.11` fits 2 endpoints: say which");
        let refusal = Refusal::from(error);
        assert_eq!(refusal.code, Code::Ambiguous);
        let lines: Vec<_> = refusal.problem_lines().collect();
        assert_eq!(lines, ["ga-demo/game/near/10.0.0.11", "ga-demo/voice/near/10.0.0.11"]);
    }

    #[test]
    fn what_fits_nothing_says_what_there_is() {
        let refusal = Refusal::from(find("ga-demo/game/10.9.9.9").expect_err("not there"));
        assert_eq!((refusal.code, refusal.problems.len()), (Code::NotFound, 4));
    }

    #[test]
    fn other_forms_are_refused() {
        for text in ["", "game/10.0.0.11", "a/b/c/d/10.0.0.11", "ga-demo//10.0.0.11", "/10.0.0.11"] {
            assert_eq!(find(text), Err(SelectorError::Form(text.to_owned())), "{text}");
        }
    }
}
