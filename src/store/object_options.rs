//! What a store is told of the objects that it is given: encryption goes into every request by the client's own settings,
//! storage class and tags into the uploads of parts alone. The records of a run are read again and again, and a class whose
//! objects must be restored first would be its end.

use object_store::{Attribute, Attributes, TagSet};

use super::address::{Address, Provider};
use super::connect::Variables;
use super::error::{StoreError, StoreFault};
use crate::base::failpoint;
use crate::model::ObjectOptions;

/// Refuses what the store of a URL does not have.
///
/// # Errors
/// [`StoreFault::Configuration`], with the flag.
pub(crate) fn check_objects(url: &str, objects: &ObjectOptions) -> Result<(), StoreError> {
    let ObjectOptions { sse, sse_kms_key_id, sse_bucket_key, storage_class, tags } = objects;
    let encrypted = sse.is_some() || sse_kms_key_id.is_some() || sse_bucket_key.is_some();
    if !encrypted && storage_class.is_none() && tags.is_empty() {
        return Ok(());
    }
    let address = Address::parse(url)?;
    let refused = |flag: &str, what: &str, hint: &str| {
        let why = format!("{flag}: {what}");
        Err(StoreError::new("opening destination", address.url(), StoreFault::Configuration, why).with_hint(hint))
    };
    let provider = match &address {
        Address::Local(_) => None,
        Address::Cloud { provider, .. } => Some(*provider),
    };
    if encrypted && provider != Some(Provider::S3) {
        let what = "only S3 is told how to encrypt what it keeps";
        return refused("--sse", what, "leave it out: other stores go by the settings of the bucket or container");
    }
    if storage_class.is_some() && !matches!(provider, Some(Provider::S3 | Provider::Gcs)) {
        let what = "only S3 and GCS are told the class of what is uploaded";
        let hint = "leave it out: an account of Azure has a default access tier, and rules that change it";
        return refused("--storage-class", what, hint);
    }
    if !tags.is_empty() && provider != Some(Provider::S3) {
        return refused("--object-tag", "only S3 is told tags of what is uploaded", "leave it out");
    }
    Ok(())
}

/// How records at a URL are kept that stand beside an export whose objects are kept so: encrypted as these are, where that
/// is S3 too, and of no class.
///
/// # Errors
/// [`StoreFault::Configuration`] where the URL makes no sense.
pub(crate) fn of_records(url: &str, objects: &ObjectOptions) -> Result<ObjectOptions, StoreError> {
    let is_s3 = matches!(Address::parse(url)?, Address::Cloud { provider: Provider::S3, .. });
    if !is_s3 || failpoint::off("encrypted-records") {
        return Ok(ObjectOptions::default());
    }
    Ok(ObjectOptions { storage_class: None, tags: Vec::new(), ..objects.clone() })
}

/// The variables by which a client of S3 encrypts, where the options say so.
pub(super) fn encrypt(variables: &mut Variables, objects: &ObjectOptions) {
    let pairs = [
        ("AWS_SERVER_SIDE_ENCRYPTION", objects.sse.map(|sse| sse.word().to_owned())),
        ("AWS_SSE_KMS_KEY_ID", objects.sse_kms_key_id.clone()),
        ("AWS_SSE_BUCKET_KEY_ENABLED", objects.sse_bucket_key.map(|wanted| wanted.to_string())),
    ];
    if objects.sse.is_none() {
        return;
    }
    for (name, value) in pairs {
        match value {
            Some(value) => variables.insert(name.to_owned(), value),
            // A key of another way would not go with this one.
            None => variables.remove(name),
        };
    }
}

/// What the upload of a part carries beside its bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct PartAttributes {
    class: Option<String>,
    pub(super) tags: TagSet,
}

impl PartAttributes {
    pub(super) fn of(objects: &ObjectOptions) -> Self {
        let mut tags = TagSet::default();
        for (name, value) in &objects.tags {
            tags.push(name, value);
        }
        Self { class: objects.storage_class.clone(), tags }
    }

    /// Adds those that are no tags.
    pub(super) fn add_to(&self, attributes: &mut Attributes) {
        if let Some(class) = &self.class {
            attributes.insert(Attribute::StorageClass, class.clone().into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ServerSideEncryption;

    #[test]
    fn a_store_is_told_only_what_it_has() {
        let plain = ObjectOptions::default();
        let sse = ObjectOptions { sse: Some(ServerSideEncryption::Kms), ..plain.clone() };
        let class = ObjectOptions { storage_class: Some("STANDARD_IA".to_owned()), ..plain.clone() };
        let tags = ObjectOptions { tags: vec![("team".to_owned(), "data".to_owned())], ..plain.clone() };
        for (url, taken) in [
            ("s3://b/x", [true, true, true, true]),
            ("gs://b/x", [true, false, true, false]),
            ("az://c/x", [true, false, false, false]),
            ("/tmp/x", [true, false, false, false]),
        ] {
            let found = [&plain, &sse, &class, &tags].map(|objects| check_objects(url, objects).is_ok());
            assert_eq!(found, taken, "{url}");
        }
        let error = check_objects("gs://b/x", &sse).unwrap_err();
        assert_eq!(error.fault, StoreFault::Configuration);
    }
}
