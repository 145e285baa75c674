//! Sheets: each is a map of its own, which packets are pointed to only when it is full.

use std::{collections::BTreeMap, io, ops::Bound, os::fd::AsFd as _};

use aya::{
    Ebpf, Pod,
    maps::{Array, ArrayOfMaps, Map, MapData, MapError},
};
use ga_common::abi::{
    custom::Mapping,
    limits::MAX_ACLS,
    sheet::{Borders, Borders4, Borders6},
};
use rustix::io::Errno;

use super::{Cells, Error, on, take};
use crate::plan::{Sheet, SheetId, SheetInfo, SheetKind};

/// Digests of all kinds.
const DIGESTS: &str = "SHEET_DIGESTS";
/// Sheets whose content is read in one pass.
const READ_A_PASS: usize = 4;

/// All sheets.
pub(super) struct Sheets {
    acls4: Kind<Borders4>,
    acls6: Kind<Borders6>,
    custom: Kind<Mapping>,
    digests: Cells<u64>,
    last: Option<SheetId>,
}

impl Sheets {
    pub(super) fn open(ebpf: &mut Ebpf) -> Result<Self, Error> {
        Ok(Self {
            acls4: Kind::open(ebpf, "ACLS4")?,
            acls6: Kind::open(ebpf, "ACLS6")?,
            custom: Kind::open(ebpf, "MAPPINGS")?,
            digests: Cells::take(ebpf, DIGESTS)?,
            last: None,
        })
    }

    /// Fills a sheet that nobody names.
    pub(super) fn fill(&mut self, id: SheetId, sheet: &Sheet) -> Result<(), Error> {
        match sheet {
            Sheet::Acl4(borders) => self.acls4.fill(id.number, &*filled(borders)),
            Sheet::Acl6(borders) => self.acls6.fill(id.number, &*filled(borders)),
            Sheet::Custom(table) => self.custom.fill(id.number, &*table.filled()),
        }?;
        self.digests.set(place(id), sheet.digest())
    }

    /// Gives a sheet up. Its map stays until its number is used again.
    pub(super) fn release(&mut self, id: SheetId) -> Result<(), Error> {
        match id.kind {
            SheetKind::Acl4 => self.acls4.release(id.number),
            SheetKind::Acl6 => self.acls6.release(id.number),
            SheetKind::Custom => self.custom.release(id.number),
        }
        self.digests.set(place(id), 0)
    }

    /// What the maps hold, by digests.
    pub(super) fn read(&self) -> Result<BTreeMap<SheetId, SheetInfo>, Error> {
        let mut found = BTreeMap::new();
        for id in all() {
            let digest = self.digests.get(place(id))?;
            if digest != 0 {
                found.insert(id, SheetInfo { digest, content: None });
            }
        }
        Ok(found)
    }

    /// Fills again what is not what it should be, by map: every sheet whose map is another one, and in turn those whose content is
    /// read.
    pub(super) fn repair(
        &mut self,
        state: &BTreeMap<SheetId, SheetInfo>,
        content: impl Fn(SheetId) -> Option<Sheet>,
    ) -> [(&'static str, Result<u64, Error>); 4] {
        let after = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let turn: Vec<SheetId> =
            state.range((after, Bound::Unbounded)).chain(state).map(|(id, _)| *id).take(READ_A_PASS.min(state.len())).collect();
        self.last = turn.last().copied();
        let mut counts = [Ok(0), Ok(0), Ok(0)];
        for (id, info) in state {
            let result = content(*id).filter(|sheet| sheet.digest() == info.digest).ok_or(Error::UnknownSheet { id: *id });
            let result = result.and_then(|sheet| self.mend(*id, &sheet, turn.contains(id)));
            let count = &mut counts[id.kind as usize];
            match (result, &count) {
                (Ok(mended), Ok(sum)) => *count = Ok(*sum + u64::from(mended)),
                (Err(error), Ok(_)) => *count = Err(error),
                (_, Err(_)) => {}
            }
        }
        let right = all().map(|id| (place(id), state.get(&id).map_or(0, |info| info.digest)));
        let digests = self.digests.restore(right);
        let [v4, v6, custom] = counts;
        [(self.acls4.name, v4), (self.acls6.name, v6), (self.custom.name, custom), (DIGESTS, digests)]
    }

    /// Whether the sheet had to be filled again.
    fn mend(&mut self, id: SheetId, sheet: &Sheet, is_read: bool) -> Result<bool, Error> {
        let is_right = match sheet {
            Sheet::Acl4(borders) => self.acls4.is_right(id.number, is_read.then(|| filled(borders)).as_deref())?,
            Sheet::Acl6(borders) => self.acls6.is_right(id.number, is_read.then(|| filled(borders)).as_deref())?,
            Sheet::Custom(table) => self.custom.is_right(id.number, is_read.then(|| table.filled()).as_deref())?,
        };
        if !is_right {
            self.fill(id, sheet)?;
        }
        Ok(!is_right)
    }
}

/// Every sheet there can be.
fn all() -> impl Iterator<Item = SheetId> {
    SheetKind::ALL.into_iter().flat_map(|kind| (1..kind.limit() as u16).map(move |number| SheetId { kind, number }))
}

/// Where its digest is.
fn place(id: SheetId) -> u32 {
    id.kind as u32 * MAX_ACLS + u32::from(id.number)
}

fn filled<B: ga_common::abi::sheet::Border>(borders: &[B]) -> Box<Borders<B>> {
    let mut table = Box::new(Borders::NONE);
    table.fill(borders.iter().copied());
    table
}

/// Sheets of one kind.
struct Kind<T: Pod> {
    name: &'static str,
    outer: ArrayOfMaps<MapData, Array<MapData, T>>,
    /// The outer map, seen as the numbers of the maps in it.
    maps: Array<MapData, u32>,
    /// Those that were put there, or found there and right.
    known: BTreeMap<u16, u32>,
    /// Packets may still be about to look at a sheet that was given up.
    lingering: bool,
    /// Opening a map by its number takes CAP_SYS_ADMIN.
    readable: bool,
}

impl<T: Pod + PartialEq> Kind<T> {
    fn open(ebpf: &mut Ebpf, name: &'static str) -> Result<Self, Error> {
        let Some(Map::ArrayOfMaps(outer)) = ebpf.map(name) else { return Err(Error::Missing(name)) };
        let again = outer.fd().as_fd().try_clone_to_owned().map_err(|source| Error::Share { map: name, source })?;
        let maps = on(name, MapData::from_fd(again).and_then(|data| Array::try_from(Map::Array(data))))?;
        Ok(Self { name, outer: take(ebpf, name)?, maps, known: BTreeMap::new(), lingering: true, readable: true })
    }

    fn fill(&mut self, number: u16, content: &T) -> Result<(), Error> {
        let new = || -> Result<Array<MapData, T>, Error> { on(self.name, Array::create(1, 0)) };
        if self.lingering {
            // Any change of the outer map waits for packets on their way. Nobody looks for number 0.
            on(self.name, self.outer.set(0, &new()?, 0))?;
            self.lingering = false;
        }
        let mut inner = new()?;
        on(self.name, inner.set(0, content, 0))?;
        on(self.name, self.outer.set(u32::from(number), &inner, 0))?;
        self.known.remove(&number);
        if let Some(map) = self.map(number)? {
            self.known.insert(number, map);
        }
        Ok(())
    }

    fn release(&mut self, number: u16) {
        self.known.remove(&number);
        self.lingering = true;
    }

    /// Number of the map that is a sheet now.
    fn map(&self, number: u16) -> Result<Option<u32>, Error> {
        match self.maps.get(&u32::from(number), 0) {
            Ok(map) => Ok(Some(map)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(source) => Err(Error::Map { map: self.name, source }),
        }
    }

    /// Whether the sheet is the map that was put there, and holds `content` as far as that is asked.
    fn is_right(&mut self, number: u16, content: Option<&T>) -> Result<bool, Error> {
        let Some(map) = self.map(number)? else { return Ok(false) };
        let is_other = self.known.get(&number).is_some_and(|known| *known != map);
        let Some(content) = content.filter(|_| self.readable && !is_other) else { return Ok(!is_other) };
        let is_right = match self.content(map)? {
            Some(now) => *now == *content,
            None => true,
        };
        if is_right {
            self.known.insert(number, map);
        }
        Ok(is_right)
    }

    /// What the map with that number in the kernel holds; none when we may not look.
    fn content(&mut self, map: u32) -> Result<Option<Box<T>>, Error> {
        let data = match MapData::from_id(map) {
            Ok(data) => data,
            Err(MapError::SyscallError(error)) if is_refusal(&error.io_error) => {
                self.readable = false;
                return Ok(None);
            }
            Err(source) => return Err(Error::Map { map: self.name, source }),
        };
        let array = on(self.name, Array::<_, T>::try_from(Map::Array(data)))?;
        on(self.name, array.get(&0, 0)).map(|content| Some(Box::new(content)))
    }
}

fn is_refusal(error: &io::Error) -> bool {
    [Errno::PERM, Errno::ACCESS].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
