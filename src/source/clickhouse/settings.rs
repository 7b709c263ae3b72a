//! What every question tells the server: the settings without which an answer may be silently short, or run on for nobody.
//!
//! A profile may have them otherwise, and may forbid to change them: then either they have our value already, or the source
//! is refused.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::super::{Retry, SourceError, SourceFault};
use super::body::ClickHouseBody;
use super::http::{ClickHouseHttp, QuestionParameters};
use super::kill::QueryName;
use super::unreached::first;
use crate::model::SourceCost;

/// Whether a setting must be as we want it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SettingNeed {
    /// Without it an answer may be wrong, or not readable.
    Must,
    /// It only saves the server work.
    May,
}

/// A setting as we want it; a server that does not know it has no such behaviour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WantedSetting {
    pub name: &'static str,
    pub value: &'static str,
    pub need: SettingNeed,
}

/// A setting that must be so.
pub(crate) const fn must(name: &'static str, value: &'static str) -> WantedSetting {
    WantedSetting { name, value, need: SettingNeed::Must }
}

/// A setting that had better be so.
pub(crate) const fn may(name: &'static str, value: &'static str) -> WantedSetting {
    WantedSetting { name, value, need: SettingNeed::May }
}

/// Always sent. Beside them stands every `…overflow_mode…` that the server has, as `throw`.
pub(super) const ALWAYS: [WantedSetting; 12] = [
    // An error would be a row.
    must("http_write_exception_in_output_format", "0"),
    // Rows of a shard that is down would be missing.
    must("skip_unavailable_shards", "0"),
    // A query that somebody kills would end as a whole one.
    must("partial_result_on_first_cancel", "0"),
    // A profile would cut every result.
    must("limit", "0"),
    must("offset", "0"),
    // Rows that were deleted.
    must("apply_deleted_mask", "1"),
    // Rows of some time ago.
    must("use_query_cache", "0"),
    may("fallback_to_stale_replicas_for_distributed_queries", "0"),
    may("cancel_http_readonly_queries_on_client_close", "1"),
    may("http_wait_end_of_query", "0"),
    may("http_response_buffer_size", "0"),
    may("send_progress_in_http_headers", "0"),
];

/// What the server is told beside them: it lets nothing be written, and lets settings be changed.
const READ_ONLY: (&str, &str) = ("readonly", "2");

/// How long a question waits for a server that lets this user run no more queries now: each of ours is short.
const BUSY_PAUSES: [Duration; 5] = [
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
];

/// A server that has been asked what it is, and what its profile says.
#[derive(Debug)]
pub(crate) struct ClickHouseSession {
    http: Arc<ClickHouseHttp>,
    /// `26.9.2.1`.
    pub version: String,
    /// The name that the server has of itself.
    pub host: String,
    settings: Vec<(String, String)>,
}

impl ClickHouseSession {
    /// Asks a server. `wanted` are settings of the caller's own beside those that are always sent.
    ///
    /// # Errors
    /// The server cannot be asked, or its profile has a setting that would make answers wrong, and forbids to change it.
    pub(crate) async fn open(http: Arc<ClickHouseHttp>, wanted: &[WantedSetting]) -> Result<Self, SourceError> {
        let rows = http.ask("asking the server what it is", &inquiry(wanted), &[]).await.map_err(first)?;
        let mut facts: BTreeMap<String, String> = BTreeMap::new();
        for row in rows {
            let mut values = row.into_iter();
            if let (Some(Some(name)), Some(Some(value))) = (values.next(), values.next()) {
                facts.insert(name, value);
            }
        }
        let fact = |name: &str| facts.get(name).cloned().unwrap_or_default();
        let settings = decide(&facts, wanted)?;
        let (version, host) = (fact(VERSION), fact(HOST));
        Ok(Self { http, version, host, settings })
    }

    /// Its year and its month: 26.9 is `(26, 9)`.
    pub(crate) fn release(&self) -> (u32, u32) {
        let mut numbers = self.version.split('.').map(|number| number.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }

    /// [`ClickHouseHttp::ask`], safely. `parameters` win.
    pub(crate) async fn ask(
        &self,
        doing: &str,
        sql: &str,
        parameters: QuestionParameters<'_>,
    ) -> Result<Vec<Vec<Option<String>>>, SourceError> {
        self.patiently(doing, sql, &self.all(parameters)).await
    }

    /// The same with no setting of ours, for a question about the session itself.
    pub(crate) async fn ask_as_it_is(&self, doing: &str, sql: &str) -> Result<Vec<Vec<Option<String>>>, SourceError> {
        self.patiently(doing, sql, &[]).await
    }

    async fn patiently(
        &self,
        doing: &str,
        sql: &str,
        parameters: QuestionParameters<'_>,
    ) -> Result<Vec<Vec<Option<String>>>, SourceError> {
        let mut pauses = BUSY_PAUSES.iter();
        loop {
            match (self.http.ask(doing, sql, parameters).await, pauses.next()) {
                (Err(error), Some(pause)) if error.retry == Retry::FewerReaders => tokio::time::sleep(*pause).await,
                (answer, _) => return answer,
            }
        }
    }

    /// [`ClickHouseHttp::stream`], safely. `parameters` win.
    pub(crate) async fn stream(
        &self,
        doing: &str,
        sql: &str,
        name: &QueryName,
        parameters: QuestionParameters<'_>,
    ) -> Result<ClickHouseBody, SourceError> {
        self.http.stream(doing, sql, name, &self.all(parameters)).await
    }

    /// [`ClickHouseHttp::kill_all`].
    pub(super) async fn kill_all(&self, prefix: &str) -> Result<(), SourceError> {
        self.http.kill_all(prefix).await
    }

    /// What shows that something stands between; `None` where nothing does.
    pub(crate) fn between(&self) -> Option<&str> {
        self.http.between()
    }

    /// Whether answers that are written as they come are compressed on their way.
    pub(crate) fn packs(&self) -> bool {
        self.http.coding().is_some()
    }

    /// What asking has cost so far.
    pub(crate) fn cost(&self) -> SourceCost {
        SourceCost { peak_connections: self.http.peak_connections(), ..SourceCost::default() }
    }

    /// What is sent beside a statement, for people.
    pub(crate) fn sent(&self) -> &[(String, String)] {
        &self.settings
    }

    fn all<'a>(&'a self, parameters: QuestionParameters<'a>) -> Vec<(&'a str, &'a str)> {
        let own = self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let own = own.filter(|(name, _)| !parameters.iter().any(|(given, _)| given == name));
        own.chain(parameters.iter().copied()).collect()
    }
}

// Names that no setting has.
const VERSION: &str = "version()";
const HOST: &str = "hostName()";

fn inquiry(wanted: &[WantedSetting]) -> String {
    let names = ALWAYS.iter().chain(wanted).map(|setting| format!("'{}'", setting.name));
    let names = names.collect::<Vec<_>>().join(", ");
    format!(
        "SELECT '{VERSION}' AS name, version() AS value UNION ALL SELECT '{HOST}', hostName() \
         UNION ALL SELECT name, value FROM system.settings \
         WHERE name IN ('readonly', {names}) OR name LIKE '%overflow\\_mode%'"
    )
}

/// What is to be sent, where the server has these settings now.
fn decide(now: &BTreeMap<String, String>, wanted: &[WantedSetting]) -> Result<Vec<(String, String)>, SourceError> {
    let modes = now.keys().filter(|name| name.contains("overflow_mode"));
    let modes = modes.map(|name| (name.as_str(), "throw", SettingNeed::Must));
    let named = ALWAYS.iter().chain(wanted).map(|setting| (setting.name, setting.value, setting.need));
    let (mut send, mut fixed) = (Vec::new(), Vec::new());
    // 0 is whoever may write; 2 is whoever may change settings, all but this one.
    let may_set = now.get("readonly").is_none_or(|value| value != "1");
    if now.get("readonly").is_some_and(|value| value == "0") {
        send.push((READ_ONLY.0.to_owned(), READ_ONLY.1.to_owned()));
    }
    for (name, value, need) in named.chain(modes) {
        match now.get(name) {
            Some(is) if is != value && may_set => send.push((name.to_owned(), value.to_owned())),
            Some(is) if is != value && need == SettingNeed::Must => {
                fixed.push(format!("{name} = {is}, and not {value}"));
            }
            _ => {}
        }
    }
    if fixed.is_empty() {
        return Ok(send);
    }
    let message = format!(
        "the profile of this user has readonly = 1, which lets nobody change a setting, and it has {}",
        fixed.join("; ")
    );
    Err(SourceError::new(SourceFault::Authentication, message)
        .with_hint("readonly = 2 in its profile reads as safely and lets settings be changed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(now: &[(&str, &str)]) -> Result<Vec<String>, SourceError> {
        let now = now.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Ok(decide(&now, &[must("own", "7")])?.into_iter().map(|(name, value)| format!("{name}={value}")).collect())
    }

    #[test]
    fn what_a_server_has_otherwise_is_sent() {
        let plain = [("readonly", "0"), ("limit", "0"), ("own", "7"), ("result_overflow_mode", "throw")];
        assert_eq!(sent(&plain).unwrap(), ["readonly=2"]);
        let breaking = [("readonly", "2"), ("limit", "10"), ("own", "8"), ("result_overflow_mode", "break")];
        assert_eq!(sent(&breaking).unwrap(), ["limit=0", "own=7", "result_overflow_mode=throw"]);
        assert_eq!(sent(&[]).unwrap(), <[&str; 0]>::default(), "a server that knows none of them");
    }

    #[test]
    fn a_profile_that_forbids_changes_must_be_right_already() {
        let right = [("readonly", "1"), ("own", "7"), ("limit", "0"), ("send_progress_in_http_headers", "1")];
        assert_eq!(sent(&right).unwrap(), <[&str; 0]>::default());
        let error = sent(&[("readonly", "1"), ("timeout_overflow_mode", "break")]).unwrap_err();
        assert_eq!(error.fault, SourceFault::Authentication);
        assert!(error.message.contains("timeout_overflow_mode = break"), "{error}");
    }
}
