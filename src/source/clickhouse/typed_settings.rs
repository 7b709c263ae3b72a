//! The settings under which the server sends rows that are read here.

use super::settings::{ALWAYS, WantedSetting, may, must};
use crate::base::postgres::settings::{ConnectSettings, ServerAddress};

/// How typed values are sent, beside what is always sent.
const WANTED: [WantedSetting; 21] = [
    must("output_format_arrow_string_as_string", "0"),
    must("output_format_json_quote_64bit_integers", "0"),
    must("output_format_json_quote_decimals", "0"),
    must("output_format_json_quote_denormals", "1"),
    must("output_format_json_named_tuples_as_objects", "1"),
    // In UTC, as everything else is.
    must("date_time_output_format", "iso"),
    may("output_format_json_escape_forward_slashes", "0"),
    may("output_format_arrow_low_cardinality_as_dictionary", "0"),
    may("output_format_arrow_fixed_string_as_fixed_byte_array", "1"),
    may("print_pretty_type_names", "0"),
    // The order that somebody wrote into a query.
    may("query_plan_remove_redundant_sorting", "0"),
    // Another replica has other parts.
    must("enable_parallel_replicas", "0"),
    must("allow_experimental_parallel_reading_from_replicas", "0"),
    may("output_format_json_map_as_array_of_tuples", "0"),
    // Rows of some time ago.
    must("fallback_to_stale_replicas_for_distributed_queries", "0"),
    // It counts rows that policies hide.
    may("optimize_trivial_count_query", "0"),
    // A projection has its rows at other places, or none of them.
    may("force_optimize_projection", "0"),
    may("optimize_use_projections", "0"),
    may("optimize_use_implicit_projections", "0"),
    // One partition at a time is merged by FINAL otherwise.
    must("do_not_merge_across_partitions_select_final", "0"),
    // It supposes that rows with the same key are in one partition, which 0.0 and -0.0 are not.
    may("enable_automatic_decision_for_merging_across_partitions_for_final", "0"),
];

/// How the values are compressed on their way: where nothing lies between, by what costs least.
const NEAR: WantedSetting = may("output_format_arrow_compression_method", "lz4_frame");
const FAR: WantedSetting = may("output_format_arrow_compression_method", "zstd");

/// What is asked for where rows are read.
pub(super) fn wanted(settings: &ConnectSettings) -> Vec<WantedSetting> {
    let near = settings.addresses.iter().all(ServerAddress::is_loopback);
    WANTED.into_iter().chain([if near { NEAR } else { FAR }]).collect()
}

/// Whether every statement is told this setting, or finds it as we want it: what the profile has changes nothing.
pub(super) fn is_ours(name: &str) -> bool {
    let ours = |setting: &WantedSetting| setting.name == name;
    name.contains("overflow_mode") || name == NEAR.name || WANTED.iter().chain(&ALWAYS).any(ours)
}
