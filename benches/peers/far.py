"""A relay as a long way: bytes arrive some time after they were sent, and no more of them a second than the line takes.

    far.py HOST PORT DELAY_S BYTES_PER_S     0 for a line without a limit

All connections share the line, each direction for itself. What the relay has not is the slow start of TCP: a connection
has the whole line from its first byte, so a real way is rather worse than this one.
"""

import asyncio
import sys

import relay

# What may wait at the head of the line, in seconds of it: beyond that the sender has to wait, as at a router.
QUEUE_S = 0.01
# What may be under way in a direction of a connection: with whole pieces 16 MiB, more than any line here holds.
PIECES = 256


class Far(relay.Relay):
    """The relay, with half of a round trip in each direction."""

    def __init__(self, url, round_trip_s, bytes_per_s=0):
        super().__init__(__file__, url, round_trip_s / 2, bytes_per_s)


class Line:
    """One direction: when the line is free again."""

    def __init__(self, delay, bytes_per_s):
        self.delay = delay
        self.second_per_byte = 1 / bytes_per_s if bytes_per_s else 0.0
        self.free = 0.0

    async def carry(self, source, sink):
        under_way = asyncio.Queue(PIECES)
        async with asyncio.TaskGroup() as both:
            both.create_task(self.send(source, under_way))
            both.create_task(deliver(under_way, sink))

    async def send(self, source, under_way):
        while data := await source.read(relay.PIECE):
            await under_way.put((await self.arrival(len(data)), data))
        await under_way.put(None)

    async def arrival(self, size):
        """Takes the line for so many bytes; when the last of them arrives."""
        clock = asyncio.get_running_loop().time
        while (ahead := self.free - clock() - QUEUE_S) > 0:
            await asyncio.sleep(ahead)
        self.free = max(self.free, clock()) + size * self.second_per_byte
        return self.free + self.delay


async def deliver(under_way, sink):
    clock = asyncio.get_running_loop().time
    while piece := await under_way.get():
        at, data = piece
        if (early := at - clock()) > 0:
            await asyncio.sleep(early)
        sink.write(data)
        await sink.drain()


def main():
    host, port, delay, bytes_per_s = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
    up, down = Line(delay, bytes_per_s), Line(delay, bytes_per_s)
    asyncio.run(relay.serve(host, port, up.carry, down.carry))


if __name__ == "__main__":
    main()
