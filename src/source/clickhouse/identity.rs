//! Which table a name stands for. Another one may take the name while a run lasts, by EXCHANGE TABLES, CREATE OR REPLACE, a
//! rename or a refreshable view, and the names of its parts begin anew: `all_1_1_0` is there again.

use super::names::literal;
use super::plan::{ChMode, ChRelation};
use super::settings::ClickHouseSession;
use crate::base::failpoint;
use crate::base::postgres::settings::ConnectSettings;
use crate::model::{ReadRequest, SourceIdentity};
use crate::source::which::identity;
use crate::source::{SourceError, SourceFault};

/// A table's UUID, or where its database gives none, when its definition was written.
pub(super) const IDENTITY: &str =
    "if(empty(uuid), toString(toUnixTimestamp(metadata_modification_time)), toString(uuid))";

/// Which database is read. Replicas behind one address are one database and have ids of their own: so the address is a mark,
/// where it is no loopback, which says nothing of a server, and so is the id that replicas have of a table.
pub(super) fn source(
    request: &ReadRequest,
    settings: &ConnectSettings,
    (database, table): (&str, Option<&str>),
    server_uuid: Option<&str>,
) -> SourceIdentity {
    let address = settings.addresses.first().filter(|address| !address.is_loopback()).map(ToString::to_string);
    let marks = [server_uuid.map(str::to_owned), address, table.map(str::to_owned)];
    identity(&request.run_id, database, marks.into_iter().flatten())
}

impl ChRelation {
    /// See [`source`].
    pub(super) fn source(
        &self,
        request: &ReadRequest,
        settings: &ConnectSettings,
        server_uuid: Option<&str>,
    ) -> SourceIdentity {
        let database = self.table.as_ref().map_or(settings.database.as_str(), |(database, _)| database);
        // A time is no mark: two tables may be as old.
        let table = self.identity.as_deref().filter(|identity| identity.contains('-'));
        source(request, settings, (database, table), server_uuid)
    }

    /// The question which table has the name now.
    fn identity_now(&self) -> Option<String> {
        let (database, table) = self.table.as_ref()?;
        let (database, table) = (literal(database), literal(table));
        Some(format!("SELECT {IDENTITY} FROM system.tables WHERE database = {database} AND name = {table}"))
    }

    /// The condition that it is the table that was planned: each statement looks for itself, since the name may lead back by the
    /// end of the run.
    pub(super) fn same_table_condition(&self) -> Option<String> {
        let now = self.identity_now().filter(|_| !failpoint::off("slice_identity"))?;
        Some(format!("({now}) = {}", literal(self.identity.as_deref()?)))
    }

    /// # Errors
    /// [`SourceFault::SnapshotLost`]: another table has the name than the one that was planned.
    pub(super) async fn is_same_table(&self, session: &ClickHouseSession) -> Result<(), SourceError> {
        let (Some(then), Some(sql)) = (&self.identity, self.identity_now()) else { return Ok(()) };
        if failpoint::off("identity") {
            return Ok(());
        }
        let rows = session.ask("looking whether it is the same table", &sql, &[]).await?;
        if rows.into_iter().flatten().flatten().next().as_ref() == Some(then) { Ok(()) } else { Err(self.replaced()) }
    }

    /// The same of a relation that was looked up again, for a run whose slices are of one table.
    pub(super) fn is_same_as(&self, now: &Self, mode: ChMode) -> Result<(), SourceError> {
        let of_one_table = matches!(mode, ChMode::PartSet | ChMode::PerPartition);
        match (&self.identity, &now.identity) {
            (Some(then), Some(now)) if of_one_table && then != now => Err(self.replaced()),
            _ => Ok(()),
        }
    }

    fn replaced(&self) -> SourceError {
        let name = self.name().unwrap_or_default();
        let message = format!("another table is called {name} now than when the run was planned, or it was altered");
        SourceError::new(SourceFault::SnapshotLost, message)
            .with_hint("export it again; `outhaul clean` removes what a run left that cannot be resumed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RelationKind;

    fn relation(identity: Option<&str>) -> ChRelation {
        ChRelation {
            kind: RelationKind::Table,
            table: Some(("d".to_owned(), "it's".to_owned())),
            query: None,
            predicate: None,
            engine: "MergeTree".to_owned(),
            estimated_rows: None,
            estimated_bytes: None,
            identity: identity.map(str::to_owned),
        }
    }

    #[test]
    fn another_table_of_the_name_is_no_part_of_the_run() {
        let (first, second, unknown) = (relation(Some("1")), relation(Some("2")), relation(None));
        for mode in [ChMode::PartSet, ChMode::PerPartition] {
            assert_eq!(first.is_same_as(&second, mode).unwrap_err().fault, SourceFault::SnapshotLost);
            assert!(first.is_same_as(&first, mode).is_ok());
            // A record of an earlier version does not say it.
            assert!(unknown.is_same_as(&first, mode).is_ok());
        }
        // Each range is of its own moment anyway.
        assert!(first.is_same_as(&second, ChMode::KeyRanges).is_ok());
    }

    #[test]
    fn a_slice_asks_which_table_it_reads() {
        let condition = relation(Some("1")).same_table_condition().unwrap();
        assert!(condition.starts_with("(SELECT ") && condition.ends_with("name = 'it\\'s') = '1'"), "{condition}");
        assert_eq!(relation(None).same_table_condition(), None);
    }

    #[test]
    fn the_record_of_an_earlier_version_is_read() {
        let mut value = serde_json::to_value(relation(Some("1"))).unwrap();
        value.as_object_mut().unwrap().remove("identity");
        assert_eq!(serde_json::from_value::<ChRelation>(value).unwrap(), relation(None));
    }
}
