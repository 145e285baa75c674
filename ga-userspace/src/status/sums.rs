//! Sums, fills and walks over views: pure arithmetic.

use std::{iter::Sum, ops::Add};

use ga_common::abi::reason;

use super::{
    Counters, DropCount, Endpoint, EndpointPath, FlowTable, Instance, Listener, MapFill, PassCount, ReasonCount, Status,
};

impl Add for Counters {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.zip(other, u64::saturating_add)
    }
}

impl Sum for Counters {
    fn sum<I: Iterator<Item = Self>>(counters: I) -> Self {
        counters.fold(Self::default(), Add::add)
    }
}

impl Counters {
    pub(super) fn zip(self, other: Self, with: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            forward_packets: with(self.forward_packets, other.forward_packets),
            forward_bytes: with(self.forward_bytes, other.forward_bytes),
            return_packets: with(self.return_packets, other.return_packets),
            return_bytes: with(self.return_bytes, other.return_bytes),
            new_flows: with(self.new_flows, other.new_flows),
        }
    }
}

impl FlowTable {
    /// Live over capacity, 0 to 1; 0 for a table without room.
    pub fn fill(self) -> f64 {
        ratio(self.live, self.capacity)
    }
}

impl MapFill {
    /// Entries over capacity, 0 to 1; 0 for a map without room.
    pub fn fill(&self) -> f64 {
        ratio(self.entries, self.capacity)
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

impl DropCount {
    /// A row for `reason`; `owner` is (instance, listener).
    pub fn of(reason: reason::Drop, owner: Option<(&str, &str)>, packets: u64) -> Self {
        Self {
            reason: reason.name().to_owned(),
            explanation: reason.explain().to_owned(),
            instance: owner.map(|(instance, _)| instance.to_owned()),
            listener: owner.map(|(_, listener)| listener.to_owned()),
            packets,
        }
    }

    fn is_of(&self, instance: &str, listener: &str) -> bool {
        self.instance.as_deref() == Some(instance) && self.listener.as_deref() == Some(listener)
    }
}

impl PassCount {
    /// A row for `reason`.
    pub fn of(reason: reason::Pass, packets: u64) -> Self {
        Self { reason: reason.name().to_owned(), explanation: reason.explain().to_owned(), packets }
    }
}

impl Status {
    /// Every listener with its instance, in file order.
    pub fn listeners(&self) -> impl Iterator<Item = (&Instance, &Listener)> {
        self.instances.iter().flat_map(|instance| instance.listeners.iter().map(move |listener| (instance, listener)))
    }

    /// Every endpoint with its path, in file order; those of a group in the order of their addresses.
    pub fn endpoints(&self) -> impl Iterator<Item = (EndpointPath, &Endpoint)> {
        self.listeners().flat_map(|(instance, listener)| {
            listener.groups.iter().flat_map(move |group| {
                group.endpoints.iter().map(move |endpoint| {
                    let path = EndpointPath {
                        instance: instance.id.clone(),
                        listener: listener.name.clone(),
                        group: group.name.clone(),
                        address: endpoint.address.clone(),
                    };
                    (path, endpoint)
                })
            })
        })
    }

    /// Fills `drops` of every listener from the list of all drops.
    pub fn attribute_drops(&mut self) {
        for instance in &mut self.instances {
            for listener in &mut instance.listeners {
                let of_listener = self.drops.iter().filter(|row| row.is_of(&instance.id, &listener.name));
                listener.drops =
                    of_listener.map(|row| ReasonCount { reason: row.reason.clone(), packets: row.packets }).collect();
            }
        }
    }

    /// Whether this edge forwards: a plan is live and every interface has the program. Otherwise, what is missing.
    pub fn ready(&self) -> Result<(), Vec<String>> {
        let detached = self.interfaces.iter().filter(|interface| !interface.attached);
        let mut missing: Vec<_> = detached.map(|interface| format!("{}: not attached", interface.name)).collect();
        if self.generation == 0 {
            missing.push("no configuration is live yet".to_owned());
        }
        if self.interfaces.is_empty() {
            missing.push("no interface".to_owned());
        }
        if missing.is_empty() { Ok(()) } else { Err(missing) }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::status::example::example;

    #[test]
    fn the_view_survives_json() {
        let text = serde_json::to_string(&example()).expect("plain data");
        assert_eq!(serde_json::from_str::<Status>(&text).expect("own output"), example());
        assert!(text.starts_with(r#"{"schema_version":1,"version":"0.1.0","access_point":"fra1","generation":42,"#), "{text}");
        assert!(text.contains(r#""state":"drained""#) && text.contains(r#""next_hop":"resolved""#), "{text}");
        assert!(text.contains(r#""mode":"native""#), "{text}");
    }

    #[test]
    fn drops_are_attributed_to_their_listener_only() {
        let status = example();
        let of = |index: usize| status.instances[0].listeners[index].drops.clone();
        assert_eq!(of(0), [ReasonCount { reason: "no_flow".to_owned(), packets: 17 }]);
        assert_eq!(of(1), []);
    }

    #[test]
    fn an_edge_is_ready_when_attached_with_a_plan() {
        assert_eq!(example().ready(), Ok(()));
        let mut status = example();
        status.generation = 0;
        status.interfaces[1].attached = false;
        assert_eq!(
            status.ready().map_err(|missing| missing.join("; ")),
            Err("eth1: not attached; no configuration is live yet".to_owned())
        );
    }

    #[test]
    fn fills_never_divide_by_zero() {
        assert_eq!(FlowTable::default().fill(), 0.0);
        assert_eq!(FlowTable { live: 1, capacity: 4 }.fill(), 0.25);
    }
}
