//! Secrets that something is signed with: the first signs, those behind it are good until they are taken out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::build::Builder;
use super::file::Secrets;
use crate::base::voice;

/// What a webhook's secret begins with, as Standard Webhooks writes it.
const WEBHOOK_PREFIX: &str = "whsec_";

/// The least that it may be; Standard Webhooks asks for 24 bytes.
const WEBHOOK_BYTES_MIN: usize = 24;

/// The least that a secret of links may be.
const LINK_BYTES_MIN: usize = 32;

const WEBHOOK_HINT: &str = "make one with: echo \"whsec_$(openssl rand -base64 24)\"";
const LINK_HINT: &str = "make one with: openssl rand -base64 32";

/// A secret, which nothing shows.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret(Vec<u8>);

impl std::fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WebhookSecret")
    }
}

impl WebhookSecret {
    /// Reads `whsec_` and base64.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text.trim().strip_prefix(WEBHOOK_PREFIX)?).ok()?;
        (bytes.len() >= WEBHOOK_BYTES_MIN).then_some(Self(bytes))
    }

    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }
}

/// What links are signed with, which nothing shows.
#[derive(Clone, PartialEq, Eq)]
pub struct LinkKey([u8; 32]);

impl std::fmt::Debug for LinkKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LinkKey")
    }
}

impl LinkKey {
    /// Reads base64.
    fn parse(text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text.trim()).ok()?;
        (bytes.len() >= LINK_BYTES_MIN).then(|| Self(Sha256::digest(&bytes).into()))
    }

    pub(crate) const fn expose(&self) -> [u8; 32] {
        self.0
    }
}

impl Builder<'_> {
    /// The secrets of a webhook, the one that is new first.
    pub(super) fn webhook_secrets(
        &mut self,
        place: &str,
        written: Option<&Secrets>,
        file: Option<&str>,
    ) -> Vec<WebhookSecret> {
        let texts = match (written, file) {
            (Some(written), None) => self.texts(place, written),
            (None, Some(file)) => self.lines(place, file),
            _ => {
                self.wrong(format!("{place} wants one of secret and secret_file"), WEBHOOK_HINT);
                return Vec::new();
            }
        };
        let Some(texts) = texts else { return Vec::new() };
        let secrets: Option<Vec<_>> = texts.iter().map(|text| WebhookSecret::parse(text)).collect();
        secrets.filter(|secrets| !secrets.is_empty()).unwrap_or_else(|| {
            let what = format!("{place}: its secret is not whsec_ and at least {WEBHOOK_BYTES_MIN} bytes in base64");
            self.wrong(what, WEBHOOK_HINT);
            Vec::new()
        })
    }

    /// The keys of links, the one that signs first; none is that of the state store.
    pub(super) fn link_keys(&mut self, written: Option<&Secrets>) -> Vec<LinkKey> {
        let Some(texts) = written.and_then(|written| self.texts("link_secret", written)) else { return Vec::new() };
        let keys: Option<Vec<_>> = texts.iter().map(|text| LinkKey::parse(text)).collect();
        keys.filter(|keys| !keys.is_empty()).unwrap_or_else(|| {
            self.wrong(format!("link_secret is not at least {LINK_BYTES_MIN} bytes in base64"), LINK_HINT);
            Vec::new()
        })
    }

    /// A secret may be in a variable; none where one is missing, which is told.
    fn texts(&mut self, place: &str, written: &Secrets) -> Option<Vec<String>> {
        let text = |text: &String| match text.strip_prefix("env:") {
            Some(variable) => self.environment.get(variable).ok_or_else(|| variable.to_owned()),
            None => Ok(text.clone()),
        };
        let texts: Result<Vec<String>, String> = written.texts().iter().map(text).collect();
        let told =
            |variable| self.wrong(format!("{place}: the variable {variable} is not set"), "set it to the secret");
        texts.map_err(told).ok()
    }

    /// The secrets of a file, one a line; none where it cannot be read, which is told.
    fn lines(&mut self, place: &str, file: &str) -> Option<Vec<String>> {
        let path = self.relative(file);
        match self.environment.read(&path) {
            Ok(text) => Some(text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect()),
            Err(error) => {
                let why = voice::plain(&error.to_string());
                let hint = "check the name of the file, and who may read it";
                self.wrong(format!("{place}: cannot read {}: {why}", path.display()), hint);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_and_never_shown() {
        let secret = WebhookSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        assert_eq!((secret.expose().len(), format!("{secret:?}").as_str()), (24, "WebhookSecret"));
        assert!(
            ["", "whsec_", "whsec_AAAA", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_%"]
                .iter()
                .all(|text| WebhookSecret::parse(text).is_none())
        );
        let key = LinkKey::parse(&STANDARD.encode([7; 32])).unwrap();
        assert_eq!(format!("{key:?}"), "LinkKey");
        assert!(
            [String::new(), STANDARD.encode([7; 31]), "%".to_owned()].iter().all(|text| LinkKey::parse(text).is_none())
        );
    }
}
