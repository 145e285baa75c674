//! Why a packet was dropped or passed: one list for the kernel, the metrics, the CLI and the tests.

macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal, $text:literal;)* }) => {
        $(#[$doc])*
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vdoc])* #[doc = $text] $variant),* }

        impl $name {
            /// All of them, in the order of their counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The reason of number `n`; the last one for numbers that no reason has.
            #[inline(always)]
            pub const fn of(n: u8) -> Self {
                let last = Self::COUNT as u8 - 1;
                // SAFETY: `repr(u8)`, numbered from zero without gaps, and the number is one of them.
                unsafe { core::mem::transmute(if n < last { n } else { last }) }
            }

            /// The word used in metrics, JSON and on the command line.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }

            /// One sentence for people.
            pub const fn explain(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }
    };
}

reasons! {
    /// Why a packet for a listener, or of a flow, was dropped.
    Drop {
        Malformed = "malformed", "headers contradict each other or the frame is shorter than they say";
        Fragment = "fragment", "IP fragments are not supported on listeners";
        NoFlow = "no_flow", "a TCP segment other than SYN that belongs to no known flow";
        NoEndpoint = "no_endpoint", "the listener has no endpoint that may receive traffic; a TCP client is told by a RST";
        NoEgress = "no_egress", "the instance has no egress address of the endpoint's family";
        NoPort = "no_port", "no free NAT port towards the endpoint was found within the retries, or the client's own is taken where it is kept";
        FlowTableFull = "flow_table_full", "no free or expired slot in the flow table groups of this packet";
        NoNextHop = "no_next_hop", "the next hop's MAC address is not known yet";
        TtlExpired = "ttl_expired", "TTL or hop limit would become zero";
        UdpChecksumMissing = "udp_checksum_missing", "UDP over IPv6 without a checksum (RFC 8200 section 8.1)";
        Admission = "admission", "the listener's allowance of new flows is used up (max_new_flows_per_second)";
        ExtHeaders = "ext_headers", "more or longer IPv6 extension headers than are walked over";
        Unreachable = "unreachable", "says that an endpoint cannot be reached, of a connection that is tried with another one";
        Acl = "acl", "the listener's access lists do not let this source in";
        TooBig = "too_big", "does not fit the MTU of the interface it would leave by, with its new headers; the sender is told the MTU that fits";
        CustomDenied = "custom_denied", "the policy of the subnet behind this port does not let packets reach the host";
        NotReady = "not_ready", "the settings map is not filled yet";
    }
}

reasons! {
    /// Why a packet was passed to the host untouched.
    Pass {
        NotIp = "not_ip", "neither IPv4 nor IPv6";
        NotOurs = "not_ours", "to an address that is not ours, or to a group of stations";
        OtherProtocol = "other_protocol", "neither TCP nor UDP";
        NoListener = "no_listener", "no listener has this VIP, protocol and port";
        NoReturnFlow = "no_return_flow", "to an egress address, but of no known flow: the host's own traffic";
        IcmpUnknown = "icmp_unknown", "an ICMP error that quotes no packet of a known flow";
        Martian = "martian", "to a listener, but from an address that is ours or no host's: the host's stack judges it";
        Served = "served", "to a listener that the agent serves itself";
    }
}

reasons! {
    /// What happened in flow memory on the way of a packet, beside its verdict.
    Event {
        PortRetry = "port_retry", "a drawn NAT port was taken, and another one was tried";
        PortReused = "port_reused", "the NAT port of a closed or never answered flow was given to a new one";
        Evicted = "evicted", "a closed or never answered flow made room for a new one";
        HostWanted = "host_wanted", "a packet for a host behind custom routing waits for its next hop to be found";
        EndpointFailed = "endpoint_failed", "an endpoint did not answer a flow or could not be reached";
        Untracked = "untracked", "a flow whose slot has another endpoint now found no room in flow memory, and is known by the table before only";
        ClientMoved = "client_moved", "a client's packets came from another router or interface: replies follow";
    }
}
