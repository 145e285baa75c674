//! The documented limits (specification §2.2) and the rules that a profile chooses.

/// Which generation of the product's quotas applies by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Pay-as-you-go, the widest.
    #[default]
    Payg,
    /// Subscription.
    Subscription,
    /// The generation of 2021.
    Legacy2021,
}

/// Which characters a name may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NameRule {
    /// 2–128 characters: letters, digits, `_`, `-`.
    #[default]
    Seed,
    /// 1–128 characters: `.` too.
    Extended,
}

/// Limits that this version checks. Each is a key of `[limits]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Where the defaults come from.
    pub profile: Profile,
    /// Rule for names.
    pub name_rule: NameRule,
    /// Instances a file may have.
    pub instances: u32,
    /// Listeners an instance may have.
    pub listeners_per_instance: u32,
    /// Single ports of a TCP or UDP listener.
    pub ports_per_l4_listener: u32,
    /// Default endpoint groups of a listener.
    pub default_groups_per_listener: u32,
    /// Virtual endpoint groups of a listener.
    pub virtual_groups_per_listener: u32,
    /// Certificates of an HTTPS listener beside its default one.
    pub additional_certs_per_listener: u32,
    /// The longest `idle_timeout` of an HTTP or HTTPS listener, in seconds.
    pub http_idle_timeout_max: u32,
    /// Endpoints of a group.
    pub endpoints_per_group: u32,
    /// Port mappings of a group.
    pub port_mappings_per_group: u32,
    /// Addresses of a domain that are used.
    pub addresses_per_domain: u32,
    /// Servers of all server groups.
    pub vsg_servers_total: u32,
    /// How often one server may be in server groups.
    pub vsg_server_attachments: u32,
    /// Entries of the access lists of a listener.
    pub acl_entries_per_listener: u32,
    /// Port items of a listener times entries of its access lists, summed over the listeners of an instance.
    pub acl_entries_per_instance: u32,
    /// Listeners that may name one access list.
    pub listeners_per_acl: u32,
    /// Groups of a custom routing listener.
    pub custom_groups_per_listener: u32,
    /// Destinations of a group of a custom routing listener.
    pub custom_destinations_per_group: u32,
    /// Subnets of a group of a custom routing listener.
    pub custom_endpoints_per_group: u32,
    /// Hosts that the allow list of a subnet may name.
    pub custom_policy_addresses_per_endpoint: u32,
    /// Port ranges that an allow list may give a host.
    pub custom_policy_ranges_per_address: u32,
    /// Forwarding rules of a listener.
    pub rules_per_listener: u32,
    /// Values of the conditions of a listener's rules.
    pub rule_condition_items_per_listener: u32,
}

impl Limits {
    /// The documented defaults of a profile.
    pub const fn of(profile: Profile) -> Self {
        let payg = Self {
            profile,
            name_rule: NameRule::Seed,
            instances: 10,
            listeners_per_instance: 50,
            ports_per_l4_listener: 30,
            default_groups_per_listener: 2,
            virtual_groups_per_listener: 10,
            additional_certs_per_listener: 50,
            http_idle_timeout_max: 60,
            endpoints_per_group: 4,
            port_mappings_per_group: 5,
            addresses_per_domain: 16,
            vsg_servers_total: 200,
            vsg_server_attachments: 50,
            acl_entries_per_listener: 200,
            acl_entries_per_instance: 600,
            listeners_per_acl: 10,
            custom_groups_per_listener: 2,
            custom_destinations_per_group: 20,
            custom_endpoints_per_group: 10,
            custom_policy_addresses_per_endpoint: 20,
            custom_policy_ranges_per_address: 20,
            rules_per_listener: 20,
            rule_condition_items_per_listener: 40,
        };
        match profile {
            Profile::Payg | Profile::Subscription => payg,
            // Port mapping was for HTTP and HTTPS listeners only.
            Profile::Legacy2021 => Self {
                instances: 5,
                listeners_per_instance: 10,
                default_groups_per_listener: 1,
                virtual_groups_per_listener: 1,
                port_mappings_per_group: 0,
                ..payg
            },
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::of(Profile::Payg)
    }
}
