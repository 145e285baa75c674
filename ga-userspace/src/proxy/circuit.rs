//! How much an endpoint group has at a time, counted over all threads. What would be too much is refused at once: requests that wait
//! for endpoints which have become slow must not take the edge with them.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use super::counts::{Count, Reason};
use crate::model::Circuit;

/// What the endpoints of a group have, and what was refused.
#[derive(Debug, Default)]
pub struct Load {
    connections: AtomicU32,
    requests: AtomicU32,
    /// Requests and connections that were refused.
    pub refused: Count,
}

/// The one of the two numbers of a [`Load`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Connection,
    Request,
}

/// One more of a group, until it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    load: Arc<Load>,
    unit: Unit,
}

impl Load {
    /// Connections that are used.
    pub fn connections(&self) -> u32 {
        self.connections.load(Relaxed)
    }

    /// Requests that are not answered to their end.
    pub fn requests(&self) -> u32 {
        self.requests.load(Relaxed)
    }

    fn of(&self, unit: Unit) -> &AtomicU32 {
        match unit {
            Unit::Connection => &self.connections,
            Unit::Request => &self.requests,
        }
    }

    /// One more, where there are fewer than `most`.
    ///
    /// # Errors
    ///
    /// [`Reason::Circuit`] where there are not.
    pub(super) fn hold(self: &Arc<Self>, unit: Unit, most: u32) -> Result<Held, Reason> {
        // Counted first: two threads that ask at once do not both get the last one.
        let held = Held { load: Arc::clone(self), unit };
        if self.of(unit).fetch_add(1, Relaxed) < most {
            return Ok(held);
        }
        self.refused.add(1);
        Err(Reason::Circuit)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.load.of(self.unit).fetch_sub(1, Relaxed);
    }
}

/// The most requests at a time: each has a connection of its own where the protocol has no streams.
pub(super) fn requests(circuit: Circuit, has_streams: bool) -> u32 {
    if has_streams { circuit.requests } else { circuit.requests.min(circuit.connections) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_is_refused_and_what_ended_makes_room() {
        let load = Arc::<Load>::default();
        let first = load.hold(Unit::Request, 2).expect("room");
        let second = load.hold(Unit::Request, 2).expect("room");
        assert_eq!(load.hold(Unit::Request, 2).expect_err("full"), Reason::Circuit);
        assert_eq!((load.requests(), load.connections(), load.refused.get()), (2, 0, 1));
        assert!(load.hold(Unit::Connection, 1).is_ok(), "requests are no connections");
        drop(first);
        let third = load.hold(Unit::Request, 2).expect("room");
        drop((second, third));
        assert_eq!((load.requests(), load.connections()), (0, 0));
    }

    #[test]
    fn a_request_without_streams_is_a_connection_too() {
        let circuit = Circuit { connections: 3, requests: 5 };
        assert_eq!((requests(circuit, false), requests(circuit, true)), (3, 5));
    }
}
