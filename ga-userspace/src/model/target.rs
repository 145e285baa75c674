//! Endpoints that stand for others: what they stand for is known only while the agent runs.

use std::{fmt, net::IpAddr};

use super::{EndpointKind, Name, Weight};

/// What stands for addresses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// A name of the inventory: its primary address, or the one of its addresses that is named.
    Host {
        /// The name.
        name: String,
        /// One of its addresses, instead of the primary one.
        sub_address: Option<IpAddr>,
    },
    /// All addresses of a domain.
    Domain(String),
    /// The servers of a pool, with ports of their own.
    Pool(Name),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host { name, sub_address: None } => write!(f, "host {name}"),
            Self::Host { name, sub_address: Some(address) } => write!(f, "address {address} of host {name}"),
            Self::Domain(name) => write!(f, "domain {name}"),
            Self::Pool(name) => write!(f, "server group {name}"),
        }
    }
}

/// An endpoint of a group whose addresses are found out: all of them together have its weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedEndpoint {
    /// What it is.
    pub kind: EndpointKind,
    /// What it stands for.
    pub target: Target,
    /// Its part of the traffic.
    pub weight: Weight,
}

/// An exact part of an endpoint's weight, as a fraction in lowest terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    numerator: u64,
    denominator: u64,
}

impl Part {
    /// All of it.
    pub const WHOLE: Self = Self { numerator: 1, denominator: 1 };
    /// Nothing.
    pub const NONE: Self = Self { numerator: 0, denominator: 1 };

    /// `numerator` of `denominator`; nothing when there are no parts.
    pub fn of(numerator: u64, denominator: u64) -> Self {
        match divisor(numerator, denominator) {
            _ if denominator == 0 || numerator == 0 => Self::NONE,
            divisor => Self { numerator: numerator / divisor, denominator: denominator / divisor },
        }
    }

    /// How many of the parts that [`denominator`](Self::denominator) says there are.
    pub fn numerator(self) -> u64 {
        self.numerator
    }

    /// Never 0.
    pub fn denominator(self) -> u64 {
        self.denominator
    }

    /// Both together; none when the fraction cannot be written with numbers of 64 bits.
    pub fn plus(self, other: Self) -> Option<Self> {
        let over = |one: Self, other: Self| one.numerator.checked_mul(other.denominator);
        let numerator = over(self, other)?.checked_add(over(other, self)?)?;
        Some(Self::of(numerator, self.denominator.checked_mul(other.denominator)?))
    }

    /// `numerator` of `denominator` of this part; none as with [`plus`](Self::plus).
    pub fn times(self, numerator: u64, denominator: u64) -> Option<Self> {
        Some(Self::of(self.numerator.checked_mul(numerator)?, self.denominator.checked_mul(denominator)?))
    }
}

/// The greatest common divisor; 0 only of two zeros.
fn divisor(mut one: u64, mut other: u64) -> u64 {
    while other != 0 {
        (one, other) = (other, one % other);
    }
    one
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_exact() {
        let third = Part::of(1, 3);
        assert_eq!(third.plus(third).and_then(|two| two.plus(third)), Some(Part::WHOLE));
        assert_eq!(Part::of(50, 150), third);
        assert_eq!(Part::WHOLE.times(2, 6), Some(third));
        assert_eq!((Part::of(0, 7), Part::of(3, 0)), (Part::NONE, Part::NONE));
        assert_eq!(Part::of(1, u64::MAX).plus(Part::of(1, u64::MAX - 1)), None);
    }
}
