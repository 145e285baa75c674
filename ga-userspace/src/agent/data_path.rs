//! The program, its maps and what is known of them: brought up, changed by plans, kept reachable, swept.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use aya::Ebpf;
use ga_common::abi::{active::Before, id::TableId, reason::Event};
use tokio::time::sleep;

use super::{
    Error,
    attachments::{Attachments, interfaces},
    clock,
    next_hops::NextHops,
};
use crate::{
    maps::{self, Counters, Fixed, FlowTables, Hops, Hosts, Idle, LiveFlows, Maps, Mtus, Repairs},
    model::Node,
    net::Net,
    plan::{self, Former, Plan, State, Transitions},
    program::{self, PinLock, Pins, Sizes, Tool},
};

/// What runs in the kernel.
pub(super) struct DataPath {
    pin_dir: PathBuf,
    /// The pins were there before us: they stay, whatever happens.
    adopted: bool,
    attachments: Attachments,
    sizes: Sizes,
    maps: Maps,
    next_hops: NextHops,
    flows: Arc<FlowTables>,
    counters: Counters,
    running: State,
    /// How long it must be known where older flows began.
    transitions: Transitions,
    /// What the tables were made from that they go by.
    former: BTreeMap<TableId, Former>,
    started: Instant,
    /// How often packets asked for hosts behind custom routing.
    wanted: u64,
    /// Entries that were not what they should have been, by map.
    repaired: BTreeMap<&'static str, u64>,
}

/// Everything that is taken out of a loaded object.
struct Opened {
    maps: Maps,
    next_hops: NextHops,
    flows: FlowTables,
    counters: Counters,
    running: State,
    pins: Pins,
}

/// How often a step is tried when the kernel is short of memory or busy, and how long the first pause is; the next ones are four
/// times as long.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(10);

impl DataPath {
    /// Loads the program, adopts pinned maps or makes new ones. Nothing is attached yet.
    pub(super) async fn open(lock: PinLock, pin_dir: &Path, node: &Node, net: &Net) -> Result<Self, Error> {
        interfaces(node, net).await?;
        let sizes = Sizes::for_flows(node.flows);
        let loaded = program::load(Some(pin_dir), sizes)?;
        if let Some(why) = &loaded.rebuilt {
            tracing::warn!("the pinned maps are not adopted: {why}; counters start at zero and known flows are forgotten");
        }
        let mut ebpf = loaded.ebpf;
        match Self::take(&mut ebpf, lock, pin_dir, node, sizes, loaded.adopted) {
            Ok(Opened { maps, next_hops, flows, counters, running, pins }) => {
                tracing::info!(adopted = loaded.adopted, generation = running.generation.0, "loaded");
                let mut transitions = Transitions::default();
                transitions.note(&running, Duration::ZERO);
                Ok(Self {
                    transitions,
                    former: BTreeMap::new(),
                    started: Instant::now(),
                    pin_dir: pin_dir.to_owned(),
                    adopted: loaded.adopted,
                    attachments: Attachments::new(ebpf, pins),
                    sizes,
                    maps,
                    next_hops,
                    flows: Arc::new(flows),
                    counters,
                    running,
                    // Whoever was asked for before is looked at once.
                    wanted: u64::MAX,
                    repaired: maps::REPAIRED.map(|map| (map, 0)).into(),
                })
            }
            Err(error) => {
                if !loaded.adopted {
                    program::unpin(pin_dir)?;
                }
                Err(error)
            }
        }
    }

    fn take(ebpf: &mut Ebpf, lock: PinLock, pin_dir: &Path, node: &Node, sizes: Sizes, adopted: bool) -> Result<Opened, Error> {
        let mut maps = Maps::open(ebpf)?;
        maps.set_fixed(fixed(node, sizes)?)?;
        // Nothing is in maps that were just made.
        let running = if adopted { maps.read()? } else { State::default() };
        let mut hops = Hops::open(ebpf)?;
        if adopted {
            hops.read()?;
        }
        Ok(Opened {
            maps,
            next_hops: NextHops::new(hops, Hosts::open(ebpf)?, Mtus::open(ebpf)?),
            flows: flow_tables(ebpf, adopted)?,
            counters: Counters::open(ebpf)?,
            running,
            pins: Pins::open(pin_dir, lock)?,
        })
    }

    /// A start that fails half way leaves nothing behind, unless it was there before.
    pub(super) fn keep_or_undo<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        if result.is_err() && !self.adopted {
            program::unpin(&self.pin_dir)?;
        }
        result
    }

    /// Lets another agent take the maps: nothing may be done to them any more.
    pub(super) fn unlock(&self) -> Result<(), Error> {
        self.attachments.unlock()
    }

    /// What the maps hold.
    pub(super) fn running(&self) -> &State {
        &self.running
    }

    /// Where the program is attached.
    pub(super) fn attachments(&self) -> &Attachments {
        &self.attachments
    }

    /// How packets get to endpoints.
    pub(super) fn next_hops(&self) -> &NextHops {
        &self.next_hops
    }

    /// Entries that were not what they should have been, by map, since the start.
    pub(super) fn repaired(&self) -> &BTreeMap<&'static str, u64> {
        &self.repaired
    }

    /// Counters of packets.
    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Flows alive, and how many fit.
    pub(super) fn live_flows(&self) -> (LiveFlows, Sizes) {
        (self.flows.live(clock::tick()), self.sizes)
    }

    /// Flow memory itself, for a look that takes its time.
    pub(super) fn flow_tables(&self) -> Arc<FlowTables> {
        Arc::clone(&self.flows)
    }

    /// Applies a plan step by step. When a step fails for good, what was done is undone as far as possible; `old` is the plan that
    /// ran. Whatever happens, the maps hold something that is safe, and it is known what.
    pub(super) async fn apply(&mut self, plan: &Plan, old: Option<&Plan>) -> Result<(), Error> {
        let before = self.running.clone();
        let mut result = self.steps(&plan.target).await;
        if let Err(error) = &result {
            tracing::error!("a plan could not be applied, and is undone: {error}");
            if let Err(worse) = self.undo(before, old).await {
                tracing::error!("nor could it be undone: {worse}");
                result = Err(worse);
            }
        }
        self.running.forget_slots();
        self.note_transitions(old);
        result
    }

    /// Takes note of tables that are still named, but for older flows only; `old` is the plan that knows what they were made from.
    fn note_transitions(&mut self, old: Option<&Plan>) {
        self.transitions.note(&self.running, self.started.elapsed());
        let mut former = BTreeMap::new();
        for active in self.running.active.values() {
            let Before::Table(id) = active.before() else { continue };
            let Some(digest) = self.running.tables.get(&id).map(|table| table.digest) else { continue };
            let known = self.former.remove(&id).or_else(|| old?.former(id, digest));
            former.extend(known.map(|known| (id, known)));
        }
        self.former = former;
    }

    /// How long it must be known where older flows began.
    pub(super) fn transitions(&self) -> &Transitions {
        &self.transitions
    }

    /// Gives up what need not be known any more of older flows.
    pub(super) async fn end_transitions(&mut self) {
        let (flows, running) = (&self.flows, &self.running);
        let owner = |id| running.endpoints.get(&id).map(|endpoint| endpoint.listener);
        let remembered = || flows.alone(clock::tick()).into_iter().filter_map(owner).collect();
        let Some(target) = self.transitions.ended(running, self.started.elapsed(), remembered) else { return };
        if let Err(error) = self.steps(&target).await {
            tracing::error!("tables that only older flows went by could not be given up: {error}");
        }
        self.running.forget_slots();
        self.note_transitions(None);
    }

    async fn undo(&mut self, mut before: State, old: Option<&Plan>) -> Result<(), Error> {
        for (id, table) in before.tables.iter_mut().filter(|(id, _)| !self.running.tables.contains_key(id)) {
            let former = || self.former.get(id)?.slots(table.digest);
            table.slots = old.and_then(|old| old.slots(*id, table.digest)).or_else(former);
            if table.slots.is_none() {
                return Err(maps::Error::UnknownTable { id: *id }.into());
            }
        }
        for (id, sheet) in before.sheets.iter_mut().filter(|(id, _)| !self.running.sheets.contains_key(id)) {
            sheet.content = sheet.content.take().or_else(|| old?.sheets.get(id).cloned());
            if sheet.content.is_none() {
                return Err(maps::Error::UnknownSheet { id: *id }.into());
            }
        }
        self.steps(&before).await
    }

    /// Does what is left to do, patiently.
    async fn steps(&mut self, target: &State) -> Result<(), Error> {
        let mut pause = PAUSE;
        for left in (0..TRIES).rev() {
            let steps = plan::steps(&self.running, target);
            let running = &mut self.running;
            let result = self.maps.apply_all(&steps, |step| {
                if let Err(violation) = running.apply(step) {
                    // The plan's own checks make this impossible; packets are not worth a panic.
                    tracing::error!(%step, "the running state does not allow a step that was done: {violation:?}");
                }
            });
            match result {
                Err(error) if error.is_passing() && left > 0 => {
                    tracing::warn!("tried again in {} ms: {error}", pause.as_millis());
                    sleep(pause).await;
                    pause *= 4;
                }
                result => return Ok(result?),
            }
        }
        Ok(())
    }

    /// NAT ports may change at any time: known flows keep theirs.
    pub(super) fn set_nat_ports(&mut self, node: &Node) -> Result<(), Error> {
        Ok(self.maps.set_fixed(fixed(node, self.sizes)?)?)
    }

    /// Brings the next hops of all endpoints up to date, those of `plan` too.
    pub(super) async fn follow(&mut self, net: &mut Net, plan: Option<&Plan>) -> Result<(), Error> {
        self.next_hops.follow(net, plan.map_or(&self.running, |plan| &plan.target)).await
    }

    /// The same, if there is any reason to.
    pub(super) async fn follow_news(&mut self, net: &mut Net) -> Result<(), Error> {
        if net.has_news() || !self.next_hops.is_settled() { self.follow(net, None).await } else { Ok(()) }
    }

    /// Whether packets asked for hosts behind custom routing that nobody had asked for.
    pub(super) fn is_asked_for_hosts(&mut self) -> Result<bool, Error> {
        let wanted = self.counters.event(Event::HostWanted)?;
        if wanted == self.wanted {
            return Ok(false);
        }
        self.wanted = wanted;
        Ok(self.next_hops.hosts().look()?)
    }

    /// Follows until every endpoint is reachable or `patience` is over.
    pub(super) async fn resolve(&mut self, net: &mut Net, patience: Duration) -> Result<(), Error> {
        let start = Instant::now();
        loop {
            self.follow(net, None).await?;
            let unknown = self.next_hops.unknown();
            if unknown == 0 {
                return Ok(());
            }
            if start.elapsed() >= patience {
                tracing::warn!(unknown, "endpoints without a next hop: their new flows are dropped until the neighbour answers");
                return Ok(());
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Attaches to every interface or to none.
    pub(super) async fn attach(&mut self, node: &Node, net: &Net) -> Result<(), Error> {
        self.attachments.attach(node, net).await
    }

    /// Attaches again and pins again what somebody took away.
    pub(super) async fn keep_attached(&mut self, node: &Node, net: &Net) {
        self.attachments.keep(node.xdp_mode, net).await;
    }

    /// Compares the maps with what they should hold by `plan`, which runs, and puts right what differs. Never while a plan is being
    /// applied: one task does both.
    pub(super) fn repair(&mut self, plan: &Plan) {
        let former = |id: TableId, digest| self.former.get(&id)?.slots(digest);
        let slots = |id, digest| plan.slots(id, digest).or_else(|| former(id, digest));
        let tables = self.maps.repair(&self.running, slots, |id| plan.sheets.get(&id).cloned());
        let Repairs { entries, failed } = tables.and(self.next_hops.repair());
        for error in failed {
            tracing::error!("a map could not be compared or mended: {error}");
        }
        if !entries.is_empty() {
            tracing::warn!(?entries, "maps were changed by somebody else and are put right, entries by map");
        }
        for (map, count) in entries {
            *self.repaired.entry(map).or_default() += count;
        }
    }

    /// How large flow memory is.
    pub(super) fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// Gives every interface the program of `tool`, or none of them.
    pub(super) fn attach_tool(&mut self, tool: Ebpf, which: Tool) -> Result<(), Error> {
        self.attachments.attach_tool(tool, which)
    }

    /// Gives every interface the usual program back; tries all, and tells of the first that failed.
    pub(super) fn attach_usual(&mut self) -> Result<(), Error> {
        self.attachments.attach_usual()
    }

    /// Releases idle pairs.
    pub(super) fn sweep(&self) -> Vec<Idle> {
        self.flows.sweep(clock::tick())
    }
}

fn flow_tables(ebpf: &mut Ebpf, adopted: bool) -> Result<FlowTables, Error> {
    let flows = FlowTables::open(ebpf)?;
    let slots = if adopted { flows.recover() } else { 0 };
    if slots > 0 {
        tracing::warn!(slots, "flow slots that an agent left claimed were freed");
    }
    Ok(flows)
}

fn fixed(node: &Node, sizes: Sizes) -> Result<Fixed, Error> {
    let cpus = aya::util::nr_cpus().map_err(|(what, source)| Error::System { what, source })?;
    Ok(Fixed {
        flows4: sizes.flows4,
        flows6: sizes.flows6,
        cpus: u32::try_from(cpus).unwrap_or(1),
        nat_first: *node.nat_ports.start(),
        nat_last: *node.nat_ports.end(),
    })
}
