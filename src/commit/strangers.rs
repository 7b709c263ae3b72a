//! What stands where readers look for parts, and is none.

use std::collections::HashSet;

use crate::store::{Destination, PartName, StoreError};

/// Objects that a reader of `data/` would take for parts, with their sizes, and that are not among `named`. With the `flat`
/// layout other objects may stand beside the parts, so there only names of parts count, in whichever folders.
///
/// # Errors
/// The destination does not list them.
///
/// # Cancel safety
/// It only reads.
pub(crate) async fn strangers(
    destination: &Destination,
    flat: bool,
    named: &HashSet<&str>,
) -> Result<Vec<(String, u64)>, StoreError> {
    let mut found = destination.list(if flat { "" } else { "data" }).await?;
    let counts = |path: &str| path.starts_with("data/") || (flat && PartName::parse(path).is_some());
    found.retain(|(path, _)| counts(path) && !is_hidden(path) && !named.contains(path.as_str()));
    Ok(found)
}

/// Whether readers pass over it: what file systems, browsers of files and other programs leave has such a name. A column that
/// names a folder may begin so too.
fn is_hidden(path: &str) -> bool {
    let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
    let is_private = |name: &str| name.starts_with(['.', '_']);
    is_private(name) || folders.split('/').any(|folder| is_private(folder) && !folder.contains('='))
}
