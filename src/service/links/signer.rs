//! Links: which file of which export, until when. The signature is a secret of whoever has the link; what it covers is not.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::base::failpoint;

/// What the signature is of, besides the link: nothing else that is signed can be taken for one.
const PURPOSE: &[u8] = b"outhaul link v1\n";

/// Those of an HMAC of SHA-256.
const SIGNATURE_BYTES: usize = 32;

/// Links that are made within this part of their time are the same.
const SAME_LINKS: i64 = 24;

/// What a link opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkTarget {
    /// All parts as one file.
    Download,
    /// What the export is made of.
    Manifest,
    /// One part, by its place in the manifest.
    Part(usize),
}

impl std::fmt::Display for LinkTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Download => f.write_str("download"),
            Self::Manifest => f.write_str("manifest"),
            Self::Part(number) => write!(f, "parts/{number}"),
        }
    }
}

/// What a link is signed for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LinkClaim<'a> {
    pub(crate) export: &'a str,
    pub(crate) target: LinkTarget,
    /// Seconds since 1970, in UTC.
    pub(crate) expires: i64,
    /// The export's number: links for another number are void.
    pub(crate) revocation: u32,
}

/// The query of a link as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LinkQuery {
    pub(crate) expires: i64,
    kid: String,
    signature: Vec<u8>,
}

/// Makes links and checks them.
#[derive(Clone)]
pub(crate) struct LinkSigner {
    /// The first signs; links of the others are good too.
    keys: Vec<NamedKey>,
}

#[derive(Clone)]
struct NamedKey {
    key: [u8; 32],
    /// Says in a link with which key it is signed.
    kid: String,
}

impl std::fmt::Debug for LinkSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| &key.kid)).finish()
    }
}

impl LinkSigner {
    pub(crate) fn new(keys: &[[u8; 32]]) -> Self {
        Self { keys: keys.iter().copied().map(NamedKey::new).collect() }
    }

    /// The link's path below the service, with its query; `None` is a bug.
    pub(crate) fn sign(&self, claim: LinkClaim<'_>) -> Option<String> {
        let key = self.keys.first()?;
        let signature = URL_SAFE_NO_PAD.encode(key.mac(claim)?.finalize().into_bytes());
        let LinkClaim { export, target, expires, .. } = claim;
        Some(format!("/v1/exports/{export}/{target}?exp={expires}&kid={}&sig={signature}", key.kid))
    }

    /// Whether the query can be this signer's, of whatever export: it names a key, and has a signature of the right length.
    pub(crate) fn may_be_genuine(&self, query: &LinkQuery) -> bool {
        let names_one = self.keys.iter().any(|key| key.kid == query.kid);
        (names_one && query.signature.len() == SIGNATURE_BYTES) || failpoint::off("link_signature")
    }

    /// Whether the query is this signer's, of the claim. The clock is not asked.
    pub(crate) fn is_genuine(&self, query: &LinkQuery, claim: LinkClaim<'_>) -> bool {
        if failpoint::off("link_signature") {
            return true;
        }
        let key = self.keys.iter().find(|key| key.kid == query.kid);
        key.and_then(|key| key.mac(claim)).is_some_and(|mac| mac.verify_slice(&query.signature).is_ok())
    }
}

impl NamedKey {
    fn new(key: [u8; 32]) -> Self {
        let digest = Sha256::new().chain_update(PURPOSE).chain_update(key).finalize();
        let kid = URL_SAFE_NO_PAD.encode(digest.get(..6).unwrap_or_default());
        Self { key, kid }
    }

    fn mac(&self, claim: LinkClaim<'_>) -> Option<Hmac<Sha256>> {
        let LinkClaim { export, target, expires, revocation } = claim;
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).ok()?;
        mac.update(PURPOSE);
        mac.update(format!("{}\n{export}\n{target}\n{expires}\n{revocation}", self.kid).as_bytes());
        Some(mac)
    }
}

impl LinkQuery {
    /// Reads a query; `None` where it is none of a link.
    pub(crate) fn parse(query: &str) -> Option<Self> {
        let value = |wanted: &str| {
            let mut found =
                query.split('&').filter_map(|pair| pair.split_once('=')).filter(|(name, _)| *name == wanted);
            let (_, value) = found.next()?;
            found.next().is_none().then_some(value)
        };
        Some(Self {
            expires: value("exp")?.parse().ok()?,
            kid: value("kid")?.to_owned(),
            signature: URL_SAFE_NO_PAD.decode(value("sig")?).ok()?,
        })
    }
}

/// When a link that is made now ends: within its time, never later, and the same moment for a while, so that whoever asks
/// again gets the same link.
pub(crate) fn link_end(now: i64, seconds: i64) -> i64 {
    let grid = (seconds / SAME_LINKS).max(1);
    now.div_euclid(grid).saturating_mul(grid).saturating_add(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAIM: LinkClaim<'_> =
        LinkClaim { export: "0198", target: LinkTarget::Download, expires: 1_767_225_600, revocation: 3 };

    fn query_of(link: &str) -> Option<LinkQuery> {
        LinkQuery::parse(link.split_once('?').unwrap().1)
    }

    #[test]
    fn a_link_opens_what_it_was_signed_for_and_nothing_else() {
        let signer = LinkSigner::new(&[[7; 32]]);
        let link = signer.sign(CLAIM).unwrap();
        assert!(link.starts_with("/v1/exports/0198/download?exp=1767225600&kid="), "{link}");
        let query = query_of(&link).unwrap();
        assert!(signer.is_genuine(&query, CLAIM));
        let others = [
            LinkClaim { export: "0199", ..CLAIM },
            LinkClaim { target: LinkTarget::Manifest, ..CLAIM },
            LinkClaim { target: LinkTarget::Part(0), ..CLAIM },
            LinkClaim { expires: CLAIM.expires + 1, ..CLAIM },
            LinkClaim { revocation: 4, ..CLAIM },
        ];
        assert!(others.iter().all(|other| !signer.is_genuine(&query, *other)));
        assert!(!LinkSigner::new(&[[8; 32]]).is_genuine(&query, CLAIM));
    }

    #[test]
    fn every_changed_byte_of_a_link_is_found() {
        let signer = LinkSigner::new(&[[7; 32]]);
        let link = signer.sign(CLAIM).unwrap();
        let from = link.find('?').unwrap() + 1;
        for at in from..link.len() {
            let mut other = link.clone().into_bytes();
            other[at] = if other[at] == b'1' { b'2' } else { b'1' };
            let other = String::from_utf8(other).unwrap();
            let claim = |query: &LinkQuery| LinkClaim { expires: query.expires, ..CLAIM };
            assert!(!query_of(&other).is_some_and(|query| signer.is_genuine(&query, claim(&query))), "{other}");
        }
        for odd in ["", "exp=1", "exp=x&kid=a&sig=b", "exp=1&exp=1&kid=a&sig=aa", "exp=1&kid=a&sig=?"] {
            assert_eq!(LinkQuery::parse(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_bucket_key_and_a_link_share_no_signature() {
        let mut mac = Hmac::<Sha256>::new_from_slice(&[7; 32]).unwrap();
        let signer = LinkSigner::new(&[[7; 32]]);
        mac.update(format!("{}\n0198\ndownload\n1767225600\n3", signer.keys[0].kid).as_bytes());
        let signature = mac.finalize().into_bytes().to_vec();
        let query = LinkQuery { expires: CLAIM.expires, kid: signer.keys[0].kid.clone(), signature };
        assert!(!signer.is_genuine(&query, CLAIM));
    }

    #[test]
    fn a_link_is_good_until_its_key_is_taken_out() {
        let [old, both, new] = [&[[7; 32]][..], &[[8; 32], [7; 32]], &[[8; 32]]].map(LinkSigner::new);
        let [link, newer] = [&old, &both].map(|signer| query_of(&signer.sign(CLAIM).unwrap()).unwrap());
        assert!(both.is_genuine(&link, CLAIM) && both.is_genuine(&newer, CLAIM));
        assert!(new.is_genuine(&newer, CLAIM) && !new.is_genuine(&link, CLAIM));
        // The name of a key opens nothing without it.
        let disguised = LinkQuery { kid: newer.kid.clone(), ..link };
        assert!(!both.is_genuine(&disguised, CLAIM));
    }

    #[test]
    fn a_link_ends_within_its_time_and_is_the_same_for_a_while() {
        for seconds in [1, 2, 23, 24, 3_600, 86_400] {
            for now in [0, 1, 86_399, 1_767_225_600, 1_767_229_199] {
                let end = link_end(now, seconds);
                assert!(end > now && end <= now + seconds, "{now} {seconds}: {end}");
            }
        }
        assert_eq!(link_end(1_767_225_600, 86_400), link_end(1_767_229_199, 86_400));
    }
}
