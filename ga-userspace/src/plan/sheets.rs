//! Sheets: contents that the data path names by number, as a value. One is filled before it is named, never changed, and released
//! when nobody names it any more; equal contents have one number.

use std::{collections::BTreeMap, fmt, sync::Arc};

use ga_common::abi::{
    limits::{MAX_ACLS, MAX_CUSTOM},
    sheet::{MAX_BORDERS, Wide},
};

use super::{CustomTable, PlanError, State, error::within, identity, ids::Pool};

/// What a sheet is for; each kind has numbers of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SheetKind {
    /// An IPv4 access list.
    Acl4,
    /// An IPv6 access list.
    Acl6,
    /// The custom routing of an instance.
    Custom,
}

impl SheetKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Acl4, Self::Acl6, Self::Custom];

    /// Numbers there are; 0 is nobody's.
    pub const fn limit(self) -> u32 {
        match self {
            Self::Acl4 | Self::Acl6 => MAX_ACLS,
            Self::Custom => MAX_CUSTOM,
        }
    }

    const fn what(self) -> &'static str {
        match self {
            Self::Acl4 => "IPv4 access lists",
            Self::Acl6 => "IPv6 access lists",
            Self::Custom => "sheets of custom routing",
        }
    }
}

/// Which sheet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SheetId {
    /// Of which kind.
    pub kind: SheetKind,
    /// From 1.
    pub number: u16,
}

impl fmt::Display for SheetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of the {}", self.number, self.kind.what())
    }
}

/// The content of a sheet.
#[derive(Clone, PartialEq, Eq)]
pub enum Sheet {
    /// Borders of an IPv4 access list.
    Acl4(Arc<[u32]>),
    /// Borders of an IPv6 access list.
    Acl6(Arc<[Wide]>),
    /// Which ports of an instance lead where.
    Custom(Arc<CustomTable>),
}

impl fmt::Debug for Sheet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:016x}", self.kind(), self.digest())
    }
}

impl Sheet {
    /// What it is for.
    pub const fn kind(&self) -> SheetKind {
        match self {
            Self::Acl4(_) => SheetKind::Acl4,
            Self::Acl6(_) => SheetKind::Acl6,
            Self::Custom(_) => SheetKind::Custom,
        }
    }

    /// Equal for equal contents, never 0.
    pub fn digest(&self) -> u64 {
        let numbers: Box<dyn Iterator<Item = u64>> = match self {
            Self::Acl4(borders) => Box::new(borders.iter().map(|border| u64::from(*border))),
            Self::Acl6(borders) => Box::new(borders.iter().flat_map(|border| [border.high, border.low])),
            Self::Custom(table) => Box::new(table.numbers()),
        };
        identity::of_numbers(numbers).max(1)
    }

    fn len(&self) -> usize {
        match self {
            Self::Acl4(borders) => borders.len(),
            Self::Acl6(borders) => borders.len(),
            // It was made to fit.
            Self::Custom(_) => 0,
        }
    }
}

/// A filled sheet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SheetInfo {
    /// [`Sheet::digest`].
    pub digest: u64,
    /// Its content, unless only the digest was read back from the maps.
    pub content: Option<Sheet>,
}

/// Gives out the numbers of a plan's sheets.
pub(super) struct Numbering<'s> {
    running: &'s State,
    pools: BTreeMap<SheetKind, Pool>,
    given: BTreeMap<(SheetKind, u64), u16>,
    /// What the maps shall hold.
    pub(super) infos: BTreeMap<SheetId, SheetInfo>,
    /// The contents of all of it.
    pub(super) contents: BTreeMap<SheetId, Sheet>,
}

impl<'s> Numbering<'s> {
    pub(super) fn new(running: &'s State) -> Self {
        let taken = |kind| running.sheets.keys().filter(move |id| id.kind == kind).map(|id| u32::from(id.number));
        let pools = SheetKind::ALL.map(|kind| (kind, Pool::new(1, kind.limit(), taken(kind), []))).into();
        Self { running, pools, given: BTreeMap::new(), infos: BTreeMap::new(), contents: BTreeMap::new() }
    }

    /// The number of `sheet`: that of the running one with the same content, or a free one.
    pub(super) fn number(&mut self, sheet: &Sheet) -> Result<u16, PlanError> {
        let (kind, digest) = (sheet.kind(), sheet.digest());
        within("borders of an access list", sheet.len(), MAX_BORDERS as u32 - 1)?;
        if let Some(number) = self.given.get(&(kind, digest)) {
            return Ok(*number);
        }
        let same = self.running.sheets.iter().find(|(id, info)| id.kind == kind && info.digest == digest);
        let (id, info) = match same {
            Some((id, info)) => (*id, info.clone()),
            None => {
                let full = || PlanError::Capacity {
                    what: kind.what(),
                    limit: u64::from(kind.limit()) - 1,
                    value: u64::from(kind.limit()),
                };
                let number = self.pools.get_mut(&kind).and_then(Pool::take_lowest).ok_or_else(full)?;
                let id = SheetId { kind, number: u16::try_from(number).map_err(|_| full())? };
                (id, SheetInfo { digest, content: Some(sheet.clone()) })
            }
        };
        self.given.insert((kind, digest), id.number);
        self.infos.insert(id, info);
        self.contents.insert(id, sheet.clone());
        Ok(id.number)
    }
}
