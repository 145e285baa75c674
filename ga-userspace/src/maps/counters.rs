//! What packets counted, summed over CPUs. Nothing here writes.

use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray},
};
use ga_common::abi::{
    entry::{EndpointCounters, ServedCounters},
    id::{EndpointId, ListenerId},
    limits::MAX_LISTENERS,
    reason::{Drop, Event, Pass},
};

use super::{Error, on, take};

/// Packets dropped for a reason, on account of a listener or of none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropCount {
    /// [`ListenerId::NONE`] when no listener is known.
    pub listener: ListenerId,
    /// Why.
    pub reason: Drop,
    /// How many.
    pub packets: u64,
}

/// Packets passed to the host for a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassCount {
    /// Why.
    pub reason: Pass,
    /// How many.
    pub packets: u64,
}

/// The counter maps.
pub struct Counters {
    endpoints: PerCpuArray<MapData, EndpointCounters>,
    served: PerCpuArray<MapData, ServedCounters>,
    drops: PerCpuArray<MapData, u64>,
    passes: PerCpuArray<MapData, u64>,
    events: PerCpuArray<MapData, u64>,
}

impl Counters {
    /// Takes the maps out of a loaded object.
    pub fn open(ebpf: &mut Ebpf) -> Result<Self, Error> {
        Ok(Self {
            endpoints: take(ebpf, "COUNTERS")?,
            served: take(ebpf, "SERVED")?,
            drops: take(ebpf, "DROPS")?,
            passes: take(ebpf, "PASSES")?,
            events: take(ebpf, "EVENTS")?,
        })
    }

    /// Of one endpoint.
    pub fn endpoint(&self, id: EndpointId) -> Result<EndpointCounters, Error> {
        let values = on("COUNTERS", self.endpoints.get(&u32::from(id.0), 0))?;
        Ok(values.iter().fold(EndpointCounters::default(), |sum, cpu| EndpointCounters {
            forward_packets: sum.forward_packets + cpu.forward_packets,
            forward_bytes: sum.forward_bytes + cpu.forward_bytes,
            return_packets: sum.return_packets + cpu.return_packets,
            return_bytes: sum.return_bytes + cpu.return_bytes,
            new_flows: sum.new_flows + cpu.new_flows,
            failures: sum.failures + cpu.failures,
        }))
    }

    /// Of one listener that the agent serves: what the kernel let in for it.
    pub fn served(&self, id: ListenerId) -> Result<ServedCounters, Error> {
        let values = on("SERVED", self.served.get(&u32::from(id.0), 0))?;
        Ok(values.iter().fold(ServedCounters::default(), |sum, cpu| ServedCounters {
            packets: sum.packets + cpu.packets,
            bytes: sum.bytes + cpu.bytes,
            openings: sum.openings + cpu.openings,
        }))
    }

    /// All drop reasons of `listener`; [`ListenerId::NONE`] for those of no listener.
    pub fn drops(&self, listener: ListenerId) -> Result<Vec<DropCount>, Error> {
        let row = u32::from(listener.0).min(MAX_LISTENERS);
        let count = |reason: Drop| {
            let values = on("DROPS", self.drops.get(&(row * Drop::COUNT as u32 + reason as u32), 0))?;
            Ok(DropCount { listener, reason, packets: values.iter().sum() })
        };
        Drop::ALL.iter().copied().map(count).collect()
    }

    /// All pass reasons.
    pub fn passes(&self) -> Result<Vec<PassCount>, Error> {
        let count = |reason: Pass| {
            let values = on("PASSES", self.passes.get(&(reason as u32), 0))?;
            Ok(PassCount { reason, packets: values.iter().sum() })
        };
        Pass::ALL.iter().copied().map(count).collect()
    }

    /// How often something happened in flow memory.
    pub fn event(&self, event: Event) -> Result<u64, Error> {
        let values = on("EVENTS", self.events.get(&(event as u32), 0))?;
        Ok(values.iter().sum())
    }

    /// Everything that happened in flow memory.
    pub fn events(&self) -> Result<Vec<(Event, u64)>, Error> {
        Event::ALL.iter().map(|&event| Ok((event, self.event(event)?))).collect()
    }
}
