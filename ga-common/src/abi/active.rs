//! Where the flows of a listener go.

use super::{id::TableId, limits::MAX_TABLES};

/// The table that new flows of a listener choose from, and what is known of older ones, in one aligned word: both change with one
/// store.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Active(pub u32);

/// How the endpoint of a flow is found that began before the table that is in use; only of listeners that remember nothing of their
/// flows as long as nothing changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// As that of a new one.
    Same,
    /// Some are in flow memory; the others go where new ones go.
    Remembered,
    /// Some are in flow memory; the others began when this table was in use.
    Table(TableId),
}

impl Active {
    /// The explicit empty state: nobody can be chosen, and no flow is older.
    pub const EMPTY: Self = Self::of(TableId::EMPTY, Before::Same);
    const BITS: u32 = 16;
    const TABLE: u32 = (1 << Self::BITS) - 1;
    const REMEMBERED: u32 = Self::TABLE;

    /// New flows choose from `table`.
    #[inline(always)]
    pub const fn of(table: TableId, before: Before) -> Self {
        let before = match before {
            Before::Same => 0,
            Before::Remembered => Self::REMEMBERED,
            Before::Table(table) => table.0 & Self::TABLE,
        };
        Self(table.0 & Self::TABLE | before << Self::BITS)
    }

    /// What new flows choose from; [`TableId::EMPTY`] when none can be chosen.
    #[inline(always)]
    pub const fn table(self) -> TableId {
        TableId(self.0 & Self::TABLE)
    }

    /// What is known of older flows.
    #[inline(always)]
    pub const fn before(self) -> Before {
        match self.0 >> Self::BITS {
            0 => Before::Same,
            Self::REMEMBERED => Before::Remembered,
            table => Before::Table(TableId(table)),
        }
    }
}

const _: () = assert!(MAX_TABLES <= Active::REMEMBERED);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_says_what_it_was_made_from() {
        for before in [Before::Same, Before::Remembered, Before::Table(TableId(MAX_TABLES - 1))] {
            for table in [TableId::EMPTY, TableId(1), TableId(MAX_TABLES - 1)] {
                let active = Active::of(table, before);
                assert_eq!((active.table(), active.before()), (table, before));
            }
        }
        assert_eq!(Active::of(TableId(7), Before::Same).0, 7);
        assert_eq!(Active::default(), Active::EMPTY);
    }
}
