//! Ports, port lists and port mappings (specification §1.2.2, §1.10).

use std::{collections::BTreeMap, fmt};

/// A listener port: 1–65499.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(u16);

impl Port {
    /// The highest valid listener port.
    pub const MAX: u16 = 65_499;

    /// The port, if it is one.
    pub fn new(number: u32) -> Option<Self> {
        u16::try_from(number).ok().filter(|n| (1..=Self::MAX).contains(n)).map(Self)
    }

    /// Parses 1–65499: digits alone, spaces around them do not count.
    pub fn parse(text: &str) -> Result<Self, PortError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(PortError::Empty);
        }
        if !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(PortError::NotANumber { item: text.to_owned() });
        }
        let number = text.parse().ok().filter(|_| text.len() <= 5);
        number.and_then(Self::new).ok_or_else(|| PortError::OutOfRange { item: text.to_owned() })
    }

    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a text is not a port list; `item` is the offending part.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// `80,,90`, or nothing at all.
    #[error("an empty item")]
    Empty,
    /// Not digits.
    #[error("`{item}` is not a port number")]
    NotANumber {
        /// The text found.
        item: String,
    },
    /// 0 or above 65499.
    #[error("port {item} is outside 1–65499")]
    OutOfRange {
        /// The text found.
        item: String,
    },
    /// `85~80`.
    #[error("range `{item}` runs backwards")]
    Backwards {
        /// The text found.
        item: String,
    },
    /// A port named twice.
    #[error("port {port} is listed twice")]
    Twice {
        /// The port.
        port: Port,
    },
}

/// The ports of a listener: each once, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports(Vec<Port>);

impl Ports {
    /// Parses `80,90~92,8080`; `-` is an alias of `~`; spaces around tokens do not count.
    pub fn parse(text: &str) -> Result<Self, PortError> {
        let mut ports = Vec::new();
        for item in text.split(',') {
            let item = item.trim();
            let (first, last) = match item.split_once(['~', '-']) {
                Some((first, last)) => (Port::parse(first)?, Port::parse(last)?),
                None => (Port::parse(item)?, Port::parse(item)?),
            };
            if last < first {
                return Err(PortError::Backwards { item: item.to_owned() });
            }
            ports.extend((first.0..=last.0).map(Port));
        }
        ports.sort_unstable();
        match ports.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(PortError::Twice { port: pair[0] }),
            None => Ok(Self(ports)),
        }
    }

    /// Ascending.
    pub fn iter(&self) -> impl Iterator<Item = Port> + '_ {
        self.0.iter().copied()
    }

    /// How many single ports.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether `port` is one of them.
    pub fn contains(&self, port: Port) -> bool {
        self.0.binary_search(&port).is_ok()
    }
}

impl fmt::Display for Ports {
    /// The shortest list that parses to the same ports.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        let mut rest = self.0.as_slice();
        while let [first, ..] = rest {
            let run = rest.windows(2).take_while(|pair| pair[0].0 + 1 == pair[1].0).count();
            write!(f, "{separator}{first}")?;
            if run > 0 {
                write!(f, "~{}", rest[run])?;
            }
            rest = &rest[run + 1..];
            separator = ",";
        }
        Ok(())
    }
}

/// Listener port to endpoint port (1–65535); a port without mapping goes to the same number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortMapping(BTreeMap<Port, u16>);

impl PortMapping {
    /// Every port keeps its number.
    pub const NONE: Self = Self(BTreeMap::new());

    /// Adds one mapping; false when the listener port has one already.
    pub fn insert(&mut self, listener: Port, endpoint: u16) -> bool {
        let fresh = !self.0.contains_key(&listener);
        if fresh {
            self.0.insert(listener, endpoint);
        }
        fresh
    }

    /// Whether no port is mapped.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where traffic for `listener` goes.
    pub fn endpoint_port(&self, listener: Port) -> u16 {
        self.0.get(&listener).copied().unwrap_or(listener.get())
    }

    /// Ascending by listener port.
    pub fn iter(&self) -> impl Iterator<Item = (Port, u16)> + '_ {
        self.0.iter().map(|(&listener, &endpoint)| (listener, endpoint))
    }
}
