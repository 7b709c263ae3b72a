//! Keys, tiers and limits: who may ask, and for how much.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::time::Duration;

use super::super::options::nearest;
use super::super::raw::TIERS;
use super::super::value;
use super::build::Builder;
use super::file::{CapEntry, KeyEntry, LimitsEntry, RetentionEntry, ServiceFile};
use super::{CallerKey, Remembrance, ServiceLimits};
use crate::base::budget::memory_of_machine;

const STREAMS: u32 = 64;
const STREAMS_PER_TENANT: u32 = 8;
const REQUESTS_PER_MINUTE: u32 = 600;
const WRITE_DEADLINE: Duration = Duration::from_secs(30);
const FIRST_PAGE: Duration = Duration::from_secs(20);
const CONNECTIONS: u32 = 1_000;
const SHUTDOWN: Duration = Duration::from_secs(10);
const RECEIPTS: Duration = Duration::from_hours(24 * 30);
const AUDIT: Duration = Duration::from_hours(24 * 400);

/// Where the system does not say what it has.
const MEMORY: u64 = 1 << 30;

impl Builder<'_> {
    pub(super) fn tiers(&mut self, file: &ServiceFile) -> BTreeMap<String, Option<NonZeroU64>> {
        let mut tiers: BTreeMap<String, Option<NonZeroU64>> = BTreeMap::new();
        let built_in: toml::Table = TIERS.parse().unwrap_or_default();
        for (name, cap) in built_in.get("tiers").and_then(toml::Value::as_table).into_iter().flatten() {
            let rows = cap.as_integer().and_then(|rows| u64::try_from(rows).ok()).and_then(NonZeroU64::new);
            tiers.insert(name.clone(), rows);
        }
        for (name, entry) in &file.tier {
            let cap = match &entry.max_rows {
                CapEntry::Word(word) if word == "unlimited" => Some(None),
                CapEntry::Word(_) => None,
                CapEntry::Rows(rows) => NonZeroU64::new(*rows).map(Some),
            };
            match cap {
                Some(cap) => drop(tiers.insert(name.clone(), cap)),
                None => self.wrong(format!("tier.{name}: max_rows"), "write a number of rows, or \"unlimited\""),
            }
        }
        tiers
    }

    /// The keys, each with a name and a digest of its own: callers without a tenant are known by the name, and all by the
    /// digest, so that two entries would open each other's records or rows.
    pub(super) fn keys(
        &mut self,
        entries: &[KeyEntry],
        tiers: &BTreeMap<String, Option<NonZeroU64>>,
        all: &[&str],
    ) -> Vec<CallerKey> {
        for (place, entry) in entries.iter().enumerate() {
            let before = |same: &dyn Fn(&KeyEntry) -> bool| entries.iter().take(place).position(same);
            if entry.name.trim().is_empty() {
                let hint = "name it: records and the audit know a key by its name";
                self.wrong(format!("[[key]] {} has no name", place + 1), hint);
            } else if let Some(first) = before(&|other| other.name == entry.name) {
                let what = format!("[[key]] {} and [[key]] {} are both named {:?}", first + 1, place + 1, entry.name);
                self.wrong(what, "give each a name of its own: keys without a tenant have their records by it");
            }
            if let Some(first) =
                before(&|other| digest(&other.sha256).is_some_and(|it| Some(it) == digest(&entry.sha256)))
            {
                let first = entries.get(first).map_or("", |first| first.name.as_str());
                let what = format!("key {first:?} and key {:?} have the same sha256", entry.name);
                self.wrong(what, "make a key for each: one key would open what the other entry says");
            }
        }
        entries.iter().filter_map(|entry| self.key(entry, tiers, all)).collect()
    }

    fn key(
        &mut self,
        entry: &KeyEntry,
        tiers: &BTreeMap<String, Option<NonZeroU64>>,
        all: &[&str],
    ) -> Option<CallerKey> {
        let place = format!("key {:?}", entry.name);
        let sha256 = digest(&entry.sha256);
        if sha256.is_none() {
            let hint = "write the 64 hex digits of printf %s \"$KEY\" | sha256sum";
            self.wrong(format!("{place}: sha256 is no SHA-256"), hint);
        }
        match (&entry.tier, entry.may_assert) {
            (Some(tier), _) => self.known_tier(&place, tier, tiers),
            (None, true) => {}
            (None, false) => self.wrong(format!("{place} has no tier"), "name one of the tiers"),
        }
        if entry.tenant.as_ref().is_some_and(|tenant| tenant.trim().is_empty()) {
            self.wrong(format!("{place}: tenant is empty"), "name the tenant, or leave it out");
        }
        let datasets = self.opened(&place, &entry.datasets, all);
        Some(CallerKey {
            name: entry.name.clone(),
            sha256: sha256?,
            tenant: entry.tenant.clone(),
            tier: entry.tier.clone(),
            datasets,
            may_assert: entry.may_assert,
        })
    }

    /// The datasets that somebody may use; `None` is all.
    pub(super) fn opened(&mut self, place: &str, datasets: &[String], all: &[&str]) -> Option<Vec<String>> {
        for dataset in datasets.iter().filter(|name| *name != "*") {
            if !all.contains(&dataset.as_str()) {
                let hint = nearest(dataset, all.iter().copied());
                let hint = hint.map_or_else(
                    || format!("the datasets are {}", all.join(", ")),
                    |near| format!("did you mean {near}?"),
                );
                self.wrong(format!("{place}: dataset {dataset:?} is not there"), hint);
            }
        }
        let every = datasets.iter().any(|name| name == "*");
        (!every).then(|| datasets.to_vec())
    }

    pub(super) fn known_tier(&mut self, place: &str, tier: &str, tiers: &BTreeMap<String, Option<NonZeroU64>>) {
        if !tiers.contains_key(tier) {
            let known: Vec<&str> = tiers.keys().map(String::as_str).collect();
            self.wrong(format!("{place}: tier {tier:?} is not known"), format!("the tiers are {}", known.join(", ")));
        }
    }

    pub(super) fn seconds(&mut self, key: &str, text: Option<&str>, usual: i64) -> i64 {
        match text.map(value::duration) {
            None => usual,
            Some(Ok(duration)) => i64::try_from(duration.as_secs()).unwrap_or(usual),
            Some(Err(why)) => {
                self.wrong(key, why);
                usual
            }
        }
    }

    pub(super) fn limits(&mut self, entry: &LimitsEntry) -> ServiceLimits {
        let write_deadline = self.time("limits.write_deadline", entry.write_deadline.as_deref(), WRITE_DEADLINE);
        let first_page = self.time("limits.first_page", entry.first_page.as_deref(), FIRST_PAGE);
        let shutdown = self.time("limits.shutdown", entry.shutdown.as_deref(), SHUTDOWN);
        let max_row_bytes = match entry.max_row_bytes.as_deref().map(value::size) {
            None => self.max_row_bytes,
            Some(Ok(bytes)) => bytes,
            Some(Err(why)) => {
                self.wrong("limits.max_row_bytes", why);
                self.max_row_bytes
            }
        };
        let memory = match entry.memory.as_deref().map(value::size) {
            // The rest is for the system, for what nobody reserves, and for others.
            None => memory_of_machine().map_or(MEMORY, |bytes| bytes / 2),
            Some(Ok(bytes)) => bytes.get(),
            Some(Err(why)) => {
                self.wrong("limits.memory", why);
                MEMORY
            }
        };
        let limits = ServiceLimits {
            streams: entry.streams.unwrap_or(STREAMS),
            streams_per_tenant: entry.streams_per_tenant.unwrap_or(STREAMS_PER_TENANT),
            requests_per_minute: entry.requests_per_minute.unwrap_or(REQUESTS_PER_MINUTE),
            write_deadline,
            first_page,
            connections: entry.connections.unwrap_or(CONNECTIONS),
            memory,
            max_row_bytes,
            shutdown,
        };
        let none = limits.streams == 0 || limits.connections == 0;
        if none || limits.streams_per_tenant == 0 || limits.requests_per_minute == 0 {
            self.wrong("a limit of 0 serves nobody", "write 1 or more");
        }
        limits
    }

    pub(super) fn retention(&mut self, entry: &RetentionEntry) -> Remembrance {
        Remembrance {
            receipts: self.time("retention.receipts", entry.receipts.as_deref(), RECEIPTS),
            audit: self.time("retention.audit", entry.audit.as_deref(), AUDIT),
        }
    }

    pub(super) fn time(&mut self, place: &str, text: Option<&str>, usual: Duration) -> Duration {
        match text.map(value::duration) {
            None => usual,
            Some(Ok(duration)) => duration,
            Some(Err(why)) => {
                self.wrong(place, why);
                usual
            }
        }
    }
}

/// A SHA-256 in hex.
fn digest(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> =
        text.chars().map(|digit| digit.to_digit(16).and_then(|it| u8::try_from(it).ok())).collect::<Option<_>>()?;
    let bytes: Vec<u8> =
        digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |sum, digit| sum << 4 | digit)).collect();
    if digits.len() == 64 { bytes.try_into().ok() } else { None }
}
