//! Two views in a row make one of rates.

use super::{DropCount, Status};

impl Status {
    /// The same view with every counter replaced by its growth per second since `previous`, both by the agent's own clock.
    /// `None` when no time passed or the agent was started anew between the two.
    pub fn per_second(&self, previous: &Self) -> Option<Self> {
        let seconds = self.uptime_s - previous.uptime_s;
        if seconds <= 0.0 || self.started_at != previous.started_at {
            return None;
        }
        let rate = |now: u64, before: u64| (now.saturating_sub(before) as f64 / seconds).round() as u64;
        let mut rates = self.clone();
        for instance in &mut rates.instances {
            let old = previous.instances.iter().find(|old| old.id == instance.id);
            for listener in &mut instance.listeners {
                let old = old.and_then(|old| old.listeners.iter().find(|old| old.name == listener.name));
                listener.counters = listener.counters.zip(old.map_or(listener.counters, |old| old.counters), rate);
                for group in &mut listener.groups {
                    let old = old.and_then(|old| old.groups.iter().find(|old| old.name == group.name));
                    for endpoint in &mut group.endpoints {
                        let old = old.and_then(|old| old.endpoints.iter().find(|old| old.address == endpoint.address));
                        endpoint.counters = endpoint.counters.zip(old.map_or(endpoint.counters, |old| old.counters), rate);
                    }
                }
            }
        }
        for row in &mut rates.drops {
            let same =
                |old: &&DropCount| (&old.reason, &old.instance, &old.listener) == (&row.reason, &row.instance, &row.listener);
            // A row that was not there had no packets.
            row.packets = rate(row.packets, previous.drops.iter().find(same).map_or(0, |old| old.packets));
        }
        for row in &mut rates.passes {
            row.packets =
                rate(row.packets, previous.passes.iter().find(|old| old.reason == row.reason).map_or(0, |old| old.packets));
        }
        rates.attribute_drops();
        Some(rates)
    }
}

#[cfg(test)]
mod tests {
    use crate::status::{Counters, Status, example::example};

    #[test]
    fn rates_are_growth_over_the_agents_own_clock() {
        let before = example();
        let mut now = example();
        now.uptime_s += 2.0;
        now.instances[0].listeners[0].counters.forward_packets += 500;
        now.drops[1].packets += 8;
        now.instances[0].listeners[1].groups[0].endpoints[0].address = "10.0.0.99".to_owned();
        let rates = now.per_second(&before).expect("two seconds passed");
        assert_eq!(rates.instances[0].listeners[0].counters.forward_packets, 250);
        assert_eq!(rates.instances[0].listeners[0].drops[0].packets, 4);
        let newcomer = &rates.instances[0].listeners[1].groups[0].endpoints[0];
        assert_eq!(newcomer.counters, Counters::default(), "what was not there has no rate yet");
        assert_eq!(rates.flows, now.flows, "levels stay levels");
    }

    #[test]
    fn a_restart_between_two_views_gives_no_rates() {
        let before = example();
        let restarted = Status { uptime_s: before.uptime_s + 1.0, started_at: Some(1_700_300_000), ..example() };
        assert_eq!(restarted.per_second(&before), None);
        assert_eq!(before.per_second(&before), None);
    }
}
