//! What makes a dead network an error instead of a hang: keepalive probes and `TCP_USER_TIMEOUT` (tcp(7)).
//!
//! Without them a reader waits for ever where a firewall forgets the connection or a host loses its power: nothing that
//! ends it is ever sent. The limits are set on the socket, as libpq's `keepalives_idle` and its siblings do.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;

/// TCP keepalive on every connection to the source: the first probe after so long without a packet, below the idle
/// limits of NAT and of firewalls.
const TCP_KEEPALIVE_IDLE: Duration = Duration::from_secs(30);

/// Between two such probes.
const TCP_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Unanswered probes after which the connection is lost.
const TCP_KEEPALIVE_PROBES: u32 = 6;

/// What was sent and not acknowledged for so long loses the connection: as long as the probes take.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(90);

/// From now on the system keeps only about so many bytes that came and were not read.
#[cfg(target_os = "linux")]
pub(in crate::base) fn keep_little(stream: &TcpStream, bytes: usize) -> io::Result<()> {
    Ok(rustix::net::sockopt::set_socket_recv_buffer_size(stream, bytes)?)
}

/// Elsewhere it keeps what it likes.
#[cfg(not(target_os = "linux"))]
pub(in crate::base) fn keep_little(_stream: &TcpStream, _bytes: usize) -> io::Result<()> {
    Ok(())
}

/// From now on `stream` fails once its other end has been silent for [`TCP_USER_TIMEOUT`].
#[cfg(target_os = "linux")]
pub(in crate::base) fn set(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;

    if crate::base::failpoint::off("keepalive") {
        return Ok(());
    }
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, TCP_KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, TCP_KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, TCP_KEEPALIVE_PROBES)?;
    let user_timeout = u32::try_from(TCP_USER_TIMEOUT.as_millis()).map_err(io::Error::other)?;
    sockopt::set_tcp_user_timeout(stream, user_timeout)?;
    Ok(())
}

/// Elsewhere the system's own limits stand.
#[cfg(not(target_os = "linux"))]
#[expect(clippy::unnecessary_wraps, reason = "as on Linux")]
pub(in crate::base) fn set(_stream: &TcpStream) -> io::Result<()> {
    Ok(())
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use rustix::net::sockopt;
    use tokio::net::{TcpListener, TcpStream};

    use super::{TCP_KEEPALIVE_IDLE, TCP_KEEPALIVE_INTERVAL, TCP_KEEPALIVE_PROBES, TCP_USER_TIMEOUT};

    #[tokio::test]
    async fn a_socket_has_its_limits() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        assert!(!sockopt::socket_keepalive(&stream).unwrap());
        super::set(&stream).unwrap();
        assert!(sockopt::socket_keepalive(&stream).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&stream).unwrap(), TCP_KEEPALIVE_IDLE);
        assert_eq!(sockopt::tcp_keepintvl(&stream).unwrap(), TCP_KEEPALIVE_INTERVAL);
        assert_eq!(sockopt::tcp_keepcnt(&stream).unwrap(), TCP_KEEPALIVE_PROBES);
        assert_eq!(u128::from(sockopt::tcp_user_timeout(&stream).unwrap()), TCP_USER_TIMEOUT.as_millis());
    }
}
