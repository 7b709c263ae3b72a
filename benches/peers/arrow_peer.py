"""The peers that hand Arrow to Python, with pyarrow as the writer: one Parquet file, zstd level 1.

arrow_peer.py connectorx|adbc URL TABLE FILE
arrow_peer.py copy ENDPOINT BUCKET/PREFIX DIR     copies objects to a folder, then deletes them; keys from AWS_…
"""

import os
import sys

import pyarrow.parquet as pq

WRITE = {"compression": "zstd", "compression_level": 1}


def connectorx(url, table, file):
    import connectorx as cx

    # One query cannot be streamed: the whole table is in memory before the first byte is written.
    rows = cx.read_sql(url, f"select * from {table}", partition_on="id", partition_num=2, return_type="arrow")
    pq.write_table(rows, file, **WRITE)


def adbc(url, table, file):
    from adbc_driver_postgresql import dbapi

    with dbapi.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(f"select * from {table}")
        batches = cursor.fetch_record_batch()
        with pq.ParquetWriter(file, batches.schema, **WRITE) as writer:
            for batch in batches:
                writer.write_batch(batch)


def copy(endpoint, prefix, folder):
    from pyarrow import fs

    store = fs.S3FileSystem(
        access_key=os.environ["AWS_ACCESS_KEY_ID"],
        secret_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        region=os.environ["AWS_REGION"],
        scheme="http",
        endpoint_override=endpoint.removeprefix("http://"),
    )
    fs.copy_files(prefix, folder, source_filesystem=store)
    store.delete_dir(prefix)


if __name__ == "__main__":
    {"connectorx": connectorx, "adbc": adbc, "copy": copy}[sys.argv[1]](*sys.argv[2:])
