//! HTTP: rows as they are read, capped by tier, and nobody fooled about how a stream ended.
//!
//! A request becomes a question, the question an export's request, and the export's bytes the body of the response:
//! no second runner and no second encoder. What a caller may name is declared in `service.toml`; values reach SQL through
//! the source's own literals alone. How each stream ended is kept in the state store and is the truth of it.

mod access;
mod admin;
mod analyze;
mod body;
mod bucket_key;
mod catalog;
mod check;
mod coding;
mod console;
mod cors;
mod datasets;
mod deadline;
mod ending;
mod estimate;
mod jobs;
mod jwks;
mod jwt;
mod late;
mod limits;
mod links;
mod listen;
mod openapi;
mod origin;
mod paced;
mod prefer;
mod prefix;
mod problem;
mod query;
mod question;
mod receipts;
mod scoped;
mod state;
mod statement;
mod stream;
mod tags;
mod tls;
mod webhooks;

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::get;
use tokio::sync::Notify;
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::base::budget::MemoryBudget;
use crate::base::failpoint;
use crate::base::telemetry::exporter::{Exporter, MetricsError};
use crate::base::telemetry::serving;
use crate::config::ConfigError;
use crate::config::service::{CallerKey, LinkKey, Remembrance, ServiceConfig};
use access::Caller;
use bucket_key::BucketSigner;
use catalog::Catalog;
use jwks::{JwksError, KEYS_AGE_MAX};
use jwt::Tokens;
use limits::Limits;
use links::Links;
use origin::client_address;
use problem::Refusal;
use state::{Expiry, StateError, StateStore};

/// A message that nobody has sent for so long is for nobody: a sender gives up far sooner.
const MESSAGES_KEPT: Duration = Duration::from_hours(30 * 24);

const BETWEEN_PRUNES: Duration = Duration::from_hours(1);

/// A service that cannot start, or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// An address cannot be listened on.
    #[error("listening on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The keys of tokens cannot be used.
    #[error("the keys of [jwt] cannot be used")]
    Jwks(#[source] Box<dyn Error + Send + Sync>),
    /// The certificate cannot be used.
    #[error("the certificate or its key cannot be used")]
    Tls(#[source] io::Error),
    /// The state store cannot be used.
    #[error("{message}")]
    State {
        /// What is wrong with it.
        message: String,
        /// What to do.
        hint: Option<&'static str>,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The folder of exports in the background cannot be made.
    #[error("making the folder of exports beside the state file")]
    Jobs(#[source] io::Error),
    /// Metrics cannot be recorded.
    #[error(transparent)]
    Metrics(Box<dyn Error + Send + Sync>),
}

impl From<MetricsError> for ServiceError {
    fn from(error: MetricsError) -> Self {
        Self::Metrics(Box::new(error))
    }
}

impl From<JwksError> for ServiceError {
    fn from(error: JwksError) -> Self {
        Self::Jwks(Box::new(error))
    }
}

impl From<StateError> for ServiceError {
    fn from(error: StateError) -> Self {
        Self::State { message: error.to_string(), hint: error.hint(), source: Box::new(error) }
    }
}

/// Where a service that runs is reached.
#[derive(Debug, Clone, Copy)]
pub struct Listening {
    /// Whether callers are answered over TLS.
    pub secure: bool,
    /// By callers; a worker answers none.
    pub public: Option<SocketAddr>,
    /// By the operator.
    pub admin: Option<SocketAddr>,
}

/// By what the log and the audit know a request.
#[derive(Debug, Clone, Default)]
pub(crate) struct RequestId {
    pub(crate) id: String,
    /// The address of whoever asks.
    pub(crate) client: Option<String>,
}

/// What all requests share.
#[derive(Debug)]
pub(crate) struct ServiceState {
    config: ServiceConfig,
    keys: RwLock<Vec<Arc<CallerKey>>>,
    tokens: RwLock<Option<Arc<Tokens>>>,
    limits: Limits,
    /// Of which each stream and each job reserves what it may hold.
    memory: MemoryBudget,
    store: Arc<dyn StateStore>,
    catalog: Catalog,
    signer: BucketSigner,
    links: Links,
    /// A job waits for a worker.
    job_queued: Arc<Notify>,
    /// Ends the streams.
    stop: CancellationToken,
    /// The service takes no new requests.
    stopping: CancellationToken,
}

impl ServiceState {
    /// Who asks, within the rate that he may ask at.
    pub(crate) fn caller(&self, headers: &HeaderMap) -> Result<Caller, Refusal> {
        let caller = {
            let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
            Caller::of(headers, &keys, self.tokens().as_deref(), &self.config)?
        };
        self.limits.request(&caller.owner())?;
        Ok(caller)
    }

    /// Takes the keys of a file that has changed; who has a stream already keeps it. Tiers wait for the next start: a key of
    /// one that is new in the file stays as it was before, if it was there.
    fn take_keys(&self, changed: &ServiceConfig) {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let taken = changed.keys.iter().filter_map(|key| {
            if self.serves(key.tier.as_deref(), &format!("key {:?}", key.name)) {
                return Some(Arc::new(key.clone()));
            }
            keys.iter().find(|before| before.sha256 == key.sha256).cloned()
        });
        *keys = taken.collect();
    }

    /// Whether a tier that a changed file names was there at the start; the log says where it was not.
    fn serves(&self, tier: Option<&str>, place: &str) -> bool {
        let served = tier.is_none_or(|tier| self.config.tiers.contains_key(tier));
        if !served {
            tracing::error!(
                "{place}: its tier is new in the file, and stays as it was until the service is started again"
            );
        }
        served
    }

    /// Whose tokens are taken.
    pub(crate) fn tokens(&self) -> Option<Arc<Tokens>> {
        self.tokens.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes the issuer of a file that has changed, once its keys are there.
    async fn take_tokens(&self, changed: &ServiceConfig) {
        let known = self.tokens();
        let tokens = match &changed.jwt {
            Some(settings) if !self.serves(settings.tier.as_deref(), "[jwt]") => None,
            Some(settings) => match Tokens::new(settings, known.as_deref()) {
                Ok(tokens) => {
                    tokens.keys.refresh().await;
                    (!tokens.keys.is_empty()).then_some(Some(Arc::new(tokens)))
                }
                Err(error) => {
                    tracing::error!(%error, "the keys of [jwt] cannot be used");
                    None
                }
            },
            None => Some(None),
        };
        if let Some(tokens) = tokens {
            *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = tokens;
        } else {
            tracing::error!("tokens are taken as before");
        }
    }

    /// What links begin with.
    pub(crate) fn public_path(&self) -> &str {
        self.config.public_url.as_deref().unwrap_or_default()
    }
}

/// What in the file does not fit the databases that it names.
pub async fn check(config: &ServiceConfig) -> Vec<ConfigError> {
    check::check(config).await
}

/// Serves until `stopping` is cancelled; streams that are under way have some seconds then. Of a file that has changed, keys,
/// certificates and the issuer of tokens are taken.
///
/// # Errors
/// An address is taken, or the state store cannot be used.
pub async fn serve(
    config: ServiceConfig,
    stopping: CancellationToken,
    changes: Receiver<ServiceConfig>,
    ready: impl FnOnce(Listening),
) -> Result<(), ServiceError> {
    let metrics = Arc::new(Exporter::start(None, None, &[]).await?);
    serving::describe();
    let memory = MemoryBudget::new(config.limits.memory);
    let limits = Limits::new(&config.limits, memory.clone());
    let keys = RwLock::new(shared(&config.keys));
    let tokens = config.jwt.as_ref().map(|settings| Tokens::new(settings, None)).transpose()?;
    let tokens = RwLock::new(tokens.map(Arc::new));
    let store = state::open(&config).await?;
    let catalog = catalog::unknown(&config);
    let stop = CancellationToken::new();
    let key = store.signing_key().await?;
    let signer = BucketSigner::new(key);
    let public = config.public_url.as_deref().unwrap_or_default();
    let mut link_keys: Vec<_> = config.link_keys.iter().map(LinkKey::expose).collect();
    if link_keys.is_empty() {
        link_keys.push(key);
    }
    let links = Links::new(&link_keys, config.link_seconds, config.link_redirect, public);
    let service = Arc::new(ServiceState {
        config,
        keys,
        tokens,
        limits,
        memory,
        store,
        catalog,
        signer,
        links,
        job_queued: Arc::default(),
        stop,
        stopping,
    });
    let warm = Arc::clone(&service);
    tokio::spawn(async move { warm.describe_all().await });
    tokio::spawn(webhooks::send_all(Arc::clone(&service)));
    tokio::spawn(jobs::sweep(Arc::clone(&service)));
    let works = service.config.role.works();
    let workers = if works { jobs::start(&service).map_err(ServiceError::Jobs)? } else { Vec::new() };
    tokio::spawn(jobs::measure(Arc::clone(&service)));
    tokio::spawn(forget(Arc::clone(&service.store), service.config.retention));
    tokio::spawn(fetch_keys(Arc::clone(&service)));
    let (public, admin) = (router(Arc::clone(&service)), admin::router(Arc::clone(&service), metrics));
    let served = async {
        let served = listen::serve(&service, public, admin, changes, ready).await;
        service.stopping.cancel();
        served
    };
    let worked = async {
        service.stopping.cancelled().await;
        // Each gives its job back.
        let workers = futures_util::future::join_all(workers);
        if timeout(service.config.limits.shutdown, workers).await.is_err() {
            tracing::warn!("a worker did not stop in time; its job goes on once its lease runs out");
        }
    };
    tokio::join!(served, worked).0
}

fn shared(keys: &[CallerKey]) -> Vec<Arc<CallerKey>> {
    keys.iter().cloned().map(Arc::new).collect()
}

/// Fetches the keys of tokens, now and from time to time.
async fn fetch_keys(service: Arc<ServiceState>) {
    loop {
        if let Some(tokens) = service.tokens() {
            tokens.keys.refresh().await;
        }
        tokio::time::sleep(failpoint::limit("jwks_age", KEYS_AGE_MAX)).await;
    }
}

/// Forgets records once they are old.
async fn forget(store: Arc<dyn StateStore>, kept: Remembrance) {
    loop {
        let expiry = Expiry { exports: kept.receipts, audits: kept.audit, messages: MESSAGES_KEPT };
        if let Err(error) = store.prune(expiry).await {
            tracing::warn!(%error, "old records were not forgotten");
        }
        tokio::time::sleep(BETWEEN_PRUNES).await;
    }
}

/// What callers may ask.
fn router(service: Arc<ServiceState>) -> Router {
    let not_found = async || Refusal::new(StatusCode::NOT_FOUND, "not_found", "there is no such endpoint");
    let not_allowed =
        async || Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "not with this method");
    let all = openapi::routes().into_iter();
    all.fold(Router::new(), |router, (_, path, method)| router.route(path, method))
        .route("/openapi.json", get(openapi::document))
        .merge(console::router())
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .layer(from_fn_with_state(Arc::clone(&service), jwt::with_keys))
        .layer(from_fn_with_state(Arc::clone(&service), with_request_id))
        .layer(from_fn_with_state(Arc::clone(&service), cors::cors))
        .with_state(service)
}

/// Gives each answer the id by which the log knows it, and each problem its body.
async fn with_request_id(State(service): State<Arc<ServiceState>>, mut request: Request, next: Next) -> Response {
    let id = format!("{:016x}", rand::random::<u64>());
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip());
    let client = peer.map(|peer| client_address(peer, request.headers(), &service.config.trusted_proxies).to_string());
    request.extensions_mut().insert(RequestId { id: id.clone(), client: client.clone() });
    let mut response = next.run(request).await;
    if let Some(problem) = response.extensions_mut().remove::<Refusal>() {
        response = problem.render(&id);
        serving::refused(problem.code);
        tracing::info!(
            request = id,
            client,
            status = problem.status.as_u16(),
            code = problem.code,
            "a request was not answered"
        );
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(HeaderName::from_static("x-request-id"), id);
    }
    response
}
