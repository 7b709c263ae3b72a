//! Random schemas: tables, partitions of other forms, children, views, foreign tables.

use std::fmt::Write as _;

/// A deterministic source of choices.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(crate) fn one_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[usize::try_from(self.below(u64::try_from(from.len()).unwrap())).unwrap()]
    }

    fn shuffled(&mut self, mut list: Vec<&'static str>) -> Vec<&'static str> {
        for at in (1..list.len()).rev() {
            list.swap(at, usize::try_from(self.below(u64::try_from(at).unwrap() + 1)).unwrap());
        }
        list
    }
}

/// How the values of a column are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value {
    /// They are what the single statement gives.
    Same,
    /// All rows have one value, as in any single statement.
    One,
    /// No two rows have the same value, as in any single statement.
    Distinct,
    /// They cannot be judged.
    Any,
}

/// Which rows an export must have.
#[derive(Debug, Clone)]
pub(crate) enum Rows {
    /// Those of the single statement.
    Exact,
    /// Some of the rows of `of`, as many as `count` says, where it says.
    Some { of: String, count: Option<String> },
}

#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub name: &'static str,
    pub value: Value,
}

/// What can be exported.
#[derive(Debug, Clone)]
pub(crate) struct Relation {
    /// Its name in SQL.
    pub name: String,
    pub columns: Vec<Column>,
    /// Whether it is a table with system columns.
    pub system: bool,
    /// Whether `id` is its primary key.
    pub unique: bool,
    pub foreign: bool,
    pub rows: Rows,
    /// Calls of functions over its rows.
    pub functions: Vec<String>,
}

impl Relation {
    fn table(name: &str) -> Self {
        let columns = COLUMNS.iter().map(|(name, _)| Column { name, value: Value::Same }).collect();
        let (system, unique, foreign, rows) = (true, false, false, Rows::Exact);
        Self { name: name.to_owned(), columns, system, unique, foreign, rows, functions: Vec::new() }
    }

    pub(crate) fn has(&self, column: &str) -> bool {
        self.columns.iter().any(|it| it.name == column)
    }

    /// Whether whole rows can be compared.
    pub(crate) fn rows_are_same(&self) -> bool {
        self.columns.iter().all(|column| column.value == Value::Same)
    }

    /// Whether `select *` of it gives the same in every statement.
    pub(crate) fn plain_rows(&self) -> bool {
        self.rows_are_same() && matches!(self.rows, Rows::Exact)
    }

    /// A `--key`.
    pub(crate) fn key(&self, dice: &mut Dice) -> Option<String> {
        let columns: Vec<&str> = self
            .columns
            .iter()
            .filter(|column| column.value == Value::Same && column.name != "j")
            .map(|c| c.name)
            .collect();
        if columns.is_empty() {
            return None;
        }
        let first = if self.has("id") && dice.one_in(2) { "id" } else { *dice.pick(&columns) };
        let direction = if dice.one_in(3) { " desc" } else { "" };
        let second = *dice.pick(&columns);
        let more = if dice.one_in(4) && second != first { format!(", {second}{direction}") } else { String::new() };
        Some(format!("{first}{direction}{more}"))
    }
}

/// The columns of all tables; every order of them occurs.
const COLUMNS: [(&str, &str); 6] =
    [("id", "id int"), ("k", "k int"), ("a", "a int"), ("b", "b int"), ("v", "v text"), ("at", "at timestamptz")];

/// A schema, and what is in it.
pub(crate) struct World {
    /// Tables.
    pub tables: String,
    /// A table, the columns of the foreign tables that show it, and their names.
    pub foreign: Vec<(&'static str, String, Vec<&'static str>)>,
    /// What stands on tables and foreign tables.
    pub rest: String,
    pub relations: Vec<Relation>,
}

impl World {
    /// A new one.
    pub(crate) fn new(dice: &mut Dice) -> Self {
        let mut world = Self { tables: String::new(), foreign: Vec::new(), rest: String::new(), relations: Vec::new() };
        let rows = *dice.pick(&[0, 1, 12, 60, 150, 300, 400]);
        world.plain(dice, rows);
        world.partitioned(dice);
        world.inherited(dice);
        world.foreign(dice, rows);
        world.views(dice);
        if !dice.one_in(3) {
            world.rest.push_str("analyze;\n");
        }
        world
    }

    fn plain(&mut self, dice: &mut Dice, rows: u64) {
        let width = 1 + dice.below(12);
        let columns = columns(dice, false);
        writeln!(
            self.tables,
            "create table plain ({columns}, primary key (id));
            insert into plain (id, k, a, b, v, at) select i, i % 5, case when i % 11 > 0 then i * 7919 % 101 end, i % 13,
                chr(97 + i % 26) || ',\"' || repeat(md5(i::text), {width}),
                case when i % 17 = 0 then timestamptz '2100-01-01' else timestamptz '2020-01-01' end + i * interval '1 hour'
                from generate_series(1, {rows}) i;"
        )
        .unwrap();
        self.relations.push(Relation { unique: true, ..Relation::table("plain") });
    }

    fn partitioned(&mut self, dice: &mut Dice) {
        let name = *dice.pick(&["part", "\"Pa \"\"rt\"", "v"]);
        let by_list = dice.one_in(2);
        let unique = !by_list && dice.one_in(2);
        let (columns, by) = (columns(dice, false), if by_list { "list (k)" } else { "range (id)" });
        let key = if unique { ", primary key (id)" } else { "" };
        writeln!(self.tables, "create table {name} ({columns}{key}) partition by {by};").unwrap();
        let bounds: &[&str] = match (by_list, dice.below(3)) {
            (_, 0) => &["default"],
            (true, _) => &["for values in (0, 1)", "for values in (2)", "default"],
            (false, _) => &["for values from (minvalue) to (40)", "for values from (40) to (120)", "default"],
        };
        for (number, bound) in bounds.iter().enumerate() {
            self.leaf(dice, name, &format!("leaf_{number}"), bound);
        }
        writeln!(self.tables, "insert into {name} (id, k, a, b, v, at) select id, k, a, b, v, at from plain;").unwrap();
        let mut relation = Relation { unique, ..Relation::table(name) };
        if dice.one_in(2) {
            writeln!(
                self.tables,
                "create function pay({name}) returns text language sql immutable as $$select $1.a || '-' || $1.b$$;"
            )
            .unwrap();
            relation.functions = vec!["pay({R})".to_owned(), "{R}.pay".to_owned()];
        }
        self.relations.push(relation);
    }

    /// A partition that has its columns in another order, or is partitioned itself.
    fn leaf(&mut self, dice: &mut Dice, parent: &str, name: &str, bound: &str) {
        let columns = columns(dice, true);
        let nested = dice.one_in(4);
        let by = if nested { " partition by range (id)" } else { "" };
        writeln!(self.tables, "create table {name} ({columns}){by};").unwrap();
        if columns.contains("gone") {
            writeln!(self.tables, "alter table {name} drop column gone;").unwrap();
        }
        writeln!(self.tables, "alter table {name} alter id set not null;").unwrap();
        let attach = format!("alter table {parent} attach partition {name} {bound};");
        writeln!(self.tables, "{attach}").unwrap();
        if dice.one_in(4) {
            writeln!(self.tables, "alter table {parent} detach partition {name}; {attach}").unwrap();
        }
        if nested {
            self.leaf(dice, name, &format!("{name}_low"), "for values from (minvalue) to (100)");
            self.leaf(dice, name, &format!("{name}_high"), "default");
        }
    }

    fn inherited(&mut self, dice: &mut Dice) {
        let columns = columns(dice, false);
        let more =
            *dice.pick(&["extra int default 7", "base text default 'x', extra int", "p int, \"plain\" int default 3"]);
        writeln!(
            self.tables,
            "create table base ({columns}); create table child ({more}) inherits (base);
            create table grandchild (deep text default 'y') inherits (child);
            create table sister () inherits (base);
            create function extra(base) returns int language sql immutable as 'select -$1.id';
            create function rank(base) returns text language sql immutable as $$select 'base'$$;
            create function rank(child) returns text language sql immutable as $$select 'child'$$;"
        )
        .unwrap();
        for (number, table) in ["base", "child", "grandchild", "sister"].into_iter().enumerate() {
            writeln!(
                self.tables,
                "insert into {table} (id, k, a, b, v, at) select id, k, a, b, v, at from plain where id % 4 = {number};"
            )
            .unwrap();
        }
        let functions = ["{R}.extra", "extra({R})", "rank({R})", "{R}.rank", "(select max(plain::text) from plain)"];
        let functions = functions.map(str::to_owned).to_vec();
        self.relations.push(Relation { functions, ..Relation::table("base") });
    }

    fn foreign(&mut self, dice: &mut Dice, rows: u64) {
        let half = rows / 2;
        writeln!(
            self.tables,
            "create table away as select id, k, a, b, v, at from plain;
            create table away_low as select id, k, a, b, v, at from plain where id <= {half};"
        )
        .unwrap();
        self.foreign.push(("away", format!("({})", columns(dice, false)), vec!["far"]));
        self.foreign.push(("away_low", format!("({})", columns(dice, false)), vec!["far_low"]));
        let (parent, near) = (columns(dice, false), columns(dice, false));
        let after = half + 1;
        writeln!(
            self.rest,
            "create table mixed ({parent}) partition by range (id); create table near ({near});
            alter table mixed attach partition near for values from ({after}) to (maxvalue);
            insert into mixed (id, k, a, b, v, at) select id, k, a, b, v, at from plain where id > {half};
            alter table mixed attach partition far_low for values from (minvalue) to ({after});
            create materialized view seen as select * from far;"
        )
        .unwrap();
        let foreign = |name| Relation { foreign: true, system: false, ..Relation::table(name) };
        self.relations.extend([foreign("far"), foreign("mixed")]);
        self.relations.push(Relation { system: false, ..Relation::table("seen") });
    }

    fn views(&mut self, dice: &mut Dice) {
        for name in ["view_1", "view_2", "view_3", "view_4"] {
            let from = dice.pick(&self.relations).clone();
            let template = template(dice, &from, false);
            let options = if dice.one_in(4) { " with (security_barrier)" } else { "" };
            writeln!(self.rest, "create view {name}{options} as {};", template.sql).unwrap();
            self.relations.push(template.relation(name));
        }
    }
}

/// All columns in a random order, as `CREATE TABLE` wants them; `dropped` may add one that is to be dropped.
fn columns(dice: &mut Dice, dropped: bool) -> String {
    let mut list: Vec<&str> = COLUMNS.iter().map(|(_, declared)| *declared).collect();
    if dropped && dice.one_in(2) {
        list.push("gone int");
    }
    dice.shuffled(list).join(", ")
}

/// A query over a relation.
pub(crate) struct Template {
    pub sql: String,
    columns: Vec<Column>,
    rows: Rows,
    foreign: bool,
}

impl Template {
    /// As what it can be exported under this name.
    pub(crate) fn relation(&self, name: &str) -> Relation {
        Relation {
            name: name.to_owned(),
            columns: self.columns.clone(),
            system: false,
            unique: false,
            foreign: self.foreign,
            rows: self.rows.clone(),
            functions: Vec::new(),
        }
    }
}

/// Columns that are the same in every statement.
fn same(names: &[&'static str]) -> Vec<Column> {
    names.iter().map(|name| Column { name, value: Value::Same }).collect()
}

/// The same, and one that need not be.
fn with(names: &[&'static str], last: &'static str, value: Value) -> Vec<Column> {
    let mut columns = same(names);
    columns.push(Column { name: last, value });
    columns
}

/// A query over a relation; `text` where a person writes it, rather than that a view has it.
pub(crate) fn template(dice: &mut Dice, from: &Relation, text: bool) -> Template {
    // What is not the same in every statement is passed on as it is.
    let (sql, columns, rows) = if !from.plain_rows() || !["id", "k", "v"].iter().all(|column| from.has(column)) {
        let end = *dice.pick(&["", " offset 0"]);
        (format!("select * from {}{end}", from.name), from.columns.clone(), from.rows.clone())
    } else if dice.one_in(2) {
        let (sql, columns) = calm(dice, from);
        (sql, columns, Rows::Exact)
    } else if dice.one_in(3) {
        drawn(dice, from)
    } else {
        let (sql, columns) = moving(dice, &from.name, text);
        (sql, columns, Rows::Exact)
    };
    Template { sql, columns, rows, foreign: from.foreign }
}

/// What every statement answers alike.
fn calm(dice: &mut Dice, from: &Relation) -> (String, Vec<Column>) {
    let (name, limit) = (&from.name, 1 + dice.below(40));
    match dice.below(9) {
        0 => (format!("select * from {name} where id % 2 = 0"), from.columns.clone()),
        1 => (format!("select k, count(*) as n, max(v) as m from {name} group by k"), same(&["k", "n", "m"])),
        2 => (format!("select distinct on (k) k, id, v from {name} order by k, id"), same(&["k", "id", "v"])),
        3 => (format!("select id, v from {name} order by id limit {limit}"), same(&["id", "v"])),
        4 => {
            let filter = "timestamptz '2020-01-01' + id * interval '1 day' < now()";
            (format!("select id, k from {name} where {filter}"), same(&["id", "k"]))
        }
        5 => (format!("select id, v from {name} union all select id + 100000, v from {name}"), same(&["id", "v"])),
        6 => (format!("select id, to_jsonb({name}) as j from {name}"), same(&["id", "j"])),
        7 => {
            let with = format!("with w as (select id, v from {name} where id % 3 = 0)");
            (format!("{with} select * from w"), same(&["id", "v"]))
        }
        _ => {
            let rank = "rank() over (partition by k order by id)";
            (format!("select id, k, {rank} as n from {name}"), same(&["id", "k", "n"]))
        }
    }
}

/// Some of the rows, which each statement draws anew.
fn drawn(dice: &mut Dice, from: &Relation) -> (String, Vec<Column>, Rows) {
    let (name, limit) = (&from.name, 1 + dice.below(40));
    let of = format!("select id, v from {name}");
    if name == "plain" && dice.one_in(3) {
        return (format!("{of} tablesample bernoulli (50)"), same(&["id", "v"]), Rows::Some { of, count: None });
    }
    let count = Some(format!("select least({limit}, count(*)) from {name}"));
    (format!("{of} order by random() limit {limit}"), same(&["id", "v"]), Rows::Some { of, count })
}

/// A column that each statement has other values in.
fn moving(dice: &mut Dice, name: &str, text: bool) -> (String, Vec<Column>) {
    let columns = [
        ("now() as w", "w", Value::One),
        ("row_number() over () as n", "n", Value::Distinct),
        ("random() as r", "r", Value::Any),
        ("pg_backend_pid() as pid", "pid", Value::One),
        ("current_date as d", "d", Value::One),
        ("(select random()) as r", "r", Value::One),
        // A view would keep the moment at which it was made.
        ("timestamptz 'now' as w", "w", Value::One),
        ("now()", "now", Value::One),
    ];
    let (column, label, value) = *dice.pick(if text { &columns[..] } else { &columns[..6] });
    (format!("select id, v, {column} from {name}"), with(&["id", "v"], label, value))
}
