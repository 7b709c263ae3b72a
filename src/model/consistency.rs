//! What a source promises of its reads, and where it is.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// The system the rows came from. Its name in the manifest is `source.kind`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// PostgreSQL.
    Postgresql,
    /// ClickHouse.
    Clickhouse,
    /// Another one, which a later version of outhaul reads.
    #[serde(untagged)]
    Other(String),
}

impl std::fmt::Display for SourceKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Postgresql => "postgresql",
            Self::Clickhouse => "clickhouse",
            Self::Other(kind) => kind,
        })
    }
}

/// The server that rows come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFacts {
    /// The system.
    pub kind: SourceKind,
    /// Its version as it says itself, for example `18.1`.
    pub server_version: String,
    /// Whether it is a standby.
    pub standby: bool,
}

/// Which database rows come from, in hashes that tell nobody what they are of and are those of one run alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceIdentity {
    /// Of what all servers of the database have alike.
    pub database: String,
    /// Of marks of the server, by one of which it is known again; none where the role may know none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub server: Vec<String>,
}

impl SourceIdentity {
    /// Whether it is certain that the two are not the same database.
    pub fn is_other(&self, other: &Self) -> bool {
        let (known, of_other) = (&self.server, &other.server);
        let strange = !known.is_empty() && !of_other.is_empty() && !known.iter().any(|mark| of_other.contains(mark));
        strange || self.database != other.database
    }
}

/// What the reads of a run have in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConsistencyMode {
    /// All rows are of one snapshot.
    SingleSnapshot,
    /// Pages in key order, each of its own short transaction.
    Keyset,
    /// Partitions of more than one snapshot.
    Mixed,
    /// Foreign tables are read: they are of the moment of each statement, whatever the snapshot.
    Foreign,
    /// Another promise, which a later version of outhaul makes.
    #[serde(untagged)]
    Other(String),
}

/// What the reads of a run have in common, with the proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consistency {
    /// In one word.
    pub mode: ConsistencyMode,
    /// The snapshots; empty under `keyset`.
    pub snapshots: Vec<SnapshotRecord>,
    /// The moment that stood for `now()` in what a person wrote; absent where no such text was there.
    pub now: Option<DateTime<Utc>>,
    /// What a person should know of it.
    pub note: Option<String>,
    /// What shows that nothing is missing, in a word, where the source says it (`completeness.proof` of the manifest).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<String>,
}

/// One snapshot that rows were read under.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRecord {
    /// The exported snapshot's id; absent where one session read all and exported none.
    pub id: Option<String>,
    /// The WAL position when it was taken, as `pg_lsn` prints it.
    pub lsn: Option<String>,
    /// The oldest transaction that was still running, as `xid8` prints it.
    pub xmin: Option<String>,
    /// When it was taken.
    #[serde(with = "super::micros")]
    pub taken_at: DateTime<Utc>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_known_again_by_one_mark_of_its_server() {
        let of = |database: &str, server: &[&str]| SourceIdentity {
            database: database.to_owned(),
            server: server.iter().map(|mark| (*mark).to_owned()).collect(),
        };
        for (one, other, is_other) in [
            (of("d", &["a"]), of("d", &["a"]), false),
            (of("d", &["a", "b"]), of("d", &["c", "b"]), false),
            (of("d", &["a"]), of("d", &[]), false),
            (of("d", &["a"]), of("d", &["b"]), true),
            (of("d", &["a"]), of("e", &["a"]), true),
            (of("d", &[]), of("e", &[]), true),
        ] {
            assert_eq!((one.is_other(&other), other.is_other(&one)), (is_other, is_other), "{one:?} {other:?}");
        }
    }
}
