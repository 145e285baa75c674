//! Ids are types: a bare integer never crosses a function boundary with meaning.

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($int:ty)) => {
        $(#[$doc])*
        #[repr(transparent)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $int);

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// Dense index of an instance, below [`MAX_INSTANCES`](super::limits::MAX_INSTANCES).
    InstanceId(u16)
);
id!(
    /// Dense index of a listener, below [`MAX_LISTENERS`](super::limits::MAX_LISTENERS).
    ListenerId(u16)
);
id!(
    /// Dense index of an endpoint of one group of one listener, below [`MAX_ENDPOINTS`](super::limits::MAX_ENDPOINTS).
    EndpointId(u16)
);
id!(
    /// Index of a selection table; 0 is the explicit empty state: no endpoint can be chosen.
    TableId(u32)
);
id!(
    /// Index of a next hop; 0 is "unknown".
    HopId(u16)
);
id!(
    /// Number of a plan; the data path shows the one it runs.
    Generation(u64)
);

impl EndpointId {
    /// A table entry that names nobody.
    pub const NONE: Self = Self(u16::MAX);
}

impl ListenerId {
    /// Owner of what belongs to no listener.
    pub const NONE: Self = Self(u16::MAX);
}

impl TableId {
    /// The explicit empty state.
    pub const EMPTY: Self = Self(0);
}

impl HopId {
    /// No next hop is known.
    pub const UNKNOWN: Self = Self(0);
}
