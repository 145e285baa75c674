//! What a case is run through: the simulator, the kernel, or both at once.

use std::collections::BTreeMap;

use ga_common::abi::{
    entry::EndpointCounters,
    id::{EndpointId, ListenerId},
    reason::{Drop, Pass},
};

use super::world::World;

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// To the host, for a reason that was counted once.
    Pass(Pass),
    /// Dropped, for a reason that was counted once, for a listener.
    Drop(Drop, ListenerId),
    /// The same, and an answer in its place is out by the interface it came in by.
    Refuse(Drop, ListenerId),
    /// Out by the interface it came in by.
    Tx,
    /// Out by another interface.
    Redirect,
}

/// One packet's fate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What became of it.
    pub action: Action,
    /// The frame afterwards.
    pub bytes: Vec<u8>,
    /// Where it was sent, when the data path can tell.
    pub ifindex: Option<u32>,
}

/// Something that packets go through.
pub trait Dataplane {
    /// Writes a world's tables; flows stay.
    fn install(&mut self, world: &World) -> anyhow::Result<()>;
    /// Forgets all flows.
    fn forget(&mut self);
    /// Lets time pass.
    fn wait(&mut self, seconds: u16);
    /// The time of the last packet, in milliseconds since some moment; waiting counts.
    fn now_ms(&self) -> u64;
    /// Runs one packet.
    fn send(&mut self, frame: &[u8]) -> anyhow::Result<Seen>;
    /// Pairs that hold slots, alive or merely not swept.
    fn pairs(&self) -> usize;
    /// What was counted for endpoints since the beginning.
    fn counters(&self) -> anyhow::Result<BTreeMap<EndpointId, EndpointCounters>>;
    /// Shortest frame it takes.
    fn shortest(&self) -> usize;
    /// Compares what is too dear to compare after every packet.
    fn settle(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
}
