//! The two listeners, and how they end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum_server::Handle;
use tokio::net::TcpListener;

use super::deadline::DeadlineAcceptor;
use super::{Listening, ServiceError, ServiceState};
use crate::base::failpoint;
use crate::base::memory::{CONNECTION_SEND_BYTES, REQUEST_HEAD_BYTES_MAX, STREAMS_PER_CONNECTION_MAX};

/// So long a client has for the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// So long streams have to end by themselves once the service is to stop.
const GRACE: Duration = Duration::from_secs(10);

/// So long streams that are broken off then have to be written down.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Listens until the service stops.
pub(super) async fn serve(
    service: &Arc<ServiceState>,
    public: Router,
    admin: Router,
    ready: impl FnOnce(Listening),
) -> Result<(), ServiceError> {
    let (listener, address) = bind(service.config.listen).await?;
    let handle = Handle::new();
    let deadline = failpoint::limit("write_deadline", service.config.limits.write_deadline);
    let mut server = axum_server::Server::<SocketAddr>::from_listener(listener)
        .acceptor(DeadlineAcceptor(deadline))
        .first_request_timeout(HEAD_TIMEOUT)
        .handle(handle.clone());
    let builder = server.http_builder();
    builder.http1().header_read_timeout(HEAD_TIMEOUT).max_buf_size(REQUEST_HEAD_BYTES_MAX);
    builder
        .http2()
        .max_send_buf_size(CONNECTION_SEND_BYTES)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .max_header_list_size(u32::try_from(REQUEST_HEAD_BYTES_MAX).unwrap_or(u32::MAX));
    let serving = tokio::spawn(server.serve(public.into_make_service()));
    let admin = match service.config.admin_listen {
        Some(address) => {
            let (listener, address) = bind(address).await?;
            let server = axum_server::Server::<SocketAddr>::from_listener(listener).first_request_timeout(HEAD_TIMEOUT);
            Some((tokio::spawn(server.serve(admin.into_make_service())), address))
        }
        None => None,
    };
    ready(Listening { public: address, admin: admin.as_ref().map(|(_, address)| *address) });
    service.stopping.cancelled().await;
    handle.graceful_shutdown(None);
    if tokio::time::timeout(GRACE, service.limits.all_ended()).await.is_err() {
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

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServiceError> {
    let failed = |source| ServiceError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}
