//! What the report says.

use super::fixtures::{SIZE, listener, nothing, shop};
use crate::{
    model::{Action as RuleAction, Affinity, Condition, Intent, Listener, Pattern, Protocol, Rule, Weight},
    plan::{Action, Changes, Plan, State, build::build_sized, compare},
};

fn plan(intent: &Intent, running: &State) -> Plan {
    build_sized(intent, nothing(), running, [1, 2], SIZE).unwrap()
}

fn report(change: impl FnOnce(&mut Intent)) -> Changes {
    let old = plan(&shop(), &State::default());
    let mut intent = shop();
    change(&mut intent);
    compare(Some(&old), &plan(&intent, &old.target))
}

#[test]
fn nothing_is_said_about_nothing() {
    let changes = report(|_| {});
    assert!(changes.noop && changes.changes.is_empty() && changes.moved.is_empty());
    assert!(changes.render(false).starts_with("nothing to do: generation 1"));
}

#[test]
fn a_weight_moves_its_share_of_the_flows() {
    let changes = report(|intent| intent.instances[0].listeners[1].groups[0].endpoints[0].weight = Weight(1));
    assert_eq!(changes.moved.len(), 1);
    let moved = &changes.moved[0];
    assert_eq!((moved.listener.as_str(), moved.family.as_str()), ("shop/dns", "ipv4"));
    assert!((moved.share - (0.5 - 1.0 / 256.0)).abs() < 0.02, "{}", moved.share);
    assert!((changes.moved_total - moved.share / 4.0).abs() < 1e-9);
    let text = changes.render(false);
    assert!(text.contains("~ endpoint shop/dns/eu/ip/10.0.0.3: weight 255 → 1"), "{text}");
    assert!(text.contains("~ endpoint shop/dns/eu/ip/10.0.0.4: share 0.4 % → 50.0 %"), "{text}");
}

#[test]
fn listeners_and_addresses_that_come_and_go_are_named() {
    let changes = report(|intent| {
        intent.instances.remove(1);
        intent.instances[0].vips.push("192.0.2.7".parse().unwrap());
        intent.instances[0].listeners.push(listener("ssh", Protocol::Tcp, "22,2200~2202", &[("10.0.0.8", 9)]));
    });
    let text = changes.render(false);
    for line in [
        "- instance post",
        "- vip post/192.0.2.2",
        "- egress_ip post/192.0.2.2",
        "- listener post/mail (tcp 25, 1 endpoints)",
        "+ vip shop/192.0.2.7",
        "+ listener shop/ssh (tcp 22,2200~2202, 1 endpoints)",
        "+ endpoint shop/ssh/eu/ip/10.0.0.8 (weight 9, 100.0 %)",
        "new flows that would choose another endpoint: 0.00 %",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}

#[test]
fn another_affinity_lets_all_flows_choose_anew() {
    let changes = report(|intent| intent.instances[0].listeners[0].affinity = Affinity::SourceIp);
    let https = changes.moved.iter().find(|moved| moved.family == "ipv4").unwrap();
    assert!((https.share - 4.0 / 9.0).abs() < 1e-9, "{}", https.share);
    assert_eq!(changes.changes.len(), 1);
}

#[test]
fn without_an_old_plan_everything_is_new() {
    let changes = compare(None, &plan(&shop(), &State::default()));
    assert!(changes.changes.iter().all(|change| change.action == Action::Added));
    assert_eq!((changes.from, changes.to, changes.moved_total), (None, 1, 0.0));
}

#[test]
fn what_only_the_agent_serves_is_named_although_the_maps_stay() {
    let rule = |name: &str, priority| Rule {
        name: super::fixtures::name(name),
        priority,
        conditions: vec![Condition::Path(vec![Pattern::Wildcard(format!("/{name}"))])],
        modifiers: Vec::new(),
        action: RuleAction::Drop,
    };
    let web = |change: &dyn Fn(&mut Listener)| {
        let mut intent = shop();
        let mut web = listener("web", Protocol::Http, "80", &[("10.0.0.8", 9)]);
        web.rules = vec![rule("old", 1), rule("stays", 2)];
        change(&mut web);
        intent.instances[0].listeners.push(web);
        intent
    };
    let before = web(&|_| {});
    let after = web(&|listener| {
        listener.rules = vec![rule("new", 1), rule("stays", 3)];
        listener.groups[0].endpoints[0].weight = Weight(100);
        listener.http_sniff = true;
    });
    let old = plan(&before, &State::default());
    let same = compare(Some(&old), &plan(&before, &old.target)).with_served(&before, &before);
    assert!(same.noop && same.changes.is_empty(), "{}", same.render(false));
    let changes = compare(Some(&old), &plan(&after, &old.target)).with_served(&before, &after);
    let text = changes.render(false);
    assert!(!changes.noop, "{text}");
    for line in [
        "generation 1 stays: only what the agent serves itself changes",
        "~ endpoint shop/web/eu/ip/10.0.0.8: weight 9 → 100",
        "~ listener shop/web: http_sniff",
        "+ rule shop/web/new (priority 1)",
        "- rule shop/web/old (priority 1)",
        "~ rule shop/web/stays: priority 2 → 3",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}

#[test]
fn the_report_survives_its_json() {
    let changes = report(|intent| intent.instances[0].listeners.truncate(1));
    let json = serde_json::to_string(&changes).unwrap();
    assert_eq!(serde_json::from_str::<Changes>(&json).unwrap(), changes);
}
