//! Access lists: from networks to borders, and whom they let in.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ga_common::abi::sheet::Wide;

use super::{Family, Sheet};
use crate::model::{AclEntry, AclMode, Instance, Listener};

/// Who may open flows of a listener, as the data path is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclView {
    /// What being listed means.
    pub mode: AclMode,
    /// The names of the lists.
    pub lists: Vec<String>,
    /// Entries of all lists together.
    pub entries: usize,
    /// Flows of sources that are not let in any more are ended.
    pub kill_established: bool,
    /// The lists that count: those with entries, of families that clients can have.
    pub(super) sheets: BTreeMap<Family, Sheet>,
}

impl fmt::Display for AclView {
    /// Other contents, other text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = self.sheets.values().fold(0, |sum, sheet| sum ^ sheet.digest());
        let kill = if self.kill_established { ", ends established flows" } else { "" };
        write!(f, "{} {} ({} entries, {:08x}{kill})", self.mode.word(), self.lists.join(","), self.entries, digest >> 32)
    }
}

impl AclView {
    /// Whether `client` may open flows.
    pub fn lets_in(&self, client: IpAddr) -> bool {
        if self.sheets.is_empty() {
            return true;
        }
        let is_listed = match (self.sheets.get(&Family::of(client)), client.to_canonical()) {
            (Some(Sheet::Acl4(borders)), IpAddr::V4(v4)) => is_inside(borders, v4.to_bits()),
            (Some(Sheet::Acl6(borders)), IpAddr::V6(v6)) => is_inside(borders, wide(v6)),
            (Some(Sheet::Acl4(_) | Sheet::Acl6(_) | Sheet::Custom(_)) | None, _) => false,
        };
        is_listed == (self.mode == AclMode::White)
    }
}

/// Whether an odd number of borders is at or below `address`.
fn is_inside<B: Ord>(borders: &[B], address: B) -> bool {
    borders.partition_point(|border| *border <= address) % 2 == 1
}

fn wide(address: Ipv6Addr) -> Wide {
    let bits = address.to_bits();
    Wide { high: (bits >> 64) as u64, low: bits as u64 }
}

/// What a listener's lists come to; a list of a family of which the instance has no VIP counts for nobody.
pub(super) fn view(instance: &Instance, listener: &Listener) -> Option<AclView> {
    let acl = listener.acl.as_ref()?;
    let has_vip = |family| instance.vips.iter().any(|vip| Family::of(*vip) == family);
    let mut sheets = BTreeMap::new();
    for list in &acl.lists {
        let Some(family) = list.entries.first().map(|entry| Family::of(entry.net.addr())) else { continue };
        if has_vip(family) {
            sheets.insert(family, sheet(family, &list.entries));
        }
    }
    Some(AclView {
        mode: acl.mode,
        lists: acl.lists.iter().map(|list| list.name.to_string()).collect(),
        entries: acl.lists.iter().map(|list| list.entries.len()).sum(),
        kill_established: acl.kill_established,
        sheets,
    })
}

fn sheet(family: Family, entries: &[AclEntry]) -> Sheet {
    let mut ranges: Vec<(u128, u128)> = entries.iter().map(|entry| range(entry.net.network(), entry.net.broadcast())).collect();
    ranges.sort_unstable();
    let mut borders: Vec<u128> = Vec::new();
    let mut end: Option<u128> = None;
    for (first, last) in ranges {
        match end {
            // It touches or overlaps the ones before.
            Some(reached) if first <= reached.saturating_add(1) => end = Some(reached.max(last)),
            Some(reached) => {
                borders.extend([reached + 1, first]);
                end = Some(last);
            }
            None => {
                borders.push(first);
                end = Some(last);
            }
        }
    }
    let highest = match family {
        Family::V4 => u128::from(u32::MAX),
        Family::V6 => u128::MAX,
    };
    // What goes to the very end has no border there.
    borders.extend(end.filter(|end| *end != highest).map(|end| end + 1));
    match family {
        Family::V4 => Sheet::Acl4(borders.into_iter().filter_map(|border| u32::try_from(border).ok()).collect()),
        Family::V6 => Sheet::Acl6(borders.into_iter().map(|border| wide(Ipv6Addr::from_bits(border))).collect()),
    }
}

fn range(first: IpAddr, last: IpAddr) -> (u128, u128) {
    let number = |address| match address {
        IpAddr::V4(v4) => u128::from(Ipv4Addr::to_bits(v4)),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    (number(first), number(last))
}
