//! libpq's parameters, the variables that set them, and what Outhaul does with each.

/// What Outhaul does with a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// It follows it, or sets its own and loses nothing.
    Read,
    /// It does just this, so any other value is refused; with no value listed the parameter is.
    Only(&'static [&'static str]),
}

/// One parameter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keyword {
    pub(super) name: &'static str,
    pub(super) variable: Option<&'static str>,
    pub(super) used: Use,
}

const fn keyword(name: &'static str, variable: &'static str, used: Use) -> Keyword {
    Keyword { name, variable: Some(variable), used }
}

const fn without_variable(name: &'static str, used: Use) -> Keyword {
    Keyword { name, variable: None, used }
}

/// All of libpq's parameters up to PostgreSQL 18, and one that it does not have.
pub(super) const KEYWORDS: &[Keyword] = &[
    keyword("host", "PGHOST", Use::Read),
    keyword("port", "PGPORT", Use::Read),
    keyword("user", "PGUSER", Use::Read),
    keyword("password", "PGPASSWORD", Use::Read),
    keyword("dbname", "PGDATABASE", Use::Read),
    keyword("options", "PGOPTIONS", Use::Read),
    keyword("sslmode", "PGSSLMODE", Use::Read),
    keyword("sslrootcert", "PGSSLROOTCERT", Use::Read),
    keyword("target_session_attrs", "PGTARGETSESSIONATTRS", Use::Read),
    keyword("connect_timeout", "PGCONNECT_TIMEOUT", Use::Read),
    keyword("passfile", "PGPASSFILE", Use::Read),
    keyword("service", "PGSERVICE", Use::Read),
    keyword("servicefile", "PGSERVICEFILE", Use::Read),
    // Sessions are named outhaul/<run>/<role>, whatever the name of the application.
    keyword("application_name", "PGAPPNAME", Use::Read),
    without_variable("fallback_application_name", Use::Read),
    // What is written is UTF-8, whatever a terminal would be sent.
    keyword("client_encoding", "PGCLIENTENCODING", Use::Read),
    keyword("channel_binding", "PGCHANNELBINDING", Use::Read),
    keyword("gssencmode", "PGGSSENCMODE", Use::Only(&["prefer", "disable"])),
    keyword("load_balance_hosts", "PGLOADBALANCEHOSTS", Use::Only(&["disable"])),
    keyword("sslnegotiation", "PGSSLNEGOTIATION", Use::Only(&["postgres"])),
    keyword("sslcompression", "PGSSLCOMPRESSION", Use::Only(&["0"])),
    keyword("sslsni", "PGSSLSNI", Use::Only(&["1"])),
    keyword("hostaddr", "PGHOSTADDR", Use::Only(&[])),
    keyword("sslcert", "PGSSLCERT", Use::Read),
    keyword("sslkey", "PGSSLKEY", Use::Read),
    keyword("sslcertmode", "PGSSLCERTMODE", Use::Only(&["allow", "disable"])),
    keyword("sslcrl", "PGSSLCRL", Use::Only(&[])),
    keyword("sslcrldir", "PGSSLCRLDIR", Use::Only(&[])),
    keyword("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION", Use::Only(&["tlsv1.2"])),
    keyword("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION", Use::Only(&[])),
    keyword("min_protocol_version", "PGMINPROTOCOLVERSION", Use::Only(&["3.0"])),
    keyword("max_protocol_version", "PGMAXPROTOCOLVERSION", Use::Only(&["3.0"])),
    keyword("require_auth", "PGREQUIREAUTH", Use::Only(&[])),
    keyword("requirepeer", "PGREQUIREPEER", Use::Only(&[])),
    keyword("krbsrvname", "PGKRBSRVNAME", Use::Only(&[])),
    keyword("gsslib", "PGGSSLIB", Use::Only(&[])),
    keyword("gssdelegation", "PGGSSDELEGATION", Use::Only(&["0"])),
    keyword("requiressl", "PGREQUIRESSL", Use::Only(&["0"])),
    without_variable("sslpassword", Use::Only(&[])),
    without_variable("sslkeylogfile", Use::Only(&[])),
    without_variable("keepalives", Use::Only(&[])),
    without_variable("keepalives_idle", Use::Only(&[])),
    without_variable("keepalives_interval", Use::Only(&[])),
    without_variable("keepalives_count", Use::Only(&[])),
    without_variable("tcp_user_timeout", Use::Only(&[])),
    without_variable("replication", Use::Only(&["false", "off", "no", "0"])),
    without_variable("scram_client_key", Use::Only(&[])),
    without_variable("scram_server_key", Use::Only(&[])),
    // Of ClickHouse alone.
    without_variable("compression", Use::Only(&["none"])),
];
