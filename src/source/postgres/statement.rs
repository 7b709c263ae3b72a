//! What a statement returns, as the server describes it without running it.
//!
//! The driver can ask this too, and then looks up the types that it does not know by statements of its own, whose
//! operators whoever writes to the search path can replace. So the question is asked on the borrowed socket.

use bytes::{Buf, Bytes, BytesMut};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::connect::{QUIET_PATIENCE, Session};
use super::error::ServerError;
use super::frame::{HEADER_BYTES, server_error};
use super::silence::unless_lost;
use crate::base::postgres::stream::RawStream;
use crate::source::{SourceError, SourceFault};

/// More than the description of 1664 columns takes, each with the longest name.
const DESCRIPTION_BYTES_MAX: usize = 1 << 20;
const READ_BYTES: usize = 8 << 10;

/// A column of a statement's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OutputColumn {
    pub(super) name: String,
    pub(super) type_oid: u32,
    pub(super) typmod: i32,
    /// The table and the number of its column, where the value is that column's unchanged.
    pub(super) stored: Option<(u32, i16)>,
}

/// The columns that `statement` returns; none where it returns no rows. By the protocol it can only be one statement.
///
/// # Errors
/// The server's. Its transaction has failed then, as after any other error.
///
/// # Cancel safety
/// Dropping the future closes the session.
pub(super) async fn describe(
    session: &Session,
    action: &str,
    statement: &str,
) -> Result<Vec<OutputColumn>, SourceError> {
    let lost = |error| SourceError::new(SourceFault::Unavailable, action).with_source(error);
    let mut request = BytesMut::new();
    // A text with a NUL in it, which nobody can send.
    let unfit = |error| SourceError::new(SourceFault::Usage, action).with_source(error);
    frontend::parse("", statement, [], &mut request).map_err(unfit)?;
    frontend::describe(b'S', "", &mut request).map_err(unfit)?;
    frontend::sync(&mut request);
    let loan = session.lender().lend(QUIET_PATIENCE).await;
    let mut loan = loan.map_err(|error| SourceError::new(SourceFault::Unavailable, action).with_source(error))?;
    let socket = loan.socket().map_err(lost)?;
    socket.write_all(&request).await.map_err(lost)?;
    socket.flush().await.map_err(lost)?;
    // The question is asked rarely, and its future is large.
    let answer = unless_lost(action, answer(socket, action), || Box::pin(session.backend())).await??;
    loan.give_back();
    answer.map_err(|error| SourceError::server(action, error))
}

/// Reads up to `ReadyForQuery`. The inner error leaves the session usable.
async fn answer(socket: &mut RawStream, action: &str) -> Result<Result<Vec<OutputColumn>, ServerError>, SourceError> {
    let lost = |error| SourceError::new(SourceFault::Unavailable, action).with_source(error);
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    let mut columns = Ok(Vec::new());
    loop {
        while let Some((tag, body)) = message(&mut buffer).map_err(|Malformed| malformed(action))? {
            match tag {
                b'T' => columns = Ok(described(body).map_err(|Malformed| malformed(action))?),
                // The first error is the cause.
                b'E' if columns.is_ok() => columns = Err(refused(&body).map_err(|Malformed| malformed(action))?),
                b'Z' => return Ok(columns),
                // Parsed, parameters, no rows; and what may come at any time.
                b'1' | b't' | b'n' | b'E' | b'N' | b'S' | b'A' => {}
                _ => return Err(malformed(action)),
            }
        }
        buffer.reserve(READ_BYTES);
        if socket.read_buf(&mut buffer).await.map_err(lost)? == 0 {
            let closed = || SourceError::new(SourceFault::Unavailable, format!("{action}: the connection was lost"));
            // The server's last words, if it had any, say why.
            return Err(columns.err().map_or_else(closed, |error| SourceError::server(action, error)));
        }
    }
}

/// Bytes that are no answer to the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Malformed;

fn malformed(action: &str) -> SourceError {
    SourceError::new(SourceFault::Protocol, format!("{action}: the server's answer does not describe a statement"))
}

/// Takes the next message, if it is whole.
fn message(buffer: &mut BytesMut) -> Result<Option<(u8, Bytes)>, Malformed> {
    let Some(&[tag, a, b, c, d]) = buffer.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let length = usize::try_from(i32::from_be_bytes([a, b, c, d])).map_err(|_| Malformed)?;
    let body = length.checked_sub(4).filter(|body| *body <= DESCRIPTION_BYTES_MAX).ok_or(Malformed)?;
    if buffer.len() < HEADER_BYTES + body {
        return Ok(None);
    }
    buffer.advance(HEADER_BYTES);
    Ok(Some((tag, buffer.split_to(body).freeze())))
}

/// `RowDescription`.
fn described(mut body: Bytes) -> Result<Vec<OutputColumn>, Malformed> {
    let count = u16::try_from(body.try_get_i16().map_err(|_| Malformed)?).map_err(|_| Malformed)?;
    (0..count).map(|_| column(&mut body)).collect()
}

fn column(body: &mut Bytes) -> Result<OutputColumn, Malformed> {
    let end = body.iter().position(|byte| *byte == 0).ok_or(Malformed)?;
    let name = String::from_utf8(body.split_to(end).to_vec()).map_err(|_| Malformed)?;
    body.advance(1);
    let short = |_| Malformed;
    let table = body.try_get_u32().map_err(short)?;
    let number = body.try_get_i16().map_err(short)?;
    let type_oid = body.try_get_u32().map_err(short)?;
    let _size = body.try_get_i16().map_err(short)?;
    let typmod = body.try_get_i32().map_err(short)?;
    let _format = body.try_get_i16().map_err(short)?;
    Ok(OutputColumn { name, type_oid, typmod, stored: (table != 0 && number != 0).then_some((table, number)) })
}

/// `ErrorResponse`. Its DETAIL and CONTEXT stay out, as they may quote row values.
fn refused(body: &[u8]) -> Result<ServerError, Malformed> {
    let error = server_error(body).map_err(|_| Malformed)?;
    Ok(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::postgres::frame::wire;

    fn row_description(columns: &[(&str, u32, i16, u32, i32)]) -> Vec<u8> {
        let mut body = i16::try_from(columns.len()).unwrap().to_be_bytes().to_vec();
        for (name, table, number, type_oid, typmod) in columns {
            body.extend(name.as_bytes());
            body.push(0);
            body.extend(table.to_be_bytes());
            body.extend(number.to_be_bytes());
            body.extend(type_oid.to_be_bytes());
            body.extend([0, 4]);
            body.extend(typmod.to_be_bytes());
            body.extend([0, 0]);
        }
        body
    }

    #[test]
    fn a_description_is_read_column_by_column() {
        let body = row_description(&[("a", 16384, 2, 23, -1), ("", 0, 0, 1700, 655_366)]);
        let column =
            |name: &str, type_oid, typmod, stored| OutputColumn { name: name.into(), type_oid, typmod, stored };
        let expected = [column("a", 23, -1, Some((16384, 2))), column("", 1700, 655_366, None)];
        assert_eq!(described(body.clone().into()).unwrap(), expected);
        for cut in 0..body.len() {
            assert_eq!(described(body[..cut].to_vec().into()), Err(Malformed), "cut at {cut}");
        }
    }

    #[test]
    fn a_message_is_taken_once_it_is_whole() {
        let bytes = [wire::message(b'1', b""), wire::message(b'T', b"ab")].concat();
        for cut in 5..bytes.len() {
            let mut buffer = BytesMut::from(&bytes[..cut]);
            assert_eq!(message(&mut buffer), Ok(Some((b'1', Bytes::new()))), "cut at {cut}");
            assert_eq!(message(&mut buffer), Ok(None), "cut at {cut}");
        }
        let mut buffer = BytesMut::from(&bytes[5..]);
        assert_eq!(message(&mut buffer), Ok(Some((b'T', Bytes::from_static(b"ab")))));
        assert_eq!(message(&mut BytesMut::from(&b"T\0\0\0\x03"[..])), Err(Malformed));
        assert_eq!(message(&mut BytesMut::from(&b"T\x7f\0\0\0"[..])), Err(Malformed));
    }
}
