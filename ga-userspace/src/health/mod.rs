//! What is believed of endpoints and groups: who is up, and how far away they are.
//!
//! Reading order: `outcome` (what comes of a probe), `machine` (outcomes to a verdict), `timetable` (who is due), `roster` (who is
//! probed), `order` and `orders` (which group is nearest), `book` (all of it together), `report` (the same as values), `passive` (what clients' attempts say where nobody
//! probes), `belief` (what the plan is told); up to here nothing reads a
//! clock or opens a socket. `probe` and `http` ask; `prober` runs everything.

mod belief;
mod book;
mod http;
mod machine;
mod order;
mod orders;
mod outcome;
mod passive;
mod preface;
mod probe;
mod prober;
mod report;
mod roster;
mod timetable;

pub use belief::{Belief, Beliefs};
pub use book::{Book, Kept, Verdicts};
pub use order::Order;
pub use orders::Orders;
pub use outcome::{Outcome, Reason};
pub use passive::Passive;
pub use preface::Preface;
pub use prober::Prober;
pub use report::{Pace, Panic, Report, Seen};
pub use roster::{Check, Roster};
