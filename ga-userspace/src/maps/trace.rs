//! What the tracing program notes.

use aya::Ebpf;
use ga_common::path::explain::{STAGES, Step, Trace};

use super::{Cells, Error};

/// The map of the tracing program.
pub struct TraceMap(Cells<Trace>);

impl TraceMap {
    /// Takes the map out of the loaded object.
    pub fn open(ebpf: &mut Ebpf) -> Result<Self, Error> {
        Cells::take(ebpf, "TRACE").map(Self)
    }

    /// Forgets the packet before.
    pub fn clear(&mut self) -> Result<(), Error> {
        self.0.set(0, Trace::EMPTY)
    }

    /// The stages of the packet, in their order.
    pub fn read(&self) -> Result<Vec<Step>, Error> {
        let trace = self.0.get(0)?;
        let count = usize::try_from(trace.count).unwrap_or(STAGES).min(STAGES);
        Ok(trace.stages[..count].iter().filter_map(|stage| stage.read()).collect())
    }
}
