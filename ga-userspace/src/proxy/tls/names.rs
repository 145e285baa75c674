//! The hosts that a certificate is good for.

use std::net::IpAddr;

use x509_parser::{certificate::X509Certificate, extensions::GeneralName};

/// Names and addresses of a certificate, in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    exact: Vec<String>,
    /// What follows the first label: `.example.com`.
    wildcards: Vec<String>,
    addresses: Vec<IpAddr>,
}

impl Names {
    /// Those of the extension (RFC 5280 §4.2.1.6); the subject's common name only where there is none.
    pub(super) fn of(certificate: &X509Certificate<'_>) -> Self {
        let mut names = Self::default();
        if let Ok(Some(extension)) = certificate.subject_alternative_name() {
            for name in &extension.value.general_names {
                match name {
                    GeneralName::DNSName(name) => names.add(name),
                    GeneralName::IPAddress(bytes) => names.addresses.extend(address(bytes)),
                    GeneralName::OtherName(..)
                    | GeneralName::RFC822Name(_)
                    | GeneralName::X400Address(_)
                    | GeneralName::DirectoryName(_)
                    | GeneralName::EDIPartyName(_)
                    | GeneralName::URI(_)
                    | GeneralName::RegisteredID(_)
                    | GeneralName::Invalid(..) => {}
                }
            }
            return names;
        }
        certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok()).for_each(|name| names.add(name));
        names
    }

    fn add(&mut self, name: &str) {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        match name.strip_prefix('*') {
            Some(rest) => self.wildcards.push(rest.to_owned()),
            None => self.exact.push(name),
        }
    }

    /// Whether the certificate is good for `host`, a name without a port. A `*` stands for one label (RFC 9525 §6.3).
    pub(super) fn covers(&self, host: &str) -> bool {
        let rest = host.find('.').filter(|dot| *dot > 0).and_then(|dot| host.get(dot..));
        self.exact.iter().any(|name| name.eq_ignore_ascii_case(host))
            || rest.is_some_and(|rest| self.wildcards.iter().any(|name| name.eq_ignore_ascii_case(rest)))
            || host.parse().is_ok_and(|address: IpAddr| self.addresses.contains(&address))
    }

    /// The first name, for people.
    pub(super) fn first(&self) -> Option<String> {
        let wildcard = || self.wildcards.first().map(|rest| format!("*{rest}"));
        self.exact.first().cloned().or_else(wildcard).or_else(|| self.addresses.first().map(IpAddr::to_string))
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    <[u8; 16]>::try_from(bytes).map(IpAddr::from).or_else(|_| v4()).ok()
}

/// The host of what stands in `Host` or `:authority`: without port, brackets and final dot.
pub(super) fn host_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    let host = authority.split_once(':').map_or(authority, |(host, _)| host);
    host.strip_suffix('.').unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let mut names = Names::default();
        ["Web.example", "*.Shop.example"].iter().for_each(|name| names.add(name));
        names.addresses = [[192, 0, 2, 1].into(), "2001:db8::1".parse().unwrap()].into();
        names
    }

    #[test]
    fn a_star_stands_for_one_label() {
        for host in ["web.example", "WEB.EXAMPLE", "a.shop.example", "A.Shop.Example", "192.0.2.1", "2001:db8::1"] {
            assert!(names().covers(host), "{host}");
        }
        for host in
            ["", "example", "a.web.example", "shop.example", ".shop.example", "a.b.shop.example", "192.0.2.2", "2001:db8::2"]
        {
            assert!(!names().covers(host), "{host}");
        }
    }

    #[test]
    fn a_host_is_what_stands_before_its_port() {
        for (authority, host) in [
            ("web.example", "web.example"),
            ("web.example:8443", "web.example"),
            ("web.example.", "web.example"),
            ("web.example.:443", "web.example"),
            ("192.0.2.1:443", "192.0.2.1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("", ""),
            ("[", ""),
        ] {
            assert_eq!(host_of(authority), host);
        }
    }
}
