"""A relay in front of an S3 server that counts the requests by their kind, for that is what they cost by.

    s3_requests.py HOST PORT     prints the counts as JSON at its end
"""

import asyncio
import json
import sys
from collections import Counter
from urllib.parse import parse_qs, urlsplit

import relay

# USD for a request, the usual list price: what writes or lists, and what reads. Deleting and aborting cost nothing.
WRITE, READ = 0.005 / 1000, 0.0004 / 1000
# Kind, title, price; in the order of the report.
KINDS = {
    "put": ("PUT", WRITE),
    "create": ("multipart: create", WRITE),
    "part": ("part", WRITE),
    "complete": ("complete", WRITE),
    "post": ("other POST", WRITE),
    "list": ("LIST", WRITE),
    "get": ("GET", READ),
    "head": ("HEAD", READ),
    "delete": ("DELETE", 0.0),
}


class Counting(relay.Relay):
    """The relay; `stop` gives the counts by kind."""

    def __init__(self, url):
        super().__init__(__file__, url)

    def stop(self):
        return json.loads(super().stop())


def price(counts):
    return sum(KINDS[kind][1] * number for kind, number in counts.items())


def kind(method, target):
    """What a request is to the price list; a target is a path of bucket and key, with a query."""
    place = urlsplit(target)
    query = parse_qs(place.query, keep_blank_values=True)
    match method:
        case "PUT":
            return "part" if "partNumber" in query else "put"
        case "POST" if "uploads" in query:
            return "create"
        case "POST" if "uploadId" in query:
            return "complete"
        case "POST" if "delete" in query:
            return "delete"
        case "GET" if "list-type" in query or "prefix" in query or "/" not in place.path.strip("/"):
            return "list"
        case "GET" | "HEAD" | "DELETE":
            return method.lower()
    return "post"


class Questions:
    """What clients send: HTTP/1.1 requests, one after another on each connection."""

    def __init__(self):
        self.counts = Counter()

    async def carry(self, source, sink):
        # A client that waits for "100 Continue" gets it from the server, as all answers, unchanged; where the server
        # refuses instead, it may send another request only after the body that it has announced.
        while head := await head_of(source):
            sink.write(head)
            await sink.drain()
            first, *lines = head.decode("latin-1").strip().split("\r\n")
            method, target = first.split(" ")[:2]
            self.counts[kind(method, target)] += 1
            fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            if "chunked" in fields.get("transfer-encoding", "").lower():
                await carry_chunks(source, sink)
            else:
                await carry_bytes(source, sink, int(fields.get("content-length", 0)))


async def head_of(source):
    """The lines before a body, empty where the client has ended."""
    try:
        return await source.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return b""


async def carry_bytes(source, sink, left):
    while left:
        data = await source.read(min(left, relay.PIECE))
        if not data:
            raise EOFError
        left -= len(data)
        sink.write(data)
        await sink.drain()


async def carry_chunks(source, sink):
    """Chunks to the one of length zero, then the trailing fields to an empty line."""
    while True:
        line = await source.readuntil(b"\r\n")
        sink.write(line)
        size = int(line.split(b";")[0], 16)
        if size == 0:
            break
        await carry_bytes(source, sink, size + 2)
    while line != b"\r\n":
        line = await source.readuntil(b"\r\n")
        sink.write(line)
    await sink.drain()


def main():
    questions = Questions()
    asyncio.run(relay.serve(sys.argv[1], int(sys.argv[2]), questions.carry, relay.unchanged))
    print(json.dumps(questions.counts))


if __name__ == "__main__":
    main()
