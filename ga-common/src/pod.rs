//! Leave for aya to copy the map types byte by byte.

use crate::abi::custom::Mapping;
use crate::abi::entry::{
    Address, Egress, Endpoint, EndpointCounters, Hop, Listener, ServedCounters, Service, ServiceKey, Settings,
};
use crate::abi::id::EndpointId;
use crate::abi::sheet::{Borders4, Borders6};
use crate::path::explain::Trace;
use crate::watch::{Seen, Watch};

macro_rules! pod {
    ($($name:ident),*) => {
        // SAFETY: `repr(C)` or `repr(transparent)`, only integers and byte arrays, no implicit padding (sizes are asserted where
        // the types are declared), so every byte pattern is a value and every value is plain bytes.
        $(unsafe impl aya::Pod for $name {})*
    };
}

pod!(
    Address,
    Borders4,
    Borders6,
    Egress,
    Endpoint,
    EndpointCounters,
    ServedCounters,
    EndpointId,
    Hop,
    Listener,
    Mapping,
    Seen,
    Service,
    ServiceKey,
    Settings,
    Trace,
    Watch
);
