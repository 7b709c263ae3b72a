//! `outhaul serve`: tokens of an issuer (JWT). What they open, all that is wrong with others, and where their keys come from.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::issuer::{Issuer, IssuerAnswer, SigningKey, document, moment};
use crate::support::pg::{Pg, pg};
use crate::support::service::{Service, key};
use crate::support::tls::{Authority, LOCAL};

const LIMIT: Duration = Duration::from_secs(20);

const IDS: &str = r#"{"columns":["id"]}"#;

async fn orders() -> Pg {
    let pg = pg(18).await;
    pg.batch(
        "create table orders (id bigint primary key, tenant text not null);
        insert into orders select i, case when i % 2 = 0 then 'acme' else 'canary-tenant' end from generate_series(1, 100) i;
        analyze",
    )
    .await;
    pg
}

/// The service, whose `[jwt]` says where keys are.
fn service(pg: &Pg, keys: &str) -> String {
    format!(
        "{}
[jwt]
{keys}
issuer = \"https://login.example.com\"
audience = [\"exports\", \"exports-too\"]
tenant_claim = \"/org/id\"
tier_claim = \"plan\"
tier = \"free\"
datasets_claim = \"scope\"
datasets = [\"orders\", \"all\"]
[source.shop]
from = \"{}\"
[tier.tiny]
max_rows = 10
[dataset.orders]
table = \"orders\"
tenant = \"tenant = {{tenant}}\"
[dataset.orders.columns]
id = {{}}
tenant = {{}}
[dataset.all]
table = \"orders\"
[dataset.all.columns]
id = {{}}
[dataset.closed]
table = \"orders\"
[dataset.closed.columns]
id = {{}}
",
        key("other", "globex", "free"),
        pg.url
    )
}

fn claims() -> Value {
    json!({"iss": "https://login.example.com", "aud": "exports", "sub": "u-1", "exp": moment(300), "scope": "orders",
        "org": {"id": "acme"}})
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    if value.is_null() {
        claims.as_object_mut().unwrap().remove(name);
    } else {
        claims[name] = value;
    }
    claims
}

/// A token whose parts are as they are given.
fn raw(header: &Value, claims: &Value, signature: &str) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{signature}", part(header), part(claims))
}

#[tokio::test]
async fn a_token_opens_what_its_claims_say() {
    let pg = orders().await;
    let algorithms = [Algorithm::RS256, Algorithm::RS384, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA];
    let keys: Vec<SigningKey> =
        algorithms.iter().map(|algorithm| SigningKey::new(&format!("{algorithm:?}"), *algorithm)).collect();
    let issuer = Issuer::start(IssuerAnswer::Document(document(&keys.iter().collect::<Vec<_>>()))).await;
    let service = Service::start(&service(&pg, &format!("jwks_url = \"{}\"", issuer.url))).await;
    for key in &keys {
        let answer = service.export(&key.sign(&claims()), "orders", r#"{"columns":["tenant"]}"#).await;
        assert_eq!((answer.status, answer.text().lines().count()), (200, 50), "{:?}: {}", key.algorithm, answer.text());
        assert!(!answer.text().contains("canary"));
    }
    let sign = |claims: &Value| keys[4].sign(claims);
    // Clocks differ a little, an audience is one of several, and a tenant's number is a text here.
    for fine in [
        with("exp", moment(-10).into()),
        with("nbf", moment(10).into()),
        with("aud", json!(["x", "exports-too"])),
        with("scope", json!(["orders", "closed"])),
        with("scope", "*".into()),
    ] {
        assert_eq!(service.export(&sign(&fine), "orders", IDS).await.status, 200, "{fine}");
    }
    service.export(&sign(&with("org", json!({"id": 7}))), "orders", IDS).await.problem(404, "no_data");
    let capped = service.export(&sign(&with("plan", "tiny".into())), "orders", IDS).await;
    assert_eq!((capped.status, capped.text().lines().count()), (200, 10));
    // Datasets of the claim, and none that tokens do not open.
    service.export(&sign(&claims()), "all", IDS).await.problem(403, "forbidden");
    for scope in ["all", "*"] {
        assert_eq!(service.export(&sign(&with("scope", scope.into())), "all", IDS).await.status, 200);
        service.export(&sign(&with("scope", scope.into())), "closed", IDS).await.problem(403, "forbidden");
    }
    // A token speaks for itself.
    for head in ["X-Outhaul-Tenant: globex\r\n", "X-Outhaul-Tier: enterprise\r\n", "X-Outhaul-User: u\r\n"] {
        service.export_with(&sign(&claims()), "orders", IDS, head).await.problem(403, "forbidden");
    }
    // Receipts are the tenant's, and the audit knows the user.
    let own = service.export(&sign(&claims()), "orders", IDS).await;
    assert_eq!(service.receipt(&sign(&with("sub", "u-2".into())), &own).await["rows"], 50);
    let link = own.header("link").unwrap().trim_start_matches('<').split('>').next().unwrap().to_owned();
    let stranger = sign(&with("org", json!({"id": "globex"})));
    service.get(&stranger, &link).await.problem(404, "export_not_found");
    let audit = crate::service_access::reqwest_free_get(&service.admin, "/audit?tenant=acme").await;
    assert!(audit.contains("u-1") && audit.contains("https://login.example.com"), "{audit}");
    let log = service.stop().await;
    assert!(!log.contains("eyJ") && !log.contains("acme"), "no token is in the log:\n{log}");
}

/// What is wrong with a token's form, key or signature, and the token.
fn forged(right: &SigningKey, rsa: &SigningKey) -> Vec<(&'static str, String)> {
    let stranger = SigningKey::new(&right.kid, right.algorithm);
    let whole = right.sign(&claims());
    let (body, signature) = whole.rsplit_once('.').unwrap();
    let other_body = right.sign(&with("org", json!({"id": "canary-tenant"})));
    let secret = |bytes: &[u8]| EncodingKey::from_secret(bytes).unwrap();
    let hmac = Header { kid: Some(right.kid.clone()), ..Header::new(Algorithm::HS256) };
    let rsa_hmac = Header { kid: Some(rsa.kid.clone()), ..Header::new(Algorithm::HS256) };
    let x = URL_SAFE_NO_PAD.decode(right.public()["x"].as_str().unwrap()).unwrap();
    let n = URL_SAFE_NO_PAD.decode(rsa.public()["n"].as_str().unwrap()).unwrap();
    let embedded = Header { jwk: serde_json::from_value(stranger.public()).unwrap(), ..right.header() };
    let elsewhere = Header { jku: Some("http://127.0.0.1:1/keys".to_owned()), ..right.header() };
    let critical = Header { crit: Some(vec!["exp".to_owned()]), ..right.header() };
    let sha512 = Header { alg: Algorithm::RS512, ..rsa.header() };
    let none = |alg: &str| raw(&json!({"alg": alg, "kid": right.kid}), &claims(), "");
    vec![
        ("none", none("none")),
        ("None", none("None")),
        ("an unknown algorithm", none("XX256")),
        ("none with a signature", raw(&json!({"alg": "none", "kid": right.kid}), &claims(), signature)),
        ("no signature", format!("{body}.")),
        ("the signature of another", format!("{}.{signature}", other_body.rsplit_once('.').unwrap().0)),
        ("another key of the same name", stranger.sign(&claims())),
        ("the public key as a secret", encode(&hmac, &claims(), &secret(&x)).unwrap()),
        ("the modulus as a secret", encode(&rsa_hmac, &claims(), &secret(&n)).unwrap()),
        ("the document as a secret", encode(&hmac, &claims(), &secret(right.public().to_string().as_bytes())).unwrap()),
        ("another algorithm of the key's kind", encode(&sha512, &claims(), &rsa.key).unwrap()),
        ("a key of its own", encode(&embedded, &claims(), &stranger.key).unwrap()),
        ("a key from elsewhere", encode(&elsewhere, &claims(), &stranger.key).unwrap()),
        ("something critical", encode(&critical, &claims(), &right.key).unwrap()),
        ("no key", encode(&Header { kid: None, ..right.header() }, &claims(), &right.key).unwrap()),
        (
            "another key's name",
            encode(&Header { kid: Some(rsa.kid.clone()), ..right.header() }, &claims(), &right.key).unwrap(),
        ),
        ("no object", right.sign(&json!("claims"))),
        ("four parts", format!("{whole}.x")),
        ("two parts", body.to_owned()),
    ]
}

/// What is wrong with the claims of a token, and the token.
fn claiming(right: &SigningKey) -> Vec<(&'static str, String)> {
    let nested = |id: Value| json!({"id": id});
    let all = [
        ("expired", "exp", moment(-60).into()),
        ("expired for long", "exp", 0.into()),
        ("expires never", "exp", Value::Null),
        ("expires in words", "exp", "tomorrow".into()),
        ("expires in digits of a text", "exp", moment(300).to_string().into()),
        ("expires before all time", "exp", (-1).into()),
        ("not yet", "nbf", moment(60).into()),
        ("not yet, in words", "nbf", "tomorrow".into()),
        ("another issuer", "iss", "https://login.example.com/".into()),
        ("issuers", "iss", json!(["https://login.example.com", "https://evil.example.com"])),
        ("no issuer", "iss", Value::Null),
        ("for others", "aud", "export".into()),
        ("for several others", "aud", json!(["a", "b"])),
        ("for nobody", "aud", Value::Null),
        ("no user", "sub", Value::Null),
        ("an empty user", "sub", "".into()),
        ("no tenant", "org", Value::Null),
        ("an empty tenant", "org", nested(" ".into())),
        ("tenants", "org", nested(json!(["acme"]))),
        ("half a tenant", "org", nested(json!(1.5))),
        ("a true tenant", "org", nested(true.into())),
        ("a NUL", "org", nested("acme\u{0}".into())),
        ("a long tenant", "org", nested("x".repeat(257).into())),
        ("an unknown tier", "plan", "platinum".into()),
        ("tiers", "plan", json!(["free"])),
        ("no datasets", "scope", Value::Null),
        ("datasets by number", "scope", json!([1])),
        ("datasets by name", "scope", json!({"orders": true})),
    ];
    all.into_iter().map(|(what, name, value)| (what, right.sign(&with(name, value)))).collect()
}

#[tokio::test]
async fn owasp_2_and_h8_a_token_with_any_fault_is_the_same_refusal() {
    let pg = orders().await;
    let (right, rsa) = (SigningKey::new("ed", Algorithm::EdDSA), SigningKey::new("rsa", Algorithm::RS256));
    let issuer = Issuer::start(IssuerAnswer::Document(document(&[&right, &rsa]))).await;
    let text = service(&pg, &format!("jwks_url = \"{}\"", issuer.url));
    let running = Service::start(&text).await;
    assert_eq!(running.export(&right.sign(&claims()), "orders", IDS).await.status, 200);
    let expected = running.export("no-key-at-all", "orders", IDS).await.problem(401, "unauthorized");
    for (what, token) in forged(&right, &rsa).into_iter().chain(claiming(&right)) {
        let answer = running.export(&token, "orders", IDS).await;
        assert_eq!(answer.status, 401, "{what}: {}", answer.text());
        assert_eq!(answer.problem(401, "unauthorized"), expected, "{what}");
    }
    running.stop().await;
    // The two checks without which the token of another place, or of another algorithm, would do.
    for (off, claims, header) in [
        ("jwt_algorithm", claims(), Header { alg: Algorithm::RS512, ..rsa.header() }),
        ("jwt_audience", with("aud", "export".into()), rsa.header()),
    ] {
        let without = Service::with(&text, |command| command.env("OUTHAUL_TEST_OFF", off)).await;
        let token = encode(&header, &claims, &rsa.key).unwrap();
        assert_eq!(without.export(&token, "orders", IDS).await.status, 200, "{off}: it was refused for another reason");
        without.stop().await;
    }
}

#[tokio::test]
async fn owasp_10_keys_are_fetched_once_for_many_and_the_last_good_ones_stay() {
    let pg = orders().await;
    let [old, new, third] = ["old", "new", "third"].map(|kid| SigningKey::new(kid, Algorithm::EdDSA));
    let issuer = Issuer::start(IssuerAnswer::Head("503 Service Unavailable")).await;
    let text = service(&pg, &format!("jwks_url = \"{}\"", issuer.url));
    let limits = |pause: &str| format!("jwks_pause={pause},jwks=1,jwks_age=3600");
    let service = Service::with(&text, |command| command.env("OUTHAUL_TEST_LIMITS", limits("1.5"))).await;
    let ask = async |key: &SigningKey| service.export(&key.sign(&claims()), "orders", IDS).await;
    // Nobody knows whether a token is right until there are keys.
    let early = ask(&old).await;
    early.problem(503, "keys_unavailable");
    assert_eq!(early.header("retry-after"), Some("5"));
    assert_eq!(service.export("other", "orders", IDS).await.status, 404, "keys of the file need no issuer");
    issuer.turn_to(IssuerAnswer::Document(document(&[&old])));
    eventually(LIMIT, "the keys", async || (ask(&old).await.status == 200).then_some(())).await;
    tokio::time::sleep(Duration::from_millis(1_600)).await;
    // A key that nobody knows: many ask, one fetches.
    issuer.turn_to(IssuerAnswer::Document(document(&[&old, &new])));
    let before = issuer.asked();
    let answers = futures_util::future::join_all((0..6).map(|_| ask(&new))).await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    assert_eq!(issuer.asked(), before + 1);
    // The next within the pause fetches nothing, and behind it once.
    for _ in 0..5 {
        ask(&third).await.problem(401, "unauthorized");
    }
    assert_eq!(issuer.asked(), before + 1);
    // Whatever becomes of the issuer, the last good keys stay.
    for sick in [
        IssuerAnswer::Head("500 Internal Server Error"),
        IssuerAnswer::Head("302 Found\r\nlocation: http://127.0.0.1:1/keys"),
        IssuerAnswer::Silent,
        IssuerAnswer::Endless,
        IssuerAnswer::Document("<html>".to_owned()),
        IssuerAnswer::Document("{\"keys\": []}".to_owned()),
    ] {
        issuer.turn_to(sick.clone());
        tokio::time::sleep(Duration::from_millis(1_600)).await;
        let before = issuer.asked();
        ask(&third).await.problem(401, "unauthorized");
        assert_eq!(issuer.asked(), before + 1, "{sick:?}");
        assert_eq!(ask(&new).await.status, 200, "{sick:?}");
    }
    service.stop().await;
    // The pause is what holds them back.
    issuer.turn_to(IssuerAnswer::Document(document(&[&old])));
    let without = Service::with(&text, |command| {
        command.env("OUTHAUL_TEST_OFF", "jwks_pause").env("OUTHAUL_TEST_LIMITS", limits("3600"))
    })
    .await;
    let ask = async |key: &SigningKey| without.export(&key.sign(&claims()), "orders", IDS).await;
    eventually(LIMIT, "the keys", async || (ask(&old).await.status == 200).then_some(())).await;
    let before = issuer.asked();
    for _ in 0..3 {
        ask(&third).await.problem(401, "unauthorized");
    }
    assert_eq!(issuer.asked(), before + 3);
    without.stop().await;
}

#[tokio::test]
async fn owasp_10_a_document_without_measure_is_given_up() {
    let pg = orders().await;
    let [old, new] = ["old", "new"].map(|kid| SigningKey::new(kid, Algorithm::EdDSA));
    // A right document behind 300 KiB of spaces, and one that comes behind a long silence.
    let padded = format!("{}{}", " ".repeat(300 * 1_024), document(&[&new]));
    for (mechanism, answer) in [
        ("jwks_size", IssuerAnswer::Document(padded)),
        ("jwks_timeout", IssuerAnswer::Late(Duration::from_secs(2), document(&[&new]))),
    ] {
        for (off, status) in [("", 401), (mechanism, 200)] {
            let issuer = Issuer::start(IssuerAnswer::Document(document(&[&old]))).await;
            let text = service(&pg, &format!("jwks_url = \"{}\"", issuer.url));
            let running = Service::with(&text, |command| {
                let limits = "jwks_pause=0.1,jwks=1,jwks_age=3600";
                command.env("OUTHAUL_TEST_LIMITS", limits).env("OUTHAUL_TEST_OFF", off)
            })
            .await;
            let ask = async |key: &SigningKey| running.export(&key.sign(&claims()), "orders", IDS).await.status;
            eventually(LIMIT, "the keys", async || (ask(&old).await == 200).then_some(())).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
            issuer.turn_to(answer.clone());
            assert_eq!((ask(&new).await, ask(&old).await), (status, if status == 200 { 401 } else { 200 }), "{off}");
            running.stop().await;
        }
    }
}

#[tokio::test]
async fn keys_come_over_tls_from_whom_a_trusted_authority_names() {
    let pg = orders().await;
    let right = SigningKey::new("ed", Algorithm::EdDSA);
    let (authority, stranger) = (Authority::new("ec"), Authority::new("ec"));
    let (local, elsewhere) = (authority.issue("issuer", LOCAL, 10), authority.issue("issuer", "DNS:example.com", 10));
    for (certificate, trusted, status) in
        [(&local, &authority, 200), (&local, &stranger, 503), (&elsewhere, &authority, 503)]
    {
        let issuer = Issuer::over(Some(certificate), IssuerAnswer::Document(document(&[&right]))).await;
        let text = service(&pg, &format!("jwks_url = \"{}\"", issuer.url));
        let running = Service::with(&text, |command| command.env("SSL_CERT_FILE", trusted.certificate())).await;
        let ask = async || running.export(&right.sign(&claims()), "orders", IDS).await.status;
        if status == 200 {
            eventually(LIMIT, "the keys", async || (ask().await == 200).then_some(())).await;
        } else {
            eventually(LIMIT, "a fetch", async || (issuer.asked() > 0).then_some(())).await;
            assert_eq!(ask().await, status);
        }
        running.stop().await;
    }
}

#[tokio::test]
async fn withdrawn_keys_end_and_a_signal_reads_the_file_again() {
    let pg = orders().await;
    let [old, new] = ["old", "new"].map(|kid| SigningKey::new(kid, Algorithm::ES256));
    let issuer = Issuer::start(IssuerAnswer::Document(document(&[&old, &new]))).await;
    let text = service(&pg, &format!("jwks_url = \"{}\"", issuer.url));
    let running = Service::with(&text, |command| command.env("OUTHAUL_TEST_LIMITS", "jwks_age=0.3")).await;
    let ask = async |key: &SigningKey| running.export(&key.sign(&claims()), "orders", IDS).await.status;
    eventually(LIMIT, "the keys", async || (ask(&old).await == 200).then_some(())).await;
    issuer.turn_to(IssuerAnswer::Document(document(&[&new])));
    eventually(LIMIT, "the end of a key", async || (ask(&old).await == 401).then_some(())).await;
    assert_eq!(ask(&new).await, 200);
    running.stop().await;

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jwks.json");
    std::fs::write(&file, document(&[&old])).unwrap();
    let text = service(&pg, &format!("jwks_file = \"{}\"", file.display()));
    let running = Service::start(&text).await;
    let ask = async |key: &SigningKey| running.export(&key.sign(&claims()), "orders", IDS).await.status;
    assert_eq!((ask(&old).await, ask(&new).await), (200, 401));
    std::fs::write(&file, "{\"keys\": []}").unwrap();
    running.process.signal("HUP").await;
    running.process.stderr_has("tokens are taken as before").await;
    assert_eq!((ask(&old).await, ask(&new).await), (200, 401));
    std::fs::write(&file, document(&[&new])).unwrap();
    running.process.signal("HUP").await;
    eventually(LIMIT, "the new key", async || (ask(&new).await == 200).then_some(())).await;
    assert_eq!(ask(&old).await, 401);
    // Without [jwt] a token is nobody's.
    let place = running.folder.path().join("service.toml");
    let config = std::fs::read_to_string(&place).unwrap();
    let (front, rest) = config.split_once("[jwt]").unwrap();
    std::fs::write(&place, format!("{front}{}", &rest[rest.find("[source").unwrap()..])).unwrap();
    running.process.signal("HUP").await;
    eventually(LIMIT, "no tokens", async || (ask(&new).await == 401).then_some(())).await;
    running.stop().await;
    // A file without a key of use serves nobody, and the check says so.
    std::fs::write(&file, "{\"keys\": []}").unwrap();
    for words in [&[][..], &["--check"]] {
        let (_folder, command) = crate::support::service::written(&text, words);
        let run = command.run().await.expect(2);
        assert!(run.stderr.contains("no key of the document can be used"), "{}", run.stderr);
    }
}
