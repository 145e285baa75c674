//! What is believed of endpoints and groups: who is up, and how far away they are.

mod belief;
mod order;

pub use belief::{Belief, Beliefs};
pub use order::Order;
