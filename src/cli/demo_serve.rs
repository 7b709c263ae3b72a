//! `outhaul demo --serve`: the service of `config/service.example.toml` over the demo's own server, with keys that are
//! made for this run.

use std::path::Path;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::demo::Job;
use super::screen::stdout_line;
use super::{CommandContext, serve_cmd};
use crate::config::Environment;
use crate::config::service::{ServiceConfig, load_service};
use crate::service::Listening;

const EXAMPLE: &str = include_str!("../../config/service.example.toml");

/// The variable from which the example takes its database.
const DATABASE: &str = "DATABASE_URL";

/// What a script is told.
#[derive(Serialize)]
struct DemoService<'a> {
    url: String,
    admin_url: Option<String>,
    api_key: &'a str,
    api_keys: DemoKeys<'a>,
    datasets: Vec<&'a str>,
}

#[derive(Serialize)]
struct DemoKeys<'a> {
    free: &'a str,
    enterprise: &'a str,
}

pub(super) async fn serve(job: &Job, context: &CommandContext) -> u8 {
    let [free, enterprise] = [(); 2].map(|()| format!("demo_{:032x}", rand::random::<u128>()));
    let config = match config(job, &free, &enterprise) {
        Ok(config) => config,
        Err(errors) => return context.refuse(&errors),
    };
    let names: Vec<String> = config.datasets.keys().cloned().collect();
    let said = |at: Listening| {
        let datasets = names.iter().map(String::as_str).collect();
        let keys = DemoKeys { free: &free, enterprise: &enterprise };
        let service = DemoService {
            url: at.public.map_or_else(String::new, |public| format!("http://{public}")),
            admin_url: at.admin.map(|admin| format!("http://{admin}")),
            api_key: &free,
            api_keys: keys,
            datasets,
        };
        if context.reporter.is_json() {
            stdout_line(&serde_json::to_string(&service).unwrap_or_default());
        } else {
            stdout_line(&lines(&service));
        }
    };
    // Nobody changes the example while it runs.
    let (_, changes) = tokio::sync::mpsc::channel(1);
    serve_cmd::run(config, context, changes, said).await
}

/// The example, over the demo's server, on free ports and with the run's own keys.
fn config(job: &Job, free: &str, enterprise: &str) -> Result<ServiceConfig, crate::config::ConfigErrors> {
    let file = Path::new("service.example.toml");
    let environment = Environment::of([(DATABASE, job.from().as_str())], [("service.example.toml", EXAMPLE)]);
    let mut config = load_service(file, &environment)?;
    config.listen.set_port(0);
    if let Some(admin) = &mut config.admin_listen {
        admin.set_port(0);
    }
    // The server's folder goes with the demo.
    config.state = job.socket.join("outhaul-state.sqlite3");
    config.job_folder = job.socket.join("outhaul-state.sqlite3.exports");
    for key in &mut config.keys {
        key.sha256 = match key.tier.as_deref() {
            Some("free") => Sha256::digest(free).into(),
            _ => Sha256::digest(enterprise).into(),
        };
    }
    Ok(config)
}

fn lines(service: &DemoService<'_>) -> String {
    let DemoService { url, api_key, .. } = service;
    let curl = format!("curl -sS -N -H 'Authorization: Bearer {api_key}'");
    let rows = r#"{"columns":["id","status","amount"],"where":[{"column":"status","op":"=","value":"shipped"}]}"#;
    let csv = r#"{"format":"csv","columns":["id","created_at","amount"]}"#;
    format!(
        "\nThe service is at {url} until Ctrl-C: open it in Chrome or Edge, or copy the lines below. This key is of tier free, \
         which has 10,000 rows at most: {api_key}\nThis one is of tier enterprise: {enterprise}\n\n\
         {curl} {url}/v1/datasets\n\
         {curl} -D - -d '{rows}' {url}/v1/query/orders/export\n\
         {curl} -d '{csv}' -o orders.csv {url}/v1/query/orders/export",
        enterprise = service.api_keys.enterprise,
    )
}
