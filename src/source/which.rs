//! Which database rows come from, as a manifest may say it.

use sha2::{Digest as _, Sha256};

use crate::base::text::number::hex_text;
use crate::model::SourceIdentity;

/// What tells the database of a run from another one: `database` is alike on all of its servers, and of `server` one mark is
/// enough. The hashes are the run's own, so that no two manifests tell whether they are of one database.
pub(super) fn identity(
    run_id: &str,
    database: &str,
    server: impl IntoIterator<Item = impl AsRef<str>>,
) -> SourceIdentity {
    let hash = |text: &str| {
        let digest = Sha256::new().chain_update(run_id).chain_update([0]).chain_update(text).finalize();
        hex_text(&digest[..16])
    };
    SourceIdentity { database: hash(database), server: server.into_iter().map(|mark| hash(mark.as_ref())).collect() }
}
