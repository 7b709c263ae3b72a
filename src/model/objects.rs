//! How the objects of an export are kept by their store.

use serde::{Deserialize, Serialize};

/// What a store is told of the objects that it is given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ObjectOptions {
    /// `--sse`: how S3 encrypts whatever is written; `None` is the bucket's own way.
    pub sse: Option<ServerSideEncryption>,
    /// `--sse-kms-key-id`: the key of KMS; `None` is the account's own for S3.
    pub sse_kms_key_id: Option<String>,
    /// `--sse-bucket-key`: whether one key of the bucket's stands for many calls to KMS.
    pub sse_bucket_key: Option<bool>,
    /// `--storage-class` of the parts.
    pub storage_class: Option<String>,
    /// `--object-tag` of the parts: names and values.
    pub tags: Vec<(String, String)>,
}

/// How S3 encrypts what it keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerSideEncryption {
    /// With keys of S3's own.
    #[serde(rename = "AES256")]
    Aes256,
    /// With a key of KMS.
    #[serde(rename = "aws:kms")]
    Kms,
    /// With a key of KMS, twice.
    #[serde(rename = "aws:kms:dsse")]
    KmsTwice,
}

impl ServerSideEncryption {
    /// The words of S3's field.
    pub const ALL: [(&'static str, Self); 3] =
        [("AES256", Self::Aes256), ("aws:kms", Self::Kms), ("aws:kms:dsse", Self::KmsTwice)];

    /// As S3 takes it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Aes256 => "AES256",
            Self::Kms => "aws:kms",
            Self::KmsTwice => "aws:kms:dsse",
        }
    }
}
