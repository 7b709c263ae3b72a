//! Stage 4, STORE: encoded bytes become parts at the destination, staged until commit. The only user of `object_store`.

pub mod error;
pub mod name;
pub mod receipt;

pub use error::StoreError;
pub use name::{Layout, PartName};
pub use receipt::{PartReceipt, PartitionReceipt, StagedObject, Staging};
