//! `[jwt]`: whose tokens are taken, and what their claims are called.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use super::build::Builder;
use super::file::{AudienceEntry, JwtEntry};
use super::{JwksPlace, JwtConfig};
use crate::base::http::HttpServer;
use crate::base::voice;

const USER_CLAIM: &str = "sub";

/// A document of keys is a few kilobytes.
const JWKS_FILE_BYTES_MAX: usize = 256 * 1024;

impl Builder<'_> {
    pub(super) fn jwt(
        &mut self,
        entry: &JwtEntry,
        tiers: &BTreeMap<String, Option<NonZeroU64>>,
        all: &[&str],
    ) -> Option<JwtConfig> {
        let audience = match &entry.audience {
            AudienceEntry::One(name) => vec![name.clone()],
            AudienceEntry::Several(names) => names.clone(),
        };
        if entry.issuer.is_empty() || audience.is_empty() || audience.iter().any(String::is_empty) {
            self.wrong("jwt: issuer and audience are wanted", "a token for somebody else would do without them");
        }
        match (&entry.tier, &entry.tier_claim) {
            (Some(tier), _) => self.known_tier("jwt", tier, tiers),
            (None, Some(_)) => {}
            (None, None) => self.wrong("jwt has no tier", "name one in tier, or the claim that has it in tier_claim"),
        }
        let user_claim = entry.user_claim.clone().unwrap_or_else(|| USER_CLAIM.to_owned());
        let claims = [&entry.tenant_claim, &entry.tier_claim, &entry.datasets_claim];
        if claims.into_iter().flatten().chain([&user_claim]).any(String::is_empty) {
            self.wrong("jwt: a claim has no name", "name it, or leave it out");
        }
        if entry.tenant_claim.is_none() {
            self.warnings.push("jwt has no tenant_claim: tokens open no dataset that goes by tenant".to_owned());
        }
        let datasets = self.opened("jwt", &entry.datasets, all);
        Some(JwtConfig {
            jwks: self.jwks(entry)?,
            issuer: entry.issuer.clone(),
            audience,
            user_claim,
            tenant_claim: entry.tenant_claim.clone(),
            tier_claim: entry.tier_claim.clone(),
            tier: entry.tier.clone(),
            datasets_claim: entry.datasets_claim.clone(),
            datasets,
        })
    }

    fn jwks(&mut self, entry: &JwtEntry) -> Option<JwksPlace> {
        match (&entry.jwks_url, &entry.jwks_file) {
            (Some(url), None) => match HttpServer::parse(url) {
                Ok(server) if server.is_open() => {
                    self.wrong(
                        "jwt: jwks_url is without TLS",
                        "others on the way could give keys of their own: use https://",
                    );
                    None
                }
                Ok(_) => Some(JwksPlace::Url(url.clone())),
                Err(error) => {
                    self.wrong(format!("jwt: jwks_url: {error}"), "write it as in https://login.example.com/jwks.json");
                    None
                }
            },
            (None, Some(file)) => {
                let path = self.relative(file);
                match self.environment.read(&path) {
                    Ok(text) if text.len() <= JWKS_FILE_BYTES_MAX => Some(JwksPlace::File(text.into_bytes())),
                    Ok(_) => {
                        self.wrong(format!("jwt: {} is no document of keys", path.display()), "it is too large");
                        None
                    }
                    Err(error) => {
                        let why = voice::plain(&error.to_string());
                        let what = format!("jwt: cannot read {}: {why}", path.display());
                        self.wrong(what, "check the name of the file, and who may read it");
                        None
                    }
                }
            }
            _ => {
                self.wrong("jwt: the issuer's keys", "give one of jwks_url and jwks_file");
                None
            }
        }
    }
}
