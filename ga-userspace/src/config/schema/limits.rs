//! `[limits]` as JSON Schema.

use schemars::JsonSchema;
use serde::Serialize;

use crate::model;

/// Limits with their documented defaults.
#[derive(JsonSchema, Serialize)]
#[schemars(deny_unknown_fields, default)]
pub struct Limits {
    /// Which generation of documented defaults applies.
    pub profile: Profile,
    /// `seed`: names have 2–128 letters, digits, `_`, `-`. `extended`: 1–128, and `.` too.
    pub name_rule: NameRule,
    /// Instances of a file.
    #[schemars(range(min = 1, max = 40))]
    pub instances: u32,
    /// Listeners of an instance.
    #[schemars(range(min = 1, max = 2_048))]
    pub listeners_per_instance: u32,
    /// Single ports of a TCP or UDP listener.
    #[schemars(range(min = 1, max = 2_000))]
    pub ports_per_l4_listener: u32,
    /// The highest listener port; fixed.
    #[schemars(range(min = 65_499, max = 65_499))]
    pub port_max: u32,
    /// Default endpoint groups of a listener.
    #[schemars(range(min = 1, max = 10))]
    pub default_groups_per_listener: u32,
    /// Virtual endpoint groups of a listener.
    #[schemars(range(min = 0, max = 150))]
    pub virtual_groups_per_listener: u32,
    /// Certificates of an `https` listener beside its default one.
    #[schemars(range(min = 0, max = 1_000))]
    pub additional_certs_per_listener: u32,
    /// The longest `idle_timeout` of an HTTP or HTTPS listener, in seconds.
    #[schemars(range(min = 1, max = 600))]
    pub http_idle_timeout_max: u32,
    /// Endpoints of a group.
    #[schemars(range(min = 1, max = 30))]
    pub endpoints_per_group: u32,
    /// Port mappings of a group.
    #[schemars(range(min = 0, max = 2_000))]
    pub port_mappings_per_group: u32,
    /// Addresses of a domain that are used; the lowest ones when there are more.
    #[schemars(range(min = 1, max = 256))]
    pub addresses_per_domain: u32,
    /// Servers of all server groups.
    #[schemars(range(min = 1, max = 16_384))]
    pub vsg_servers_total: u32,
    /// How often one server may be in server groups.
    #[schemars(range(min = 1, max = 16_384))]
    pub vsg_server_attachments: u32,
    /// Entries of the access lists of a listener.
    #[schemars(range(min = 0, max = 32_766))]
    pub acl_entries_per_listener: u32,
    /// Port items of a listener times entries of its access lists, summed over the listeners of an instance.
    #[schemars(range(min = 0, max = 100_000_000))]
    pub acl_entries_per_instance: u32,
    /// Listeners that may name one access list.
    #[schemars(range(min = 1, max = 2_048))]
    pub listeners_per_acl: u32,
    /// Groups of a custom routing listener.
    #[schemars(range(min = 1, max = 5))]
    pub custom_groups_per_listener: u32,
    /// Destinations of a group of a custom routing listener.
    #[schemars(range(min = 1, max = 64))]
    pub custom_destinations_per_group: u32,
    /// Subnets of a group of a custom routing listener.
    #[schemars(range(min = 1, max = 20))]
    pub custom_endpoints_per_group: u32,
    /// Hosts that the allow list of a subnet may name.
    #[schemars(range(min = 1, max = 1_000))]
    pub custom_policy_addresses_per_endpoint: u32,
    /// Port ranges that an allow list may give a host.
    #[schemars(range(min = 1, max = 100))]
    pub custom_policy_ranges_per_address: u32,
    /// Forwarding rules of a listener.
    #[schemars(range(min = 0, max = 1_000))]
    pub rules_per_listener: u32,
    /// Values of the conditions of a listener's rules.
    #[schemars(range(min = 0, max = 4_000))]
    pub rule_condition_items_per_listener: u32,
}

/// Which generation of documented defaults applies.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// Pay-as-you-go, the widest.
    Payg,
    /// Subscription.
    Subscription,
    /// The generation of 2021.
    Legacy2021,
}

/// Which characters a name may have.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NameRule {
    /// 2–128 letters, digits, `_`, `-`; a letter first.
    Seed,
    /// 1–128 letters, digits, `.`, `_`, `-`; a letter first.
    Extended,
}

impl Default for Limits {
    fn default() -> Self {
        let limits = model::Limits::default();
        Self {
            profile: Profile::Payg,
            name_rule: NameRule::Seed,
            instances: limits.instances,
            listeners_per_instance: limits.listeners_per_instance,
            ports_per_l4_listener: limits.ports_per_l4_listener,
            port_max: model::Port::MAX.into(),
            default_groups_per_listener: limits.default_groups_per_listener,
            virtual_groups_per_listener: limits.virtual_groups_per_listener,
            additional_certs_per_listener: limits.additional_certs_per_listener,
            http_idle_timeout_max: limits.http_idle_timeout_max,
            endpoints_per_group: limits.endpoints_per_group,
            port_mappings_per_group: limits.port_mappings_per_group,
            addresses_per_domain: limits.addresses_per_domain,
            vsg_servers_total: limits.vsg_servers_total,
            vsg_server_attachments: limits.vsg_server_attachments,
            acl_entries_per_listener: limits.acl_entries_per_listener,
            acl_entries_per_instance: limits.acl_entries_per_instance,
            listeners_per_acl: limits.listeners_per_acl,
            custom_groups_per_listener: limits.custom_groups_per_listener,
            custom_destinations_per_group: limits.custom_destinations_per_group,
            custom_endpoints_per_group: limits.custom_endpoints_per_group,
            custom_policy_addresses_per_endpoint: limits.custom_policy_addresses_per_endpoint,
            custom_policy_ranges_per_address: limits.custom_policy_ranges_per_address,
            rules_per_listener: limits.rules_per_listener,
            rule_condition_items_per_listener: limits.rule_condition_items_per_listener,
        }
    }
}
