//! What receivers are told, and how they know who says it: Standard Webhooks.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, SecondsFormat, Utc};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::super::links::Links;
use super::super::state::{JobRecord, OutboxMessage, RecordedError};
use crate::config::service::{ServiceConfig, Webhook, WebhookSecret};

/// What happened to an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WebhookEvent {
    Ready,
    Failed,
    Expired,
}

impl WebhookEvent {
    const fn name(self) -> &'static str {
        match self {
            Self::Ready => "export.ready",
            Self::Failed => "export.failed",
            Self::Expired => "export.expired",
        }
    }
}

/// The body.
#[derive(Serialize)]
struct WebhookPayload<'a> {
    r#type: &'a str,
    id: &'a str,
    dataset: &'a str,
    user: Option<&'a str>,
    rows: u64,
    truncated: bool,
    download_url: Option<String>,
    expires_at: Option<String>,
    error: Option<&'a RecordedError>,
}

/// Whom the process that queued a job would tell of it, as the row keeps it: the one that ends it may have read another file.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Telling {
    /// What its links begin with.
    public_url: Option<String>,
    /// What each webhook is told, by its name.
    webhooks: BTreeMap<String, Vec<String>>,
}

impl Telling {
    /// What the row keeps, where there is anybody to tell.
    pub(crate) fn of(config: &ServiceConfig) -> Option<String> {
        let told = |hook: &Webhook| (hook.name.clone(), hook.events.clone());
        let webhooks: BTreeMap<_, _> = config.webhooks.iter().map(told).collect();
        let telling = Self { public_url: config.public_url.clone(), webhooks };
        (!telling.webhooks.is_empty()).then(|| serde_json::to_string(&telling).ok())?
    }
}

/// The messages of an event, for the store to write with the status: to the webhooks of this process, and to those that the job
/// names and this process does not know. `job` is the record as it is after the event. What is written is what is sent, each
/// time it is tried.
pub(crate) fn messages(hooks: &[Webhook], links: &Links, event: WebhookEvent, job: &JobRecord) -> Vec<OutboxMessage> {
    let name = event.name();
    let mut telling: Telling =
        job.telling.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    telling.webhooks.extend(hooks.iter().map(|hook| (hook.name.clone(), hook.events.clone())));
    let told = telling.webhooks.iter().filter(|(_, events)| events.iter().any(|wanted| wanted == name));
    let link = match &telling.public_url {
        Some(public) => links.download_url_behind(public, job),
        None => links.download_url(job),
    };
    let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
    let payload = WebhookPayload {
        r#type: name,
        id: &job.id,
        dataset: &job.dataset,
        user: job.user.as_deref(),
        rows: job.progress.rows,
        truncated: job.truncated,
        download_url: link,
        expires_at: job.expires_at.map(time),
        error: job.error.as_ref(),
    };
    let body = serde_json::to_string(&payload).unwrap_or_default();
    let message = |(target, _): (&String, _)| OutboxMessage {
        // An export has each event once.
        id: format!("msg_{}_{}_{}", job.id, name.trim_start_matches("export."), target),
        export_id: job.id.clone(),
        target: target.clone(),
        event: name.to_owned(),
        body: body.clone(),
        attempt: 0,
    };
    told.map(message).collect()
}

/// `webhook-signature` of a message that is sent at a moment: one for each secret; `None` is a bug.
pub(crate) fn signature(secrets: &[WebhookSecret], id: &str, seconds: i64, body: &str) -> Option<String> {
    let mut signatures = Vec::with_capacity(secrets.len());
    for secret in secrets {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose()).ok()?;
        mac.update(format!("{id}.{seconds}.{body}").as_bytes());
        signatures.push(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())));
    }
    Some(signatures.join(" "))
}
