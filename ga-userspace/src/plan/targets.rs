//! What listeners that the agent serves choose from: the default groups, and the groups of each rule that forwards.
//!
//! Shares are worked out as for the kernel's tables, among the groups of the target alone (specification §1.6); the tables themselves
//! are made where they are used.

use std::{collections::BTreeMap, net::IpAddr};

use ga_common::{
    abi::limits::TABLE_SIZE,
    hash::{Sip, scale},
};

use super::{Family, ListenerView, Selection, groups, shares};
use crate::model::{Listener, Name};

/// Who new requests or connections go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetView {
    /// The rule that forwards there; none where no rule applies.
    pub rule: Option<Name>,
    /// Its groups.
    pub groups: Vec<Name>,
    /// Who takes part, by the family of the client. Candidates are endpoints by their claims.
    pub selections: BTreeMap<Family, Selection>,
}

/// The targets of `listener`, which the agent serves, the default one first.
pub(super) fn views(listener: &Listener, view: &ListenerView) -> Vec<TargetView> {
    let target = |(rule, of_file): (Option<&Name>, Vec<&crate::model::EndpointGroup>)| {
        let groups: Vec<Name> = of_file.iter().map(|group| group.name.clone()).collect();
        let select = |family| {
            let participants = groups::participants(view, family, |group| groups.contains(&group.name));
            (family, Selection::new(shares::candidates(&participants, groups::policy(view))))
        };
        TargetView { rule: rule.cloned(), selections: Family::ALL.into_iter().map(select).collect(), groups }
    };
    listener.targets().into_iter().map(target).collect()
}

/// A selection made into a table: the same choice for the same number until shares change, and then for most numbers still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wheel {
    slots: Vec<u16>,
}

impl Wheel {
    /// The table of `selection`; `index` knows the endpoint of each claim. None when nobody may be chosen.
    pub fn new(selection: &Selection, index: impl Fn(u64) -> u16) -> Option<Self> {
        let indices: Vec<u16> = selection.candidates().iter().map(|candidate| index(candidate.identity)).collect();
        let slots: Vec<u16> = selection.slots(TABLE_SIZE).into_iter().map(|slot| indices[slot as usize]).collect();
        (!slots.is_empty()).then_some(Self { slots })
    }

    /// The endpoint that `number` leads to, all 64 bits of which are as good as random.
    pub fn at(&self, number: u64) -> u16 {
        self.slots[scale((number >> 32) as u32, self.slots.len() as u32) as usize]
    }

    /// The part of all numbers that lead to each endpoint.
    pub fn shares(&self) -> BTreeMap<u16, f64> {
        let mut shares = BTreeMap::new();
        self.slots.iter().for_each(|index| *shares.entry(*index).or_default() += 1.0);
        shares.values_mut().for_each(|share| *share /= self.slots.len() as f64);
        shares
    }

    /// The endpoint that `number` leads to when those that `tried` knows do not count; none when only they are found.
    pub fn elsewhere(&self, number: u64, tried: impl Fn(u16) -> bool) -> Option<u16> {
        let start = scale((number >> 32) as u32, self.slots.len() as u32) as usize;
        self.slots.iter().cycle().skip(start).take(self.slots.len()).copied().find(|index| !tried(*index))
    }
}

/// The number of a client whose requests shall go to one endpoint.
pub fn number_of(seed: [u64; 2], client: IpAddr) -> u64 {
    let bits = match client.to_canonical() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    Sip::new(seed).words([(bits >> 64) as u64, bits as u64]).finish()
}
