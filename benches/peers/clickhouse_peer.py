"""clickhouse-connect and pyarrow as people join them: a stream of Arrow batches, written as Parquet.

    python clickhouse_peer.py HOST PORT USER PASSWORD SQL FILE
"""

import sys

import clickhouse_connect
import pyarrow.parquet

host, port, user, password, sql, file = sys.argv[1:]
client = clickhouse_connect.get_client(host=host, port=int(port), username=user, password=password)
writer = None
with client.query_arrow_stream(sql) as batches:
    for batch in batches:
        table = pyarrow.table(batch) if not isinstance(batch, pyarrow.Table) else batch
        writer = writer or pyarrow.parquet.ParquetWriter(file, table.schema, compression="zstd")
        writer.write_table(table)
if writer:
    writer.close()
