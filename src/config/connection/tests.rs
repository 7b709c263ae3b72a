use super::*;
use crate::base::postgres::settings::{CONNECT_TIMEOUT, ChannelBinding, ClientCertificate, Password, SslMode};

fn connect_in(from: &str, environment: &Environment) -> Result<ConnectSettings, Vec<ConfigError>> {
    let flags = if from.is_empty() { Vec::new() } else { vec![("from", vec![from.to_owned()])] };
    let (raw, errors) = Raw::read(flags, environment);
    assert_eq!(errors, []);
    settings(&raw, environment)
}

fn connect(from: &str) -> Result<ConnectSettings, Vec<ConfigError>> {
    connect_in(from, &Environment::of([], []))
}

/// The password, where it is known from the start.
fn known(settings: &ConnectSettings) -> &str {
    match &settings.password {
        Some(Password::Known(secret)) => secret.expose(),
        other => panic!("{other:?}"),
    }
}

fn tcp(host: &str, port: u16) -> ServerAddress {
    ServerAddress::Tcp { host: host.to_owned(), port }
}

fn unix(folder: &str, port: u16) -> ServerAddress {
    ServerAddress::Unix { folder: folder.into(), port }
}

#[test]
fn urls() {
    for (from, addresses, user, database) in [
        ("postgres://alice@db.example:6432/shop", vec![tcp("db.example", 6432)], "alice", "shop"),
        ("postgresql://a%40b@[::1]:5/x%20y", vec![tcp("::1", 5)], "a@b", "x y"),
        ("postgres://[fe80::1]", vec![tcp("fe80::1", 5432)], "tester", "tester"),
        ("postgres:///shop?host=/tmp/socket&port=7", vec![unix("/tmp/socket", 7)], "tester", "shop"),
        ("postgres://%2Ftmp%2Fsocket/shop", vec![unix("/tmp/socket", 5432)], "tester", "shop"),
        ("postgres://u@one:1,two:2/d", vec![tcp("one", 1), tcp("two", 2)], "u", "d"),
        ("postgres://u@one,two:2/d", vec![tcp("one", 5432), tcp("two", 2)], "u", "d"),
        ("postgres://u@one,two/d?port=9", vec![tcp("one", 9), tcp("two", 9)], "u", "d"),
        ("postgres://h/d?user=other&dbname=e", vec![tcp("h", 5432)], "other", "e"),
        ("postgres://", vec![unix("/var/run/postgresql", 5432), unix("/tmp", 5432)], "tester", "tester"),
        (r"host=db port=6 user='o\'brien' dbname = shop", vec![tcp("db", 6)], "o'brien", "shop"),
        (r"host=a\ b,c user=u", vec![tcp("a b", 5432), tcp("c", 5432)], "u", "u"),
        ("host='' user=u", vec![unix("/var/run/postgresql", 5432), unix("/tmp", 5432)], "u", "u"),
    ] {
        let found = connect(from).unwrap_or_else(|errors| panic!("{from}: {errors:?}"));
        assert_eq!(found.addresses, addresses, "{from}");
        assert_eq!((found.user.as_str(), found.database.as_str()), (user, database), "{from}");
    }
}

#[test]
fn tls_is_verified_for_remote_hosts_and_preferred_at_home() {
    for (from, mode) in [
        ("postgres://u@db.example/d", SslMode::VerifyFull),
        ("postgres://u@10.0.0.1/d", SslMode::VerifyFull),
        ("postgres://u@127.0.0.5/d", SslMode::Prefer),
        ("postgres://u@[::1]/d", SslMode::Prefer),
        ("postgres://u@LocalHost/d", SslMode::Prefer),
        ("postgres:///d?host=/tmp", SslMode::Prefer),
        ("postgres://u@localhost,db.example/d", SslMode::VerifyFull),
        ("postgres://u@db.example/d?sslmode=disable", SslMode::Disable),
        ("postgres://u@db.example/d?sslmode=require", SslMode::Require),
        ("postgres://u@db.example/d?ssl=true", SslMode::Require),
        ("postgres://u@db.example/d?sslmode=require&sslrootcert=ca.pem", SslMode::VerifyCa),
        ("postgres://u@localhost/d?sslrootcert=system", SslMode::VerifyFull),
    ] {
        assert_eq!(connect(from).unwrap().ssl_mode, mode, "{from}");
    }
}

#[test]
fn authorities_are_named_or_at_home_or_the_systems() {
    let environment = Environment::of([("HOME", "/h")], [("/h/.postgresql/root.crt", "pem")]);
    for (from, file) in [
        ("postgres://db/d", Some("/h/.postgresql/root.crt")),
        ("postgres://db/d?sslrootcert=ca.pem", Some("ca.pem")),
        ("postgres://db/d?sslrootcert=system", None),
        ("postgres://localhost/d", None),
        ("postgres://localhost/d?sslmode=require", Some("/h/.postgresql/root.crt")),
    ] {
        assert_eq!(connect_in(from, &environment).unwrap().ssl_root_cert, file.map(PathBuf::from), "{from}");
    }
}

#[test]
fn client_certificates_are_named_or_at_home() {
    let files = [("/h/.postgresql/postgresql.crt", "pem"), ("/h/.postgresql/postgresql.key", "pem")];
    let home = Environment::of([("HOME", "/h")], files);
    let pair =
        |certificate: &str, key: &str| Some(ClientCertificate { certificate: certificate.into(), key: key.into() });
    for (from, expected) in [
        ("postgres://db/d", pair(files[0].0, files[1].0)),
        ("postgres://db/d?sslcert=c&sslkey=k", pair("c", "k")),
        ("postgres://db/d?sslcert=c", pair("c", files[1].0)),
        ("postgres://db/d?sslkey=k", pair(files[0].0, "k")),
        ("postgres://db/d?sslcert=c&sslcertmode=disable", None),
        ("postgres://db/d?sslmode=disable", None),
    ] {
        assert_eq!(connect_in(from, &home).unwrap().ssl_cert, expected, "{from}");
    }
    assert_eq!(connect("postgres://db/d").unwrap().ssl_cert, None);
}

#[test]
fn channel_binding_is_preferred_unless_asked_for_or_off() {
    for (from, expected) in [
        ("postgres://db/d", ChannelBinding::Prefer),
        ("postgres://db/d?channel_binding=disable", ChannelBinding::Disable),
        ("postgres://db/d?channel_binding=require", ChannelBinding::Require),
    ] {
        assert_eq!(connect(from).unwrap().channel_binding, expected, "{from}");
    }
    let environment = Environment::of([("PGCHANNELBINDING", "require")], []);
    assert_eq!(connect_in("postgres://db/d", &environment).unwrap().channel_binding, ChannelBinding::Require);
}

#[test]
fn settings_that_libpq_has() {
    let found =
        connect("postgres://h/d?options=-c%20x%3D1&target_session_attrs=prefer-standby&connect_timeout=7").unwrap();
    assert_eq!(found.options.as_deref(), Some("-c x=1"));
    let environment = Environment::of([("PGDATESTYLE", "ISO, DMY"), ("PGOPTIONS", "-c a=b")], []);
    let options = connect_in("postgres://db/d", &environment).unwrap().options;
    assert_eq!(options.as_deref(), Some("-c a=b -c DateStyle=ISO,\\ DMY"));
    assert_eq!(found.target_session_attrs, TargetSessionAttrs::PreferStandby);
    assert_eq!(found.connect_timeout, Duration::from_secs(7));
    assert_eq!(connect("postgres://h/d?connect_timeout=0").unwrap().connect_timeout, CONNECT_TIMEOUT);
    assert!(connect("postgres://h/d?application_name=x&client_encoding=UTF8&channel_binding=prefer").is_ok());
}

#[test]
fn the_nearest_source_wins() {
    let environment = Environment::of(
        [
            ("DATABASE_URL", "postgres://url/urldb"),
            ("SHOP", "postgres://named/d"),
            ("PGHOST", "variable"),
            ("PGPORT", "7"),
            ("PGUSER", "carol"),
            ("PGPASSWORD", ""),
        ],
        [],
    );
    let host = |from: &str| connect_in(from, &environment).unwrap().addresses;
    assert_eq!(host("postgres://flag/d"), [tcp("flag", 7)], "a URL without a port leaves PGPORT");
    assert_eq!(host("env:SHOP"), [tcp("named", 7)]);
    assert_eq!(host(""), [tcp("url", 7)]);
    let found = connect_in("", &Environment::of([("PGHOST", "a,b"), ("PGPORT", "1,2"), ("PGUSER", "c")], [])).unwrap();
    assert_eq!(found.addresses, [tcp("a", 1), tcp("b", 2)]);
    let ours = Environment::of([("DATABASE_URL", "postgres://url/d"), ("OUTHAUL_FROM", "postgres://ours/d")], []);
    assert_eq!(connect_in("", &ours).unwrap().addresses, [tcp("ours", 5432)]);
}

#[test]
fn nobody_to_connect_as_is_an_error() {
    let nobody = Environment { user: None, ..Environment::of([], []) };
    let errors = connect_in("postgres://h/d", &nobody).unwrap_err();
    assert!(errors[0].hint.contains("PGUSER"), "{errors:?}");
}

#[test]
fn a_password_on_the_command_line_is_refused() {
    for from in ["postgres://u:canary@h/d", "postgres://h/d?password=canary", "host=h password=canary"] {
        let errors = connect(from).unwrap_err();
        assert!(errors[0].hint.contains("PGPASSWORD"), "{from}");
        assert!(!format!("{errors:?}").contains("canary"), "{from}: {errors:?}");
    }
    let environment = Environment::of([("SHOP", "postgres://u:canary@h/d"), ("OUTHAUL_FROM", "env:SHOP")], []);
    for from in ["env:SHOP", ""] {
        let found = connect_in(from, &environment).unwrap();
        assert_eq!(known(&found), "canary");
        assert!(!format!("{found:?}").contains("canary"));
    }
}

#[test]
fn unknown_options_are_named_where_no_password_can_be_shown() {
    for (from, words) in [
        ("postgres://h/d?foo=bar", "no option \"foo\""),
        ("postgres://u@h/d?sslmode=require&foo=bar", "no option \"foo\""),
        ("postgres://h/d?prot=1", "did you mean port?"),
        ("host=h foo=bar", "no option \"foo\""),
        // What stands there may be the rest of a password.
        ("postgres://u:a/b?foo=c@h/d", "an unknown option"),
        ("postgres://h/d?passfile=x&user=me@h&foo=bar", "an unknown option"),
        ("host=h password=my foo=bar", "an unknown option"),
        ("postgres://h/d?password=my&foo=bar", "an unknown option"),
        ("host=h two words=bar", "an unknown option"),
    ] {
        let environment = Environment::of([("FROM", from)], []);
        let errors = format!("{:?}", connect_in("env:FROM", &environment).expect_err(from)).replace('\\', "");
        assert!(errors.contains(words), "{from}: {errors}");
    }
    // A raw @ is a value like another where all options are known.
    assert_eq!(connect("postgres://h/d?user=me@tenant").unwrap().user, "me@tenant");
    assert!(connect("postgres://h/d?client_encoding=latin1").is_ok(), "what is written is UTF-8");
}

/// Strings whose quoting is wrong, so that the password lands where it should not.
#[test]
fn no_mistake_in_quoting_shows_a_password() {
    for from in [
        "postgres://u:can/ary@h/d",
        "postgres://u:can@ary@h/d",
        "postgres://u:can%ary@h/d",
        "postgres://u:can?ary@h:x/d",
        "postgres://u@h:canary/d",
        "postgres://u@[canary/d",
        "postgres://h/d?password=%zzcanary",
        "postgres://h/d?canary",
        "host=h password=my canary",
        "host=h password=my canary=x",
        "host=h password='canary",
        "mysql://u:canary@h/d",
        "canary",
        "host=h sslmode=allow password=canary",
    ] {
        let environment = Environment::of([("FROM", from)], []);
        for source in [from, "env:FROM"] {
            let errors = connect_in(source, &environment).expect_err(from);
            let shown = format!("{errors:?}");
            assert!(!shown.contains("canary") && !shown.contains("ary@"), "{from}: {shown}");
            assert!(errors.iter().all(|error| !error.hint.is_empty()), "{from}: {shown}");
        }
    }
}

#[test]
fn a_password_file_of_our_own() {
    let environment = Environment::of([("OUTHAUL_PASSWORD_FILE", "/p"), ("PGPASSWORD", "other")], [("/p", "canary\n")]);
    let found = connect_in("postgres://h/d", &environment).unwrap();
    assert_eq!(found.password, Some(Password::File("/p".into())));
    for (file, text) in [("/p", ""), ("/p", "\ncanary"), ("/q", "canary")] {
        let environment = Environment::of([("OUTHAUL_PASSWORD_FILE", "/p")], [(file, text)]);
        assert!(connect_in("postgres://h/d", &environment).is_err(), "{file} {text:?}");
    }
    let twice = Environment::of([("OUTHAUL_PASSWORD_FILE", "/p"), ("U", "postgres://u:x@h/d")], [("/p", "y")]);
    assert!(connect_in("env:U", &twice).unwrap_err()[0].what.contains("gives a password too"));
}

#[test]
fn a_password_command_of_our_own() {
    let environment = Environment::of([("OUTHAUL_PASSWORD_COMMAND", "echo canary"), ("PGPASSWORD", "other")], []);
    let found = connect_in("postgres://h/d", &environment).unwrap();
    let Some(Password::Command(command)) = &found.password else { panic!("{:?}", found.password) };
    assert_eq!(command.expose(), "echo canary");
    assert!(!format!("{found:?}").contains("canary"));
    for other in [("U", "postgres://u:canary@h/d"), ("OUTHAUL_PASSWORD_FILE", "/p")] {
        let environment =
            Environment::of([("OUTHAUL_PASSWORD_COMMAND", "echo canary"), ("U", "postgres://h/d"), other], []);
        let errors = connect_in("env:U", &environment).unwrap_err();
        assert!(errors[0].what.contains("gives a password too"), "{errors:?}");
        assert!(!format!("{errors:?}").contains("canary"), "{errors:?}");
    }
    let empty = Environment::of([("OUTHAUL_PASSWORD_COMMAND", " ")], []);
    assert!(connect_in("postgres://h/d", &empty).unwrap_err()[0].what.contains("the command is empty"));
}

#[test]
fn files_with_a_password_that_others_can_read_are_told() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let password = write("password", "canary\n");
    let service = write("service", "[s]\npassword=canary\n[t]\nuser=u\n");
    let config = write("config", "from = 'postgres://u:canary@h/d'\n");
    let harmless = write("harmless", "from = 'postgres://u@h/d'\n");
    for (variables, exposed) in [
        (vec![("OUTHAUL_PASSWORD_FILE", &password)], vec![&password]),
        (vec![("PGSERVICEFILE", &service), ("PGSERVICE", &"s".into())], vec![&service]),
        (vec![("PGSERVICEFILE", &service), ("PGSERVICE", &"t".into())], vec![]),
        (vec![("OUTHAUL_CONFIG", &config)], vec![&config]),
        (vec![("OUTHAUL_CONFIG", &harmless)], vec![]),
    ] {
        let mut environment = Environment::of(variables.iter().map(|(name, path)| (*name, path.to_str().unwrap())), []);
        environment.files = None;
        for (mode, exposed) in [(0o640, exposed), (0o600, Vec::new())] {
            for file in [&password, &service, &config, &harmless] {
                std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).unwrap();
            }
            let found = connect_in("", &environment).unwrap();
            assert_eq!(found.exposed.iter().collect::<Vec<_>>(), exposed, "{variables:?} {mode:o}");
        }
    }
}

#[test]
fn variables_service_and_password_file_fill_in() {
    let environment = Environment::of(
        [("HOME", "/h"), ("PGSERVICE", "shop"), ("PGUSER", "carol"), ("PGPORT", "9")],
        [
            (
                "/h/.pg_service.conf",
                "[other]\nhost=x\n# no\n[shop]\nhost=db\nport=7\nport=8\ndbname=orders\n[last]\nhost=y\n",
            ),
            ("/h/.pgpass", "# no\n*:*:nothing:*:wrong\ndb:7:orders:carol:a\\:b\\\\c:d\n"),
        ],
    );
    let found = connect_in("", &environment).unwrap();
    assert_eq!(found.addresses, [tcp("db", 7)]);
    assert_eq!((found.user.as_str(), found.database.as_str()), ("carol", "orders"));
    assert_eq!(known(&found), "a:b\\c:d");
    let found = connect_in("host=here service=last", &environment).unwrap();
    assert_eq!(found.addresses, [tcp("here", 9)], "what is written goes before the service");
}

#[test]
fn service_files_have_their_places_and_mistakes() {
    let text = "[shop]\nhost=db\n";
    for (variables, file) in [
        (vec![("PGSERVICEFILE", "/s")], "/s"),
        (vec![("HOME", "/h")], "/h/.pg_service.conf"),
        (vec![("HOME", "/h"), ("PGSYSCONFDIR", "/etc/pg")], "/etc/pg/pg_service.conf"),
    ] {
        let environment = Environment::of(variables, [(file, text)]);
        assert_eq!(connect_in("service=shop", &environment).unwrap().addresses, [tcp("db", 5432)], "{file}");
    }
    for (text, words) in [
        ("[other]\nhost=x", "no service \"shop\""),
        ("[shop]\nhost", "/s:2: a line without ="),
        ("[shop]\nhots=x", "/s:2: no option \"hots\""),
        ("[shop]\nservice=other", "cannot name another"),
    ] {
        let environment = Environment::of([("PGSERVICEFILE", "/s")], [("/s", text)]);
        let errors = connect_in("service=shop", &environment).unwrap_err();
        assert!(errors[0].what.contains(words), "{text}: {errors:?}");
    }
}

#[test]
fn password_lines_match_as_in_libpq() {
    let password = |text: &str| files::password(text, "db", 5432, "shop", "me");
    for (text, expected) in [
        ("db:5432:shop:me:secret", Some("secret")),
        ("*:*:*:*:secret", Some("secret")),
        ("#*:*:*:*:no\nd\\b:*:*:m\\e:yes", Some("yes")),
        ("db:5433:shop:me:no\ndb:5432:shop:me:first\n*:*:*:*:second", Some("first")),
        ("*:*:*:*:", None),
        ("db:5432:shop:me", None),
        ("d*:*:*:*:no", None),
        ("", None),
        ("*:*:*:*:end\\", Some("end\\")),
    ] {
        assert_eq!(password(text).as_deref(), expected, "{text:?}");
    }
    assert_eq!(files::password("a\\:b:1:d:u:x", "a:b", 1, "d", "u").as_deref(), Some("x"));
    assert_eq!(files::password("a\\\\:1:d:u:x", "a\\", 1, "d", "u").as_deref(), Some("x"));
}

#[test]
fn sockets_in_the_usual_folders_are_localhost_to_the_password_file() {
    let lines = "localhost:*:*:*:home\n/srv/pg:*:*:*:away";
    let environment = Environment::of([("HOME", "/h")], [("/h/.pgpass", lines)]);
    for (from, password) in [("user=u", "home"), ("host=/tmp", "home"), ("host=/srv/pg", "away")] {
        assert_eq!(known(&connect_in(from, &environment).unwrap()), password, "{from}");
    }
    let errors = connect_in("host=/tmp,/srv/pg", &environment).unwrap_err();
    assert!(errors[0].what.contains("different passwords"), "{errors:?}");
    assert!(!format!("{errors:?}").contains("away"));
}

#[test]
fn a_password_file_that_others_can_read_is_refused_where_it_would_be_used() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pgpass");
    std::fs::write(&file, "db:*:*:*:canary\n").unwrap();
    let mut environment = Environment::of([("PGPASSFILE", file.to_str().unwrap())], []);
    environment.files = None;
    let set_mode = |mode| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    set_mode(0o640);
    let errors = connect_in("postgres://db/d", &environment).unwrap_err();
    assert!(errors[0].hint.contains("chmod 600") && !format!("{errors:?}").contains("canary"), "{errors:?}");
    assert_eq!(connect_in("postgres://elsewhere/d", &environment).unwrap().password, None);
    set_mode(0o600);
    assert_eq!(known(&connect_in("postgres://db/d", &environment).unwrap()), "canary");
}

#[test]
fn mistakes_are_named() {
    for (from, words, hint) in [
        ("mysql://h/d", "no URL of a source", "postgres://user@host"),
        ("db.example", "no URL of a source", "postgres://user@host"),
        ("env:NOPE", "NOPE is not set", "set it"),
        ("postgres://h/d?sslmod=x", "no option \"sslmod\"", "did you mean sslmode?"),
        ("postgres://h/d?sslmode=allow", "sslmode allow", "write prefer"),
        ("postgres://h/d?sslmode=on", "\"on\" is not an sslmode", "verify-full"),
        ("postgres://h/d?sslcert=x", "x has no private key", "sslkey"),
        ("postgres://h/d?sslkey=x", "a key without a certificate", "sslcert"),
        ("postgres://h/d?sslmode=require&sslrootcert=system", "weaker sslmode", "write verify-full"),
        ("postgres://h/d?channel_binding=on", "\"on\" is not a channel_binding", "require"),
        ("postgres://h/d?channel_binding=require&sslmode=disable", "needs TLS", "verify-full"),
        ("postgres://h/d?hostaddr=1.2.3.4", "hostaddr is not in this version yet", "leave it out"),
        ("postgres://h/d?target_session_attrs=best", "target_session_attrs", "read-write"),
        ("postgres://h/d?connect_timeout=soon", "seconds", "10"),
        ("postgres://h:x/d", "port", "65535"),
        ("postgres://h:0/d", "port", "65535"),
        ("postgres://h:65536/d", "port", "65535"),
        ("host=a,b,c port=1,2", "2 ports for 3 hosts", "one port"),
        ("host='a", "stays open", "close it"),
        ("service=nope", "no service \"nope\"", "PGSERVICEFILE"),
    ] {
        let errors = connect(from).unwrap_err();
        assert_eq!(errors.len(), 1, "{from}: {errors:?}");
        assert!(errors[0].what.contains(words) && errors[0].hint.contains(hint), "{from}: {errors:?}");
    }
    let environment = Environment::of([("PGSSLCRL", "k"), ("PGSSLMODE", "allow")], []);
    let errors = connect_in("postgres://h/d", &environment).unwrap_err();
    assert!(errors[0].what.starts_with("PGSSLMODE: ") || errors[1].what.starts_with("PGSSLMODE: "), "{errors:?}");
    assert!(errors.iter().any(|error| error.what.starts_with("PGSSLCRL: ")), "{errors:?}");
}
