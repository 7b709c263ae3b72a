//! What a run takes of the server's lock table, which it shares with everybody else on the server (invariant I11).

use std::fmt;

use indicatif::HumanCount;
use serde::{Deserialize, Serialize};

use crate::source::postgres::plan::{LockUse, LockWay};

/// Locks of one session of ours on what the catalog is made of, and on its own transaction: planning looks into most of
/// the catalog's tables, by their indexes.
const SESSION_LOCKS: u64 = 64;

/// Leaves that one statement reads, or counts: a round trip to a cloud costs 30 ms, and the server 0.15 ms a leaf whether
/// they come one by one or together.
pub(crate) const STATEMENT_LEAVES_MAX: usize = 64;

/// Connections of a run beside its readers: the lock session and two keepers.
pub(crate) const CONTROL_SESSIONS: usize = 3;

/// The server's lock table: it is made for `max_locks_per_transaction` locks for each of `max_connections` and
/// `max_prepared_transactions`, each with one holder and as many holders again (`NLOCKENTS`, lock.c). Locks that
/// PostgreSQL keeps with the sessions, by its fast path, are counted as if they stood in the table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LockTable {
    /// Locks that it is made for.
    pub entries: u64,
}

/// Sessions that hold the locks of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holders {
    /// Sessions that read.
    pub readers: u64,
    /// Sessions beside them.
    pub beside: u64,
}

/// What would be locked if a relation were read through its own name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LockWeight {
    /// Tables, the indexes and TOAST tables apart.
    pub tables: u64,
    /// All relations.
    pub relations: u64,
    /// The most relations of one table.
    pub heaviest: u64,
    /// Tables from which others inherit.
    pub branches: u64,
}

/// What each reader may lock at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockShare {
    /// Readers that may read at the same time.
    pub readers: u64,
    /// Relations of the leaves that one of them has locked.
    pub relations: u64,
}

impl Holders {
    /// All of them.
    pub fn count(self) -> u64 {
        self.readers.saturating_add(self.beside)
    }
}

impl LockTable {
    /// What a run may take.
    fn quarter(self) -> u64 {
        self.entries / 4
    }

    /// Whether all holders may lock so many relations: each is one lock, and one more holder of it for every session.
    pub fn fits(self, relations: u64, holders: Holders) -> bool {
        let held = relations.saturating_mul(holders.count());
        relations <= self.quarter() && held <= self.quarter().saturating_mul(2)
    }

    /// The most readers of `asked`, each of which locks no more than `largest` relations, where `beside` sessions lock all of
    /// `relations`. `None` where not even one may.
    pub fn readers_of_several(self, relations: u64, largest: u64, beside: u64, asked: u64) -> Option<u64> {
        let held = |readers: u64| relations.saturating_mul(beside).saturating_add(largest.saturating_mul(readers));
        let fits = |readers: &u64| held(*readers) <= self.quarter().saturating_mul(2);
        if relations > self.quarter() { None } else { (1..=asked).rev().find(fits) }
    }

    /// The most readers, and what stands beside them, that may lock so many relations. `None` where not even one may.
    pub fn most_readers(self, relations: u64, readers: u64, beside: impl Fn(u64) -> u64) -> Option<Holders> {
        let mut fewer = (1..=readers).rev().map(|readers| Holders { readers, beside: beside(readers) });
        fewer.find(|holders| self.fits(relations, *holders))
    }

    /// What each reader may lock at a time where all sessions lock the branches only, and `beside` says how many there are
    /// beside the readers; fewer readers where as many could not even read the heaviest leaf. `None` where one cannot.
    ///
    /// What is of the catalog is counted for each session. Where there is no room for that, one reader goes without the
    /// count, as where all is locked: all sessions lock the same few relations, which everybody else locks too.
    pub fn share(self, weight: LockWeight, readers: u64, beside: impl Fn(u64) -> u64) -> Option<LockShare> {
        let heaviest = weight.heaviest.max(1);
        // One statement reads no more leaves.
        let most = heaviest.saturating_mul(u64::try_from(STATEMENT_LEAVES_MAX).unwrap_or(u64::MAX));
        let share = |readers: u64, others: u64| {
            let relations = (self.quarter().checked_sub(others)? / readers).min(most);
            (relations >= heaviest).then_some(LockShare { readers, relations })
        };
        let of_session = weight.branches.saturating_add(SESSION_LOCKS);
        let counted = (1..=readers).rev().find_map(|readers| {
            let sessions = Holders { readers, beside: beside(readers) }.count();
            share(readers, sessions.checked_mul(of_session)?)
        });
        counted.or_else(|| share(1, weight.branches))
    }
}

impl LockUse {
    /// Where every holder locks every relation.
    pub fn of_all(way: LockWay, table: LockTable, relations: u64, holders: Holders) -> Self {
        let of_session = relations.saturating_add(SESSION_LOCKS);
        let at_most = holders.count().saturating_mul(of_session);
        Self { way, at_most, lock_table: table.entries, readers: None }
    }

    /// Where the sessions beside the readers lock all of several relations, and each reader what it reads.
    pub fn of_several(table: LockTable, relations: u64, largest: u64, holders: Holders) -> Self {
        let all = relations.saturating_add(SESSION_LOCKS).saturating_mul(holders.beside);
        let read = largest.saturating_add(SESSION_LOCKS).saturating_mul(holders.readers);
        let (way, at_most) = (LockWay::BeforeSnapshot, all.saturating_add(read));
        Self { way, at_most, lock_table: table.entries, readers: None }
    }

    /// Where the leaves are locked as they are read.
    pub fn of_share(table: LockTable, branches: u64, share: LockShare, holders: Holders) -> Self {
        let of_session = branches.saturating_add(SESSION_LOCKS);
        let count = Holders { readers: share.readers, ..holders }.count();
        let leaves = share.readers.saturating_mul(share.relations);
        let at_most = count.saturating_mul(of_session).saturating_add(leaves);
        Self { way: LockWay::LeafByLeaf, at_most, lock_table: table.entries, readers: None }
    }
}

impl fmt::Display for LockUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = match self.way {
            LockWay::BeforeSnapshot => "all before the snapshot",
            LockWay::LeafByLeaf => "a few tables at a time, each compared with the snapshot",
            LockWay::PageByPage => "while a page is read",
        };
        let (most, table) = (HumanCount(self.at_most), HumanCount(self.lock_table));
        write!(f, "{most} at most, {way}; the server has room for {table}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: LockTable = LockTable { entries: 6400 };
    const FOUR: Holders = Holders { readers: 4, beside: 3 };

    #[test]
    fn a_quarter_of_the_table_is_all_there_is() {
        assert!(DEFAULT.fits(457, FOUR) && !DEFAULT.fits(458, FOUR), "3200 holders");
        assert!(DEFAULT.fits(1600, Holders { readers: 1, beside: 1 }), "1600 locks");
        assert!(!DEFAULT.fits(1601, Holders { readers: 1, beside: 0 }));
        assert!(!DEFAULT.fits(u64::MAX, FOUR));
        let beside = |readers| if readers == 1 { 1 } else { 3 };
        let most = |relations| DEFAULT.most_readers(relations, 8, beside).map(Holders::count);
        assert_eq!([200, 300, 600, 800, 1600, 1601].map(most), [Some(11), Some(10), Some(5), Some(2), Some(2), None]);
    }

    #[test]
    fn readers_of_several_relations_lock_what_they_read() {
        let most = |relations, largest| DEFAULT.readers_of_several(relations, largest, 3, 8);
        assert_eq!((most(400, 4), most(1000, 4), most(1000, 100)), (Some(8), Some(8), Some(2)));
        assert_eq!((most(1000, 201), most(1601, 1), most(u64::MAX, 1)), (None, None, None));
    }

    #[test]
    fn readers_share_what_the_others_leave() {
        let weight = |heaviest| LockWeight { tables: 4000, relations: 16_000, heaviest, branches: 1 };
        for heaviest in [1, 4, 8] {
            let share = DEFAULT.share(weight(heaviest), 4, |_| 3).unwrap();
            assert_eq!(share.readers, 4);
            let in_use = LockUse::of_share(DEFAULT, 1, share, FOUR);
            let expected = if heaviest == 8 { 1590..=1600 } else { 7 * 65 + 4 * 64 * heaviest..=1600 };
            assert!(expected.contains(&in_use.at_most), "{in_use:?}");
        }
    }

    #[test]
    fn fewer_readers_where_as_many_could_not_read_a_leaf() {
        let table = LockTable { entries: 20 * (SESSION_LOCKS + 1) };
        let weight = LockWeight { tables: 9, relations: 72, heaviest: 8, branches: 1 };
        let share = table.share(weight, 4, |_| 3).unwrap();
        assert!(share.readers == 1 && share.relations >= 8, "{share:?}");
        assert_eq!(table.share(LockWeight { heaviest: 500, ..weight }, 4, |_| 3), None);
    }

    #[test]
    fn a_small_table_has_room_for_one_reader() {
        let weight = |heaviest| LockWeight { tables: 700, relations: 2800, heaviest, branches: 1 };
        let beside = |readers| if readers == 1 { 1 } else { 3 };
        // max_locks_per_transaction = 10 with 100 connections, and with 20.
        let share = LockTable { entries: 1000 }.share(weight(4), 4, beside);
        assert_eq!(share, Some(LockShare { readers: 1, relations: 120 }), "without keepers of the snapshot");
        let share = LockTable { entries: 220 }.share(weight(4), 4, beside);
        assert_eq!(share, Some(LockShare { readers: 1, relations: 54 }), "without the catalog");
        assert_eq!(LockTable { entries: 220 }.share(weight(55), 4, beside), None);
    }
}
