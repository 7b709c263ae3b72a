"""A relay between a program and a server, in a process of its own, so that what it costs is not the program's.

A script that is one (far.py, s3_requests.py) gives `serve` the coroutines that pass the directions of a connection on;
`Relay` starts it. It ends when its standard input does: also where whoever started it was killed.
"""

import asyncio
import subprocess
import sys
from urllib.parse import urlsplit

# The most that is read at once.
PIECE = 1 << 16


class Relay:
    """A script that serves, in front of the server of a URL; `url` is the same through it."""

    def __init__(self, script, url, *arguments):
        place = urlsplit(url)
        argv = [sys.executable, script, place.hostname, str(place.port), *map(str, arguments)]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = self.process.stdout.readline().strip()
        if not self.port:
            raise OSError(f"{script} did not start")
        user = f"{place.username}@" if place.username else ""
        self.url = f"{place.scheme}://{user}127.0.0.1:{self.port}{place.path}"

    def stop(self):
        """Ends it; what it printed at its end."""
        printed, _ = self.process.communicate()
        return printed


async def serve(host, port, up, down):
    """Listens on a free port and prints it; `up` and `down` pass on what the client sends and what the server does."""

    async def connected(client, answers):
        ends = [answers]
        try:
            server, questions = await asyncio.open_connection(host, port)
            ends.append(questions)
            async with asyncio.TaskGroup() as both:
                both.create_task(half(up, client, questions))
                both.create_task(half(down, server, answers))
        except* (OSError, EOFError):
            # One side has gone, and with it the connection.
            pass
        finally:
            for end in ends:
                end.close()

    listener = await asyncio.start_server(connected, "127.0.0.1", 0)
    print(listener.sockets[0].getsockname()[1], flush=True)
    ending = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(ending), sys.stdin)
    await ending.read()
    listener.close()
    # Connections that are still open end with the process, unheard.
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)


async def half(passing, source, sink):
    """One direction to its end, which the other side learns of."""
    await passing(source, sink)
    sink.write_eof()


async def unchanged(source, sink):
    """Every byte as it comes."""
    while data := await source.read(PIECE):
        sink.write(data)
        await sink.drain()
