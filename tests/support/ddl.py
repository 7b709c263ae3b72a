"""Runs the statements that Outhaul writes for DuckDB or ClickHouse, and prints the rows that their view `v` shows.

usage: ddl.py duckdb|clickhouse SQL_FILE [BYTES_COLUMN...]

The rows come in the order of the column `id`, as JSON, every value as text in one form for both engines: t and f; floats as
the hexadecimal digits of their bytes; decimals without zeros at their end; bytes as \\x…; times without zeros at their end
and in UTC.
"""

import decimal
import json
import re
import struct
import sys


def decimals(text):
    value = decimal.Decimal(text)
    return format(value.quantize(1) if value == value.to_integral() else value.normalize(), "f")


def moment(text):
    text = re.sub(r"\+00$", "", text)
    text = re.sub(r"(\.\d*?)0+$", r"\1", text).removesuffix(".")
    return re.sub(r"^(\S+) \(BC\)(.*)$", r"\1\2 BC", text)


def canonical(kind, value):
    if value is None:
        return None
    if kind in ("BOOLEAN", "Bool"):
        return "t" if value in (True, "true") else "f"
    if kind in ("FLOAT", "Float32"):
        return struct.pack(">f", float(value)).hex()
    if kind in ("DOUBLE", "Float64"):
        return struct.pack(">d", float(value)).hex()
    if kind.upper().startswith("DECIMAL"):
        return decimals(value)
    if kind.startswith(("TIME", "DATE", "Date", "Time")):
        return moment(value)
    if kind == "bytes":
        return "\\x" + value.lower()
    return value


def duckdb(sql):
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(sql)
    # Of a view over text, a cast to text would show the file's own text and not the value.
    connection.execute("CREATE TABLE kept AS SELECT * FROM v ORDER BY id")
    kinds = [(name, kind) for name, kind, *_ in connection.execute("DESCRIBE kept").fetchall()]
    kinds = [(name, "bytes" if kind == "BLOB" else kind) for name, kind in kinds]

    def shown(name, kind):
        name = '"' + name.replace('"', '""') + '"'
        return f"hex({name})" if kind == "bytes" else name if kind in ("FLOAT", "DOUBLE") else f"CAST({name} AS VARCHAR)"

    items = ", ".join(shown(*item) for item in kinds)
    return kinds, connection.execute(f"SELECT {items} FROM kept ORDER BY id").fetchall()


def clickhouse(sql, bytes_columns):
    from chdb import session

    engine = session.Session()
    for statement in re.split(r";\n", sql):
        if statement.strip():
            engine.query(statement)

    def ask(query):
        answer = str(engine.query(query, "JSONCompactEachRow"))
        return [json.loads(line) for line in answer.split("\n") if line]

    kinds = [(row[0], re.sub(r"^Nullable\((.*)\)$", r"\1", row[1])) for row in ask("DESCRIBE TABLE v")]
    kinds = [(name, "bytes" if name in bytes_columns else kind) for name, kind in kinds]

    def shown(name, kind):
        name = "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"
        return f"hex({name})" if kind == "bytes" else f"toString({name})"

    items = ", ".join(shown(*item) for item in kinds)
    return kinds, ask(f"SELECT {items} FROM v ORDER BY v.id")


def main():
    engine, file, *bytes_columns = sys.argv[1:]
    with open(file, encoding="utf-8") as opened:
        sql = opened.read()
    kinds, rows = duckdb(sql) if engine == "duckdb" else clickhouse(sql, bytes_columns)
    kind_of = [kind for _, kind in kinds]
    rows = [[canonical(kind, value) for kind, value in zip(kind_of, row)] for row in rows]
    print(json.dumps({"columns": [name for name, _ in kinds], "types": kind_of, "rows": rows}))


main()
