//! The program, its maps and what is known of them: brought up, changed by plans, kept reachable, swept.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use aya::{Ebpf, programs::Xdp};
use ga_common::abi::id::EndpointId;
use tokio::time::sleep;

use super::{Error, clock};
use crate::{
    maps::{Counters, Fixed, FlowTables, Hops, Idle, LiveFlows, Maps},
    model::Node,
    net::{Interface, Net},
    plan::{self, Plan, State},
    program::{self, Attached, PinLock, Sizes},
};

/// What runs in the kernel.
pub(super) struct DataPath {
    pin_dir: PathBuf,
    /// The pins were there before us: they stay, whatever happens.
    adopted: bool,
    ebpf: Ebpf,
    sizes: Sizes,
    maps: Maps,
    hops: Hops,
    flows: Arc<FlowTables>,
    counters: Counters,
    running: State,
    interfaces: Vec<Attached>,
    _lock: PinLock,
}

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
        let opened = Self::open_maps(&mut ebpf, node, sizes);
        let (maps, hops, flows, counters, running) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                if !loaded.adopted {
                    program::unpin(pin_dir)?;
                }
                return Err(error);
            }
        };
        tracing::info!(adopted = loaded.adopted, generation = running.generation.0, "loaded");
        if loaded.adopted {
            let slots = flows.recover();
            if slots > 0 {
                tracing::warn!(slots, "flow slots that an agent left claimed were freed");
            }
        }
        Ok(Self {
            pin_dir: pin_dir.to_owned(),
            adopted: loaded.adopted,
            ebpf,
            sizes,
            maps,
            hops,
            flows: Arc::new(flows),
            counters,
            running,
            interfaces: Vec::new(),
            _lock: lock,
        })
    }

    fn open_maps(ebpf: &mut Ebpf, node: &Node, sizes: Sizes) -> Result<(Maps, Hops, FlowTables, Counters, State), Error> {
        let mut maps = Maps::open(ebpf)?;
        maps.set_fixed(fixed(node, sizes)?)?;
        let running = maps.read()?;
        Ok((maps, Hops::open(ebpf)?, FlowTables::open(ebpf)?, Counters::open(ebpf)?, running))
    }

    /// A start that fails half way leaves nothing behind, unless it was there before.
    pub(super) fn keep_or_undo<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        if result.is_err() && !self.adopted {
            program::unpin(&self.pin_dir)?;
        }
        result
    }

    /// What the maps hold.
    pub(super) fn running(&self) -> &State {
        &self.running
    }

    /// Attached interfaces.
    pub(super) fn interfaces(&self) -> &[Attached] {
        &self.interfaces
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

    /// Whether packets can be sent to an endpoint.
    pub(super) fn is_reachable(&self, endpoint: EndpointId) -> bool {
        self.hops.of(endpoint).is_some()
    }

    /// Applies a plan step by step; what was done so far is known even when a step fails.
    pub(super) fn apply(&mut self, plan: &Plan) -> Result<(), Error> {
        let steps = plan::steps(&self.running, &plan.target);
        let running = &mut self.running;
        let result = self.maps.apply_all(&steps, |step| {
            if let Err(violation) = running.apply(step) {
                // The plan's own checks make this impossible; packets are not worth a panic.
                tracing::error!(%step, "the running state does not allow a step that was done: {violation:?}");
            }
        });
        self.running.forget_slots();
        Ok(result?)
    }

    /// NAT ports may change at any time: known flows keep theirs.
    pub(super) fn set_nat_ports(&mut self, node: &Node) -> Result<(), Error> {
        Ok(self.maps.set_fixed(fixed(node, self.sizes)?)?)
    }

    /// Brings the next hops of `endpoints` up to date. A way that is not known any more stays in use: it is more likely right
    /// than no way, and the kernel is asked to resolve it meanwhile. Returns how many endpoints have none.
    pub(super) async fn follow(&mut self, net: &mut Net, plan: Option<&Plan>) -> Result<usize, Error> {
        let state = plan.map_or(&self.running, |plan| &plan.target);
        let wanted: BTreeMap<EndpointId, IpAddr> =
            state.endpoints.iter().map(|(&id, endpoint)| (id, IpAddr::from(endpoint.addr).to_canonical())).collect();
        let hops = net.next_hops(&wanted.values().copied().collect()).await?;
        let mut unknown = 0;
        for (id, address) in wanted {
            match hops.get(&address) {
                Some(&hop) => {
                    let changed = self.hops.set(id, Some(hop))?;
                    tracing::trace!(%address, ifindex = hop.ifindex, changed, "next hop");
                }
                None if self.hops.of(id).is_none() => unknown += 1,
                None => {}
            }
        }
        Ok(unknown)
    }

    /// Follows until every endpoint is reachable or `patience` is over.
    pub(super) async fn resolve(&mut self, net: &mut Net, patience: Duration) -> Result<(), Error> {
        let start = Instant::now();
        loop {
            let unknown = self.follow(net, None).await?;
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
        let interfaces = interfaces(node, net).await?;
        let program = program::program(&mut self.ebpf)?;
        for interface in &interfaces {
            match program::attach(program, interface, node.xdp_mode, Some(&self.pin_dir)) {
                Ok(attached) => {
                    if let Some(why) = &attached.fallback {
                        tracing::warn!(interface = attached.name, "generic XDP, which is slower: {why}");
                    }
                    tracing::info!(interface = attached.name, native = attached.native, adopted = attached.adopted, "attached");
                    self.interfaces.push(attached);
                }
                Err(error) => {
                    let ours = self.interfaces.iter().filter(|attached| attached.adopted).map(|attached| attached.name.clone());
                    program::detach_stale(&self.pin_dir, &ours.collect::<Vec<_>>())?;
                    return Err(error.into());
                }
            }
        }
        for name in program::detach_stale(&self.pin_dir, &node.interfaces)? {
            tracing::info!(interface = name, "detached: it is not in the configuration any more");
        }
        Ok(())
    }

    /// How large flow memory is.
    pub(super) fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// Gives every interface another program, or none of them.
    pub(super) fn attach_tool(&mut self, tool: &mut Xdp) -> Result<(), Error> {
        let names = self.interfaces.iter().map(|interface| &interface.name);
        match names.into_iter().try_for_each(|name| program::replace(tool, &self.pin_dir, name)) {
            Ok(()) => Ok(()),
            Err(error) => {
                self.attach_usual()?;
                Err(error.into())
            }
        }
    }

    /// Gives every interface the usual program back; tries all, and tells of the first that failed.
    pub(super) fn attach_usual(&mut self) -> Result<(), Error> {
        let program = program::program(&mut self.ebpf)?;
        let results: Vec<_> =
            self.interfaces.iter().map(|interface| program::replace(program, &self.pin_dir, &interface.name)).collect();
        Ok(results.into_iter().collect::<Result<(), _>>()?)
    }

    /// Releases idle pairs.
    pub(super) fn sweep(&self) -> Vec<Idle> {
        self.flows.sweep(clock::tick())
    }
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

/// The configured interfaces, all of which must exist.
async fn interfaces(node: &Node, net: &Net) -> Result<Vec<Interface>, Error> {
    let mut all = net.interfaces().await?;
    let find = |name: &String| all.remove(name).ok_or_else(|| program::Error::NoInterface { name: name.clone() }.into());
    node.interfaces.iter().map(find).collect()
}
