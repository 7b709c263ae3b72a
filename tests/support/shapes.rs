//! Random schemas and random exports of them, each with the one statement that a person would have typed instead.
//!
//! Everything follows from a seed.

use super::schemas::{Dice, Relation, Rows, Value, World, template};

/// One export, and what it must give.
pub(crate) struct Shape {
    /// The arguments of `outhaul export`, without source, destination and format.
    pub args: Vec<String>,
    /// The single statement; in the order that a cap is meant in, where it is meant in one.
    pub select: String,
    /// Which of the statement's rows the export must have.
    pub rows: Rows,
    /// How the values of each column are judged.
    pub values: Vec<Value>,
    /// The cap, and whether it is meant in the order of `select`.
    pub cap: Option<(u64, bool)>,
    /// `consistency.mode` of the manifest.
    pub mode: &'static str,
    /// Why the request may be refused (exit 2), if there is a reason.
    pub may_be_refused: Option<&'static str>,
}

/// An expression or a predicate: its text, where `{R}` stands for the relation.
type Text = (&'static str, Value);

/// Over the whole row; its columns must be the same in every statement.
const WHOLE_ROWS: [Text; 15] = [
    ("{R}", Value::Same),
    ("{R}::text", Value::Same),
    ("md5({R}::text)", Value::Same),
    ("row_to_json({R})", Value::Same),
    ("to_jsonb({R}.*)", Value::Same),
    ("{R} is null", Value::Same),
    ("{R} is not distinct from {R}", Value::Same),
    ("({R}).id", Value::Same),
    ("array[{R}]", Value::Same),
    ("(select {R}::text)", Value::Same),
    ("(select max(x.value) from jsonb_each_text(to_jsonb({R})) as x where x.key <> 'v')", Value::Same),
    ("case when {R}.id > 3 then {R} end", Value::Same),
    ("coalesce({R}::text, '-')", Value::Same),
    ("{R} = {R}", Value::Same),
    ("length({R}::text) * 2", Value::Same),
];

/// Over a column `id`.
const PLAIN: [Text; 8] = [
    ("{R}.id * 2", Value::Same),
    ("id + 1", Value::Same),
    ("id * 2 - id", Value::Same),
    ("'{R}.* ' || id", Value::Same),
    ("id::text || ' * ' || id /* {R} */", Value::Same),
    ("(select count(*) from plain p where p.id <= {R}.id)", Value::Same),
    ("(select max(p.v) from plain p where p.id < {R}.id)", Value::Same),
    ("exists (select * from plain p where p.id = {R}.id + 1)", Value::Same),
];

/// With values that no two sessions, or no two statements, need have in common.
const MOVING: [Text; 22] = [
    ("now()", Value::One),
    ("NOW ( )", Value::One),
    ("pg_catalog.now()", Value::One),
    ("current_timestamp", Value::One),
    ("current_timestamp(2)", Value::One),
    ("CURRENT_DATE", Value::One),
    ("current_time", Value::One),
    ("localtimestamp", Value::One),
    ("localtime(0)", Value::One),
    ("statement_timestamp()", Value::One),
    ("transaction_timestamp() - interval '1 hour'", Value::One),
    ("'now'::timestamptz", Value::One),
    ("timestamp 'now'", Value::One),
    ("date 'today'", Value::One),
    ("(select now())", Value::One),
    ("(select random())", Value::One),
    ("(select clock_timestamp())", Value::One),
    ("pg_backend_pid()", Value::One),
    ("random()", Value::Any),
    ("clock_timestamp()", Value::Any),
    ("(random() * 5)::int", Value::Any),
    ("gen_random_uuid()", Value::Distinct),
];

/// Of tables alone.
const SYSTEM: [Text; 4] = [
    ("tableoid::regclass", Value::Same),
    ("{R}.ctid", Value::Same),
    ("xmin", Value::Same),
    ("{R}.tableoid = tableoid", Value::Same),
];

/// Predicates that hold for the same rows in every statement; the first ones for all rows.
const PREDICATES: [&str; 11] = [
    "{R}.id is not null",
    "id::text <> '{R}.*'",
    "now() > timestamptz '2001-01-01' -- always",
    "clock_timestamp() > timestamptz '2001-01-01'",
    "random() < 2",
    "id % 3 <> 0",
    "{R}.id > 5 and id between 3 and 250",
    "exists (select from plain p where p.id = {R}.id + 1)",
    "id in (select p.id from plain p where p.k = 1)",
    "id * 2 > 7 or {R}.id = 1",
    "date 'today' > date '2001-01-01' and id > 2",
];
const ALWAYS_TRUE: u64 = 5;

/// The same over whole rows.
const ROW_PREDICATES: [&str; 4] = [
    "{R}::text like '%1%'",
    "to_jsonb({R}) ? 'extra' or id % 2 = 0",
    "not to_jsonb({R}) ? 'extra' and {R} is distinct from null",
    "md5({R}::text) < '9'",
];

/// Predicates by which each statement may have other rows.
const MOVING_PREDICATES: [&str; 3] = [
    "random() < 0.5",
    "id in (select p.id from plain p order by random() limit 5)",
    "id < (select (random() * 100)::int)",
];

impl Shape {
    /// The next shape over a world.
    pub(crate) fn next(dice: &mut Dice, world: &World) -> Self {
        // Tables of several kinds of leaves come first in a schema.
        let tables = if dice.one_in(2) { &world.relations[..3] } else { &world.relations[..] };
        let from = dice.pick(tables).clone();
        if dice.one_in(4) {
            // A query of its own over a relation.
            let template = template(dice, &from, true);
            let query = template.relation("query");
            let args = vec!["--query".to_owned(), template.sql.clone()];
            return Self::over(dice, &query, &format!("({})", template.sql), args, false);
        }
        let args = vec!["--table".to_owned(), from.name.clone()];
        let name = from.name.clone();
        Self::over(dice, &from, &name, args, true)
    }

    fn over(dice: &mut Dice, relation: &Relation, from: &str, mut args: Vec<String>, table: bool) -> Self {
        let mut shape = Self {
            args: Vec::new(),
            select: String::new(),
            rows: relation.rows.clone(),
            values: relation.columns.iter().map(|column| column.value).collect(),
            cap: None,
            mode: if relation.foreign { "foreign" } else { "single_snapshot" },
            may_be_refused: None,
        };
        let named = |text: &str| text.replace("{R}", &relation.name);
        let mut list = vec!["*".to_owned()];
        for number in 0..dice.below(3) {
            let Some((text, value)) = expression(dice, relation, table) else { continue };
            args.extend(["--column".to_owned(), format!("x{number}={}", named(&text))]);
            list.push(format!("({}\n) as x{number}", named(&text)));
            shape.values.push(value);
        }
        let mut filter = String::new();
        if let Some(text) = shape.predicate(dice, relation) {
            args.extend(["--where".to_owned(), named(&text)]);
            filter = format!(" where ({}\n)", named(&text));
        }
        shape.select = format!("select {} from {from} as {}{filter}", list.join(", "), relation.name);
        if let Rows::Some { of, .. } = &mut shape.rows {
            let source = if of.is_empty() { from.to_owned() } else { format!("({of})") };
            *of = format!("select {} from {source} as {}", list.join(", "), relation.name);
        }
        shape.args = args;
        shape.split(dice, relation);
        shape
    }

    fn predicate(&mut self, dice: &mut Dice, relation: &Relation) -> Option<String> {
        if dice.one_in(2) || !relation.has("id") {
            return None;
        }
        if let Rows::Some { .. } = self.rows {
            // Others would leave an unknown number of rows.
            return Some(PREDICATES[usize::try_from(dice.below(ALWAYS_TRUE)).unwrap()].to_owned());
        }
        if relation.plain_rows() && dice.one_in(6) {
            let text = dice.pick(&MOVING_PREDICATES);
            let limit = text.contains("limit 5") && relation.name == "plain";
            self.rows = Rows::Some {
                of: String::new(),
                count: limit.then(|| "select least(5, count(*)) from plain".to_owned()),
            };
            return Some((*text).to_owned());
        }
        if relation.rows_are_same() && dice.one_in(3) {
            return Some((*dice.pick(&ROW_PREDICATES)).to_owned());
        }
        Some((*dice.pick(&PREDICATES)).to_owned())
    }

    /// How the work is split.
    fn split(&mut self, dice: &mut Dice, relation: &Relation) {
        let mut add = |name: &str, value: String| self.args.extend([name.to_owned(), value]);
        let key = dice.one_in(2).then(|| relation.key(dice)).flatten();
        if dice.one_in(2) || key.is_some() {
            add("--partitions", (2 + dice.below(5)).to_string());
        }
        if dice.one_in(3) {
            add("--readers", (1 + dice.below(3)).to_string());
        }
        if let Some(key) = &key {
            add("--key", key.clone());
        }
        match dice.below(8) {
            0 | 1 => {
                let most = *dice.pick(&[20, 300]);
                let rows = 1 + dice.below(most);
                add("--max-rows", rows.to_string());
                let in_order = relation.unique && matches!(self.rows, Rows::Exact);
                if in_order {
                    let order = key.map_or("id".to_owned(), |key| with_tie_break(&key));
                    self.select = format!("{} order by {order}", self.select);
                }
                self.cap = Some((rows, in_order));
            }
            2 if relation.unique || dice.one_in(4) => {
                add("--read-mode", "keyset".to_owned());
                add("--page-size", (1 + dice.below(90)).to_string());
                self.mode = "keyset";
                let why = "pages need a unique key, and are statements of their own";
                let calm = matches!(self.rows, Rows::Exact) && self.values.iter().all(|value| *value == Value::Same);
                if !calm || !relation.unique || self.args.iter().any(|arg| arg.contains('(') || arg.contains("'today'"))
                {
                    self.may_be_refused = Some(why);
                }
            }
            _ => {}
        }
    }
}

/// An expression that makes sense over the relation.
fn expression(dice: &mut Dice, relation: &Relation, table: bool) -> Option<(String, Value)> {
    let has_id = relation.has("id");
    let (text, value) = match dice.below(10) {
        0..=3 if has_id && relation.rows_are_same() => *dice.pick(if table { &WHOLE_ROWS } else { &WHOLE_ROWS[1..8] }),
        4 | 5 if has_id => *dice.pick(&PLAIN),
        6 if relation.system => *dice.pick(&SYSTEM),
        7 if !relation.functions.is_empty() => return Some((dice.pick(&relation.functions).clone(), Value::Same)),
        8 | 9 => *dice.pick(&MOVING),
        _ => return None,
    };
    Some((text.to_owned(), value))
}

/// `--key` as `ORDER BY`, followed by the primary key.
fn with_tie_break(key: &str) -> String {
    let descending = key.ends_with("desc");
    let mut terms: Vec<String> = key.split(", ").map(|term| format!("{term} nulls last")).collect();
    if !key.split([' ', ',']).any(|word| word == "id") {
        terms.push(if descending { "id desc" } else { "id" }.to_owned());
    }
    terms.join(", ")
}
