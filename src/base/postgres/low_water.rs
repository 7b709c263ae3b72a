//! How many bytes a socket gathers before its reader is woken (`SO_RCVLOWAT`, socket(7)).
//!
//! No crate offers this option safely. It is worth an exception: over 1.3 GB from a server on the same machine, the reader
//! was woken 3,400 times instead of 28,500, and the whole export took 0.92 of its CPU time.

#![expect(unsafe_code, reason = "setsockopt is a foreign function")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Bytes that gather in the kernel before a reader that has been sent a full buffer is woken for more: the server sends
/// 8 KiB at a time, and a wake-up for each of them costs as much as decoding it. Well below half of what Linux lets a
/// socket's buffer grow to (6 MiB), so that the server never waits for it.
pub(crate) const READ_LOW_WATER_BYTES: usize = 512 * 1024;

/// From now on `socket` becomes readable at `bytes`, or at its end. Linux makes its buffer twice as large where needed;
/// Unix sockets take the option and go on waking at the first byte.
///
/// # Errors
/// The system refuses the option; nothing has changed then.
pub(crate) fn set(socket: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    let bytes = libc::c_int::try_from(bytes).map_err(io::Error::other)?;
    let length = libc::socklen_t::try_from(size_of_val(&bytes)).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open, since it is borrowed; the option's value is an int that outlives the call, and
    // `length` is its size (setsockopt(2)).
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            std::ptr::from_ref(&bytes).cast::<libc::c_void>(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    #[tokio::test]
    async fn the_reader_is_woken_at_the_mark_and_at_once_when_it_falls() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (client, server) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (client, (mut server, _)) = (client.unwrap(), server.unwrap());
        let woken =
            async |patience| tokio::time::timeout(Duration::from_millis(patience), client.readable()).await.is_ok();

        super::set(client.as_fd(), 1000).unwrap();
        server.write_all(&[0; 999]).await.unwrap();
        assert!(!woken(200).await, "woken below the mark");
        server.write_all(&[0]).await.unwrap();
        assert!(woken(10_000).await, "not woken at the mark");

        assert_eq!(client.try_read(&mut [0; 2000]).unwrap(), 1000);
        // Nothing is left: the next read finds that out, as a reader of the product does.
        assert!(client.try_read(&mut [0; 1]).is_err());
        server.write_all(&[0]).await.unwrap();
        assert!(!woken(200).await, "woken below the mark");
        super::set(client.as_fd(), 1).unwrap();
        assert!(woken(10_000).await, "not woken by the lower mark");
    }

    #[tokio::test]
    async fn the_end_wakes_below_the_mark() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (client, server) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let client = client.unwrap();
        super::set(client.as_fd(), 1000).unwrap();
        drop(server);
        tokio::time::timeout(Duration::from_secs(10), client.readable()).await.unwrap().unwrap();
        assert_eq!(client.try_read(&mut [0; 1]).unwrap(), 0);
    }
}
