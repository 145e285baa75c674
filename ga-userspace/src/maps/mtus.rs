//! MTUs of the ways out: what packets that grow on their way must fit.

use std::collections::BTreeMap;

use aya::Ebpf;
use ga_common::{
    abi::{entry::mtu_place, limits::MTU_PLACES},
    wire::vlan::Tags,
};

use super::{Cells, Error, Repairs};

/// Where packets look up what fits.
pub struct Mtus {
    cells: Cells<u32>,
    /// What the map holds; none before it was written.
    places: Option<BTreeMap<u32, u32>>,
}

impl Mtus {
    /// Takes the map out of a loaded object; nothing is believed to be in it.
    pub fn open(ebpf: &mut Ebpf) -> Result<Self, Error> {
        Ok(Self { cells: Cells::take(ebpf, "MTUS")?, places: None })
    }

    /// Writes the MTUs of all ways out, each an interface and VLAN tags on it; ways that are not among them have none.
    pub fn set(&mut self, mtus: impl IntoIterator<Item = ((u32, Tags), u32)>) -> Result<(), Error> {
        let places = Some(places(mtus));
        if self.places != places {
            self.places = None;
            self.cells.restore(all(places.iter().flatten()))?;
            self.places = places;
        }
        Ok(())
    }

    /// Writes again what somebody else changed.
    pub fn repair(&mut self) -> Repairs {
        let mut repairs = Repairs::default();
        if self.places.is_some() {
            repairs.note("MTUS", self.cells.restore(all(self.places.iter().flatten())));
        }
        repairs
    }
}

/// The value of every place.
fn all<'a>(known: impl Iterator<Item = (&'a u32, &'a u32)>) -> impl Iterator<Item = (u32, u32)> {
    let known: BTreeMap<u32, u32> = known.map(|(place, mtu)| (*place, *mtu)).collect();
    (0..MTU_PLACES).map(move |place| (place, known.get(&place).copied().unwrap_or(0)))
}

/// What stands in which place: ways that share one have the least MTU of them.
pub fn places(mtus: impl IntoIterator<Item = ((u32, Tags), u32)>) -> BTreeMap<u32, u32> {
    let mut places = BTreeMap::new();
    for ((ifindex, Tags(tags)), mtu) in mtus {
        let least = places.entry(mtu_place(ifindex, tags)).or_insert(mtu);
        *least = mtu.min(*least);
    }
    places
}

#[cfg(test)]
mod tests {
    use ga_common::wire::vlan::CUSTOMER;

    use super::*;

    #[test]
    fn ways_that_share_a_place_have_the_least_mtu() {
        let tag = Tags::NONE.with(CUSTOMER, 7);
        let held = places([((3, Tags::NONE), 9000), ((3, tag), 1500), ((3 + MTU_PLACES, Tags::NONE), 1400)]);
        assert_eq!(held[&mtu_place(3, 0)], 1400);
        assert_eq!(held[&mtu_place(3, tag.0)], 1500);
    }
}
