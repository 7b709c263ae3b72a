//! Destinations of tests.

use std::sync::Arc;

use super::{Backend, Destination, DestinationInner};
use crate::store::StoreOptions;
use crate::store::connect;
#[cfg(test)]
use crate::store::remote::Remote;

impl Destination {
    /// A store in this process, for tests: what is written there is gone with the process. The same name gives the same
    /// store.
    pub fn in_memory(name: &str, options: &StoreOptions) -> Self {
        let url = format!("memory:///{name}");
        let backend = Backend::Remote(Arc::new(connect::memory(name, url.clone())));
        Self { inner: Arc::new(DestinationInner { url, encoded: false, options: *options, backend, opened: None }) }
    }

    /// A store of a test.
    #[cfg(test)]
    pub(crate) fn of_store(store: &Arc<crate::store::fault_store::FaultStore>, options: &StoreOptions) -> Self {
        let url = "memory:///simulated".to_owned();
        let remote = Remote::new(Arc::clone(store), object_store::path::Path::ROOT, url.clone());
        let backend = Backend::Remote(Arc::new(remote));
        Self { inner: Arc::new(DestinationInner { url, encoded: false, options: *options, backend, opened: None }) }
    }
}
