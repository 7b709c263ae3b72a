//! What a session's user, database or options set, and no statement of ours does: two processes that read for one run must have
//! it alike, or the same text gives other rows.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{SourceError, SourceFault};
use crate::base::text::number::hex_text;

/// Settings by name, each as the SHA-256 of `name=value`: a value may be a secret, and records have none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct SettingDigests(BTreeMap<String, String>);

impl FromIterator<(String, String)> for SettingDigests {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(settings: I) -> Self {
        let digest = |(name, value): (String, String)| {
            let digest = hex_text(&Sha256::digest(format!("{name}={value}")));
            (name, digest)
        };
        Self(settings.into_iter().map(digest).collect())
    }
}

impl SettingDigests {
    /// Makes sure that they are as they were when the run began.
    ///
    /// # Errors
    /// [`SourceFault::Usage`] with the names of those that are not.
    pub(crate) fn same_as(&self, began: &Self) -> Result<(), SourceError> {
        let names: BTreeSet<&String> = self.0.keys().chain(began.0.keys()).collect();
        let other = names.into_iter().filter(|name| self.0.get(*name) != began.0.get(*name)).map(String::as_str);
        let other: Vec<&str> = other.collect();
        if other.is_empty() {
            return Ok(());
        }
        let message = format!(
            "the run may have read other rows than would be read here: {} is not set as it was when the run began",
            other.join(", ")
        );
        Err(SourceError::new(SourceFault::Usage, message)
            .with_hint("connect with the options and as the user of the run, or begin a new export"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(settings: &[(&str, &str)]) -> SettingDigests {
        settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_differs_is_named_and_no_value_is_kept() {
        let began = of(&[("app.tenant", "secret-1"), ("final", "1"), ("same", "x")]);
        assert!(began.same_as(&began).is_ok());
        let error = of(&[("app.tenant", "secret-2"), ("new", "1"), ("same", "x")]).same_as(&began).unwrap_err();
        assert_eq!(error.fault, SourceFault::Usage);
        assert!(error.message.contains("app.tenant, final, new is not set"), "{error}");
        let kept = serde_json::to_string(&began).unwrap();
        assert!(!kept.contains("secret") && kept.contains("app.tenant"), "{kept}");
    }
}
