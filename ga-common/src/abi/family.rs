//! IPv4 or IPv6: the one type that says so.

use core::{fmt, net::IpAddr};

use super::{entry::AddressKey, id::ListenerId};

/// IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of `address`; IPv4-mapped IPv6 is IPv4.
    pub const fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The family of the address behind a key.
    pub fn of_key(key: &AddressKey) -> Self {
        Self::of(IpAddr::from(*key))
    }

    /// Index of (listener, family) in the array of active tables.
    #[inline(always)]
    pub const fn active_index(self, listener: ListenerId) -> u32 {
        listener.0 as u32 * 2 + self as u32
    }

    /// The word used in JSON and on the command line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn active_tables_stand_in_pairs() {
        assert_eq!(Family::V4.active_index(ListenerId(7)), 14);
        assert_eq!(Family::V6.active_index(ListenerId(7)), 15);
    }
}
