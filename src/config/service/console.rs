//! `[clickhouse_console]`: who may send statements of his own, where, and as whom.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::super::options::nearest;
use super::super::typed::load as load_export;
use super::super::{ConfigErrors, Environment};
use super::build::{Builder, NOWHERE};
use super::file::{ConsoleEntry, ServiceFile};
use crate::export::ExportRequest;
use crate::source::Source;

/// So long a caller waits for the first bytes of an answer: a statement that sorts has none before it has read all.
const FIRST_BYTES: Duration = Duration::from_mins(5);

/// The section.
#[derive(Debug, Clone)]
pub struct StatementConsole {
    /// An export of each source, before a statement is known, by the source's name.
    pub sources: BTreeMap<String, ExportRequest>,
    /// The names of the keys that may.
    pub keys: Vec<String>,
    /// The users of tokens that may.
    pub users: Vec<String>,
    /// As whom the database is asked.
    pub credentials: StatementCredentials,
    /// So long a caller waits for the first bytes.
    pub first_bytes: Duration,
    /// Whether the audit keeps statements as they are, and not without their literals.
    pub audit_literals: bool,
}

/// As whom the database is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatementCredentials {
    /// As the user that each request names, with his password.
    Caller,
    /// As the user of the source, who should only read.
    Source,
}

impl Builder<'_> {
    pub(super) fn console(
        &mut self,
        file: &ServiceFile,
        sources: &BTreeMap<String, Arc<dyn Source>>,
    ) -> Option<StatementConsole> {
        let entry = file.clickhouse_console.as_ref()?;
        let first_bytes = self.time("clickhouse_console.first_bytes", entry.first_bytes.as_deref(), FIRST_BYTES);
        let credentials = match entry.credentials.as_deref() {
            None | Some("caller") => StatementCredentials::Caller,
            Some("source") => StatementCredentials::Source,
            Some(other) => {
                self.wrong(format!("clickhouse_console: credentials is {other:?}"), "write caller or source");
                StatementCredentials::Caller
            }
        };
        self.check_console_callers(entry, file);
        if entry.sources.is_empty() {
            self.wrong("clickhouse_console: sources is empty", "name a [source.NAME] of ClickHouse, or leave it out");
        }
        let mut requests = BTreeMap::new();
        for name in &entry.sources {
            if !file.source.contains_key(name) {
                let known: Vec<&str> = file.source.keys().map(String::as_str).collect();
                let hint = nearest(name, known.iter().copied()).map_or_else(
                    || format!("the sources are {}", known.join(", ")),
                    |near| format!("did you mean {near}?"),
                );
                self.wrong(format!("clickhouse_console: source {name:?} is not there"), hint);
            }
            // What is wrong with the source itself is told already.
            let Some(source) = sources.get(name) else { continue };
            if !source.writes_itself() {
                let hint = "name a source whose from begins with clickhouse:// or clickhouses://";
                self.wrong(format!("clickhouse_console: source {name:?} is no ClickHouse server"), hint);
            } else if let Some(request) = self.statement_template(source) {
                requests.insert(name.clone(), request);
            }
        }
        Some(StatementConsole {
            sources: requests,
            keys: entry.keys.clone(),
            users: entry.users.clone(),
            credentials,
            first_bytes,
            audit_literals: entry.audit_literals,
        })
    }

    fn check_console_callers(&mut self, entry: &ConsoleEntry, file: &ServiceFile) {
        if entry.keys.is_empty() && entry.users.is_empty() {
            let hint = "name keys in keys, or users of tokens in users";
            self.wrong("clickhouse_console: nobody may send a statement", hint);
        }
        for name in &entry.keys {
            if !file.key.iter().any(|key| key.name == *name) {
                let hint = "write the name of a [[key]]";
                self.wrong(format!("clickhouse_console: key {name:?} is not there"), hint);
            }
        }
        if !entry.users.is_empty() && file.jwt.is_none() {
            self.wrong("clickhouse_console: users are those of tokens, and there is no [jwt]", "name keys in keys");
        }
    }

    /// The export of a statement, before there is one, by the options of `outhaul export`.
    fn statement_template(&mut self, source: &Arc<dyn Source>) -> Option<ExportRequest> {
        let flags =
            [("from", NOWHERE), ("to", "-"), ("format", "ndjson"), ("compression", "none"), ("query", "SELECT 1")];
        let flags = flags.map(|(key, value)| (key, vec![value.to_owned()])).to_vec();
        match load_export(flags, &Environment::default(), true) {
            Ok((mut request, _)) => {
                request.format = request.format.of_source();
                request.source = Arc::clone(source);
                Some(request)
            }
            Err(ConfigErrors(errors)) => {
                self.errors.extend(errors);
                None
            }
        }
    }
}
