//! Where the files of a commit stand at the destination.

use crate::store::Destination;
use crate::store::owner::OWNER_PATH;

/// The name of the manifest below a destination.
pub(crate) const MANIFEST_PATH: &str = "_manifest.json";

/// Written last: whoever polls for it finds everything else in place.
pub(crate) const SUCCESS_PATH: &str = "_SUCCESS";

/// Whether an export is a set of parts below its destination, or one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// Parts, nested or flat, with everything that describes them beside them.
    Parts,
    /// `--single-file`: one object, and beside it only its manifest, `<name>.manifest.json`. There is no `_SUCCESS` and
    /// no foreign manifest: its folder may belong to others, and whoever reads one file needs no list of files.
    Single {
        /// The object's name, relative to its folder, which is the destination.
        name: String,
    },
}

impl Placement {
    /// Where the owner of what is written stands. Single files share folders, and each has an owner of its own.
    pub fn owner_path(&self) -> String {
        match self {
            Self::Parts => OWNER_PATH.to_owned(),
            Self::Single { name } => format!("_outhaul/{name}.owner.json"),
        }
    }

    /// The URL of what is written: the destination's, or that of the one file.
    pub(crate) fn url(&self, destination: &Destination) -> String {
        match self {
            Self::Parts => destination.url().to_owned(),
            Self::Single { name } => destination.object_url(name),
        }
    }

    /// The manifest's path relative to the destination.
    pub fn manifest_path(&self) -> String {
        match self {
            Self::Parts => MANIFEST_PATH.to_owned(),
            Self::Single { name } => format!("{name}.manifest.json"),
        }
    }
}
