//! The region of a bucket on AWS itself: the wrong one is a refusal that names neither, so it is asked for.

use std::time::Duration;

use object_store::aws::{AmazonS3ConfigKey, resolve_bucket_region};

use super::connect::{STORE_CONNECT_TIMEOUT, Variables, s3_builder, s3_client, s3_endpoint};
use super::error::{NO_BUCKET, StoreError, StoreFault};
use crate::base::failpoint;
use crate::model::ErrorCode;

/// One HEAD of the bucket without a signature.
const REGION_TIMEOUT: Duration = STORE_CONNECT_TIMEOUT.saturating_mul(2);

/// Whether neither variables nor profile say a region, and it matters: other stores than AWS take any.
pub(super) fn is_unknown(bucket: &str, variables: &Variables) -> bool {
    let builder = s3_builder(bucket, variables);
    let keys = [AmazonS3ConfigKey::Region, AmazonS3ConfigKey::DefaultRegion];
    s3_endpoint(&builder).is_none() && keys.iter().all(|key| builder.get_config_value(key).is_none())
}

/// Asks AWS for the region of a bucket.
pub(super) async fn discover(bucket: &str, url: &str, variables: &Variables) -> Result<String, StoreError> {
    let failed = |fault, why: String| {
        let why = format!("the region of bucket {bucket} is not known: {why}");
        StoreError::new("opening destination", url, fault, why).with_hint("set AWS_REGION")
    };
    let client = s3_client(variables, None);
    let limit = failpoint::limit("aws_region", REGION_TIMEOUT);
    match tokio::time::timeout(limit, resolve_bucket_region(bucket, &client)).await {
        Ok(Ok(region)) => Ok(region),
        Ok(Err(error)) => {
            let error = StoreError::from_store("opening destination", url, &error);
            if error.source.to_string().contains("not found") {
                let missing = StoreError::new("opening destination", url, StoreFault::Configuration, "no such bucket");
                return Err(missing.with_code(ErrorCode::BucketMissing).with_hint(NO_BUCKET));
            }
            Err(failed(StoreFault::Unavailable, format!("AWS did not tell it ({})", error.cause)))
        }
        Err(_) => Err(failed(StoreFault::Unavailable, format!("no answer within {} s", limit.as_secs_f64()))),
    }
}

/// Refuses to guess: `us-east-1` would be taken otherwise.
pub(super) fn unknown(url: &str) -> StoreError {
    let why = "neither AWS_REGION nor the profile says the region";
    StoreError::new("opening destination", url, StoreFault::Configuration, why).with_hint("set AWS_REGION")
}
