//! What the SQLSTATEs of a server mean for a run: class, and what to do. Never the words of its messages, which are in the
//! language of the server (`lc_messages`).

use super::error::STANDBY_HINT;
use crate::model::ErrorCode;
use crate::source::{Retry, SourceFault};

/// The class of a SQLSTATE (PostgreSQL, Appendix A). What comes from what a person wrote, a query or a predicate or a name,
/// is never of a class that is worth another try.
pub(super) fn classify(sqlstate: &str) -> SourceFault {
    match sqlstate {
        // Schema, table or column; a database that is dropped, or a table that is no longer what it was.
        "3F000" | "42P01" | "42703" => SourceFault::Missing,
        "42P10" | "57P04" => SourceFault::SchemaChanged,
        "42501" | "3D000" => SourceFault::Authentication,
        "42602" => SourceFault::Usage,
        // Bytes that are no text in the client's encoding, a row past what COPY can hold, a page that does not make sense.
        "22021" | "22P05" | "54000" | "XX001" | "XX002" => SourceFault::Data,
        // What others hold or use up: a lock, memory, the disk of the server, its connections. Not 53400: a limit that is
        // set for what one statement may take (`temp_file_limit`) is there the next time too.
        "55P03" | "40P01" | "57000" | "57014" | "53000" | "53100" | "53200" | "53300" => SourceFault::GaveWay,
        // A transaction that only reads fails to serialize for one reason: on a standby, replay removes what its snapshot
        // sees, or takes its lock away. Every session under the snapshot is hit. 72000: `old_snapshot_threshold`, up to 16.
        "40001" | "72000" => SourceFault::SnapshotLost,
        // The server ends or starts, or its operating system fails it. Not 58P01 and its kin: a file that somebody named.
        "57P01" | "57P02" | "57P03" | "57P05" | "25P03" | "25P04" | "58000" | "58030" | "HV00N" => {
            SourceFault::Unavailable
        }
        _ => match sqlstate.get(..2) {
            Some("08") => SourceFault::Unavailable,
            Some("28") => SourceFault::Authentication,
            _ => SourceFault::Rejected,
        },
    }
}

/// The same for an error that ends a statement while its rows come. Values and rows that pass the 1 GB which the server can
/// hold in one piece (`MaxAllocSize`) are internal errors there, like much else that a stored value can do to it.
pub(super) fn classify_reading(sqlstate: &str) -> SourceFault {
    match sqlstate {
        "XX000" => SourceFault::Data,
        // It was there when the statement was planned.
        "3F000" | "42P01" | "42703" => SourceFault::SchemaChanged,
        _ => classify(sqlstate),
    }
}

/// What a SQLSTATE says more closely than its class.
pub(super) fn reason(sqlstate: &str) -> Option<ErrorCode> {
    Some(match sqlstate {
        "42P01" => ErrorCode::RelationMissing,
        "42703" => ErrorCode::ColumnMissing,
        "3F000" => ErrorCode::SchemaMissing,
        "3D000" => ErrorCode::DatabaseMissing,
        "28P01" => ErrorCode::PasswordRefused,
        "28000" => ErrorCode::RoleRefused,
        "42501" => ErrorCode::PermissionDenied,
        _ => return None,
    })
}

/// Whether a partition that such an error ended is worth another attempt, under the same snapshot.
pub(super) fn retry(fault: SourceFault, sqlstate: &str) -> Retry {
    match (fault, sqlstate) {
        (SourceFault::GaveWay, "55P03" | "40P01" | "53000" | "53100") => Retry::Briefly,
        (SourceFault::GaveWay, "57014" | "53200") => Retry::Once,
        (SourceFault::GaveWay, "53300") => Retry::FewerReaders,
        _ => fault.retry(),
    }
}

/// What to do about an error that ends a statement while its rows come.
pub(super) fn hint_reading(sqlstate: &str) -> Option<&'static str> {
    match sqlstate {
        "54000" | "XX000" => Some(
            "PostgreSQL can neither make nor send a value or a row above 1 GB, and fails so there: leave the wide column \
             out with --columns, the row with --where, or cut the value with --column 'name=expression'",
        ),
        "22021" | "22P05" => Some(UNTRANSLATABLE),
        _ => hint(sqlstate),
    }
}

/// What to do about text that has no form in UTF-8, where the column is not known.
const UNTRANSLATABLE: &str = "a text of the database has no form in UTF-8: leave its column out with --columns, or write \
    its bytes with --column \"name=convert_to(column, pg_catalog.getdatabaseencoding())\"";

/// What to do.
pub(super) fn hint(sqlstate: &str) -> Option<&'static str> {
    Some(match sqlstate {
        "42501" => {
            "the role needs USAGE on the schema and SELECT on the table, or on the columns that --columns names \
             (config/postgres-role.sql makes such a role); where row security would hide rows, a role that has BYPASSRLS \
             or that the policies let see everything, or --allow-rls, which exports what this role may see"
        }
        "28000" => {
            "the server does not let this user in from here: the role must exist and be allowed to log in, and \
             pg_hba.conf must let it in; where that asks for encryption, or for none, sslmode decides"
        }
        "28P01" => "check user and password: PGPASSWORD, ~/.pgpass, --password-file or --password-command",
        "42602" => {
            "what is neither a letter nor a digit nor _ needs double quotes around its part of the name: --table \
             'public.\"Order Items\"'"
        }
        "3D000" => "check the database name in --from",
        "53300" => {
            "the server has no connection left for this role or database: a run takes 2, and goes on with 1 reader where \
             there are not more (--keep-snapshot takes 1 more); raise the limit, or try later"
        }
        "53100" => "the disk of the server is full: try later, or have the query sort and join less",
        "53200" => {
            "the server has no memory left, or no room in its lock table: try later, lower --readers, or raise \
             max_locks_per_transaction on the server"
        }
        "53400" => "the statement passes a limit of the server such as temp_file_limit: have it sort and join less",
        "55P03" => {
            "another session, or a prepared transaction, holds a conflicting lock, for example of ALTER TABLE or \
             TRUNCATE: try again when it is done"
        }
        "25006" => "an export reads in a read-only transaction: what it calls cannot write",
        "40001" => STANDBY_HINT,
        "57014" => "the statement was cancelled on the server, by a timeout or by a person",
        "57P04" => "the database was dropped: check its name in --from",
        // A table that --table names has been found by then: this is about what a person's SQL names.
        "42P01" => {
            "check the names in the SQL: a table with its schema, and in double quotes where it has capitals or dots; in \
             --where and --column, a column alone or behind the table's name without its schema"
        }
        "3F000" => "check the name; names with capitals or dots need double quotes inside: --table 'public.\"Orders\"'",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::ExportError;
    use crate::source::SourceError;
    use crate::source::postgres::error::ServerError;

    /// Every SQLSTATE of PostgreSQL 18 (`errcodes.txt`), and what it is.
    #[rustfmt::skip]
    const APPENDIX_A: [(SourceFault, &str); 9] = [
        (
            SourceFault::Usage,
            "42602",
        ),
        (
            SourceFault::Authentication,
            "28000 28P01 3D000 42501",
        ),
        (
            SourceFault::Unavailable,
            "08000 08003 08006 08001 08004 08007 08P01 25P03 25P04 57P01 57P02 57P03 57P05 58000 58030 HV00N",
        ),
        (
            SourceFault::SnapshotLost,
            "40001",
        ),
        (
            SourceFault::Missing,
            "3F000 42703 42P01",
        ),
        (
            SourceFault::SchemaChanged,
            "42P10 57P04",
        ),
        (
            SourceFault::Data,
            "22021 22P05 54000 XX001 XX002",
        ),
        (
            SourceFault::GaveWay,
            "40P01 53000 53100 53200 53300 55P03 57000 57014",
        ),
        (
            SourceFault::Rejected,
            "00000 01000 0100C 01008 01003 01007 01006 01004 01P01 02000 02001 03000 09000 0A000 0B000 0F000 \
             0F001 0L000 0LP01 0P000 0Z000 0Z002 10608 20000 21000 22000 2202E 22008 22012 22005 2200B 22022 \
             22015 2201E 22014 22016 2201F 2201G 22018 22007 22019 2200D 22025 22P06 22010 22023 22013 2201B \
             2201W 2201X 2202H 2202G 22009 2200C 2200G 22004 22002 22003 2200H 22026 22001 22011 22027 22024 \
             2200F 22P01 22P02 22P03 22P04 2200L 2200M 2200N 2200S 2200T 22030 22031 22032 22033 22034 22035 \
             22036 22037 22038 22039 2203A 2203B 2203C 2203D 2203E 2203F 2203G 23000 23001 23502 23503 23505 \
             23514 23P01 24000 25000 25001 25002 25008 25003 25004 25005 25006 25007 25P01 25P02 26000 27000 \
             2B000 2BP01 2D000 2F000 2F005 2F002 2F003 2F004 34000 38000 38001 38002 38003 38004 39000 39001 \
             39004 39P01 39P02 39P03 3B000 3B001 40000 40002 40003 42000 42601 42846 42803 42P20 42P19 42830 \
             42622 42939 42804 42P18 42P21 42P22 42809 428C9 42883 42P02 42704 42701 42P03 42P04 42723 42P05 \
             42P06 42P07 42712 42710 42702 42725 42P08 42P09 42611 42P11 42P12 42P13 42P14 42P15 42P16 42P17 \
             44000 53400 54001 54011 54023 55000 55006 55P02 55P04 58P01 58P02 58P03 F0000 F0001 HV000 HV005 \
             HV002 HV010 HV021 HV024 HV007 HV008 HV004 HV006 HV091 HV00B HV00C HV00D HV090 HV00A HV009 HV014 \
             HV001 HV00P HV00J HV00K HV00Q HV00R HV00L HV00M P0000 P0001 P0002 P0003 P0004 XX000",
        ),
    ];

    fn server(sqlstate: &str, message: &str) -> ServerError {
        ServerError { sqlstate: sqlstate.into(), message: message.into(), hint: None, place: None }
    }

    #[test]
    fn every_sqlstate_has_its_class() {
        let mut seen = std::collections::BTreeSet::new();
        for (fault, states) in APPENDIX_A {
            for state in states.split_whitespace() {
                assert_eq!(classify(state), fault, "{state}");
                assert!(seen.insert(state), "{state} stands twice");
            }
        }
        assert_eq!(seen.len(), 262);
        assert_eq!(classify("72000"), SourceFault::SnapshotLost);
        assert_eq!(classify("ABCDE"), SourceFault::Rejected, "one that a function made up");
    }

    /// What is in a query, a predicate, an expression or a name is the same the next time.
    #[test]
    fn nothing_that_a_person_wrote_is_worth_another_try() {
        let written = [
            "0A000", "21000", "22003", "22012", "22023", "22P02", "22P05", "25006", "2F005", "38001", "39P01", "42501",
            "42601", "42602", "42703", "42804", "42883", "42P01", "53400", "54000", "54001", "54011", "54023", "55000",
            "58P01", "58P02", "F0000", "HV000", "P0001", "P0004", "XX000", "3D000", "3F000", "28P01",
        ];
        for state in written {
            for error in [SourceError::server("x", server(state, "")), SourceError::reading("x", server(state, ""))] {
                assert_eq!(error.retry, Retry::Never, "{state}");
                assert!(!ExportError::from(error).kind.retryable(), "{state}");
            }
        }
    }

    /// Servers speak other languages, and say the same by the same SQLSTATE.
    #[test]
    fn the_language_of_the_server_changes_nothing() {
        for (state, english, german) in [
            (
                "42501",
                "query would be affected by row-level security policy for table \"t\"",
                "Auswirkungen der Anfrage würden durch Policy für Sicherheit auf Zeilenebene für Tabelle »t« beeinflusst",
            ),
            ("42501", "permission denied for table t", "keine Berechtigung für Tabelle t"),
            (
                "28000",
                "no pg_hba.conf entry for host \"1.2.3.4\", user \"u\", database \"d\", no encryption",
                "kein pg_hba.conf-Eintrag für Host »1.2.3.4«, Benutzer »u«, Datenbank »d«, keine Verschlüsselung",
            ),
            (
                "42P01",
                "invalid reference to FROM-clause entry for table \"t\"",
                "ungültiger Verweis auf FROM-Klausel-Eintrag für Tabelle »t«",
            ),
            ("54000", "out of memory", "Speicher aufgebraucht"),
            ("XX000", "invalid memory alloc request size 1073741824", "andere Worte"),
            ("53300", "sorry, too many clients already", "tut mir leid, schon zu viele Verbindungen"),
            (
                "55P03",
                "canceling statement due to lock timeout",
                "storniere Anfrage wegen Zeitüberschreitung einer Sperre",
            ),
            ("57P01", "terminating connection due to administrator command", "breche Verbindung ab"),
        ] {
            for make in [SourceError::server::<&str>, SourceError::reading::<&str>] {
                let (english, german) = (make("x", server(state, english)), make("x", server(state, german)));
                assert_eq!((english.fault, english.retry), (german.fault, german.retry), "{state}");
                assert_eq!(english.hint, german.hint, "{state}");
                assert!(german.hint.is_some() || state.starts_with("57P") || state == "54000" || state == "XX000");
            }
        }
    }

    #[test]
    fn hints_say_what_to_do() {
        for (state, words) in [
            ("42501", &["SELECT", "BYPASSRLS", "--allow-rls"][..]),
            ("28000", &["pg_hba.conf", "sslmode"]),
            ("42P01", &["double quotes", "without its schema"]),
            ("53300", &["no connection left", "raise the limit"]),
        ] {
            let hint = hint(state).unwrap();
            assert!(words.iter().all(|word| hint.contains(word)), "{state}: {hint}");
        }
        for state in ["54000", "XX000"] {
            let error = SourceError::reading("reading", server(state, ""));
            assert_eq!(error.fault, SourceFault::Data, "{state}");
            assert!(error.hint.unwrap().contains("above 1 GB"), "{state}");
        }
        let own = ServerError { hint: Some("its own".into()), ..server("42601", "syntax error") };
        assert_eq!(SourceError::server("x", own).hint.as_deref(), Some("its own"));
    }
}
