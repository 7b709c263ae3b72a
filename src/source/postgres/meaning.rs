//! What the names in people's texts stand for. Each statement of a run looks them up anew, in the catalog as it is at
//! that moment and not as the snapshot has it: a table that is made earlier on the search path, or a function that is
//! replaced, would answer for the rest of the run. No lock keeps anybody from making one.
//!
//! So every session gets the path that the first one had, and what the names stand for is noted before the locks are
//! taken and compared when all rows have been read.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use tokio_postgres::types::{ToSql, Type};

use super::catalog::{CatalogRelation, TreeNode, query, value};
use super::closed::closed;
use super::connect::Session;
use super::fixed_now::texts;
use super::outer_settings::outer_settings_now;
use super::server::SessionFacts;
use crate::base::failpoint;
use crate::model::{RelationKind, ShapeOptions};
use crate::source::postgres::plan::mentions::Mentions;
use crate::source::postgres::plan::oid;
use crate::source::setting_digests::SettingDigests;
use crate::source::{SourceError, SourceFault};

/// Whose eyes a run reads with, and what the names in its texts stand for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meaning {
    /// The role that the sessions have.
    role: String,
    /// Whether which rows there are, or what they hold, may depend on the role.
    by_role: bool,
    /// The schemas of the search path, in SQL.
    path: String,
    /// `DateStyle`; empty in the record of a run of an earlier version.
    #[serde(default)]
    date_style: String,
    /// What was set for the session from outside; `None` in such a record.
    #[serde(default)]
    settings: Option<SettingDigests>,
    /// What a person named.
    written: Watched,
    /// What views and policies call.
    behind: Watched,
}

/// Objects of the catalog, and a digest of what was found there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Watched {
    names: Vec<String>,
    operators: Vec<String>,
    function_oids: Vec<u32>,
    operator_oids: Vec<u32>,
    digest: String,
}

impl Meaning {
    /// Asks a session that sees the newest catalog, before anything is looked up for the run.
    ///
    /// # Errors
    /// The server refused or was lost.
    pub(super) async fn of(session: &Session, shape: &ShapeOptions) -> Result<Self, SourceError> {
        let mut mentions = Mentions::default();
        texts(shape).for_each(|text| mentions.extend(Mentions::of(text)));
        let list = |names: BTreeSet<String>| names.into_iter().collect::<Vec<_>>();
        let texts = Watched { names: list(mentions.names), operators: list(mentions.operators), ..Watched::default() };
        let written = texts.looked_up(session).await?;
        let (role, path, date_style) = (String::new(), String::new(), String::new());
        let behind = Watched::default();
        Ok(Self { role, by_role: false, path, date_style, settings: None, written, behind })
    }

    /// The same as the session sees it that was asked.
    pub(super) fn seen_by(self, facts: SessionFacts) -> Self {
        let SessionFacts { role, search_path: path, date_style, settings, .. } = facts;
        Self { role, path, date_style, settings: Some(settings), ..self }
    }

    /// Notes what stands behind the relation: `functions` and `operators` of its views and policies, by their oids.
    ///
    /// # Errors
    /// As [`Meaning::of`].
    pub(super) async fn look_behind(
        &mut self,
        session: &Session,
        shape: &ShapeOptions,
        (found, tree): (Option<&CatalogRelation>, &[TreeNode]),
        (functions, operators): &(Vec<u32>, Vec<u32>),
    ) -> Result<(), SourceError> {
        let foreign = tree.iter().any(|node| node.relkind == "f");
        let policies = shape.allow_rls && tree.iter().any(|node| node.row_security);
        let view = found.is_none_or(|found| found.kind == RelationKind::View);
        self.by_role = view || foreign || policies || texts(shape).next().is_some();
        let behind =
            Watched { function_oids: functions.clone(), operator_oids: operators.clone(), ..Watched::default() };
        self.behind = behind.looked_up(session).await?;
        Ok(())
    }

    /// The schemas of the search path, in SQL.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The order of day and month in texts.
    pub(super) fn date_style(&self) -> &str {
        &self.date_style
    }

    /// Whether anything has to be compared in the end.
    pub(super) fn is_watched(&self) -> bool {
        !self.written.is_empty() || !self.behind.is_empty()
    }

    /// Whether both runs mean the same.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        let known = !self.date_style.is_empty() && !other.date_style.is_empty();
        let same_eyes = self.role == other.role && (self.date_style == other.date_style || !known);
        self.path == other.path && self.written == other.written && (same_eyes || !self.by_role)
    }

    /// Makes sure that what was set from outside is as it was for a run that began before.
    ///
    /// # Errors
    /// [`SourceFault::Usage`] where it is not, and the rows may depend on it.
    pub(super) fn same_settings(&self, began: &Self) -> Result<(), SourceError> {
        match (&self.settings, &began.settings) {
            (Some(now), Some(began)) if self.by_role && !failpoint::off("outer-settings") => now.same_as(began),
            _ => Ok(()),
        }
    }

    /// Makes sure that a session reads with the eyes that the run began with: its role's, with what was set for it.
    ///
    /// # Errors
    /// [`SourceFault::Usage`] where it does not, and the rows may depend on it.
    pub(super) async fn check_eyes(&self, session: &Session) -> Result<(), SourceError> {
        if !self.by_role {
            return Ok(());
        }
        self.check_role(session).await?;
        match &self.settings {
            Some(began) if !failpoint::off("outer-settings") => outer_settings_now(session).await?.same_as(began),
            _ => Ok(()),
        }
    }

    async fn check_role(&self, session: &Session) -> Result<(), SourceError> {
        if failpoint::off("role") {
            return Ok(());
        }
        let rows = query(session, "asking for the role", &closed("SELECT current_user::text"), &[]).await?;
        let role: Option<String> = rows.first().map(|row| value(row, 0)).transpose()?;
        if role.as_deref() == Some(self.role.as_str()) {
            return Ok(());
        }
        let (began, role) = (&self.role, role.unwrap_or_default());
        let message = format!("the run was begun by role {began}, and role {role} may see other rows");
        Err(SourceError::new(SourceFault::Usage, message)
            .with_hint(format!("resume it as {began}, or begin a new export")))
    }

    /// Compares the catalog with what it was when the run began, over a session that sees the newest one.
    ///
    /// # Errors
    /// [`SourceFault::SchemaChanged`] where a name may stand for something else.
    pub(super) async fn check(&self, session: &Session) -> Result<(), SourceError> {
        if failpoint::off("meaning") {
            return Ok(());
        }
        for (watched, what) in [
            (&self.written, "a name in --query, --where or --column stands for something else"),
            (&self.behind, "a function that a view or a policy calls is another one"),
        ] {
            if watched.clone().looked_up(session).await? != *watched {
                let message = format!("{what} than when the run began: some rows may have been read either way");
                let hint = "an object was created, replaced or dropped meanwhile: run the export again";
                return Err(SourceError::new(SourceFault::SchemaChanged, message).with_hint(hint));
            }
        }
        Ok(())
    }
}

/// What is found: relations, types, collations, operators and casts, and, where a function is called that is not
/// PostgreSQL's own, all such functions, as they may call each other. Only schemas count that are on the path or named
/// themselves. A row that is written anew has another `xmin`.
const FOUND: &str = "WITH seen(oids) AS (SELECT ARRAY(SELECT n.oid FROM pg_catalog.pg_namespace n \
            WHERE n.nspname = ANY (pg_catalog.current_schemas(true)) OR n.nspname::text = ANY ($1))), \
    operators AS (SELECT o.oid, o.xmin, o.oprcode::oid AS function FROM pg_catalog.pg_operator o, seen s \
        WHERE o.oid >= $5 AND (o.oid = ANY ($4) \
            OR o.oprname::text = ANY ($2) AND o.oprnamespace = ANY (s.oids))), \
    casts AS (SELECT c.oid, c.xmin, c.castfunc AS function FROM pg_catalog.pg_cast c \
        WHERE c.oid >= $5 AND pg_catalog.cardinality($1) > 0), \
    calls(oid) AS (SELECT p.oid FROM pg_catalog.pg_proc p, seen s \
            WHERE p.oid = ANY ($3) OR p.proname::text = ANY ($1) AND p.pronamespace = ANY (s.oids) \
        UNION ALL SELECT function FROM operators \
        UNION ALL SELECT function FROM casts), \
    found(what) AS (SELECT 'relation ' || c.oid || ' ' || c.relname FROM pg_catalog.pg_class c, seen s \
            WHERE c.relname::text = ANY ($1) AND c.relnamespace = ANY (s.oids) \
        UNION ALL SELECT 'type ' || t.oid || ' ' || t.typname FROM pg_catalog.pg_type t, seen s \
            WHERE t.typname::text = ANY ($1) AND t.typnamespace = ANY (s.oids) \
        UNION ALL SELECT 'collation ' || l.oid || ' ' || l.collname FROM pg_catalog.pg_collation l, seen s \
            WHERE l.collname::text = ANY ($1) AND l.collnamespace = ANY (s.oids) \
        UNION ALL SELECT 'operator ' || o.oid || ' ' || o.xmin::text FROM operators o \
        UNION ALL SELECT 'cast ' || c.oid || ' ' || c.xmin::text FROM casts c \
        UNION ALL SELECT 'function ' || p.oid || ' ' || p.xmin::text FROM pg_catalog.pg_proc p \
            WHERE p.oid >= $5 AND EXISTS (SELECT FROM calls WHERE calls.oid >= $5)) \
    SELECT pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(COALESCE( \
        pg_catalog.string_agg(what, ', ' ORDER BY what COLLATE pg_catalog.\"C\"), ''), 'UTF8')), 'hex') FROM found";

impl Watched {
    fn is_empty(&self) -> bool {
        let own = |oids: &[u32]| oids.iter().all(|oid| *oid < oid::FIRST_NORMAL);
        self.names.is_empty() && self.operators.is_empty() && own(&self.function_oids) && own(&self.operator_oids)
    }

    async fn looked_up(self, session: &Session) -> Result<Self, SourceError> {
        if self.is_empty() {
            return Ok(self);
        }
        let parameters: [(&(dyn ToSql + Sync), Type); 5] = [
            (&self.names, Type::TEXT_ARRAY),
            (&self.operators, Type::TEXT_ARRAY),
            (&self.function_oids, Type::OID_ARRAY),
            (&self.operator_oids, Type::OID_ARRAY),
            (&oid::FIRST_NORMAL, Type::OID),
        ];
        let rows = query(session, "looking up what names stand for", &closed(FOUND), &parameters).await?;
        let digest = rows.first().map(|row| value(row, 0)).transpose()?.unwrap_or_default();
        Ok(Self { digest, ..self })
    }
}
