//! Every key of the document: those of this version, and those the product will have later.

/// The keys of one table.
pub(super) struct Keys {
    /// What the table is called in messages.
    pub(super) table: &'static str,
    /// Keys of this version.
    pub(super) known: &'static [&'static str],
    /// Keys of features that are not built yet.
    pub(super) later: &'static [&'static str],
}

pub(super) const DOCUMENT: Keys = Keys {
    table: "the document",
    known: &["version", "node", "limits", "inventory", "vserver_group", "instance", "acl"],
    later: &["include", "fleet", "announce"],
};

pub(super) const NODE: Keys = Keys {
    table: "`[node]`",
    known: &[
        "ap",
        "interfaces",
        "xdp_mode",
        "flows",
        "nat_ports",
        "hash_seed",
        "metrics",
        "resolvers",
        "panic_threshold",
        "access_log",
        "proxy_threads",
        "proxy_connections",
        "drain_timeout",
    ],
    later: &["private_snat_ips", "return"],
};

pub(super) const LIMITS: Keys = Keys {
    table: "`[limits]`",
    known: &[
        "profile",
        "name_rule",
        "instances",
        "listeners_per_instance",
        "ports_per_l4_listener",
        "port_max",
        "default_groups_per_listener",
        "virtual_groups_per_listener",
        "additional_certs_per_listener",
        "http_idle_timeout_max",
        "endpoints_per_group",
        "port_mappings_per_group",
        "addresses_per_domain",
        "vsg_servers_total",
        "vsg_server_attachments",
        "acl_entries_per_listener",
        "acl_entries_per_instance",
        "listeners_per_acl",
        "custom_groups_per_listener",
        "custom_destinations_per_group",
        "custom_endpoints_per_group",
        "custom_policy_addresses_per_endpoint",
        "custom_policy_ranges_per_address",
        "rules_per_listener",
        "rule_condition_items_per_listener",
    ],
    later: &[],
};

pub(super) const INSTANCE: Keys =
    Keys { table: "`[[instance]]`", known: &["id", "vips", "egress_ips", "listener"], later: &["private_snat_ips"] };

pub(super) const LISTENER: Keys = Keys {
    table: "`[[instance.listener]]`",
    known: &[
        "name",
        "description",
        "type",
        "protocol",
        "ports",
        "client_affinity",
        "idle_timeout",
        "max_new_flows_per_second",
        "max_connections",
        "vserver_group",
        "acl",
        "all_unhealthy",
        "failover_to_zero_ratio",
        "endpoint_group",
        "custom_group",
        "rule",
        "request_timeout",
        "http_version",
        "forwarded_headers",
        "xff",
        "trusted_proxies",
        "underscores_in_headers",
        "timeouts",
        "http_limits",
        "security_policy",
        "security_policy_id",
        "certificates",
        "proxy_protocol",
        "http_sniff",
    ],
    later: &["x_forwarded_for_config", "rule_matching"],
};

pub(super) const GROUP: Keys = Keys {
    table: "`[[instance.listener.endpoint_group]]`",
    known: &[
        "name",
        "description",
        "kind",
        "region",
        "pop",
        "traffic_ratio",
        "latency_ms",
        "backend_ip_version",
        "preserve_client_ip",
        "return",
        "port_mapping",
        "health_check",
        "backend_protocol",
        "backend_protocol_version",
        "verify",
        "ca",
        "circuit",
        "endpoint",
    ],
    later: &["failover"],
};

pub(super) const CERTIFICATES: Keys = Keys { table: "`certificates`", known: &["default", "additional"], later: &[] };

pub(super) const CERTIFICATE: Keys = Keys { table: "a certificate", known: &["cert", "key"], later: &[] };

pub(super) const ADDITIONAL: Keys = Keys { table: "an additional certificate", known: &["domain", "cert", "key"], later: &[] };
pub(super) const RULE: Keys =
    Keys { table: "`[[instance.listener.rule]]`", known: &["name", "priority", "when", "do"], later: &[] };

pub(super) const CONDITION: Keys =
    Keys { table: "a condition", known: &["host", "path", "header", "query", "method", "cookie", "source_ip"], later: &[] };

pub(super) const HEADER_CONDITION: Keys = Keys { table: "a condition on a header", known: &["name", "values"], later: &[] };

pub(super) const PAIR: Keys = Keys { table: "a pair", known: &["key", "value"], later: &[] };

pub(super) const ACTION: Keys = Keys {
    table: "an action",
    known: &["forward", "redirect", "fixed_response", "drop", "rewrite", "add_header", "remove_header", "remove_header_config"],
    later: &["mirror"],
};

pub(super) const REDIRECT: Keys =
    Keys { table: "`redirect`", known: &["protocol", "domain", "port", "path", "query", "code"], later: &[] };

pub(super) const FIXED_RESPONSE: Keys = Keys { table: "`fixed_response`", known: &["code", "type", "content"], later: &[] };

pub(super) const REWRITE: Keys = Keys { table: "`rewrite`", known: &["domain", "path", "query"], later: &[] };

pub(super) const ADD_HEADER: Keys =
    Keys { table: "`add_header`", known: &["name", "value", "ref", "system", "type"], later: &[] };

pub(super) const VSERVER_GROUP: Keys =
    Keys { table: "`[[vserver_group]]`", known: &["name", "description", "health_check", "servers"], later: &[] };

pub(super) const SERVER: Keys =
    Keys { table: "a server of a group", known: &["address", "port", "weight", "description"], later: &["type"] };

pub(super) const INVENTORY: Keys =
    Keys { table: "`[inventory]`", known: &["hosts", "file", "url", "ca", "interval"], later: &[] };

pub(super) const ACL: Keys = Keys { table: "`[[acl]]`", known: &["name", "entries"], later: &[] };

pub(super) const ACL_ENTRY: Keys = Keys { table: "an entry of a list", known: &["address", "description"], later: &[] };

pub(super) const LISTENER_ACL: Keys =
    Keys { table: "the `acl` of a listener", known: &["mode", "lists", "kill_established"], later: &[] };

pub(super) const PROXY_PROTOCOL: Keys = Keys { table: "`proxy_protocol`", known: &["from"], later: &[] };

pub(super) const PORT_MAPPING: Keys = Keys { table: "a port mapping", known: &["listener", "endpoint"], later: &[] };

pub(super) const ACCESS_LOG: Keys = Keys { table: "`access_log`", known: &["path", "format", "sample"], later: &[] };

pub(super) const TIMEOUTS: Keys = Keys {
    table: "`timeouts`",
    known: &["first_byte", "head", "body", "write", "connect", "stream", "tunnel", "min_rate"],
    later: &[],
};

pub(super) const HTTP_LIMITS: Keys =
    Keys { table: "`http_limits`", known: &["head", "fields", "target", "streams", "resets"], later: &[] };

pub(super) const CIRCUIT: Keys = Keys { table: "`circuit`", known: &["connections", "requests"], later: &[] };

pub(super) const HEALTH_CHECK: Keys = Keys {
    table: "`health_check`",
    known: &[
        "enabled",
        "protocol",
        "port",
        "path",
        "host",
        "interval",
        "threshold",
        "initial",
        "expected_status",
        "body",
        "verify",
        "fast_interval_ms",
        "slow_start",
        "hold_down",
    ],
    later: &[],
};

pub(super) const ENDPOINT: Keys = Keys {
    table: "`[[instance.listener.endpoint_group.endpoint]]`",
    known: &["type", "address", "sub_address", "vserver_group", "weight"],
    later: &["via", "path_prefix", "name"],
};

pub(super) const CUSTOM_GROUP: Keys = Keys {
    table: "`[[instance.listener.custom_group]]`",
    known: &["name", "description", "region", "destinations", "preserve_client_ip", "endpoint"],
    later: &["return"],
};

pub(super) const DESTINATION: Keys = Keys { table: "a destination", known: &["ports", "protocols"], later: &[] };

pub(super) const CUSTOM_ENDPOINT: Keys =
    Keys { table: "`[[instance.listener.custom_group.endpoint]]`", known: &["type", "cidr", "policy", "allow"], later: &[] };

pub(super) const ALLOWED: Keys = Keys { table: "an entry of `allow`", known: &["address", "ports"], later: &[] };

impl Keys {
    /// Why `key` cannot be set, where the product documents it as fixed.
    pub(super) fn fixed(&self, key: &str) -> Option<&'static str> {
        (self.table == HEALTH_CHECK.table && key == "timeout").then_some("the timeout of a probe is fixed: 3 s")
    }

    /// The known key that `key` was probably meant to be.
    pub(super) fn nearest(&self, key: &str) -> Option<&'static str> {
        nearest(key, self.known.iter().copied())
    }
}

/// The candidate that `word` was probably meant to be.
pub(super) fn nearest<'c>(word: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    /// Longer words are not slips of the finger, and comparing them costs time.
    const MAX_WORD: usize = 64;
    if word.len() > MAX_WORD {
        return None;
    }
    let word = word.to_lowercase();
    candidates
        .map(|candidate| (strsim::jaro_winkler(&word, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_recognised() {
        assert_eq!(ENDPOINT.nearest("wieght"), Some("weight"));
        assert_eq!(LISTENER.nearest("port"), Some("ports"));
        assert_eq!(LISTENER.nearest("Protocol"), Some("protocol"));
        assert_eq!(NODE.nearest("zzz"), None);
    }

    #[test]
    fn no_key_is_both_known_and_later() {
        let tables = [
            DOCUMENT,
            NODE,
            LIMITS,
            INSTANCE,
            LISTENER,
            GROUP,
            PORT_MAPPING,
            ACCESS_LOG,
            TIMEOUTS,
            HTTP_LIMITS,
            CIRCUIT,
            HEALTH_CHECK,
            ENDPOINT,
            VSERVER_GROUP,
            SERVER,
            INVENTORY,
            ACL,
            ACL_ENTRY,
            LISTENER_ACL,
            PROXY_PROTOCOL,
            CUSTOM_GROUP,
            CERTIFICATES,
            CERTIFICATE,
            ADDITIONAL,
            RULE,
            ACTION,
        ];
        for keys in tables {
            assert!(keys.known.iter().all(|key| !keys.later.contains(key)), "{}", keys.table);
        }
    }
}
