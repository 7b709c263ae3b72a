//! Tells receivers how exports end: what the store has for them is sent until it arrives, or for three days.
//!
//! A receiver is the operator's, named in `service.toml`. It is told once at least: a message that has arrived and is not
//! noted so comes again, with the same id and the same body.

mod message;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::Utc;
use futures_util::future::join_all;
use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderName, Request, StatusCode, Uri};
use http_body_util::Full;

use super::ServiceState;
use super::state::OutboxMessage;
use crate::base::failpoint;
use crate::base::http::{HttpError, HttpServer};
use crate::config::service::Webhook;
pub(crate) use message::{Telling, WebhookEvent, messages};

/// Messages that are sent to one receiver at the same time.
const AT_ONCE: u32 = 16;

/// So long a receiver has for one message.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// So long nobody else takes a message that is being sent.
const HOLD: Duration = Duration::from_mins(1);

/// Between two looks at the store where nothing was due.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// Seconds after each try that failed, as Standard Webhooks has them; after the last one a message is given up.
const BACKOFF: [u64; 9] = [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400];

/// Why a message did not arrive.
#[derive(Debug, thiserror::Error)]
enum DeliveryError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("the receiver answered {0}")]
    Refused(StatusCode),
    #[error("the receiver did not answer within {} s", .0.as_secs())]
    Silent(Duration),
    #[error("the message cannot be written as a request")]
    Unwritable,
}

/// Sends what is due, until the service stops. Each receiver has its own sender, so that none waits for another that is slow
/// or gone. What is for a webhook that is not configured here is left alone: another process may have read another file.
pub(crate) async fn send_all(service: Arc<ServiceState>) {
    let hooks = &service.config.webhooks;
    let at_a_time = if failpoint::off("webhook_senders") { hooks.len().max(1) } else { 1 };
    join_all(hooks.chunks(at_a_time).map(|some| send_to(&service, some))).await;
}

async fn send_to(service: &ServiceState, hooks: &[Webhook]) {
    let names: Vec<String> = hooks.iter().map(|hook| hook.name.clone()).collect();
    loop {
        let hold = failpoint::limit("webhook_hold", HOLD);
        let due = service.store.due_messages(names.clone(), AT_ONCE, hold).await.unwrap_or_else(|error| {
            tracing::error!(%error, "messages to webhooks were not looked for");
            Vec::new()
        });
        if due.is_empty() {
            tokio::select! {
                () = service.stopping.cancelled() => return,
                () = tokio::time::sleep(BETWEEN_LOOKS) => continue,
            }
        }
        join_all(due.into_iter().map(|message| send(service, hooks, message))).await;
    }
}

async fn send(service: &ServiceState, hooks: &[Webhook], message: OutboxMessage) {
    let Some(hook) = hooks.iter().find(|hook| hook.name == message.target) else { return };
    let time = failpoint::limit("webhook_answer", ANSWER_TIME);
    let Err(error) = deliver(hook, &message, time).await else {
        return note(service.store.message_done(message.id).await);
    };
    let next = usize::try_from(message.attempt).ok().and_then(|attempt| BACKOFF.get(attempt));
    if let Some(seconds) = next {
        tracing::warn!(webhook = hook.name, id = message.id, %error, "a message did not arrive, and is sent again");
        let delay = failpoint::limit("webhook_retry", Duration::from_secs(*seconds));
        note(service.store.message_failed(message.id, delay).await);
    } else {
        tracing::error!(webhook = hook.name, id = message.id, %error, "a message did not arrive, and is given up");
        note(service.store.message_done(message.id).await);
    }
}

fn note(written: Result<(), super::state::StateError>) {
    if let Err(error) = written {
        tracing::error!(%error, "what became of a message was not noted: it comes again");
    }
}

/// Sends a message once. Nothing of the answer but its status is read, and no redirect is followed.
async fn deliver(hook: &Webhook, message: &OutboxMessage, time: Duration) -> Result<(), DeliveryError> {
    let server = HttpServer::parse(&hook.url)?;
    let request = written(hook, message, &server).ok_or(DeliveryError::Unwritable)?;
    let allowed = |address: std::net::IpAddr| {
        failpoint::off("webhook_allow")
            || hook.allow.as_ref().is_none_or(|networks| networks.iter().any(|network| network.has(address)))
    };
    let answer = tokio::time::timeout(time, server.send_where(request, allowed)).await;
    let status = answer.map_err(|_| DeliveryError::Silent(time))??.status();
    if status.is_success() { Ok(()) } else { Err(DeliveryError::Refused(status)) }
}

fn written(hook: &Webhook, message: &OutboxMessage, server: &HttpServer) -> Option<Request<Full<Bytes>>> {
    let seconds = Utc::now().timestamp();
    let signature = message::signature(&hook.secrets, &message.id, seconds, &message.body)?;
    let path = hook.url.parse::<Uri>().ok()?.path().to_owned();
    let request = Request::post(path)
        .header(HOST, server.authority())
        .header(USER_AGENT, concat!("outhaul/", env!("CARGO_PKG_VERSION")))
        .header(CONTENT_TYPE, "application/json")
        .header(HeaderName::from_static("webhook-id"), &message.id)
        .header(HeaderName::from_static("webhook-timestamp"), seconds)
        .header(HeaderName::from_static("webhook-signature"), signature);
    request.body(Full::new(Bytes::from(message.body.clone()))).ok()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::links::Links;
    use super::super::links::tests::ready;
    use super::super::state::{JobStatus, RecordedError};
    use super::*;
    use crate::config::service::{Network, WebhookSecret};

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn hook(address: SocketAddr, allow: Option<&str>) -> Webhook {
        Webhook {
            name: "backend".to_owned(),
            url: format!("http://{address}/hooks/"),
            secrets: vec![WebhookSecret::parse(SECRET).unwrap()],
            events: Vec::new(),
            allow: allow.map(|text| vec![Network::parse(text).unwrap()]),
        }
    }

    fn message() -> OutboxMessage {
        OutboxMessage {
            id: "msg_1_ready_backend".to_owned(),
            export_id: "1".to_owned(),
            target: "backend".to_owned(),
            event: "export.ready".to_owned(),
            body: r#"{"type":"export.ready"}"#.to_owned(),
            attempt: 0,
        }
    }

    /// A receiver that answers the same to everybody, and what it was told.
    async fn receiver(answer: &'static str) -> (SocketAddr, tokio::sync::mpsc::Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, told) = tokio::sync::mpsc::channel(8);
        tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut text = Vec::new();
                while !text.ends_with(b"}") {
                    if socket.read_buf(&mut text).await.unwrap() == 0 {
                        break;
                    }
                }
                sender.send(String::from_utf8(text).unwrap()).await.unwrap();
                drop(socket.write_all(answer.as_bytes()).await);
            }
        });
        (address, told)
    }

    #[test]
    fn a_message_says_what_happened_to_those_who_want_to_know() {
        let links = Links::new(&[[7; 32]], 60, true, "https://x/exports");
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let (mut wants, mut other) = (hook(address, None), hook(address, None));
        wants.events = vec!["export.ready".to_owned(), "export.failed".to_owned()];
        (other.name, other.events) = ("other".to_owned(), vec!["export.expired".to_owned()]);
        let hooks = [wants, other];
        let told = messages(&hooks, &links, WebhookEvent::Ready, &ready());
        assert_eq!(told.iter().map(|message| message.id.as_str()).collect::<Vec<_>>(), ["msg_0198_ready_backend"]);
        let body: serde_json::Value = serde_json::from_str(&told[0].body).unwrap();
        let link = body["download_url"].as_str().unwrap();
        assert!(link.starts_with("https://x/exports/v1/exports/0198/download?exp=0&"), "{link}");
        let expected = serde_json::json!({"type": "export.ready", "id": "0198", "dataset": "orders", "user": "u", "rows": 10,
            "truncated": true, "download_url": link, "expires_at": "1970-01-01T00:00:00Z", "error": null});
        assert_eq!(body, expected);
        let mut job = ready();
        job.status = JobStatus::Failed;
        job.error = Some(RecordedError { code: "c".to_owned(), message: "m".to_owned() });
        let told = messages(&hooks, &links, WebhookEvent::Failed, &job);
        let body: serde_json::Value = serde_json::from_str(&told[0].body).unwrap();
        assert_eq!((&body["download_url"], &body["error"]["code"]), (&serde_json::Value::Null, &"c".into()));
        let told = messages(&hooks, &links, WebhookEvent::Expired, &job);
        assert_eq!((told.len(), told[0].target.as_str()), (1, "other"));
    }

    /// Backburner#154: the process that ended a job had read an older file, and told nobody of it.
    #[test]
    fn a_message_is_for_those_whom_the_one_that_queued_the_job_knew() {
        let links = Links::new(&[[7; 32]], 60, true, "");
        let mut ours = hook(SocketAddr::from(([127, 0, 0, 1], 1)), None);
        ours.events = vec!["export.failed".to_owned()];
        let mut job = ready();
        let webhooks = r#"{"new":["export.ready"],"late":["export.expired"],"backend":["export.ready"]}"#;
        job.telling = Some(format!(r#"{{"public_url":"https://x/exports","webhooks":{webhooks}}}"#));
        let told = messages(&[ours], &links, WebhookEvent::Ready, &job);
        // What a webhook is told now is what this process knows, where it knows it.
        assert_eq!(told.iter().map(|message| message.target.as_str()).collect::<Vec<_>>(), ["new"]);
        assert!(
            told[0].body.contains(r#""download_url":"https://x/exports/v1/exports/0198/download?exp="#),
            "{told:?}"
        );
    }

    /// The vector of the Standard Webhooks specification.
    #[test]
    fn a_signature_is_that_of_the_specification() {
        let secret = WebhookSecret::parse(SECRET).unwrap();
        let signed = message::signature(
            std::slice::from_ref(&secret),
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            r#"{"test": 2432232314}"#,
        );
        assert_eq!(signed.unwrap(), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[tokio::test]
    async fn a_message_is_signed_and_the_same_each_time() {
        let (address, mut told) = receiver("HTTP/1.1 204 No Content\r\n\r\n").await;
        let hook = hook(address, Some("127.0.0.0/8"));
        let mut seen = Vec::new();
        for _ in 0..2 {
            deliver(&hook, &message(), ANSWER_TIME).await.unwrap();
            let text = told.recv().await.unwrap();
            let field = |name: &str| {
                text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap().to_owned()
            };
            assert!(text.starts_with("POST /hooks/ HTTP/1.1\r\n"), "{text}");
            let (id, seconds) = (field("webhook-id"), field("webhook-timestamp").parse().unwrap());
            let body = text.split_once("\r\n\r\n").unwrap().1.to_owned();
            assert_eq!(message::signature(&hook.secrets, &id, seconds, &body), Some(field("webhook-signature")));
            seen.push((id, body));
        }
        assert_eq!(seen[0], seen[1]);
        assert_eq!(seen[0], (message().id, message().body));
    }

    #[tokio::test]
    async fn no_redirect_is_followed() {
        let (elsewhere, mut told) = receiver("HTTP/1.1 204 No Content\r\n\r\n").await;
        let answer =
            format!("HTTP/1.1 307 Temporary Redirect\r\nLocation: http://{elsewhere}/\r\nContent-Length: 0\r\n\r\n");
        let (address, _first) = receiver(answer.leak()).await;
        let error = deliver(&hook(address, None), &message(), ANSWER_TIME).await.unwrap_err();
        assert!(matches!(error, DeliveryError::Refused(StatusCode::TEMPORARY_REDIRECT)), "{error}");
        told.try_recv().unwrap_err();
    }

    /// documenso/documenso#2901: names and addresses in other clothes led inside.
    #[tokio::test]
    async fn nothing_is_sent_to_an_address_that_is_not_on_the_list() {
        let (address, mut told) = receiver("HTTP/1.1 204 No Content\r\n\r\n").await;
        let mut hook = hook(address, Some("10.0.0.0/8"));
        for host in ["127.0.0.1", "localhost", "[::ffff:7f00:1]"] {
            hook.url = format!("http://{host}:{}/", address.port());
            let error = deliver(&hook, &message(), ANSWER_TIME).await.unwrap_err();
            assert!(matches!(error, DeliveryError::Http(HttpError::NotListed { .. })), "{host}: {error}");
            // It was connected to, and that is all.
            assert_eq!(told.recv().await.unwrap(), "");
        }
    }

    /// A receiver changes its secret: for a while each message has a signature of both.
    #[tokio::test]
    async fn each_secret_of_a_receiver_has_its_signature() {
        let (address, mut told) = receiver("HTTP/1.1 204 No Content\r\n\r\n").await;
        let mut hook = hook(address, None);
        let old = hook.secrets[0].clone();
        let new = WebhookSecret::parse("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").unwrap();
        hook.secrets.insert(0, new.clone());
        deliver(&hook, &message(), ANSWER_TIME).await.unwrap();
        let text = told.recv().await.unwrap();
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap();
        let seconds = field("webhook-timestamp").parse().unwrap();
        let alone = |secret| message::signature(&[secret], &message().id, seconds, &message().body).unwrap();
        assert_eq!(field("webhook-signature"), format!("{} {}", alone(new), alone(old)));
    }

    #[tokio::test]
    async fn a_receiver_that_does_not_come_to_an_end_is_left() {
        // It takes the message and says nothing; and one that goes on saying fields for ever.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = listener.local_addr().unwrap();
        let endless = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let talking = endless.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut socket, _) = endless.accept().await.unwrap();
                drop(socket.write_all(b"HTTP/1.1 200 OK\r\n").await);
                while socket.write_all(b"X-More: and more\r\n").await.is_ok() {}
            }
        });
        let short = Duration::from_millis(300);
        let error = deliver(&hook(silent, None), &message(), short).await.unwrap_err();
        assert!(matches!(error, DeliveryError::Silent(_)), "{error}");
        // The head of an answer has an end, long before the time is up.
        let error = deliver(&hook(talking, None), &message(), ANSWER_TIME).await.unwrap_err();
        assert!(matches!(error, DeliveryError::Http(_)), "{error}");
        drop(listener);
    }

    #[tokio::test]
    async fn an_endless_answer_is_not_read() {
        let (address, _told) = receiver("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nx").await;
        deliver(&hook(address, None), &message(), ANSWER_TIME).await.unwrap();
        let (address, _told) =
            receiver("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 99999999999\r\n\r\nx").await;
        let error = deliver(&hook(address, None), &message(), ANSWER_TIME).await.unwrap_err();
        assert!(matches!(error, DeliveryError::Refused(StatusCode::INTERNAL_SERVER_ERROR)), "{error}");
    }
}
