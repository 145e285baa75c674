//! The text of an inventory: names and their addresses, as TOML or JSON.
//!
//! `web-1 = "10.0.0.11"`, or `web-1 = ["10.0.0.11", "10.0.0.12"]` with the primary address first. One wrong line makes the whole
//! text wrong: half an inventory would take endpoints away.

use std::{collections::BTreeMap, net::IpAddr};

use serde::Deserialize;

use crate::model::{Hosts, unusable};

/// Bytes of an inventory: 65,536 names of 60 bytes and two addresses each.
pub(super) const MAX_BYTES: usize = 8 << 20;
/// Names of an inventory.
const MAX_NAMES: usize = 65_536;
/// Addresses of a name.
const MAX_ADDRESSES: usize = 64;
/// Characters of a name.
const MAX_NAME: usize = 253;

/// How a text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// TOML.
    Toml,
    /// One JSON object.
    Json,
}

/// Why a text is no inventory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InventoryError {
    /// Too much to be one.
    #[error("it has more than {MAX_BYTES} bytes")]
    TooLarge,
    /// Too many.
    #[error("it has {0} names; {MAX_NAMES} are the most")]
    TooManyNames(usize),
    /// Neither a name to an address nor to several.
    #[error("it is not a table of names and addresses: {0}")]
    Form(String),
    /// A name that cannot be one.
    #[error("{0:?} cannot be a name: 1 to {MAX_NAME} letters, digits, `.`, `_` and `-`")]
    Name(String),
    /// A name with wrong addresses.
    #[error("`{name}`: {why}")]
    Addresses {
        /// Whose.
        name: String,
        /// What is wrong.
        why: String,
    },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    One(String),
    Many(Vec<String>),
}

/// Reads the text of an inventory.
pub fn parse(text: &str, form: Form) -> Result<Hosts, InventoryError> {
    if text.len() > MAX_BYTES {
        return Err(InventoryError::TooLarge);
    }
    let first_line = |error: String| InventoryError::Form(error.lines().next().unwrap_or_default().to_owned());
    let entries: BTreeMap<String, Entry> = match form {
        Form::Toml => toml::from_str(text).map_err(|error| first_line(error.message().to_owned()))?,
        Form::Json => serde_json::from_str(text).map_err(|error| first_line(error.to_string()))?,
    };
    if entries.len() > MAX_NAMES {
        return Err(InventoryError::TooManyNames(entries.len()));
    }
    entries.into_iter().map(entry).collect()
}

fn entry((name, entry): (String, Entry)) -> Result<(String, Vec<IpAddr>), InventoryError> {
    if !is_name(&name) {
        return Err(InventoryError::Name(name.chars().take(80).collect()));
    }
    let texts = match entry {
        Entry::One(text) => vec![text],
        Entry::Many(texts) => texts,
    };
    match addresses(&texts) {
        Ok(addresses) => Ok((name, addresses)),
        Err(why) => Err(InventoryError::Addresses { name, why }),
    }
}

fn addresses(texts: &[String]) -> Result<Vec<IpAddr>, String> {
    if texts.is_empty() || texts.len() > MAX_ADDRESSES {
        return Err(format!("a name has 1 to {MAX_ADDRESSES} addresses, this one {}", texts.len()));
    }
    let mut addresses = Vec::with_capacity(texts.len());
    for text in texts {
        let short: String = text.chars().take(60).collect();
        let address: IpAddr = text.parse().map_err(|_| format!("{short:?} is not an IP address"))?;
        if let Some(why) = unusable(address) {
            return Err(format!("{address}: {why}"));
        }
        if addresses.contains(&address) {
            return Err(format!("{address} is listed twice"));
        }
        addresses.push(address);
    }
    Ok(addresses)
}

/// Whether a text can be the name of a host or an interface.
fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    // proves: C11
    #[test]
    fn a_name_has_one_address_or_several_the_primary_one_first() {
        let toml = "web-1 = \"10.0.0.11\"\n\"db.local\" = [\"10.0.0.20\", \"2001:db8::20\", \"10.0.0.19\"]\n";
        let json = r#"{"web-1": ["10.0.0.11"], "db.local": ["10.0.0.20", "2001:db8::20", "10.0.0.19"]}"#;
        let hosts = parse(toml, Form::Toml).unwrap();
        assert_eq!(parse(json, Form::Json).unwrap(), hosts);
        let primary: Vec<_> = hosts.iter().map(|(name, addresses)| format!("{name} {}", addresses[0])).collect();
        assert_eq!(primary, ["db.local 10.0.0.20", "web-1 10.0.0.11"]);
    }

    #[test]
    fn one_wrong_line_makes_the_whole_text_wrong_and_is_named() {
        for (text, expected) in [
            ("a = \"10.0.0.1\"\nb = \"10.0.0.300\"", "`b`: \"10.0.0.300\" is not an IP address"),
            ("b = []", "`b`: a name has 1 to 64 addresses, this one 0"),
            ("b = \"127.0.0.1\"", "`b`: 127.0.0.1: loopback addresses never leave a host"),
            ("b = [\"10.0.0.1\", \"10.0.0.1\"]", "`b`: 10.0.0.1 is listed twice"),
            ("\"b c\" = \"10.0.0.1\"", "\"b c\" cannot be a name: 1 to 253 letters, digits, `.`, `_` and `-`"),
        ] {
            assert_eq!(parse(text, Form::Toml).expect_err(text).to_string(), expected);
        }
        for (text, form) in
            [("a = 7", Form::Toml), ("[a]\nb = 1", Form::Toml), ("<html>", Form::Json), ("[]", Form::Json), ("", Form::Json)]
        {
            assert!(matches!(parse(text, form), Err(InventoryError::Form(_))), "{text}");
        }
        assert_eq!(parse(&"#".repeat(MAX_BYTES + 1), Form::Toml), Err(InventoryError::TooLarge));
    }
}
