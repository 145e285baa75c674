//! What the data path shall hold, and how to get there: intent in, numbered plan and safe steps out.
//!
//! Reading order: `identity` (names to stable numbers), `maglev` (shares to slots), `shares` (ratios, weights
//! and health to shares), `state` (the content of the maps as
//! a value), `check` (what must hold at every moment), `overrides` (what an operator set by hand), `ids` (dense numbers
//! that survive reloads), `numbers` (who gets which), `acl` (who may open flows), `custom` (which port leads to which host),
//! `sheets` (contents that are named by number), `members` (what names stand for), `view` (the plan with names), `entries`
//! (addresses and services), `groups` (who takes part),
//! `targets` (what the agent chooses from where it serves listeners itself), `build` (intent to plan), `steps` (one change of the maps), `diff` (two states to steps), `change` (two plans to what
//! people want to know), `moved` (which part of the flows goes elsewhere), `text` (the same as lines), `transition` (how long older
//! flows go where they began).
//!
//! Nothing here reads a clock, a file or a socket, and nothing here writes a map.

mod acl;
mod build;
mod change;
mod check;
mod custom;
mod diff;
mod entries;
mod error;
mod groups;
mod identity;
mod ids;
mod maglev;
mod members;
mod moved;
mod numbers;
mod overrides;
mod served;
mod shares;
mod sheets;
mod state;
mod steps;
mod targets;
mod text;
mod transition;
mod view;

#[cfg(test)]
mod tests;

pub use acl::AclView;
pub use build::build;
pub use change::{Action, Change, Changes, Object, compare};
pub use check::Violation;
pub use custom::{Allocation, CustomView, Part as CustomPart, Refused, Row, Table as CustomTable, settle};
pub use diff::steps;
pub use error::PlanError;
pub use identity::fingerprint;
pub use maglev::{Candidate, Selection};
pub use members::{Missing, resolved};
pub use moved::Moved;
pub use overrides::{Override, Overrides};
pub use sheets::{Sheet, SheetId, SheetInfo, SheetKind};
pub use state::{Family, State, TableInfo, address_key};
pub use steps::Step;
pub use targets::{TargetView, Wheel, number_of};
pub use transition::Transitions;
pub use view::{EndpointView, Former, GroupView, InstanceView, ListenerView, Note, Plan, TableView};
