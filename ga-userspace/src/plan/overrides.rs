//! What an operator set by hand, over the file: `ga endpoints drain | undrain | weight`.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use super::identity;
use crate::model::{Endpoint, EndpointGroup, EndpointKind, Instance, Listener, Name, NameRule, Weight};

/// Which endpoint, as a text `instance/listener/group/kind/address`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct EndpointName {
    /// The instance's id.
    pub instance: Name,
    /// The listener's name.
    pub listener: Name,
    /// The group's name.
    pub group: Name,
    /// What it is.
    pub kind: EndpointKind,
    /// Where it is.
    pub address: IpAddr,
    /// The port that is its own, if it has one.
    pub port: Option<u16>,
}

/// Why a text names no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not of the form instance/listener/group/kind/address")]
pub struct EndpointNameError(String);

impl EndpointName {
    pub(super) fn new(instance: &Instance, listener: &Listener, group: &EndpointGroup, endpoint: &Endpoint) -> Self {
        Self {
            instance: instance.id.clone(),
            listener: listener.name.clone(),
            group: group.name.clone(),
            kind: endpoint.kind,
            address: endpoint.address,
            port: endpoint.port,
        }
    }

    /// Where it is, as a text: the address, with the port if it has one of its own.
    pub fn at(&self) -> String {
        match self.port {
            Some(port) => SocketAddr::new(self.address, port).to_string(),
            None => self.address.to_string(),
        }
    }

    /// Stable number of where the endpoint is, whoever names it.
    pub fn place(&self) -> u64 {
        identity::of_place(&self.at())
    }

    /// The stable number of this endpoint: the same on every edge and after every restart.
    pub fn identity(&self) -> u64 {
        identity::of_endpoint(self.instance.as_str(), self.listener.as_str(), self.group.as_str(), self.kind, &self.at())
    }
}

impl fmt::Display for EndpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{}/{}", self.instance, self.listener, self.group, self.kind.word(), self.at())
    }
}

impl FromStr for EndpointName {
    type Err = EndpointNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| EndpointNameError(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<EndpointName> {
    let mut parts = text.splitn(5, '/');
    // The extended rule allows every name that any rule allows.
    let mut name = || Name::parse(parts.next()?, NameRule::Extended).ok();
    let (instance, listener, group) = (name()?, name()?, name()?);
    let word = parts.next()?;
    let kind = EndpointKind::ALL.into_iter().find(|kind| kind.word() == word)?;
    let at = parts.next()?;
    let whole = at.parse().map(|address| (address, None));
    let (address, port) = whole.or_else(|_| at.parse().map(|at: SocketAddr| (at.ip(), Some(at.port())))).ok()?;
    Some(EndpointName { instance, listener, group, kind, address, port })
}

impl From<EndpointName> for String {
    fn from(name: EndpointName) -> Self {
        name.to_string()
    }
}

impl TryFrom<String> for EndpointName {
    type Error = EndpointNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// What is set for one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Override {
    /// Instead of the file's.
    #[serde(default, with = "weight", skip_serializing_if = "Option::is_none")]
    pub weight: Option<Weight>,
    /// No new flows, whatever the weight.
    #[serde(default)]
    pub drained: bool,
}

impl Override {
    /// The weight in force where the file says `configured`.
    pub fn effective(self, configured: Weight) -> Weight {
        if self.drained { Weight(0) } else { self.weight.unwrap_or(configured) }
    }
}

/// All of them; persisted by the agent, so that a restart does not undo a drain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Overrides {
    /// By endpoint.
    pub endpoints: BTreeMap<EndpointName, Override>,
}

/// The model's types are not serialised; a weight is written as its number.
mod weight {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::model::Weight;

    #[expect(clippy::ref_option, reason = "the signature is serde's")]
    pub(super) fn serialize<S: Serializer>(weight: &Option<Weight>, serializer: S) -> Result<S::Ok, S::Error> {
        weight.map(|weight| weight.0).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Weight>, D::Error> {
        Ok(Option::<u8>::deserialize(deserializer)?.map(Weight))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_their_text() {
        for text in
            ["shop/https/eu/ip/192.0.2.1", "a.b/c/d/private_ip/2001:db8::1", "a/b/c/clb/192.0.2.1:80", "a/b/c/clb/[::1]:80"]
        {
            assert_eq!(text.parse::<EndpointName>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "shop/https/eu/192.0.2.1",
            "shop/https/eu/vswitch/192.0.2.1",
            "shop/https/eu/clb/192.0.2.1:",
            "shop/https/eu/ip/192.0.2.1/x",
        ] {
            assert!(text.parse::<EndpointName>().is_err(), "{text}");
        }
    }

    #[test]
    fn overrides_survive_their_json() {
        let json = r#"{"shop/https/eu/ip/192.0.2.1":{"weight":7,"drained":false},"shop/https/eu/ip/192.0.2.2":{"drained":true}}"#;
        let overrides: Overrides = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&overrides).unwrap(), json);
        let effective: Vec<_> = overrides.endpoints.values().map(|set| set.effective(Weight(100)).0).collect();
        assert_eq!(effective, [7, 0]);
    }
}
