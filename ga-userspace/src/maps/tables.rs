//! Selection tables: each is a map of its own, which packets are pointed to only when it is full.
//!
//! The kernel lets all packets on their way finish before it returns from a change of the outer map. That takes many
//! milliseconds. So a few empty maps are in the outer map beforehand, where nobody looks: filling one of them waits for nobody.
//! More than these are filled side by side: as many changes as there are may wait for the same packets.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd as _, OwnedFd},
    panic::resume_unwind,
    thread::{self, ScopedJoinHandle},
};

use aya::{
    Ebpf,
    maps::{Array, ArrayOfMaps, Map, MapData},
};
use ga_common::abi::{
    entry::SelectionTable,
    id::{EndpointId, TableId},
    limits::MAX_TABLES,
};

use super::{Cells, Error, on};

const NAME: &str = "TABLES";
/// Tables that are filled at the same time.
const AT_ONCE: usize = 32;
/// Empty tables that are kept ready: enough for one listener, twice. 131,074 bytes each.
const SPARES: usize = 4;

type Inner = Array<MapData, SelectionTable>;
type Outer = ArrayOfMaps<MapData, Inner>;

/// What a table shall be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fill<'a> {
    pub(super) id: TableId,
    pub(super) digest: u64,
    pub(super) slots: &'a [EndpointId],
}

/// All of them.
pub(super) struct SelectionTables {
    outer: Outer,
    /// The same map, for whoever fills a table beside us.
    fd: OwnedFd,
    pub(super) digests: Cells<u64>,
    /// Packets may still be about to choose from a table that was given up: true until all that were on their way then are
    /// gone. Nobody knows what another agent did before us.
    lingering: bool,
    /// In the outer map already, where nobody looks.
    spares: BTreeMap<TableId, Inner>,
}

impl SelectionTables {
    /// Takes the maps out of a loaded object.
    pub(super) fn open(ebpf: &mut Ebpf) -> Result<Self, Error> {
        let map = ebpf.take_map(NAME).ok_or(Error::Missing(NAME))?;
        let Map::ArrayOfMaps(data) = &map else { return Err(Error::Missing(NAME)) };
        let fd = data.fd().as_fd().try_clone_to_owned().map_err(|source| Error::Share { map: NAME, source })?;
        Ok(Self {
            outer: on(NAME, Outer::try_from(map))?,
            fd,
            digests: Cells::take(ebpf, "DIGESTS")?,
            lingering: true,
            spares: BTreeMap::new(),
        })
    }

    /// Digest of what `id` was filled with; 0 when it is not in use.
    pub(super) fn digest(&self, id: u32) -> Result<u64, Error> {
        self.digests.get(id)
    }

    /// Gives a table up. It stays in the outer map until its id is used again, which is soon; nobody points to it.
    pub(super) fn release(&mut self, TableId(id): TableId) -> Result<(), Error> {
        self.lingering = true;
        self.digests.set(id, 0)
    }

    /// Waits until no packet can be about to choose from a table that was given up.
    pub(super) fn settle(&mut self) -> Result<(), Error> {
        if self.lingering {
            // Any change of the outer map waits for packets on their way. Nobody looks for the empty table.
            on(NAME, self.outer.set(TableId::EMPTY.0, &inner(&[])?, 0))?;
            self.lingering = false;
        }
        Ok(())
    }

    /// Fills a table that nobody points to.
    pub(super) fn fill(&mut self, table: Fill<'_>) -> Result<(), Error> {
        match self.spares.remove(&table.id) {
            Some(mut spare) => write(&mut spare, table.slots)?,
            None => {
                self.settle()?;
                drop(put(&mut self.outer, table)?);
            }
        }
        self.digests.set(table.id.0, table.digest)
    }

    /// Fills tables, side by side, and says what became of each.
    pub(super) fn fill_all(&mut self, tables: &[Fill<'_>]) -> Result<Vec<Result<(), Error>>, Error> {
        if tables.iter().all(|table| self.spares.contains_key(&table.id)) {
            return Ok(tables.iter().map(|table| self.fill(*table)).collect());
        }
        self.settle()?;
        tables.iter().for_each(|table| drop(self.spares.remove(&table.id)));
        let put = put_all(&self.fd, tables, drop)?;
        let digests = &mut self.digests;
        Ok(tables.iter().zip(put).map(|(table, put)| put.and_then(|()| digests.set(table.id.0, table.digest))).collect())
    }

    /// Keeps the lowest free tables ready: the next plan takes them first.
    pub(super) fn prepare(&mut self) -> Result<(), Error> {
        self.settle()?;
        let mut free = Vec::new();
        for id in TableId::EMPTY.0 + 1..MAX_TABLES {
            if free.len() < SPARES && self.digests.get(id)? == 0 {
                free.push(TableId(id));
            }
        }
        self.spares.retain(|id, _| free.contains(id));
        let missing = free.into_iter().filter(|id| !self.spares.contains_key(id));
        let missing: Vec<_> = missing.map(|id| Fill { id, digest: 0, slots: &[] }).collect();
        for (table, spare) in missing.iter().zip(put_all(&self.fd, &missing, |inner| inner)?) {
            self.spares.insert(table.id, spare?);
        }
        Ok(())
    }
}

/// Puts new maps for tables into the outer map, side by side; what becomes of each map is for `keep` to say.
fn put_all<T: Send>(fd: &OwnedFd, tables: &[Fill<'_>], keep: impl Fn(Inner) -> T + Sync) -> Result<Vec<Result<T, Error>>, Error> {
    let lanes = tables.len().clamp(1, AT_ONCE);
    let mut outers = (0..lanes).map(|_| another(fd)).collect::<Result<Vec<_>, _>>()?;
    let chunks = tables.chunks(tables.len().div_ceil(lanes).max(1));
    let lane = |(outer, tables): (&mut Outer, &[Fill<'_>])| -> Vec<_> {
        tables.iter().map(|table| put(outer, *table).map(&keep)).collect()
    };
    let lane = &lane;
    Ok(thread::scope(|scope| {
        let running: Vec<_> = outers.iter_mut().zip(chunks).map(|some| scope.spawn(move || lane(some))).collect();
        running.into_iter().flat_map(finished).collect()
    }))
}

/// What a thread came to.
fn finished<T>(lane: ScopedJoinHandle<'_, T>) -> T {
    lane.join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// The outer map once more.
fn another(fd: &OwnedFd) -> Result<Outer, Error> {
    let fd = fd.try_clone().map_err(|source| Error::Share { map: NAME, source })?;
    on(NAME, MapData::from_fd(fd).and_then(|data| Outer::try_from(Map::ArrayOfMaps(data))))
}

/// A new map for the table, put into the outer map only when it is full: packets never see it half filled.
fn put(outer: &mut Outer, Fill { id, slots, .. }: Fill<'_>) -> Result<Inner, Error> {
    let inner = inner(slots)?;
    on(NAME, outer.set(id.0, &inner, 0))?;
    Ok(inner)
}

fn inner(slots: &[EndpointId]) -> Result<Inner, Error> {
    let mut inner = on(NAME, Inner::create(1, 0))?;
    write(&mut inner, slots)?;
    Ok(inner)
}

/// Writes all slots, or none when there are none.
fn write(inner: &mut Inner, slots: &[EndpointId]) -> Result<(), Error> {
    match <&SelectionTable>::try_from(slots) {
        Ok(table) => on(NAME, inner.set(0, *table, 0)),
        Err(_) => Ok(()),
    }
}
