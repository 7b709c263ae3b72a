//! What receivers are told, and how they know who says it: Standard Webhooks.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, SecondsFormat, Utc};
use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use sha2::Sha256;

use super::super::links::Links;
use super::super::state::{JobRecord, OutboxMessage, RecordedError};
use crate::config::service::{Webhook, WebhookSecret};

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

/// The messages of an event, for the store to write with the status. `job` is the record as it is after the event. What is
/// written is what is sent, each time it is tried.
pub(crate) fn messages(hooks: &[Webhook], links: &Links, event: WebhookEvent, job: &JobRecord) -> Vec<OutboxMessage> {
    let name = event.name();
    let told = hooks.iter().filter(|hook| hook.events.iter().any(|wanted| wanted == name));
    let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
    let payload = WebhookPayload {
        r#type: name,
        id: &job.id,
        dataset: &job.dataset,
        user: job.user.as_deref(),
        rows: job.progress.rows,
        truncated: job.truncated,
        download_url: links.download_url(job),
        expires_at: job.expires_at.map(time),
        error: job.error.as_ref(),
    };
    let body = serde_json::to_string(&payload).unwrap_or_default();
    let message = |hook: &Webhook| OutboxMessage {
        // An export has each event once.
        id: format!("msg_{}_{}_{}", job.id, name.trim_start_matches("export."), hook.name),
        export_id: job.id.clone(),
        target: hook.name.clone(),
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
