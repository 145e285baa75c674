//! The document itself: `version`, and the way through its tables.

use std::{collections::BTreeMap, net::IpAddr, ops::Range};

use super::{
    ListenerPlaces, Loaded, acl, across, instance, inventory, keys, limits, node, pool,
    problem::{Fault, Kind, Place, Problems, Report},
    syntax,
    tree::Table,
};
use crate::model::{Instance, Intent, Inventory, Limits, Listener};

/// What the walk collects besides the model.
pub(super) struct Context<'t> {
    pub(super) problems: Problems<'t>,
    pub(super) limits: Limits,
    pub(super) ledger: Ledger,
    /// `None` when it is wrong: then nothing can be said about its names.
    pub(super) inventory: Option<Inventory>,
    pub(super) pools: pool::Pools,
    pub(super) acls: acl::Acls,
    pub(super) places: BTreeMap<(String, String), ListenerPlaces>,
    /// Where files are named, by their paths.
    pub(super) files: BTreeMap<String, Place>,
}

/// What only a look across the whole file can judge; filled even where parts of the file are wrong.
#[derive(Default)]
pub(super) struct Ledger {
    pub(super) vips: Vec<Seen>,
    pub(super) egress_ips: Vec<Seen>,
    pub(super) endpoints: Vec<Seen>,
    /// Of pools; they belong to no instance.
    pub(super) servers: Vec<Seen>,
    pub(super) listeners: u32,
    pub(super) services: u64,
    /// The first health check that is switched on.
    pub(super) probed: Option<(Range<usize>, String)>,
    /// Source ports of flows, where the file names them.
    pub(super) nat_ports: Option<(Range<usize>, String)>,
}

/// An address, whose it is, and where it stands.
pub(super) struct Seen {
    pub(super) address: IpAddr,
    pub(super) instance: usize,
    pub(super) span: Range<usize>,
    pub(super) path: String,
}

/// Reads the whole file.
pub(super) fn read(file_name: &str, text: &str) -> Result<Loaded, Report> {
    if let Some(report) = syntax::too_large(file_name, text) {
        return Err(report);
    }
    let mut problems = Problems::new(file_name, text);
    let Some(document) = syntax::read(&mut problems) else {
        return Err(problems.finish());
    };
    let mut cx = Context {
        problems,
        limits: Limits::default(),
        ledger: Ledger::default(),
        inventory: None,
        pools: pool::Pools::default(),
        acls: acl::Acls::default(),
        places: BTreeMap::new(),
        files: BTreeMap::new(),
    };
    let intent = intent(&Table::document(document.get_ref(), &mut cx.problems), &mut cx);
    match intent {
        Some(intent) if cx.problems.count() == 0 => {
            Ok(Loaded { intent, warnings: cx.problems.finish().warnings, places: cx.places, files: cx.files })
        }
        Some(_) | None => Err(cx.problems.finish()),
    }
}

fn intent(document: &Table<'_>, cx: &mut Context<'_>) -> Option<Intent> {
    version(document, cx);
    cx.limits = limits::read(document, cx);
    cx.acls = acl::read_all(document, cx);
    let node = document.required("node", "add `[node]` with `interfaces = [\"…\"]`", &mut cx.problems);
    let mut node = node.and_then(|node| node.table(&keys::NODE, &mut cx.problems)).and_then(|node| node::read(&node, cx));
    cx.inventory = inventory::read(document, cx);
    let pools = pool::read_all(document, cx);
    let instances = instances(document, cx);
    pool::unused(cx);
    across::check(cx);
    if let Some(node) = &mut node {
        across::probes_have_their_ports(&node.nat_ports, cx);
        let is_served = |instance: &Instance| instance.listeners.iter().any(Listener::is_proxied);
        if instances.iter().flatten().any(is_served) {
            across::proxy_has_its_ports(node, cx);
        }
    }
    let inventory = cx.inventory.take();
    Some(Intent { node: node?, limits: cx.limits, inventory: inventory?, pools: pools?, instances: instances? })
}

fn version(document: &Table<'_>, cx: &mut Context<'_>) {
    let Some(value) = document.optional("version") else { return };
    let Some(version) = value.integer(0..=u32::MAX, &mut cx.problems) else { return };
    if version != 1 {
        let message = format!("this is a file of version {version}; this program reads version 1");
        value.problem(Fault::new(Kind::OutOfRange, message).help("write `version = 1`"), &mut cx.problems);
    }
}

fn instances(document: &Table<'_>, cx: &mut Context<'_>) -> Option<Vec<Instance>> {
    let value = document.required("instance", "add `[[instance]]`", &mut cx.problems)?;
    let tables = value.tables(&keys::INSTANCE, &mut cx.problems)?;
    let limit = cx.limits.instances as usize;
    if let Some(excess) = tables.get(limit) {
        let message = format!("{} instances; `limits.instances` allows {limit}", tables.len());
        let draft = Fault::new(Kind::Quota, message).help(format!("raise `limits.instances`, up to {}", limits::INSTANCES.end()));
        cx.problems.push(excess.span.clone(), &excess.path, draft);
    }
    let mut ids = BTreeMap::new();
    let read = |(index, table): (usize, &Table<'_>)| instance::read(index, table, &mut ids, cx);
    // All of them first: what one lacks does not hide what is wrong with the next.
    tables.iter().enumerate().map(read).collect::<Vec<_>>().into_iter().collect()
}
