//! AWS credentials as people have them: a profile, a program, a machine without a role.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::job::command;
use crate::support::pg::{Pg, pg};
use crate::support::run::{Outhaul, Run, outhaul};
use crate::support::s3::{S3, s3};
use crate::support::unique;

/// A relation and a prefix, and no keys in the environment.
struct Rig {
    pg: Pg,
    s3: S3,
    home: tempfile::TempDir,
}

impl Rig {
    async fn new(rows: u32) -> Self {
        let pg = pg(18).await;
        pg.batch(&format!("create table t as select i as id, md5(i::text) as t from generate_series(1, {rows}) i"))
            .await;
        Self { pg, s3: s3(), home: tempfile::tempdir().unwrap() }
    }

    fn keys(&self) -> [String; 2] {
        let value = |wanted: &str| self.s3.env().into_iter().find(|(name, _)| *name == wanted).unwrap().1;
        [value("AWS_ACCESS_KEY_ID"), value("AWS_SECRET_ACCESS_KEY")]
    }

    fn export(&self, args: &[&str]) -> Outhaul {
        let all = [&["--table", "t", "--partitions", "1", "-vv"], args].concat();
        command(&self.pg, &self.s3.url("out"), &all)
            .env("AWS_ENDPOINT", &self.s3.endpoint)
            .env("AWS_REGION", "us-east-1")
            .env("HOME", self.home.path())
            .env("AWS_EC2_METADATA_DISABLED", "true")
    }

    /// A file in the home folder.
    fn write(&self, name: &str, text: &str) -> String {
        let path = self.home.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// A program that prints credentials which end after so many seconds, and notes that it ran.
    fn program(&self, name: &str, seconds: u32) -> String {
        let [key, secret] = self.keys();
        let ran = self.home.path().join("ran");
        self.write(
            name,
            &format!(
                "#!/bin/sh\necho \"$@\" >> {}\nends=$(date -u -d '+{seconds} seconds' +%Y-%m-%dT%H:%M:%SZ)\n\
                 echo '{{\"Version\":1,\"AccessKeyId\":\"{key}\",\"SecretAccessKey\":\"{secret}\",\"Expiration\":\"'$ends'\"}}'\n",
                ran.display()
            ),
        )
    }

    fn ran(&self) -> Vec<String> {
        fs::read_to_string(self.home.path().join("ran")).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// The run said no secret.
    fn keeps(&self, run: Run) -> Run {
        let said = format!("{}{}", run.stderr, String::from_utf8_lossy(&run.stdout));
        for secret in [self.keys()[1].as_str(), "canary"] {
            assert!(!said.contains(secret), "a secret was shown:\n{said}");
        }
        run
    }
}

fn with_path(run: Outhaul, folder: &Path) -> Outhaul {
    run.env("PATH", format!("{}:/usr/bin:/bin", folder.display()))
}

#[tokio::test]
async fn a_profile_of_a_file_writes_to_s3() {
    let rig = Rig::new(10).await;
    let [key, secret] = rig.keys();
    rig.write("keys", &format!("[night]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n"));
    let run = rig.export(&[]).env("AWS_PROFILE", "night").env("AWS_SHARED_CREDENTIALS_FILE", "~/keys").run().await;
    let run = rig.keeps(run.expect(0));
    assert_eq!(run.report["rows"], 10);
}

/// Several could say them: the plan names the one whom the export believes.
#[tokio::test]
async fn a_plan_names_who_gives_the_credentials() {
    let rig = Rig::new(10).await;
    let [key, secret] = rig.keys();
    rig.write(".aws/credentials", &format!("[night]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n"));
    let tool = rig.program("tool", 3_600);
    for (variables, args, who, code) in [
        (&[("AWS_PROFILE", "night")][..], &[][..], "profile night", 0),
        (&[("AWS_ACCESS_KEY_ID", "nobody"), ("AWS_SECRET_ACCESS_KEY", "canary")], &[], "AWS_ACCESS_KEY_ID", 20),
        (&[("AWS_PROFILE", "nowhere")], &["--aws-credential-command", &tool], "the AWS credential command", 0),
    ] {
        let to = rig.s3.url(&unique());
        let own = ["--from", &rig.pg.url, "--table", "t", "--to", &to];
        for command in ["plan", "export"] {
            let run = outhaul([command].iter().chain(&own).chain(args))
                .env("AWS_ENDPOINT", &rig.s3.endpoint)
                .env("AWS_REGION", "us-east-1")
                .env("HOME", rig.home.path())
                .env("AWS_EC2_METADATA_DISABLED", "true");
            let run = variables.iter().fold(run, |run, (name, value)| run.env(name, *value)).run().await;
            let run = rig.keeps(run);
            if command == "plan" {
                let shown = String::from_utf8_lossy(&run.stdout);
                assert!(shown.contains(&format!("credentials by {who}")), "{who}: {shown}{}", run.stderr);
            } else {
                assert_eq!(run.code, code, "{who}: {}", run.stderr);
            }
        }
    }
}

#[tokio::test]
async fn a_command_is_asked_again_while_an_upload_lasts() {
    let rig = Rig::new(60_000).await;
    let program = rig.program("tool", 4);
    let args = ["--aws-credential-command", &program, "--format", "csv", "--max-bytes-per-second", "400KB"];
    let run = rig.keeps(rig.export(&args).run().await.expect(0));
    assert_eq!(run.report["rows"], 60_000);
    assert!(rig.ran().len() >= 2, "asked {} times", rig.ran().len());
}

#[tokio::test]
async fn profiles_with_a_program_or_a_sign_in_are_asked_for() {
    let rig = Rig::new(10).await;
    let tool = rig.program("bin/tool", 3_600);
    rig.program("bin/aws", 3_600);
    rig.write(
        ".aws/config",
        &format!("[profile tool]\ncredential_process = {tool} \"a b\"\n[profile corp]\nsso_session = corp\n"),
    );
    let run = rig.export(&[]).env("AWS_PROFILE", "tool").run().await;
    rig.keeps(run.expect(0));
    let again = with_path(rig.export(&["--on-existing", "replace"]), &rig.home.path().join("bin"));
    rig.keeps(again.env("AWS_PROFILE", "corp").run().await.expect(0));
    assert_eq!(rig.ran(), ["a b", "configure export-credentials --profile corp --format process"]);

    let none = rig.export(&[]).env("PATH", "/nowhere").env("AWS_PROFILE", "corp").run().await.expect(20);
    let what = "AWS profile corp gets its credentials by sso_session, for which the AWS CLI is asked, and there is no";
    assert!(none.stderr.contains(what), "{}", none.stderr);
    rig.write("bin/aws", "#!/bin/sh\necho canary\necho 'Token has expired' >&2\nexit 255\n");
    let ended = with_path(rig.export(&[]), &rig.home.path().join("bin"));
    let ended = rig.keeps(ended.env("AWS_PROFILE", "corp").run().await.expect(20));
    assert!(ended.stderr.contains("Token has expired\nhint: try: aws sso login --profile 'corp'"), "{}", ended.stderr);
}

#[tokio::test]
async fn a_command_that_fails_is_told_and_its_answer_is_not() {
    let rig = Rig::new(1).await;
    for (line, why) in [
        ("echo canary; echo 'no vault' >&2; exit 3", "the AWS credential command failed (exit status: 3): no vault"),
        ("true # canary", "the AWS credential command printed nothing"),
        ("echo canary", "the AWS credential command printed no JSON"),
        ("echo canary; sleep 600", "the AWS credential command gave no answer within 0.5 s"),
    ] {
        let began = Instant::now();
        let run =
            rig.export(&["--aws-credential-command", line]).env("OUTHAUL_TEST_LIMITS", "aws_credential_command=0.5");
        let run = rig.keeps(run.run().await.expect(20));
        assert!(run.stderr.contains(why), "{line}: {}", run.stderr);
        assert!(began.elapsed() < Duration::from_secs(10), "{line} took {:?}", began.elapsed());
    }
    let from_variable = rig.export(&[]).env("OUTHAUL_AWS_CREDENTIAL_COMMAND", "exit 9").run().await.expect(20);
    assert!(from_variable.stderr.contains("exit status: 9"), "{}", from_variable.stderr);
}

#[tokio::test]
async fn no_credentials_are_told_in_seconds_with_what_was_looked_at() {
    let rig = Rig::new(1).await;
    // It takes connections and answers nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let began = Instant::now();
    let run = rig.export(&[]).env("AWS_EC2_METADATA_DISABLED", "false");
    let run = run.env("AWS_METADATA_ENDPOINT", format!("http://{}", silent.local_addr().unwrap()));
    let run = run.run().await.expect(20);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let looked = format!(
        "looked at AWS_ACCESS_KEY_ID, at profile default in {}/.aws/credentials and",
        rig.home.path().display()
    );
    for text in ["no AWS credentials found: ", &looked, "(not there)", "service did not answer within 2 s)"] {
        assert!(run.stderr.contains(text), "no {text:?} in {}", run.stderr);
    }
    assert!(!run.stderr.contains("policy"), "the policy is not to blame: {}", run.stderr);
}

#[tokio::test]
async fn a_region_that_nobody_tells_is_not_guessed() {
    let rig = Rig::new(1).await;
    let proxy = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", proxy.local_addr().unwrap());
    let asked = tokio::spawn(async move {
        let (mut stream, _) = proxy.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n")
            && tokio::io::AsyncReadExt::read_buf(&mut stream, &mut head).await.unwrap() > 0
        {}
        String::from_utf8(head).unwrap()
    });
    let run = command(&rig.pg, "s3://lake/x", &["--table", "t"]).env("AWS_PROXY_URL", &url);
    let run = run.env("AWS_ACCESS_KEY_ID", "k").env("AWS_SECRET_ACCESS_KEY", "canary");
    let run = rig.keeps(run.run().await.expect(21));
    assert!(run.stderr.contains("the region of bucket lake is not known"), "{}", run.stderr);
    assert!(run.stderr.contains("set AWS_REGION"), "{}", run.stderr);
    assert!(asked.await.unwrap().starts_with("CONNECT lake.s3.amazonaws.com:443 "));
}
