//! A real ClickHouse server: a database of its own for every test.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::run::{Outhaul, outhaul};
use super::{unique, variable, within};

const ANSWER_LIMIT: Duration = Duration::from_mins(1);

/// A database that belongs to one test. It stays with its server, which is thrown away.
pub(crate) struct ClickHouse {
    pub database: String,
    /// `127.0.0.1:…`
    pub server: String,
    pub password: String,
}

/// A fresh database.
pub(crate) async fn clickhouse() -> ClickHouse {
    let server = variable("OUTHAUL_TEST_CLICKHOUSE").trim_start_matches("http://").to_owned();
    let password = variable("OUTHAUL_TEST_CLICKHOUSE_PASSWORD");
    let made = ClickHouse { database: "default".to_owned(), server, password };
    let database = format!("test_{}", unique());
    made.run(&format!("CREATE DATABASE {database}")).await;
    ClickHouse { database, ..made }
}

impl ClickHouse {
    /// The connection string of a user: `writer`, `fixed`, `breaker`, `narrow`.
    pub(crate) fn url(&self, user: &str) -> String {
        format!("clickhouse://{user}@{}/{}", self.server, self.database)
    }

    /// An export by `writer`, with its password in the environment.
    pub(crate) fn export(&self, arguments: &[&str]) -> Outhaul {
        self.export_as("writer", arguments)
    }

    /// An export by another user.
    pub(crate) fn export_as(&self, user: &str, arguments: &[&str]) -> Outhaul {
        let url = self.url(user);
        let own = ["export", "--from", url.as_str()];
        outhaul(own.iter().chain(arguments)).env("CLICKHOUSE_PASSWORD", &self.password)
    }

    /// What the server answers to `writer`, in the format that the statement says, else with tabs; a failed test where it
    /// refuses.
    pub(crate) async fn bytes(&self, sql: &str) -> Vec<u8> {
        self.post("", sql, sql.as_bytes()).await
    }

    /// Puts a file of rows into a table, in a format of the server's.
    pub(crate) async fn load(&self, table: &str, format: &str, file: &[u8]) {
        let query = format!("&query=INSERT%20INTO%20{table}%20FORMAT%20{format}");
        self.post(&query, &format!("loading {table}"), file).await;
    }

    async fn post(&self, query: &str, what: &str, body: &[u8]) -> Vec<u8> {
        // HTTP/1.0 has no chunks to be put together.
        let head = format!(
            "POST /?database={}&wait_end_of_query=1{query} HTTP/1.0\r\nHost: {}\r\nX-ClickHouse-User: writer\r\n\
             X-ClickHouse-Key: {}\r\nContent-Length: {}\r\n\r\n",
            self.database,
            self.server,
            self.password,
            body.len()
        );
        let answer = within(ANSWER_LIMIT, what, async {
            let mut socket = TcpStream::connect(&self.server).await.unwrap();
            socket.write_all(head.as_bytes()).await.unwrap();
            socket.write_all(body).await.unwrap();
            let mut answer = Vec::new();
            socket.read_to_end(&mut answer).await.unwrap();
            answer
        })
        .await;
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        let (head, body) = answer.split_at(end);
        let ok = head.get(9..12) == Some(b"200");
        assert!(ok, "{what}: {}{}", String::from_utf8_lossy(head), String::from_utf8_lossy(body));
        body.to_vec()
    }

    /// A statement under settings, which stand as they do in a URL: `&name=value`.
    pub(crate) async fn run_under(&self, settings: &str, sql: &str) {
        self.post(settings, sql, sql.as_bytes()).await;
    }

    /// The same as text.
    pub(crate) async fn run(&self, sql: &str) -> String {
        String::from_utf8(self.bytes(sql).await).unwrap()
    }
}
