use std::path::Path;

use super::*;

const SMALL: &str = r#"
[source.shop]
from = "postgresql://reader@localhost/shop"

[[key]]
name = "acme"
sha256 = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
tenant = "7"
tier = "free"
datasets = ["orders"]

[dataset.orders]
table = "public.orders"
tenant = "customer_id = {tenant}"
[dataset.orders.columns]
id = { sort = true }
total = { expr = "price * quantity", filter = false }
"#;

/// A section that lacks the place of the keys.
const JWT: &str = "[jwt]\nissuer = \"i\"\naudience = \"a\"\ntier_claim = \"t\"\ntenant_claim = \"c\"\ndatasets = [\"*\"]\n[source.shop]";

/// The same with more of it.
fn with(lines: &str) -> String {
    JWT.replace("[source.shop]", &format!("{lines}\n[source.shop]"))
}

fn load(text: &str) -> Result<ServiceConfig, Vec<String>> {
    let environment = Environment::of([], [("/s/service.toml", text), ("/s/keys", "{}")]);
    let told = |errors: ConfigErrors| errors.0.iter().map(|error| format!("{} ({})", error.what, error.hint)).collect();
    load_service(Path::new("/s/service.toml"), &environment).map_err(told)
}

#[test]
fn a_small_file_is_a_service() {
    let config = load(SMALL).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.state, Path::new("/s/outhaul-state.sqlite3"));
    let dataset = &config.datasets["orders"];
    assert!(dataset.columns["id"].sort && dataset.columns["id"].filter && !dataset.columns["total"].filter);
    assert_eq!(config.tiers["free"].map(NonZeroU64::get), Some(10_000));
    assert_eq!(config.tiers["enterprise"], None);
    assert_eq!(config.keys[0].sha256[..2], [0x2b, 0xb8]);
    assert!(config.limits.memory > 64 << 20, "half of what the machine has");
    assert_eq!(config.retention.receipts, Duration::from_hours(24 * 30));
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    let untenanted = load(&SMALL.replace("tenant = \"customer_id = {tenant}\"", "")).unwrap();
    assert!(untenanted.warnings[0].contains("sees all of its rows"), "{:?}", untenanted.warnings);
}

#[test]
fn a_dataset_of_clickhouse_has_no_pages_and_no_row_security() {
    let text = SMALL.replace("postgresql://reader@localhost/shop", "clickhouse://reader@localhost/shop");
    let config = load(&text).unwrap();
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    assert!(config.datasets["orders"].ndjson.work.served.is_some());
    let patient = load(&format!("{text}[limits]\nwrite_deadline = \"31s\"\n")).unwrap();
    assert!(patient.warnings[0].contains("30 s for which ClickHouse waits"), "{:?}", patient.warnings);
    for (from, to, expected) in [
        ("tenant = \"customer_id = {tenant}\"", "tenant_setting = \"app.tenant\"", "tenant_setting is of PostgreSQL"),
        ("table = ", "read_mode = \"copy\"\ntable = ", "read_mode is of PostgreSQL"),
    ] {
        let errors = load(&text.replacen(from, to, 1)).unwrap_err();
        assert!(errors.iter().any(|error| error.contains(expected)), "{errors:?}");
        // Of PostgreSQL they are right.
        let postgres = SMALL.replacen(from, to, 1);
        assert_ne!(postgres, SMALL);
        load(&postgres).unwrap();
    }
}

#[test]
fn a_console_names_servers_that_write_by_themselves_and_who_may() {
    let console = |lines: &str| load(&SMALL.replace("[[key]]", &format!("[clickhouse_console]\n{lines}\n[[key]]")));
    for (lines, expected) in [
        ("sources = [\"shop\"]\nkeys = [\"acme\"]", "source \"shop\" is no ClickHouse server"),
        ("sources = [\"shp\"]\nkeys = [\"acme\"]", "source \"shp\" is not there (did you mean shop?)"),
        ("sources = []\nkeys = [\"acme\"]", "sources is empty"),
        ("sources = [\"shop\"]", "nobody may send a statement"),
        ("sources = [\"shop\"]\nkeys = [\"amce\"]", "key \"amce\" is not there"),
        ("sources = [\"shop\"]\nusers = [\"anna\"]", "there is no [jwt]"),
        ("sources = [\"shop\"]\nkeys = [\"acme\"]\ncredentials = \"mine\"", "credentials is \"mine\""),
        ("sources = [\"shop\"]\nkeys = [\"acme\"]\nfirst_bytes = \"soon\"", "clickhouse_console.first_bytes"),
        ("sources = [\"shop\"]\nkey = [\"acme\"]", "unknown key \"key\" (did you mean keys?)"),
    ] {
        let errors = console(lines).unwrap_err();
        assert!(errors.iter().any(|error| error.contains(expected)), "{lines}: {errors:?}");
    }
    let lines = "sources = [\"shop\"]\nkeys = [\"acme\"]";
    let text = SMALL.replace("postgresql://reader@localhost/shop", "clickhouse://reader@localhost/shop");
    let head = text.split("[dataset.orders]").next().unwrap().replace("datasets = [\"orders\"]", "datasets = []");
    let console = load(&format!("{head}\n[clickhouse_console]\n{lines}")).unwrap().console.unwrap();
    assert_eq!((console.credentials, console.audit_literals), (StatementCredentials::Caller, false));
    assert_eq!(console.sources.keys().collect::<Vec<_>>(), ["shop"]);
    assert!(load(SMALL).unwrap().console.is_none(), "nobody may unless it is said");
}

#[test]
fn a_shared_state_is_a_database_and_its_password_is_shown_to_nobody() {
    let text = format!("state_url = \"postgresql://state:hunter2@db.example.com/ours\"\n{SMALL}");
    let mut config = load(&text).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    let settings = config.state_url.as_ref().unwrap();
    assert_eq!((settings.user.as_str(), settings.database.as_str()), ("state", "ours"));
    config.take_role(ServiceRole::Worker).unwrap();
    assert!(config.role.works() && !config.role.answers());
    let mut alone = load(SMALL).unwrap();
    alone.take_role(ServiceRole::All).unwrap();
    for role in [ServiceRole::Api, ServiceRole::Worker] {
        let refused = alone.take_role(role).unwrap_err();
        assert!(refused.0[0].hint.contains("state_url"), "{refused:?}");
    }
    let commanded = format!("state_url = \"postgresql://h/x\"\nstate_password_command = \"echo x\"\n{SMALL}");
    assert!(load(&commanded).unwrap().state_url.unwrap().password.is_some());
}

#[test]
fn mistakes_have_their_line_and_the_nearest_word() {
    for (from, to, expected) in [
        (
            "[source.shop]",
            "lisen = \"x\"\n[source.shop]",
            "/s/service.toml:2:1: unknown key \"lisen\" (did you mean listen?)",
        ),
        ("tier =", "teir =", "did you mean tier?"),
        (
            "[dataset.orders]",
            "[dataset.orders]\ntenant_setting = \"app.tenant\"",
            "tenant and tenant_setting are both given",
        ),
        ("[source.shop]", "tls_cert = \"x\"\n[source.shop]", "tls_cert and tls_key belong together"),
        (
            "[source.shop]",
            "state = \"x\"\nstate_url = \"postgresql://h/x\"\n[source.shop]",
            "state and state_url are both",
        ),
        ("[source.shop]", "state_password_file = \"x\"\n[source.shop]", "a state file has no password"),
        (
            "[source.shop]",
            "state_url = \"postgresql://h:hunter2/x\"\n[source.shop]",
            "state_url: service.toml: port: a port is not",
        ),
        ("[source.shop]", "state_url = \"env:STATE_NOWHERE\"\n[source.shop]", "the variable STATE_NOWHERE is not set"),
        ("[source.shop]", "cors_origins = [\"*\"]\n[source.shop]", "cors_origins: \"*\" is no origin"),
        ("[source.shop]", "trusted_proxies = [\"proxy\"]\n[source.shop]", "trusted_proxies"),
        ("[source.shop]", "trusted_proxies = [\"0.0.0.0/0\"]\n[source.shop]", "trusted_proxies"),
        ("table = \"public.orders\"", "table = 7", "a value is of the wrong kind (a string is wanted)"),
        (
            "table = \"public.orders\"",
            "table = \"public.orders\"\nquery = \"select 1\"",
            "--table and --query are both given",
        ),
        ("table = \"public.orders\"", "table = \"a b\"", "dataset.orders: "),
        ("datasets = [\"orders\"]", "datasets = [\"order\"]", "dataset \"order\" is not there (did you mean orders?)"),
        ("tier = \"free\"", "tier = \"fre\"", "tier \"fre\" is not known"),
        ("sha256 = \"2b", "sha256 = \"zz", "sha256 is no SHA-256"),
        ("{tenant}", "7", "write {tenant} in it once"),
        ("tenant = \"7\"", "tenant = \" \"", "tenant is empty"),
        ("[dataset.orders]", "[dataset.orders]\ndate_column = \"at\"", "date_column \"at\" is none of its columns"),
        ("[dataset.orders]", "[dataset.orders]\nread_mode = \"fast\"", "dataset.orders: --read-mode is \"fast\""),
        ("[dataset.orders]", "[jobs]\nworkers = 0\n[dataset.orders]", "jobs.workers is 0"),
        ("[dataset.orders]", "[jobs]\nattempts = 0\n[dataset.orders]", "a limit of 0 in [jobs] lets nothing run"),
        ("[dataset.orders]", "[jobs]\nworker = 2\n[dataset.orders]", "did you mean workers?"),
        ("[dataset.orders]", "[limits]\nstreams = 0\n[dataset.orders]", "a limit of 0 serves nobody"),
        ("[dataset.orders]", "[limits]\nconnections = 0\n[dataset.orders]", "a limit of 0 serves nobody"),
        (
            "[dataset.orders]",
            "[limits]\nmemory = \"8MiB\"\n[dataset.orders]",
            "limits.memory has no room for one stream",
        ),
        ("[dataset.orders]", "[limits]\nmemory = \"much\"\n[dataset.orders]", "limits.memory"),
        ("[dataset.orders]", "[limits]\nmax_row_bytes = 1\n[dataset.orders]", "a value is of the wrong kind"),
        ("[dataset.orders]", "[limits]\nshutdown = \"soon\"\n[dataset.orders]", "limits.shutdown"),
        ("[dataset.orders]", "[retention]\nreceipts = \"for ever\"\n[dataset.orders]", "retention.receipts"),
        ("[source.shop]", "public_url = \"https://x/a?b\"\n[source.shop]", "public_url is no URL"),
        ("[dataset.orders]", "[limits]\nwrite_deadline = \"30\"\n[dataset.orders]", "limits.write_deadline"),
        ("[dataset.orders]", "[dataset.orders]\nsource = \"other\"", "name one of the [source.NAME] tables"),
        ("postgresql://reader@", "postgresql://reader:canary@@", "source.shop: "),
        (
            "\nid = { sort = true }\ntotal = { expr = \"price * quantity\", filter = false }",
            "",
            "dataset.orders has no columns",
        ),
    ] {
        mistaken(from, to, expected);
    }
}

#[test]
fn no_two_columns_have_one_header() {
    let labelled = "[dataset.labelled]\ntable = \"t\"\ncsv_header = \"labels\"\n[dataset.labelled.columns]\n\
        a = { label = \"b\" }\nb = {}\n[dataset.orders]";
    let expected = "dataset.labelled: columns \"a\" and \"b\" have one header in CSV, \"b\"";
    mistaken("[dataset.orders]", labelled, expected);
}

/// OpenSandbox#821: of two entries with one digest the last one won, and its tenant's rows went to both.
#[test]
fn each_key_has_a_name_and_a_digest_of_its_own() {
    let (head, key) = (SMALL.split("[[key]]").next().unwrap(), SMALL.split("[[key]]").nth(1).unwrap());
    let (key, rest) = key.split_once("\n\n").unwrap();
    let other = key.replace("\"7\"", "\"8\"").replace("25b\"", "25c\"");
    let of = |second: &str| load(&format!("{head}[[key]]{key}\n[[key]]{second}\n{rest}"));
    assert_eq!(of(&other.replace("acme", "globex")).unwrap().keys.len(), 2);
    for (second, expected) in [
        (other.clone(), "[[key]] 1 and [[key]] 2 are both named \"acme\""),
        (key.replace("acme", "globex").replace("2bb8", "2BB8"), "key \"acme\" and key \"globex\" have the same sha256"),
        (other.replace("acme", " "), "[[key]] 2 has no name"),
    ] {
        let errors = of(&second).unwrap_err();
        assert!(errors.len() == 1 && errors[0].starts_with(expected), "{errors:?}");
    }
}

/// Row security would be asked without a tenant: no rows, or those of whomever the role is set to.
#[test]
fn no_tenant_setting_goes_with_sessions_that_are_told_none() {
    let copied = "tenant_setting = \"app.tenant\"\nread_mode = \"copy\"";
    mistaken("tenant = \"customer_id = {tenant}\"", copied, "sessions that are told no tenant_setting");
}

#[test]
fn mistakes_of_tokens_are_told_too() {
    for (from, to, expected) in [
        ("[source.shop]", "[jwt]\nissuer = \"x\"\n[source.shop]", "missing field"),
        ("[source.shop]", JWT, "jwt: the issuer's keys (give one of jwks_url and jwks_file)"),
        ("[source.shop]", &with("jwks_url = \"http://10.0.0.1/keys\""), "jwt: jwks_url is without TLS"),
        ("[source.shop]", &with("jwks_url = \"login\""), "jwt: jwks_url: "),
        ("[source.shop]", &with("jwks_file = \"none.json\""), "jwt: cannot read /s/none.json"),
        ("[source.shop]", &with("jwks_file = \"keys\"\ntier = \"fre\""), "jwt: tier \"fre\" is not known"),
        ("[source.shop]", &with("jwks_file = \"keys\"").replace("tier_claim = \"t\"\n", ""), "jwt has no tier"),
        (
            "[source.shop]",
            &with("jwks_file = \"keys\"").replace("audience = \"a\"", "audience = []"),
            "jwt: issuer and audience",
        ),
        (
            "[source.shop]",
            &with("jwks_file = \"keys\"").replace("\"*\"", "\"order\""),
            "jwt: dataset \"order\" is not there",
        ),
        ("[source.shop]", &with("jwks_file = \"keys\"\nuser_claim = \"\""), "jwt: a claim has no name"),
    ] {
        mistaken(from, to, expected);
    }
}

/// One change to the file is one mistake.
#[track_caller]
fn mistaken(from: &str, to: &str, expected: &str) {
    assert!(SMALL.contains(from), "{from}");
    let errors = load(&SMALL.replacen(from, to, 1)).unwrap_err();
    assert!(errors.iter().any(|error| error.contains(expected)), "{expected}: {errors:?}");
    assert_eq!(errors.len(), 1, "{expected}: {errors:?}");
    assert!(!errors[0].contains("canary"), "{errors:?}");
}

#[test]
fn webhooks_are_read_and_their_mistakes_are_told() {
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let hook = format!(
        "{SMALL}\n[[webhook]]\nname = \"backend\"\nurl = \"https://app.example.com/x/\"\nsecret = \"{secret}\"\n"
    );
    let config = load(&hook).unwrap();
    assert_eq!((config.link_seconds, config.link_redirect), (86_400, true));
    assert_eq!((config.webhooks.len(), config.webhooks[0].events.len()), (1, 3));
    assert!(!format!("{config:?}").contains("MfKQ9r8G"), "the secret is shown");
    // Its receiver could not follow the link.
    let [warning] = config.warnings.as_slice() else { panic!("{:?}", config.warnings) };
    assert!(warning.starts_with("webhook \"backend\": export.ready has a download_url without a host"), "{warning}");
    for more in ["events = [\"export.failed\"]\n", ""] {
        let public = if more.is_empty() { "public_url = \"https://x\"\n" } else { "" };
        assert!(load(&format!("{public}{hook}{more}")).unwrap().warnings.is_empty(), "{more}");
    }
    for (from, to, expected) in [
        (secret, "whsec_short", "its secret is not whsec_"),
        (secret, "env:NOT_SET", "webhook \"backend\": the variable NOT_SET is not set"),
        ("secret = ", "secret_file = \"nofile\"\n#", "webhook \"backend\": cannot read /s/nofile: "),
        ("secret = ", "secret_file = \"x\"\nsecret = ", "wants one of secret and secret_file"),
        ("https://app", "ftp://app", "url: "),
        (
            "url = ",
            "events = [\"export.done\"]\nurl = ",
            "events (they are export.ready, export.failed, export.expired)",
        ),
        ("url = ", "allow = [\"10.0.0.0/33\"]\nurl = ", "allow"),
        ("url = ", "ulr = ", "did you mean url?"),
    ] {
        let at = hook.find("[[webhook]]").unwrap();
        let text = format!("{}{}", &hook[..at], hook[at..].replacen(from, to, 1));
        let errors = load(&text).unwrap_err();
        assert!(errors.iter().any(|error| error.contains(expected)), "{to}: {errors:?}");
        assert!(!errors.iter().any(|error| error.contains("MfKQ9r8G")), "{errors:?}");
    }
}

#[test]
fn a_destination_is_that_of_the_datasets_that_name_it_or_of_all() {
    let one =
        format!("{SMALL}\n[destination.lake]\nto = \"s3://bucket/exports/\"\naws_credential_command = \"canary\"\n");
    let config = load(&one).unwrap();
    assert!(!format!("{config:?}").contains("canary"), "the command is shown");
    let orders = &config.datasets["orders"];
    assert_eq!(config.destination_of(orders), "s3://bucket/exports");
    assert_eq!(config.credentials_of("s3://bucket/exports/0198").unwrap().expose(), "canary");
    for elsewhere in
        ["s3://bucket/exports", "s3://bucket/exports/0198/data", "s3://bucket/other/0198", "file:///x/0198"]
    {
        assert_eq!(config.credentials_of(elsewhere), None, "{elsewhere}");
    }
    assert!(!config.uses_job_folder());
    let two = format!("{one}[destination.here]\nto = \"aus gänge/x\"\n");
    let named = |name: &str| two.replace("[dataset.orders]", &format!("[dataset.orders]\ndestination = \"{name}\""));
    let config = load(&named("here")).unwrap();
    assert_eq!(config.destination_of(&config.datasets["orders"]), "file:///s/aus%20g%C3%A4nge/x");
    assert_eq!(config.warnings, ["destination.lake is the destination of no dataset"]);
    let errors = load(&two).unwrap_err();
    assert_eq!(errors, ["dataset.orders: destination: there are several (the destinations are here, lake)"]);
    let errors = load(&named("lak")).unwrap_err();
    assert_eq!(errors, ["dataset.orders: destination \"lak\" is not there (did you mean lake?)"]);
    for (to, expected) in [
        ("s3://bucket/exports/", ""),
        ("s4://bucket/", "is not a kind of destination"),
        ("s3:bucket", "two slashes"),
        ("", "the destination is empty"),
        ("s3://bucket/{date}/", "to expands nothing"),
        ("s3://bucket/../x", "`.` or `..`"),
    ] {
        match load(&one.replace("s3://bucket/exports/", to)) {
            Ok(_) => assert_eq!(expected, "", "{to}"),
            Err(errors) => assert!(errors.len() == 1 && errors[0].contains(expected), "{to}: {errors:?}"),
        }
    }
    let none = load(SMALL).unwrap();
    assert_eq!(none.destination_of(&none.datasets["orders"]), "file:///s/outhaul-state.sqlite3.exports");
    let shared = load(&format!("state_url = \"postgresql://h/x\"\n{SMALL}")).unwrap();
    assert!(shared.warnings[0].contains("which all processes must share"), "{:?}", shared.warnings);
}

#[test]
fn secrets_change_by_a_list_whose_first_signs() {
    let [old, new] = ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwAAAA"];
    let hook = "[[webhook]]\nname = \"backend\"\nurl = \"https://app.example.com/x/\"";
    let text = format!("{SMALL}\n{hook}\nsecret = [\"whsec_{new}\", \"whsec_{old}\"]\n");
    let config = load(&text).unwrap();
    assert_eq!(config.webhooks[0].secrets.iter().map(|secret| secret.expose().len()).collect::<Vec<_>>(), [27, 24]);
    assert!(
        load(&text.replace(old, "x")).is_err()
            && load(&text.replace(&format!("\"whsec_{new}\", \"whsec_{old}\""), "")).is_err()
    );
    let secret = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let config = load(&format!("link_secret = \"{secret}\"\n{SMALL}")).unwrap();
    assert_eq!(config.link_keys.len(), 1);
    let errors = load(&format!("link_secret = [\"{secret}\", \"env:NOT_SET\"]\n{SMALL}")).unwrap_err();
    assert_eq!(errors, ["link_secret: the variable NOT_SET is not set (set it to the secret)"]);
    let errors = load(&format!("link_secret = [\"{secret}\", \"short\"]\n{SMALL}")).unwrap_err();
    assert_eq!(errors, ["link_secret is not at least 32 bytes in base64 (make one with: openssl rand -base64 32)"]);
    assert!(load(SMALL).unwrap().link_keys.is_empty());
}
