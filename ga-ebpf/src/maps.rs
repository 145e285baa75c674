//! The maps, by name. Sizes of the flow tables are set when the object is loaded.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    btf_maps::{Array, ArrayOfMaps, HashMap, PerCpuArray},
    macros::btf_map,
};
use ga_common::{
    abi::{
        custom::Mapping,
        entry::{
            Address, AddressKey, Egress, Endpoint, EndpointCounters, Hop, Listener, SelectionTable, ServedCounters, Service,
            ServiceKey, Settings,
        },
        flow::{FlowSlot4, FlowSlot6},
        limits::{
            DIRECT_WORDS, FILTER_WORDS, GATEWAY_WORDS, MAX_ACLS, MAX_ADDRESSES, MAX_CUSTOM, MAX_ENDPOINTS, MAX_HOPS, MAX_HOSTS,
            MAX_INSTANCES, MAX_LISTENERS, MAX_SERVICES, MAX_TABLES, MTU_PLACES, NOTES,
        },
        reason::{Drop, Event, Pass},
        sheet::{Borders4, Borders6},
    },
    path::tables::Scratch,
    word::Word,
};

const MMAPABLE: usize = BPF_F_MMAPABLE as usize;

#[btf_map]
pub(crate) static SETTINGS: Array<Settings, 1> = Array::new();
#[btf_map]
pub(crate) static FILTER: Array<u64, { FILTER_WORDS as usize }> = Array::new();
/// The services whose endpoints answer clients themselves, and some others that look like them.
#[btf_map]
pub(crate) static DIRECT: Array<u64, { DIRECT_WORDS as usize }> = Array::new();
/// The endpoints that answer to clients' addresses by way of this edge, and some other addresses that look like them.
#[btf_map]
pub(crate) static GATEWAY: Array<u64, { GATEWAY_WORDS as usize }> = Array::new();
#[btf_map]
pub(crate) static ADDRESSES: HashMap<AddressKey, Address, { MAX_ADDRESSES as usize }> = HashMap::new();
#[btf_map]
pub(crate) static SERVICES: HashMap<ServiceKey, Service, { MAX_SERVICES as usize }> = HashMap::new();
#[btf_map]
pub(crate) static LISTENERS: Array<Listener, { MAX_LISTENERS as usize }> = Array::new();
/// Tables of (listener, family): an [`Active`](ga_common::abi::active::Active), one aligned word, so that switching is one store.
#[btf_map]
pub(crate) static ACTIVE: Array<u32, { MAX_LISTENERS as usize * 2 }> = Array::new();
#[btf_map]
pub(crate) static TABLES: ArrayOfMaps<Array<SelectionTable, 1>, { MAX_TABLES as usize }> = ArrayOfMaps::new();
/// Digest of each table: what a restarted agent recognises them by.
#[btf_map]
pub(crate) static DIGESTS: Array<u64, { MAX_TABLES as usize }> = Array::new();
/// Access lists; number 0 is nobody's.
#[btf_map]
pub(crate) static ACLS4: ArrayOfMaps<Array<Borders4, 1>, { MAX_ACLS as usize }> = ArrayOfMaps::new();
#[btf_map]
pub(crate) static ACLS6: ArrayOfMaps<Array<Borders6, 1>, { MAX_ACLS as usize }> = ArrayOfMaps::new();
/// Sheets of custom routing; number 0 is nobody's.
#[btf_map]
pub(crate) static MAPPINGS: ArrayOfMaps<Array<Mapping, 1>, { MAX_CUSTOM as usize }> = ArrayOfMaps::new();
/// Digest of each sheet: IPv4 access lists, IPv6 access lists, custom routing.
#[btf_map]
pub(crate) static SHEET_DIGESTS: Array<u64, { MAX_ACLS as usize * 3 }> = Array::new();
/// Next hops of hosts behind custom routing; an entry without an interface asks for one.
#[btf_map]
pub(crate) static HOSTS: HashMap<[u8; 4], Hop, { MAX_HOSTS as usize }, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();
#[btf_map]
pub(crate) static ENDPOINTS: Array<Endpoint, { MAX_ENDPOINTS as usize }> = Array::new();
/// Next hop of each endpoint: one aligned word.
#[btf_map]
pub(crate) static ENDPOINT_HOPS: Array<u32, { MAX_ENDPOINTS as usize }> = Array::new();
#[btf_map]
pub(crate) static HOPS: Array<Hop, { MAX_HOPS as usize }> = Array::new();
/// MTUs of ways out, by [`mtu_place`](ga_common::abi::entry::mtu_place).
#[btf_map]
pub(crate) static MTUS: Array<u32, { MTU_PLACES as usize }> = Array::new();
#[btf_map]
pub(crate) static EGRESS: Array<Egress, { MAX_INSTANCES as usize }> = Array::new();
#[btf_map]
pub(crate) static FLOWS4: Array<FlowSlot4, 1, MMAPABLE> = Array::new();
#[btf_map]
pub(crate) static FLOWS6: Array<FlowSlot6, 1, MMAPABLE> = Array::new();
/// Tags of the slots, a word for every group; sized with the slots.
#[btf_map]
pub(crate) static TAGS4: Array<Word, 1, MMAPABLE> = Array::new();
#[btf_map]
pub(crate) static TAGS6: Array<Word, 1, MMAPABLE> = Array::new();
/// SYNs of listeners whose tables were replaced a while ago, each where its hash names.
#[btf_map]
pub(crate) static SYNS: Array<Word, { NOTES as usize }> = Array::new();
/// By listener: when the admission period began (low half), and the new flows since.
#[btf_map]
pub(crate) static ADMISSIONS: PerCpuArray<u64, { MAX_LISTENERS as usize }> = PerCpuArray::new();
/// When the period began in which senders of packets that are too big are told so (low half), and how many were.
#[btf_map]
pub(crate) static TOLD: PerCpuArray<u64, 1> = PerCpuArray::new();
/// Room for a packet that opens a flow.
#[btf_map]
pub(crate) static ROOM4: PerCpuArray<Scratch<1>, 1> = PerCpuArray::new();
#[btf_map]
pub(crate) static ROOM6: PerCpuArray<Scratch<4>, 1> = PerCpuArray::new();
#[btf_map]
pub(crate) static COUNTERS: PerCpuArray<EndpointCounters, { MAX_ENDPOINTS as usize }> = PerCpuArray::new();
/// Of listeners that the agent serves.
#[btf_map]
pub(crate) static SERVED: PerCpuArray<ServedCounters, { MAX_LISTENERS as usize }> = PerCpuArray::new();
/// By listener (the last row is "no listener") and reason.
#[btf_map]
pub(crate) static DROPS: PerCpuArray<u64, { (MAX_LISTENERS as usize + 1) * Drop::COUNT }> = PerCpuArray::new();
#[btf_map]
pub(crate) static PASSES: PerCpuArray<u64, { Pass::COUNT }> = PerCpuArray::new();
#[btf_map]
pub(crate) static EVENTS: PerCpuArray<u64, { Event::COUNT }> = PerCpuArray::new();
