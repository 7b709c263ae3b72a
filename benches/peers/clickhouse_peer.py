"""clickhouse-connect and pyarrow as people join them: a stream of Arrow batches, written as Parquet.

    python clickhouse_peer.py HOST PORT USER PASSWORD SQL FILE
"""

import sys

import clickhouse_connect
import pyarrow.parquet
import urllib3


class Tabs(urllib3.PoolManager):
    """Asks for tabs where a statement says no format: servers out of a wheel answer in CSV otherwise. The header wins over
    a FORMAT."""

    def urlopen(self, method, url, redirect=True, **more):
        if b"FORMAT" not in bytes(more.get("body") or b""):
            more["headers"] = {**(more.get("headers") or {}), "X-ClickHouse-Format": "TabSeparated"}
        return super().urlopen(method, url, redirect, **more)


host, port, user, password, sql, file = sys.argv[1:]
client = clickhouse_connect.get_client(host=host, port=int(port), username=user, password=password, pool_mgr=Tabs())
writer = None
with client.query_arrow_stream(sql) as batches:
    for batch in batches:
        table = pyarrow.table(batch) if not isinstance(batch, pyarrow.Table) else batch
        writer = writer or pyarrow.parquet.ParquetWriter(file, table.schema, compression="zstd")
        writer.write_table(table)
if writer:
    writer.close()
