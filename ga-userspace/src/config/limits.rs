//! `[limits]`: the documented defaults, and how far they may be raised.

use std::ops::RangeInclusive;

use ga_common::abi::limits::{MAX_ENDPOINTS, MAX_INSTANCES, MAX_LISTENERS};

use super::{
    acl,
    document::Context,
    keys,
    problem::{Fault, Kind},
    tree::Table,
};
use crate::model::{Limits, NameRule, Port, Profile};

/// Documented ceiling 40.
pub(super) const INSTANCES: RangeInclusive<u32> = 1..=40;
/// No documented ceiling: the capacity of the data path.
pub(super) const LISTENERS_PER_INSTANCE: RangeInclusive<u32> = 1..=MAX_LISTENERS;
/// Documented ceiling 2,000.
pub(super) const PORTS_PER_L4_LISTENER: RangeInclusive<u32> = 1..=2_000;
/// Raisable; 10 is what one call of the documented API takes.
pub(super) const DEFAULT_GROUPS_PER_LISTENER: RangeInclusive<u32> = 1..=10;
/// Documented ceiling 150.
pub(super) const VIRTUAL_GROUPS_PER_LISTENER: RangeInclusive<u32> = 0..=150;
/// No documented ceiling.
pub(super) const ADDITIONAL_CERTS_PER_LISTENER: RangeInclusive<u32> = 0..=1_000;
/// Documented ceiling 600.
pub(super) const HTTP_IDLE_TIMEOUT_MAX: RangeInclusive<u32> = 1..=600;
/// Documented ceiling 30.
pub(super) const ENDPOINTS_PER_GROUP: RangeInclusive<u32> = 1..=30;
/// No documented ceiling: no more than a listener has ports.
pub(super) const PORT_MAPPINGS_PER_GROUP: RangeInclusive<u32> = 0..=2_000;
/// No documented limit: domains have a few, and an answer by TCP may have 4,000.
pub(super) const ADDRESSES_PER_DOMAIN: RangeInclusive<u32> = 1..=256;
/// No documented ceiling: the capacity of the data path.
pub(super) const VSG_SERVERS_TOTAL: RangeInclusive<u32> = 1..=MAX_ENDPOINTS;
/// No documented ceiling.
pub(super) const VSG_SERVER_ATTACHMENTS: RangeInclusive<u32> = 1..=MAX_ENDPOINTS;
/// No documented ceiling: what one list of the data path holds, for each IP version.
pub(super) const ACL_ENTRIES_PER_LISTENER: RangeInclusive<u32> = 0..=2 * acl::MAX_ENTRIES as u32;
/// No documented ceiling.
pub(super) const ACL_ENTRIES_PER_INSTANCE: RangeInclusive<u32> = 0..=100_000_000;
/// Documented: 10. No ceiling but that of listeners.
pub(super) const LISTENERS_PER_ACL: RangeInclusive<u32> = 1..=MAX_LISTENERS;
/// Documented ceiling 5.
pub(super) const CUSTOM_GROUPS_PER_LISTENER: RangeInclusive<u32> = 1..=5;
/// No documented ceiling.
pub(super) const CUSTOM_DESTINATIONS_PER_GROUP: RangeInclusive<u32> = 1..=64;
/// Documented ceiling 20.
pub(super) const CUSTOM_ENDPOINTS_PER_GROUP: RangeInclusive<u32> = 1..=20;
/// No documented ceiling.
pub(super) const CUSTOM_POLICY_ADDRESSES_PER_ENDPOINT: RangeInclusive<u32> = 1..=1_000;
/// No documented ceiling.
pub(super) const CUSTOM_POLICY_RANGES_PER_ADDRESS: RangeInclusive<u32> = 1..=100;
/// Documented ceiling 150; listeners here have more where they are asked to, at no cost for each request.
pub(super) const RULES_PER_LISTENER: RangeInclusive<u32> = 0..=1_000;
/// Documented ceiling 150.
pub(super) const RULE_CONDITION_ITEMS_PER_LISTENER: RangeInclusive<u32> = 0..=4_000;

const _: () = assert!(*INSTANCES.end() <= MAX_INSTANCES, "a documented number of instances must fit");
const _: () = assert!(*ENDPOINTS_PER_GROUP.end() <= MAX_ENDPOINTS, "a documented number of endpoints must fit");

/// Words of `profile`.
pub(super) const PROFILES: [(&str, Profile); 3] =
    [("payg", Profile::Payg), ("subscription", Profile::Subscription), ("legacy2021", Profile::Legacy2021)];

/// Words of `name_rule`.
pub(super) const NAME_RULES: [(&str, NameRule); 2] = [("seed", NameRule::Seed), ("extended", NameRule::Extended)];

/// The limits in force; wrong values leave the default in place.
pub(super) fn read(document: &Table<'_>, cx: &mut Context<'_>) -> Limits {
    let table = document.optional("limits").and_then(|value| value.table(&keys::LIMITS, &mut cx.problems));
    let Some(table) = table else { return Limits::default() };
    let profile = table.optional("profile").and_then(|value| value.word(&PROFILES, &mut cx.problems)).unwrap_or_default();
    let default = Limits::of(profile);
    fixed_port_max(&table, cx);
    let name_rule = table.optional("name_rule").and_then(|value| value.word(&NAME_RULES, &mut cx.problems));
    let mut number = |key, range: RangeInclusive<u32>, default| {
        table.optional(key).and_then(|value| value.integer(range, &mut cx.problems)).unwrap_or(default)
    };
    Limits {
        profile,
        name_rule: name_rule.unwrap_or_default(),
        instances: number("instances", INSTANCES, default.instances),
        listeners_per_instance: number("listeners_per_instance", LISTENERS_PER_INSTANCE, default.listeners_per_instance),
        ports_per_l4_listener: number("ports_per_l4_listener", PORTS_PER_L4_LISTENER, default.ports_per_l4_listener),
        default_groups_per_listener: number(
            "default_groups_per_listener",
            DEFAULT_GROUPS_PER_LISTENER,
            default.default_groups_per_listener,
        ),
        virtual_groups_per_listener: number(
            "virtual_groups_per_listener",
            VIRTUAL_GROUPS_PER_LISTENER,
            default.virtual_groups_per_listener,
        ),
        additional_certs_per_listener: number(
            "additional_certs_per_listener",
            ADDITIONAL_CERTS_PER_LISTENER,
            default.additional_certs_per_listener,
        ),
        http_idle_timeout_max: number("http_idle_timeout_max", HTTP_IDLE_TIMEOUT_MAX, default.http_idle_timeout_max),
        endpoints_per_group: number("endpoints_per_group", ENDPOINTS_PER_GROUP, default.endpoints_per_group),
        port_mappings_per_group: number("port_mappings_per_group", PORT_MAPPINGS_PER_GROUP, default.port_mappings_per_group),
        addresses_per_domain: number("addresses_per_domain", ADDRESSES_PER_DOMAIN, default.addresses_per_domain),
        vsg_servers_total: number("vsg_servers_total", VSG_SERVERS_TOTAL, default.vsg_servers_total),
        vsg_server_attachments: number("vsg_server_attachments", VSG_SERVER_ATTACHMENTS, default.vsg_server_attachments),
        acl_entries_per_listener: number("acl_entries_per_listener", ACL_ENTRIES_PER_LISTENER, default.acl_entries_per_listener),
        acl_entries_per_instance: number("acl_entries_per_instance", ACL_ENTRIES_PER_INSTANCE, default.acl_entries_per_instance),
        listeners_per_acl: number("listeners_per_acl", LISTENERS_PER_ACL, default.listeners_per_acl),
        custom_groups_per_listener: number(
            "custom_groups_per_listener",
            CUSTOM_GROUPS_PER_LISTENER,
            default.custom_groups_per_listener,
        ),
        custom_destinations_per_group: number(
            "custom_destinations_per_group",
            CUSTOM_DESTINATIONS_PER_GROUP,
            default.custom_destinations_per_group,
        ),
        custom_endpoints_per_group: number(
            "custom_endpoints_per_group",
            CUSTOM_ENDPOINTS_PER_GROUP,
            default.custom_endpoints_per_group,
        ),
        custom_policy_addresses_per_endpoint: number(
            "custom_policy_addresses_per_endpoint",
            CUSTOM_POLICY_ADDRESSES_PER_ENDPOINT,
            default.custom_policy_addresses_per_endpoint,
        ),
        custom_policy_ranges_per_address: number(
            "custom_policy_ranges_per_address",
            CUSTOM_POLICY_RANGES_PER_ADDRESS,
            default.custom_policy_ranges_per_address,
        ),
        rules_per_listener: number("rules_per_listener", RULES_PER_LISTENER, default.rules_per_listener),
        rule_condition_items_per_listener: number(
            "rule_condition_items_per_listener",
            RULE_CONDITION_ITEMS_PER_LISTENER,
            default.rule_condition_items_per_listener,
        ),
    }
}

fn fixed_port_max(table: &Table<'_>, cx: &mut Context<'_>) {
    let Some(value) = table.optional("port_max") else { return };
    let Some(number) = value.integer(0..=u32::MAX, &mut cx.problems) else { return };
    if number != u32::from(Port::MAX) {
        let draft = Fault::new(Kind::NotAllowed, format!("`port_max` is fixed at {}", Port::MAX)).help("remove the key");
        value.problem(draft, &mut cx.problems);
    }
}
