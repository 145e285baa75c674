//! Why there is no plan. Nothing was touched when one of these appears.

use std::net::IpAddr;

use super::Family;
use crate::model::{Name, Port, Protocol};

/// Why an intent cannot be planned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// More than the maps hold. What the running plan holds counts until the new one is in place.
    #[error("{value} {what} are needed (those of the running plan included), but the limit is {limit}")]
    Capacity {
        /// What there is too much of.
        what: &'static str,
        /// How many there may be.
        limit: u64,
        /// How many there would be.
        value: u64,
    },
    /// More egress addresses than an instance's entry holds.
    #[error("instance {instance} has {value} {family} egress addresses, but the limit is {limit}")]
    EgressAddresses {
        /// Whose.
        instance: Name,
        /// Of the addresses.
        family: Family,
        /// How many there may be.
        limit: u64,
        /// How many there are.
        value: u64,
    },
    /// Two listeners want one port.
    #[error("{vip} port {port} {} belongs to both {first} and {second}", protocol.word())]
    ServiceTwice {
        /// The address.
        vip: IpAddr,
        /// The port.
        port: Port,
        /// The protocol.
        protocol: Protocol,
        /// `instance/listener`.
        first: String,
        /// `instance/listener`.
        second: String,
    },
    /// One thing listed twice, or, once in 2⁶⁴ pairs, two names with one hash.
    #[error("{first} and {second} cannot be told apart; rename one of them")]
    SameIdentity {
        /// One name.
        first: String,
        /// The other.
        second: String,
    },
}

/// Refuses `value` above `limit`.
pub(super) fn within(what: &'static str, value: usize, limit: u32) -> Result<(), PlanError> {
    let (value, limit) = (value as u64, u64::from(limit));
    if value <= limit { Ok(()) } else { Err(PlanError::Capacity { what, limit, value }) }
}
