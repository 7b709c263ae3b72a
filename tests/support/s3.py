"""What the tests ask of the S3 server through a client that is not ours.

s3.py wait ENDPOINT KEY SECRET PID BUCKET…    until the server stores objects (or its process is gone); makes the buckets
s3.py uploads PREFIX                          open multipart uploads below PREFIX, as JSON; server from OUTHAUL_TEST_S3_…
"""

import json
import os
import sys
import time

import boto3
from botocore.config import Config


def client(endpoint, key, secret, attempts=3):
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        region_name="us-east-1",
        config=Config(
            s3={"addressing_style": "path"},
            connect_timeout=5,
            read_timeout=30,
            retries={"total_max_attempts": attempts},
            proxies={},
        ),
    )


def from_env():
    return client(
        os.environ["OUTHAUL_TEST_S3_ENDPOINT"],
        os.environ["OUTHAUL_TEST_S3_ACCESS_KEY"],
        os.environ["OUTHAUL_TEST_S3_SECRET_KEY"],
    ), os.environ["OUTHAUL_TEST_S3_BUCKET"]


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait(endpoint, key, secret, pid, buckets):
    s3 = client(endpoint, key, secret, attempts=1)
    deadline = time.monotonic() + 60
    while True:
        try:
            there = [b["Name"] for b in s3.list_buckets()["Buckets"]]
            for bucket in set(buckets) - set(there):
                s3.create_bucket(Bucket=bucket)
            s3.put_object(Bucket=buckets[0], Key="ready", Body=b"yes")
            if s3.get_object(Bucket=buckets[0], Key="ready")["Body"].read() == b"yes":
                s3.delete_object(Bucket=buckets[0], Key="ready")
                return
        except Exception as error:  # noqa: BLE001 - every kind of failure means: not yet
            if time.monotonic() > deadline or not alive(pid):
                sys.exit(f"error: no S3 server at {endpoint}: {error}")
        time.sleep(0.1)


def uploads(prefix):
    s3, bucket = from_env()
    found = []
    for page in s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=prefix):
        found += [{"key": u["Key"], "upload_id": u["UploadId"]} for u in page.get("Uploads", [])]
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["wait", endpoint, key, secret, pid, *buckets] if buckets:
            wait(endpoint, key, secret, int(pid), buckets)
        case ["uploads", prefix]:
            uploads(prefix)
        case _:
            sys.exit(__doc__)
