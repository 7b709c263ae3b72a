//! Records in memory.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use chrono::Utc;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::{ExportEnd, ExportRecord, StateError, StateStore};

/// Forgets everything with its process.
#[derive(Debug, Default)]
pub(crate) struct MemoryStore(Mutex<HashMap<String, ExportRecord>>);

impl StateStore for MemoryStore {
    fn begin_export(&self, record: ExportRecord) -> BoxFuture<'_, Result<(), StateError>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(record.id.clone(), record);
        std::future::ready(Ok(())).boxed()
    }

    fn finish_export(&self, id: String, end: ExportEnd) -> BoxFuture<'_, Result<(), StateError>> {
        if let Some(record) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&id) {
            record.finished_at = Some(Utc::now());
            record.end = end;
        }
        std::future::ready(Ok(())).boxed()
    }

    fn export(&self, id: String, tenant: String) -> BoxFuture<'_, Result<Option<ExportRecord>, StateError>> {
        let records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = records.get(&id).filter(|record| record.tenant == tenant).cloned();
        std::future::ready(Ok(found)).boxed()
    }
}
