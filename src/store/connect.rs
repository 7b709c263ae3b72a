//! Makes the store clients.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use object_store::memory::InMemory;
use object_store::path::Path;

use super::address::Provider;
use super::error::{StoreError, StoreFault};
use super::remote::Remote;

/// The CRC64NVME that a store told in a header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Crc64Header(pub(super) u64);

/// A store in this process; the same name gives the same store.
pub(super) fn memory(name: &str, url: String) -> Remote {
    static STORES: Mutex<BTreeMap<String, Arc<InMemory>>> = Mutex::new(BTreeMap::new());
    let mut stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
    let store = stores.entry(name.to_owned()).or_default();
    Remote {
        store: Arc::clone(store) as _,
        uploads: Arc::clone(store) as _,
        facts: Arc::clone(store) as _,
        root: Path::ROOT,
        url,
        upload_attributes: true,
    }
}

pub(super) fn cloud(_provider: Provider, _authority: &str, _prefix: &str, url: String) -> Result<Remote, StoreError> {
    Err(StoreError::new("opening destination", url, StoreFault::Configuration, "not built yet"))
}
