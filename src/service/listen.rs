//! The two listeners, and how they end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::{Router, ServiceExt};
use axum_server::Handle;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinHandle;
use tower::Layer;
use tower::util::MapRequestLayer;

use super::deadline::GuardedAcceptor;
use super::prefix::without_prefix;
use super::tls::server_config;
use super::{Listening, ServiceError, ServiceState};
use crate::base::failpoint;
use crate::base::memory::{
    CONNECTION_SEND_BYTES, CONNECTION_WINDOW_BYTES, REQUEST_HEAD_BYTES_MAX, STREAM_WINDOW_BYTES,
    STREAMS_PER_CONNECTION_MAX,
};
use crate::config::service::ServiceConfig;

/// So long a client has for the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// So often a connection of HTTP/2 that says nothing is asked whether it is still there.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// So long streams that are broken off then have to be written down.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Listens until the service stops.
pub(super) async fn serve(
    service: &Arc<ServiceState>,
    public: Router,
    admin: Router,
    mut changes: Receiver<ServiceConfig>,
    ready: impl FnOnce(Listening),
) -> Result<(), ServiceError> {
    if !service.config.role.answers() {
        return work(service, admin, ready).await;
    }
    let tls = service.config.tls.as_ref().map(server_config).transpose().map_err(ServiceError::Tls)?;
    let tls = tls.map(RustlsConfig::from_config);
    let (listener, address) = bind(service.config.listen).await?;
    let handle = Handle::new();
    let deadline = failpoint::limit("write_deadline", service.config.limits.write_deadline);
    let mut server = axum_server::Server::<SocketAddr>::from_listener(listener)
        .first_request_timeout(HEAD_TIMEOUT)
        .handle(handle.clone());
    let builder = server.http_builder();
    builder.http1().header_read_timeout(HEAD_TIMEOUT).max_buf_size(REQUEST_HEAD_BYTES_MAX);
    builder
        .http2()
        .max_send_buf_size(CONNECTION_SEND_BYTES)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(PING_INTERVAL)
        .max_header_list_size(u32::try_from(REQUEST_HEAD_BYTES_MAX).unwrap_or(u32::MAX));
    let prefix = service.config.public_url.clone();
    let app = MapRequestLayer::new(move |request: Request<Incoming>| without_prefix(prefix.as_deref(), request))
        .layer(public);
    let app = ServiceExt::<Request<Incoming>>::into_make_service_with_connect_info::<SocketAddr>(app);
    let guarded = GuardedAcceptor::new(deadline, service.config.limits.connections);
    let serving = match &tls {
        Some(tls) => tokio::spawn(server.acceptor(RustlsAcceptor::new(tls.clone()).acceptor(guarded)).serve(app)),
        None => tokio::spawn(server.acceptor(guarded).serve(app)),
    };
    let admin = operator(service, admin).await?;
    let admin_address = admin.as_ref().map(|(_, address)| *address);
    ready(Listening { secure: tls.is_some(), public: Some(address), admin: admin_address });
    loop {
        tokio::select! {
            () = service.stopping.cancelled() => break,
            Some(file) = changes.recv() => tokio::select! {
                () = service.stopping.cancelled() => break,
                () = reload(service, tls.as_ref(), &file) => {}
            },
        }
    }
    handle.graceful_shutdown(None);
    if tokio::time::timeout(service.config.limits.shutdown, service.limits.all_ended()).await.is_err() {
        service.stop.cancel();
        let _ = tokio::time::timeout(LAST_WORDS, service.limits.all_ended()).await;
    }
    handle.shutdown();
    serving.abort();
    if let Some((task, _)) = admin {
        task.abort();
    }
    Ok(())
}

/// Answers the operator alone until the service stops.
async fn work(service: &ServiceState, admin: Router, ready: impl FnOnce(Listening)) -> Result<(), ServiceError> {
    let admin = operator(service, admin).await?;
    ready(Listening { secure: false, public: None, admin: admin.as_ref().map(|(_, address)| *address) });
    service.stopping.cancelled().await;
    if let Some((task, _)) = admin {
        task.abort();
    }
    Ok(())
}

/// Answers the operator, where that is wanted.
async fn operator(
    service: &ServiceState,
    admin: Router,
) -> Result<Option<(JoinHandle<io::Result<()>>, SocketAddr)>, ServiceError> {
    let Some(address) = service.config.admin_listen else { return Ok(None) };
    let (listener, address) = bind(address).await?;
    let server = axum_server::Server::<SocketAddr>::from_listener(listener).first_request_timeout(HEAD_TIMEOUT);
    Ok(Some((tokio::spawn(server.serve(admin.into_make_service())), address)))
}

/// Takes keys, certificates and the issuer of tokens of a file that has changed; the rest of it waits for the next start.
async fn reload(service: &ServiceState, tls: Option<&RustlsConfig>, changed: &ServiceConfig) {
    service.take_keys(changed);
    if let (Some(tls), Some(files)) = (tls, &changed.tls) {
        match server_config(files) {
            Ok(config) => tls.reload_from_config(config),
            Err(error) => tracing::error!(%error, "the certificate stays as it was"),
        }
    }
    service.take_tokens(changed).await;
    tracing::warn!("keys and certificates were read again");
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServiceError> {
    let failed = |source| ServiceError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}
