//! Random intents, one after the other: every prefix of the steps between them is safe, and what was interrupted is finished
//! by the next plan.

use std::{sync::Arc, time::Duration};

use proptest::{collection::vec, prelude::*, sample::Index};

use super::fixtures::{SIZE, instance, intent, listener, name, nothing};
use crate::{
    model::{Acl, AclEntry, AclMode, Affinity, ClientIp, Instance, Intent, Listener, ListenerAcl, Port, Protocol},
    plan::{State, build::build_sized, steps},
};

/// Few names, ports and addresses, so that two intents have much in common.
fn any_listener(index: usize) -> impl Strategy<Value = Option<Listener>> {
    let endpoint = (0_usize..6, prop_oneof![Just(0_u8), Just(1), Just(100), Just(255)]);
    let fields = (any::<bool>(), 0_usize..3, vec(endpoint, 1..5), any::<bool>(), 10_u64..13, any::<bool>(), any_acl());
    prop::option::weighted(0.8, fields).prop_map(move |fields| {
        fields.map(|(udp, ports, mut endpoints, affinity, timeout, mapped, acl)| {
            endpoints.sort_unstable();
            endpoints.dedup_by_key(|endpoint| endpoint.0);
            let addresses = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1", "fd00::2", "fd00::3"];
            let endpoints: Vec<_> = endpoints.iter().map(|(which, weight)| (addresses[*which], *weight)).collect();
            // Ranges of two listeners of an instance do not overlap.
            let first = 100 * (index as u32 + 1);
            let ports = [format!("{first}"), format!("{first}~{}", first + 2), format!("{}", first + 1)][ports].clone();
            let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
            let mut listener = listener(&format!("l{index}"), protocol, &ports, &endpoints);
            listener.affinity = if affinity { Affinity::SourceIp } else { Affinity::None };
            listener.idle_timeout = Duration::from_secs(timeout);
            listener.acl = acl;
            if index == 0 && !mapped {
                listener.groups[0].client_ip = ClientIp::L2;
            }
            if mapped {
                listener.groups[0].port_mapping.insert(Port::new(first).unwrap(), 8_080);
            }
            listener
        })
    })
}

/// Few lists, of either family, some without entries.
fn any_acl() -> impl Strategy<Value = Option<ListenerAcl>> {
    let nets = prop::sample::select(vec![vec![], vec!["192.0.2.0/24"], vec!["10.0.0.0/8", "11.0.0.0/8"], vec!["2001:db8::/32"]]);
    prop::option::of((any::<bool>(), nets)).prop_map(|acl| {
        acl.map(|(white, nets)| {
            let entry = |net: &str| AclEntry { net: net.parse().unwrap(), description: String::new() };
            let list = Acl { name: name("list"), entries: nets.into_iter().map(entry).collect() };
            let mode = if white { AclMode::White } else { AclMode::Black };
            ListenerAcl { mode, lists: vec![Arc::new(list)], kill_established: false }
        })
    })
}

fn any_intent() -> impl Strategy<Value = Intent> {
    let listeners =
        || (any_listener(0), any_listener(1), any_listener(2)).prop_map(|(a, b, c)| [a, b, c].into_iter().flatten().collect());
    // Each address goes to one of the instances or to nobody, as VIP, egress address or both.
    let owners = vec((0_usize..4, 1_u8..4), 8);
    (vec(listeners(), 3), owners).prop_map(|(listeners, owners)| {
        let of = |index: usize, role: u8| -> Vec<String> {
            let owned = owners.iter().enumerate().filter(move |(_, (owner, roles))| *owner == index && roles & role != 0);
            owned.map(|(n, _)| if n % 2 == 0 { format!("192.0.2.{n}") } else { format!("2001:db8::{n}") }).collect()
        };
        let instances = listeners.into_iter().enumerate().map(|(index, listeners): (usize, Vec<Listener>)| -> Instance {
            let (vips, egress) = (of(index, 1), of(index, 2));
            let texts = |ips: &[String]| -> Vec<String> { ips.to_vec() };
            let (vips, egress) = (texts(&vips), texts(&egress));
            let vips: Vec<_> = vips.iter().map(String::as_str).collect();
            let egress: Vec<_> = egress.iter().map(String::as_str).collect();
            instance(&format!("i{index}"), &vips, &egress, listeners)
        });
        intent(instances.collect())
    })
}

/// Applies at most `limit` steps towards `intent`, looking at every state on the way.
fn advance(state: &mut State, intent: &Intent, seed: u64, limit: Option<Index>) -> Result<(), TestCaseError> {
    let plan = build_sized(intent, nothing(), state, [seed, 0], SIZE).unwrap();
    prop_assert_eq!(plan.target.check(), []);
    prop_assert!(steps(&plan.target, &plan.target).is_empty());
    let steps = steps(state, &plan.target);
    prop_assert_eq!(steps.is_empty(), plan.is_noop());
    let limit = limit.map_or(steps.len(), |index| index.index(steps.len() + 1));
    for (done, step) in steps.iter().enumerate().take(limit) {
        let applied = state.apply(step);
        prop_assert!(applied.is_ok(), "step {done} of {steps:?}: {applied:?}");
        let violations = state.check();
        prop_assert!(violations.is_empty(), "{violations:?} after step {done} of {steps:?}");
    }
    if limit == steps.len() {
        prop_assert_eq!(&*state, &plan.target);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn every_prefix_of_the_steps_is_safe(old in any_intent(), new in any_intent(), restart: bool, seed in 0_u64..2) {
        let mut state = State::default();
        advance(&mut state, &old, 0, None)?;
        if restart {
            state.forget_slots();
        }
        advance(&mut state, &new, seed, None)?;
        advance(&mut state, &new, seed, None)?;
    }

    #[test]
    fn what_was_interrupted_is_finished_by_the_next_plan(intents in vec((any_intent(), any::<Index>()), 2..5)) {
        let mut state = State::default();
        for (intent, stop) in &intents {
            advance(&mut state, intent, 0, Some(*stop))?;
        }
        let (last, _) = &intents[0];
        advance(&mut state, last, 0, None)?;
        let again = build_sized(last, nothing(), &state, [0, 0], SIZE).unwrap();
        prop_assert!(again.is_noop());
    }

    #[test]
    fn an_endpoint_keeps_its_number_for_as_long_as_it_has_an_entry(intents in vec(any_intent(), 2..5)) {
        let mut state = State::default();
        for intent in &intents {
            let plan = build_sized(intent, nothing(), &state, [0, 0], SIZE).unwrap();
            for (id, entry) in &state.endpoints {
                prop_assert_eq!(plan.target.endpoints[id].identity, entry.identity);
            }
            state = plan.target;
        }
    }
}

/// Every one walks the way from every state on another one.
const CASES: u32 = 6;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    /// Killed after any step, and told something else at the next start: that way is as safe, and ends where it should.
    #[test]
    fn from_every_prefix_there_is_a_safe_way_to_any_other_plan(old in any_intent(), new in any_intent(), other in any_intent()) {
        let mut state = State::default();
        advance(&mut state, &old, 0, None)?;
        let target = build_sized(&new, nothing(), &state, [0, 0], SIZE).unwrap().target;
        for step in steps(&state, &target) {
            // A start knows of tables what their digests say.
            let mut found = state.clone();
            found.forget_slots();
            advance(&mut found, &other, 0, None)?;
            prop_assert!(build_sized(&other, nothing(), &found, [0, 0], SIZE).unwrap().is_noop());
            state.apply(&step).unwrap();
        }
    }
}
