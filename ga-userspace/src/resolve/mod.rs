//! What names stand for: domains by DNS, hosts by the inventory. Asks, remembers and tells; the plan decides what becomes of it.
//!
//! Reading order: `addresses` (what the plan gets), `known` (the same with ages and errors), `domain` (one domain, pure),
//! `dns` (asking servers), `inventory` (the text of an inventory, pure), `source` (reading and asking for it), `tls` (its connection), `keep` (last
//! answers on disk), `resolver` (the task that does it all).

mod addresses;
mod dns;
mod domain;
mod inventory;
mod keep;
mod known;
mod resolver;
mod source;
mod tls;

pub use addresses::Addresses;
pub use domain::{Answer, Domain, Families, TTL_MAX, TTL_MIN};
pub use inventory::{Form, InventoryError, parse};
pub use keep::{Kept, KeptDomain, KeptFile, KeptInventory};
pub use known::{DomainKnown, Known, Origin, SourceKnown};
pub use resolver::{Resolver, Wanted};
