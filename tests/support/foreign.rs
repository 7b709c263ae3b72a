//! Foreign tables: of another database of the same server on 15, of a file on 18, whose build of `postgres_fdw` needs a
//! newer libpq than the system's.

use super::pg::Pg;

/// The statements that make foreign tables of these columns which show the rows of a table of the same database: as they
/// are when they are read on 15, as they are now on 18.
pub(crate) async fn tables(pg: &Pg, table: &str, columns: &str, names: &[&str]) -> String {
    let database = pg.value("select current_database()").await;
    let (server, options) = if pg.version == 15 {
        let (schema, name) = table.split_once('.').unwrap_or(("public", table));
        (postgres(pg, &database).await, format!("schema_name '{schema}', table_name '{name}'"))
    } else {
        let folder = pg.value("select current_setting('data_directory')").await;
        let file = format!("{folder}/{database}.{table}.csv");
        let list: Vec<&str> = columns
            .trim_matches(['(', ')'])
            .split(',')
            .map(|column| column.split_whitespace().next().unwrap())
            .collect();
        let server = format!(
            "copy (select {} from {table}) to '{file}' (format csv);
            create extension if not exists file_fdw;
            create server if not exists far foreign data wrapper file_fdw;",
            list.join(", ")
        );
        (server, format!("filename '{file}', format 'csv'"))
    };
    let made =
        names.iter().map(|name| format!("create foreign table {name} {columns} server far options ({options});"));
    server + &made.collect::<String>()
}

/// The statements that make the server `far`: a database of the same server, on 15.
pub(crate) async fn postgres(pg: &Pg, database: &str) -> String {
    let port = pg.value("select current_setting('port')").await;
    format!(
        "create extension if not exists postgres_fdw;
        create server if not exists far foreign data wrapper postgres_fdw
            options (host '127.0.0.1', port '{port}', dbname '{database}');
        create user mapping if not exists for postgres server far options (user 'postgres', password_required 'false');"
    )
}
