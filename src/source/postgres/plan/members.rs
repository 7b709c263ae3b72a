//! What nested values are made of: which choices reach their parts, what a person should know of these, and whether
//! readers can tell a composite's members apart.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::type_mapping::{Terms, TypeMapping, annotated, is_text, typed};
use super::{numbered, oid};
use crate::model::{Carrier, CharPadding, Format, InvalidUtf8, JsonNan, Member};
use crate::source::postgres::plan::{ExtensionType, PgType, TypeKind, Wire};

/// Parts that a note names; of more it says how many.
const NAMED_MAX: usize = 3;

/// How far choices reach into a nested value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Into every part: the value is decoded.
    Decoded,
    /// Into elements and attributes: the value is the server's text or JSON, and is rewritten by its type. A range's
    /// bounds are inside a text of its own.
    Printed,
}

impl Reach {
    pub(super) fn of(mapping: &TypeMapping) -> Self {
        if mapping.wire == Wire::Binary { Self::Decoded } else { Self::Printed }
    }
}

/// Whether a value of the type, or a part of it that choices reach, is so.
pub(super) fn reaches(pg_type: &PgType, reach: Reach, is: &dyn Fn(&PgType) -> bool) -> bool {
    match &pg_type.kind {
        TypeKind::Array(element) => reaches(element, reach, is),
        TypeKind::Composite(attributes) => attributes.iter().any(|attribute| reaches(&attribute.pg_type, reach, is)),
        TypeKind::Range(bound) | TypeKind::Multirange(bound) => reach == Reach::Decoded && reaches(bound, reach, is),
        _ => is(pg_type),
    }
}

/// Whether a part that choices do not reach is so, or may be: nothing is known of a record's.
fn misses(pg_type: &PgType, reach: Reach, is: &dyn Fn(&PgType) -> bool) -> bool {
    match &pg_type.kind {
        TypeKind::Array(element) => misses(element, reach, is),
        TypeKind::Composite(attributes) => attributes.iter().any(|attribute| misses(&attribute.pg_type, reach, is)),
        TypeKind::Range(bound) | TypeKind::Multirange(bound) => {
            misses(bound, reach, is) || reach == Reach::Printed && reaches(bound, Reach::Decoded, is)
        }
        _ => pg_type.base_oid == oid::RECORD,
    }
}

/// A float or a numeric.
pub(super) fn is_number(pg_type: &PgType) -> bool {
    matches!(pg_type.base_oid, oid::FLOAT4 | oid::FLOAT8 | oid::NUMERIC)
}

/// `char(n)`.
pub(super) fn is_padded(pg_type: &PgType) -> bool {
    pg_type.base_oid == oid::BPCHAR
}

fn is_hstore(pg_type: &PgType) -> bool {
    pg_type.kind == TypeKind::Extension(ExtensionType::Hstore)
}

/// Whether the type is text or has some in it.
pub(super) fn holds_text(pg_type: &PgType) -> bool {
    let is = |part: &PgType| is_text(part) || is_hstore(part);
    reaches(pg_type, Reach::Decoded, &is) || misses(pg_type, Reach::Decoded, &is)
}

/// Whether text in values of the type stays text where it is to be written as bytes.
pub(super) fn keeps_text(pg_type: &PgType, reach: Reach) -> bool {
    misses(pg_type, reach, &is_text) || reaches(pg_type, Reach::Decoded, &is_hstore)
}

/// Adds what a person should know of the parts of values, and whether all values are written otherwise for their sake.
pub(super) fn noted(mapping: TypeMapping, pg_type: &PgType, terms: &Terms) -> TypeMapping {
    let reach = Reach::of(&mapping);
    let mut notes: Vec<String> = mapping.note.iter().cloned().collect();
    let nested = is_made_of_parts(pg_type);
    let mut parts = Vec::new();
    if nested {
        part_notes(pg_type, reach, terms, String::new(), &mut parts);
    }
    notes.extend(grouped(parts));
    if terms.format == Format::Parquet && lists_uuids(&mapping.carrier) {
        notes.push(
            "pandas cannot read a list of uuids: --column-policy COLUMN=text, or json, writes such a column as text"
                .to_owned(),
        );
    }
    let asks_bytes = terms.server.sql_ascii && terms.policies.invalid_utf8 == InvalidUtf8::Bytes;
    let bytes = nested && asks_bytes && reaches(pg_type, reach, &is_text);
    if bytes && reach == Reach::Printed {
        notes.push("text in it written as its bytes, as --invalid-utf8 asks".to_owned());
    }
    notes.extend(missed(pg_type, reach, terms, asks_bytes));
    TypeMapping {
        note: (!notes.is_empty()).then(|| notes.join("; ")),
        rewritten: mapping.rewritten.or(bytes.then_some("bytes")),
        ..mapping
    }
}

fn is_made_of_parts(pg_type: &PgType) -> bool {
    matches!(pg_type.kind, TypeKind::Array(_) | TypeKind::Composite(_) | TypeKind::Range(_) | TypeKind::Multirange(_))
}

/// The note of each part that would have one as a column, and the part's path.
fn part_notes(pg_type: &PgType, reach: Reach, terms: &Terms, path: String, notes: &mut Vec<(String, String)>) {
    match &pg_type.kind {
        TypeKind::Array(element) => part_notes(element, reach, terms, format!("{path}[]"), notes),
        TypeKind::Composite(attributes) => {
            for attribute in attributes {
                let name = &attribute.name;
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                part_notes(&attribute.pg_type, reach, terms, path, notes);
            }
        }
        TypeKind::Range(bound) | TypeKind::Multirange(bound) => {
            let path = if path.is_empty() { "bounds".to_owned() } else { format!("{path}.bounds") };
            part_notes(bound, reach, terms, path, notes);
        }
        _ => {
            // What the server prints is padded and nothing else.
            let carrier = match reach {
                Reach::Decoded => typed(pg_type, terms),
                Reach::Printed => is_padded(pg_type).then_some(Carrier::Text),
            };
            let note = carrier.and_then(|carrier| annotated(carrier, pg_type, terms).note);
            notes.extend(note.map(|note| (note, path)));
        }
    }
}

/// One note for all parts that share it.
fn grouped(parts: Vec<(String, String)>) -> Vec<String> {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for (note, path) in parts {
        match groups.iter_mut().find(|(said, _)| *said == note) {
            Some((_, paths)) => paths.push(path),
            None => groups.push((note, vec![path])),
        }
    }
    let words = |(note, paths): (String, Vec<String>)| {
        let named = paths.iter().take(NAMED_MAX).map(|path| if path == "[]" { "each element" } else { path });
        let named = named.collect::<Vec<_>>().join(", ");
        match paths.len().checked_sub(NAMED_MAX) {
            None | Some(0) => format!("in {named}: {note}"),
            Some(more) => format!("in {named} and {more} more: {note}"),
        }
    };
    groups.into_iter().map(words).collect()
}

/// The choices in force that a part of the type calls for and that do not reach it.
fn missed(pg_type: &PgType, reach: Reach, terms: &Terms, asks_bytes: bool) -> Option<String> {
    let asks_trim = terms.policies.char_padding == CharPadding::Trim;
    let asks_nan = terms.format == Format::Ndjson && terms.policies.json_nan != JsonNan::String;
    let flags: Vec<&str> = [
        (asks_trim && misses(pg_type, reach, &is_padded), "--char-padding"),
        (asks_nan && misses(pg_type, reach, &is_number), "--json-nan"),
        (asks_bytes && keeps_text(pg_type, reach), "--invalid-utf8 bytes"),
    ]
    .into_iter()
    .filter_map(|(missed, flag)| missed.then_some(flag))
    .collect();
    let verb = if flags.len() == 1 { "does" } else { "do" };
    (!flags.is_empty())
        .then(|| format!("{} {verb} not reach into ranges, hstore and records without a type", flags.join(" and ")))
}

/// Whether uuids stand in a list somewhere, without a struct between.
fn lists_uuids(carrier: &Carrier) -> bool {
    match carrier {
        Carrier::List(element) => **element == Carrier::Uuid || lists_uuids(element),
        Carrier::Struct(members) => members.iter().any(|member| lists_uuids(&member.carrier)),
        _ => false,
    }
}

/// The name of the second of two members of one composite that readers take for one though they differ, as PostgreSQL
/// makes sure they do; `fold` is how readers see names. Ranges have names of their own.
pub(super) fn double_member(pg_type: &PgType, fold: &dyn Fn(&str) -> String) -> Option<String> {
    match &pg_type.kind {
        TypeKind::Array(element) => double_member(element, fold),
        TypeKind::Composite(attributes) => {
            let mut seen = HashMap::new();
            let twice = attributes.iter().find(|attribute| {
                *seen.entry(fold(&attribute.name)).or_insert(attribute.name.as_str()) != attribute.name
            });
            twice
                .map(|attribute| attribute.name.clone())
                .or_else(|| attributes.iter().find_map(|attribute| double_member(&attribute.pg_type, fold)))
        }
        _ => None,
    }
}

/// The carrier with a number behind each member's name that readers take for another's.
pub(super) fn numbered_members(carrier: &Carrier, fold: &dyn Fn(&str) -> String) -> Carrier {
    match carrier {
        Carrier::List(element) => Carrier::List(Arc::new(numbered_members(element, fold))),
        Carrier::Struct(members) => {
            let wanted: HashSet<String> = members.iter().map(|member| fold(&member.name)).collect();
            let mut taken = HashSet::new();
            let renamed = |member: &Member| {
                let mut free = |name: &str| taken.insert(fold(name));
                let name = if free(&member.name) {
                    member.name.clone()
                } else {
                    numbered(&member.name, |next| !wanted.contains(&fold(&next)) && free(&next))
                };
                Member { name, carrier: numbered_members(&member.carrier, fold), nullable: member.nullable }
            };
            Carrier::Struct(members.iter().map(renamed).collect::<Vec<_>>().into())
        }
        scalar => scalar.clone(),
    }
}

/// Whether a value, which bounds pages and partitions as its text, can be read from that text again. By itself a value of
/// `regproc` or its kin is sent as a number.
pub(super) fn is_read_from_text(pg_type: &PgType) -> bool {
    let part = |part: &PgType| !oid::PRINTED_AS_NAMES.contains(&part.base_oid) && is_read_from_text(part);
    match &pg_type.kind {
        TypeKind::Array(part_type) | TypeKind::Range(part_type) | TypeKind::Multirange(part_type) => part(part_type),
        TypeKind::Composite(attributes) => attributes.iter().all(|attribute| part(&attribute.pg_type)),
        // Nothing says what an anonymous row is made of.
        _ => ![oid::RECORD, oid::RECORD_ARRAY].contains(&pg_type.base_oid),
    }
}

#[cfg(test)]
mod tests;
