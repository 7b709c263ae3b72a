//! A destination once more, encrypted another way.

use std::collections::BTreeMap;

use super::Destination;
use crate::model::ObjectOptions;
use crate::store::StoreError;
use crate::store::object_options::{encrypt, of_records};

/// What a destination was opened with: the URL as it was given, and variables with secrets among them.
pub(super) struct OpenedBy {
    pub(super) url: String,
    pub(super) variables: BTreeMap<String, String>,
}

impl std::fmt::Debug for OpenedBy {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("OpenedBy")
    }
}

impl Destination {
    /// The same destination, where what is written from now on is encrypted so; the same, too, where that is as the bucket
    /// does.
    ///
    /// # Errors
    /// As [`Destination::open`].
    pub(crate) fn encrypted_as(&self, objects: &ObjectOptions) -> Result<Self, StoreError> {
        let Some(OpenedBy { url, variables }) = self.inner.opened.as_ref().filter(|_| objects.sse.is_some()) else {
            return Ok(self.clone());
        };
        let (objects, mut variables) = (of_records(url, objects)?, variables.clone());
        encrypt(&mut variables, &objects);
        Self::opened(url, &self.inner.options, &variables, &objects)
    }
}
