//! The JSON Schema of a job file, for editors and for whoever checks one before the night.

use serde_json::{Map, Value, json};

use super::{is_default, is_of_export};
use crate::config::options::{Arity, OPTIONS, OptionInfo};

/// The schema: what a job file may have, by the same table of options that reads it.
pub(crate) fn schema() -> Value {
    let options = |may_stand: fn(&OptionInfo) -> bool| {
        let some = OPTIONS.iter().filter(|option| may_stand(option));
        some.map(|option| (option.key.to_owned(), of_option(option))).collect::<Map<String, Value>>()
    };
    let strings = json!({"type": ["string", "array"], "items": {"type": "string"}});
    let mut export = options(is_of_export);
    export.insert(
        "name".to_owned(),
        json!({"type": "string", "description": "what it is called in reports, --only and --except"}),
    );
    export.insert("except".to_owned(), described(&strings, "tables that the pattern in table does not mean"));
    export.insert("unset".to_owned(), described(&strings, "keys of [defaults] that do not hold here"));
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:outhaul:job:v1",
        "title": "Outhaul job file, version 1",
        "description": "Several exports of one run, as `outhaul run` reads them. Keys are the flags of `outhaul export`.",
        "type": "object",
        "additionalProperties": false,
        "required": ["export"],
        "properties": {
            "root": {
                "description": "Where the run's record goes; the folder that all destinations share unless given.",
                "type": "string"
            },
            "state": {
                "description": "Where the last export of each incremental table is remembered; _state/ under the root unless given.",
                "type": "string"
            },
            "on_error": {
                "description": "What a failed export does to the others: they go on, or none commits.",
                "enum": ["continue", "stop"]
            },
            "snapshot": {
                "description": "What is read under one snapshot: the whole run, or each export by itself.",
                "enum": ["run", "export"]
            },
            "defaults": {"type": "object", "additionalProperties": false, "properties": options(is_default)},
            "tiers": {
                "description": "Named row caps. An option that stands below this line is refused.",
                "type": "object",
                "propertyNames": {"not": {"enum": OPTIONS.iter().map(|option| option.key).collect::<Vec<_>>()}},
                "additionalProperties": {"type": ["string", "integer"], "minimum": 1}
            },
            "export": {
                "type": "array",
                "minItems": 1,
                "items": {"type": "object", "additionalProperties": false, "properties": export}
            }
        }
    })
}

fn described(schema: &Value, text: &str) -> Value {
    let mut schema = schema.clone();
    schema["description"] = json!(text);
    schema
}

fn of_option(option: &OptionInfo) -> Value {
    let kind = match option.arity {
        Arity::Switch => json!({"type": "boolean"}),
        Arity::Many => json!({"type": ["string", "array"], "items": {"type": "string"}}),
        Arity::One if option.list => json!({"type": ["string", "array"], "items": {"type": "string"}}),
        Arity::One => json!({"type": ["string", "integer", "boolean"]}),
    };
    described(&kind, option.help)
}
