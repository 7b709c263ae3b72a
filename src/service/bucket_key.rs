//! Bucket keys: which bucket of which analysis, for whom, under which filters, until when. Signed, and no secret: a caller
//! may read what is in one, and change nothing.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::problem::Refusal;
use super::question::{DateRange, Filter};

/// What the signature is of, besides the key's own text: nothing else that is signed can be taken for one.
const PURPOSE: &[u8] = b"outhaul bucket key v1\n";

/// What a bucket key says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BucketClaim {
    /// For whom.
    pub(crate) owner: String,
    pub(crate) dataset: String,
    pub(crate) analysis: String,
    /// Of the analysis as it was declared then.
    pub(crate) definition: String,
    pub(crate) r#where: Vec<Filter>,
    pub(crate) date_range: Option<DateRange>,
    /// One value a dimension, NULL as null.
    pub(crate) values: Vec<Option<String>>,
    /// Seconds since 1970, in UTC.
    pub(crate) expires: i64,
}

/// Makes keys and reads them.
#[derive(Clone)]
pub(crate) struct BucketSigner([u8; 32]);

impl std::fmt::Debug for BucketSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BucketSigner(secret)")
    }
}

impl BucketSigner {
    pub(crate) fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// A key for what is claimed.
    ///
    /// # Errors
    /// A bug.
    pub(crate) fn sign(&self, claim: &BucketClaim) -> Result<String, Refusal> {
        let failed = |_| Refusal::invalid("the bucket's key cannot be written");
        let text = URL_SAFE_NO_PAD.encode(serde_json::to_vec(claim).map_err(failed)?);
        let signature = self.mac(&text).map_err(|_| Refusal::invalid("the bucket's key cannot be signed"))?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature.finalize().into_bytes())))
    }

    /// What a key claims, where it is one of ours and its time is not up. Any fault gives the same answer.
    ///
    /// # Errors
    /// It is not.
    pub(crate) fn read(&self, key: &str, now: i64) -> Result<BucketClaim, Refusal> {
        self.checked(key).filter(|claim| claim.expires > now).ok_or_else(invalid)
    }

    fn checked(&self, key: &str) -> Option<BucketClaim> {
        let (text, signature) = key.split_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        self.mac(text).ok()?.verify_slice(&signature).ok()?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
    }

    fn mac(&self, text: &str) -> Result<Hmac<Sha256>, hmac::digest::InvalidLength> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0)?;
        mac.update(PURPOSE);
        mac.update(text.as_bytes());
        Ok(mac)
    }
}

/// A key that opens nothing, whatever is wrong with it.
pub(crate) fn invalid() -> Refusal {
    let message = "the bucket key is not valid, or its time is up";
    Refusal::new(axum::http::StatusCode::BAD_REQUEST, "bucket_key_invalid", message)
        .with_detail("ask for the analysis again")
}

/// A digest of a definition, so that a key of an older one opens nothing.
pub(crate) fn fingerprint(definition: &impl std::fmt::Debug) -> String {
    let digest = Sha256::digest(format!("{definition:?}"));
    URL_SAFE_NO_PAD.encode(digest.get(..12).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_what_was_signed_or_nothing() {
        let signer = BucketSigner::new([7; 32]);
        let claim = || BucketClaim {
            owner: "tenant:acme".to_owned(),
            dataset: "orders".to_owned(),
            analysis: "by_status".to_owned(),
            definition: "x".to_owned(),
            r#where: serde_json::from_str(r#"[{"column":"id","op":"in","values":[12345678901234567890,"x"]}]"#)
                .unwrap(),
            date_range: None,
            values: vec![Some("new".to_owned()), None],
            expires: 100,
        };
        let key = signer.sign(&claim()).unwrap();
        let read = signer.read(&key, 99).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), serde_json::to_string(&claim()).unwrap());
        let same = |problem: Refusal| assert_eq!(problem.code, "bucket_key_invalid");
        same(signer.read(&key, 100).unwrap_err());
        same(BucketSigner::new([8; 32]).read(&key, 99).unwrap_err());
        for at in 0..key.len() {
            let mut other = key.clone().into_bytes();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            same(signer.read(std::str::from_utf8(&other).unwrap(), 99).unwrap_err());
        }
        for odd in ["", ".", "a.b", &key[1..], key.split('.').next().unwrap()] {
            same(signer.read(odd, 99).unwrap_err());
        }
        // The same claim with its signature under another purpose.
        let mut mac = Hmac::<Sha256>::new_from_slice(&[7; 32]).unwrap();
        let text = key.split('.').next().unwrap();
        mac.update(text.as_bytes());
        let forged = format!("{text}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()));
        same(signer.read(&forged, 99).unwrap_err());
    }
}
