//! The integration tests: one binary.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    unreachable_pub,
    reason = "a test fails by panicking, and has no users outside"
)]

#[path = "../support/mod.rs"]
mod support;

mod against;
mod awkward;
mod aws;
mod cancel;
mod caps;
mod clickhouse_frames;
mod clickhouse_typed;
mod clickhouse_verbatim;
mod clients;
mod codes;
mod commit;
mod consistency;
mod console;
mod console_clickhouse;
mod console_statements;
mod crash;
mod ddl;
mod deadlines;
mod destinations;
mod differential;
mod every_type;
mod export;
mod extremes;
mod faults;
mod folders;
mod foreign;
mod front;
mod guests;
mod harness;
mod hints;
mod inputs;
mod job_files;
mod keys;
mod kindness;
mod least_and_greatest;
mod leaves;
mod library;
mod looks;
mod meaning;
mod memory;
mod names;
mod nested_policies;
mod one_answer;
mod one_statement;
mod operations;
mod other_stores;
mod outages;
mod owners;
mod parquet_files;
mod policies;
mod pull;
mod readme;
mod records;
mod relations;
mod retries;
mod scope;
mod search_path;
mod second_source;
mod security;
mod served;
mod served_questions;
mod servers;
mod service_access;
mod service_analyses;
mod service_budget;
mod service_clients;
mod service_destinations;
mod service_front;
mod service_job_faults;
mod service_jobs;
mod service_links;
mod service_matrix;
mod service_requests;
mod service_state;
mod service_state_file;
mod service_streams;
mod service_tokens;
mod service_webhooks;
mod service_workers;
mod shape;
mod special_inputs;
mod store;
mod store_faults;
mod surroundings;
mod texts;
mod threads;
mod tidy;
mod tls;
mod types;
mod verify;
mod voice;
mod walls;
mod whole_rows;
mod workers;
mod workers_ends;
