//! Full names of endpoints and of their groups.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use super::{Endpoint, EndpointGroup, EndpointKind, Instance, Listener, Name, NameRule};

/// Which endpoint group, as a text `instance/listener/group`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupName {
    /// The instance's id.
    pub instance: Name,
    /// The listener's name.
    pub listener: Name,
    /// The group's name.
    pub group: Name,
}

impl GroupName {
    /// The name of `group`.
    pub fn new(instance: &Instance, listener: &Listener, group: &EndpointGroup) -> Self {
        Self { instance: instance.id.clone(), listener: listener.name.clone(), group: group.name.clone() }
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.instance, self.listener, self.group)
    }
}

/// Which endpoint, as a text `instance/listener/group/kind/address`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
    /// The name of `endpoint`.
    pub fn new(instance: &Instance, listener: &Listener, group: &EndpointGroup, endpoint: &Endpoint) -> Self {
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

    /// The name of its group.
    pub fn group_name(&self) -> GroupName {
        GroupName { instance: self.instance.clone(), listener: self.listener.clone(), group: self.group.clone() }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_their_text() {
        for text in [
            "shop/https/eu/ip/192.0.2.1",
            "a.b/c/d/private_ip/2001:db8::1",
            "a/b/c/clb/192.0.2.1:80",
            "a/b/c/clb/[::1]:80",
            "a/b/c/vswitch/10.0.0.0",
        ] {
            assert_eq!(text.parse::<EndpointName>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "shop/https/eu/192.0.2.1",
            "shop/https/eu/subnet/192.0.2.1",
            "shop/https/eu/clb/192.0.2.1:",
            "shop/https/eu/ip/192.0.2.1/x",
        ] {
            assert!(text.parse::<EndpointName>().is_err(), "{text}");
        }
    }
}
