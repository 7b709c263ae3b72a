//! What makes a dead network an error instead of a hang: keepalive probes and `TCP_USER_TIMEOUT` (tcp(7)).
//!
//! Without them a reader waits for ever where a firewall forgets the connection or a host loses its power: nothing that
//! ends it is ever sent. The limits are set on the socket, as libpq's `keepalives_idle` and its siblings do.

use std::io;

use tokio::net::TcpStream;

/// From now on `stream` fails once its other end has been silent for as long as [`crate::limits`] allows.
#[cfg(target_os = "linux")]
pub(super) fn set(stream: &TcpStream) -> io::Result<()> {
    use crate::limits;
    use rustix::net::sockopt;

    if crate::base::failpoint::off("keepalive") {
        return Ok(());
    }
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, limits::TCP_KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, limits::TCP_KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, limits::TCP_KEEPALIVE_PROBES)?;
    let user_timeout = u32::try_from(limits::TCP_USER_TIMEOUT.as_millis()).map_err(io::Error::other)?;
    sockopt::set_tcp_user_timeout(stream, user_timeout)?;
    Ok(())
}

/// Elsewhere the system's own limits stand.
#[cfg(not(target_os = "linux"))]
#[expect(clippy::unnecessary_wraps, reason = "as on Linux")]
pub(super) fn set(_stream: &TcpStream) -> io::Result<()> {
    Ok(())
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use rustix::net::sockopt;
    use tokio::net::{TcpListener, TcpStream};

    use crate::limits;

    #[tokio::test]
    async fn a_socket_has_its_limits() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        assert!(!sockopt::socket_keepalive(&stream).unwrap());
        super::set(&stream).unwrap();
        assert!(sockopt::socket_keepalive(&stream).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&stream).unwrap(), limits::TCP_KEEPALIVE_IDLE);
        assert_eq!(sockopt::tcp_keepintvl(&stream).unwrap(), limits::TCP_KEEPALIVE_INTERVAL);
        assert_eq!(sockopt::tcp_keepcnt(&stream).unwrap(), limits::TCP_KEEPALIVE_PROBES);
        assert_eq!(u128::from(sockopt::tcp_user_timeout(&stream).unwrap()), limits::TCP_USER_TIMEOUT.as_millis());
    }
}
