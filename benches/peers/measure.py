"""Runs programs and measures them from outside, the same way for every tool."""

import ctypes
import json
import os
import resource
import signal
import socket
import subprocess
import threading
import time
from dataclasses import dataclass

LIMIT_S = 1800
# How long what a program has left running may take to end by itself.
LEFT_S = 10
PR_SET_CHILD_SUBREAPER = 36
_running = set()


@dataclass
class Usage:
    """What the processes of one run used together."""

    wall_s: float
    cpu_s: float
    rss_mb: float
    error: str | None = None


def stop_all():
    """Ends what still runs."""
    for process in list(_running):
        process.kill()


def _start(argv, env, errors):
    process = subprocess.Popen(
        argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, close_fds=True
    )
    _running.add(process)
    return process


def _end(process):
    """Waits for one process; its own usage, its children's included."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    _running.discard(process)
    return usage


def _high_water_kib(pid):
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
            return next((int(line.split()[1]) for line in status if line.startswith("VmHWM:")), 0)
    except OSError:
        return 0


def _processes():
    """Every process, with what /proc tells of it after its name."""
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", encoding="ascii", errors="replace") as stat:
                # The name may have blanks.
                yield int(entry), stat.read().rpartition(")")[2].split()
        except OSError:
            continue


def server_cpu_s(pid):
    """What a server and its processes have used so far, those that have ended included."""
    ticks = 0
    for process, fields in _processes():
        if process == pid:
            ticks += sum(map(int, fields[11:15]))
        elif int(fields[1]) == pid:
            ticks += sum(map(int, fields[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _children():
    return {process for process, fields in _processes() if int(fields[1]) == os.getpid()}


def _orphans(before):
    """The usage of what programs that have ended left behind: Sling does not wait for the DuckDB that it starts, so the
    system would count none of its work. As a subreaper we inherit it."""
    deadline = time.monotonic() + LEFT_S
    for pid in _children() - before:
        while True:
            ended, _, usage = os.wait4(pid, os.WNOHANG)
            if ended:
                yield pid, usage
                break
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)


def run(commands, env, errors_path):
    """Starts all commands at once. Wall is from the first start to the last end; CPU and peak memory are summed."""
    seen = {}
    done = threading.Event()

    def watch():
        # From fork on, Linux counts our own pages into a child's ru_maxrss, so of a child that stays smaller than us
        # it says nothing. For those the high-water mark of the new program is read while it runs.
        while True:
            for process in processes:
                seen[process.pid] = max(seen.get(process.pid, 0), _high_water_kib(process.pid))
            if done.wait(0.02):
                return

    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = _children()
    with open(errors_path, "wb") as errors:
        started = time.monotonic()
        processes = [_start(argv, env, errors) for argv in commands]
        timer = threading.Timer(LIMIT_S, stop_all)
        timer.daemon = True
        timer.start()
        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        usages = [(process.pid, _end(process)) for process in processes]
        wall = time.monotonic() - started
        timer.cancel()
        done.set()
        watcher.join()
    usages += _orphans(before)
    own_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kib = sum(
        usage.ru_maxrss if usage.ru_maxrss > own_kib else seen.get(pid) or usage.ru_maxrss for pid, usage in usages
    )
    cpu = sum(usage.ru_utime + usage.ru_stime for _, usage in usages)
    failed = [process.returncode for process in processes if process.returncode != 0]
    error = None
    if failed:
        with open(errors_path, encoding="utf-8", errors="replace") as errors:
            error = f"exit {failed[0]}: {errors.read()[-2000:].strip()}"
    return Usage(wall, cpu, kib * 1024 / 1e6, error)


def tell(found, out):
    """Prints what was found as JSON, and writes it to a file where one is named."""
    text = json.dumps(found, indent=2)
    print(text)
    if out:
        with open(out, "w", encoding="utf-8") as file:
            file.write(text + "\n")


class Front:
    """Listens in front of a server; each client has a connection to it, and `serve` does with both what it is for."""

    def __init__(self, target):
        self.target = target
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self.listener.close()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(self.target)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self.serve, args=(client, server), daemon=True).start()


class Relay(Front):
    """A TCP relay in front of PostgreSQL that notes when the server's first CopyData message goes through."""

    def __init__(self, port):
        self.first = None
        self.seen = threading.Event()
        super().__init__(("127.0.0.1", port))

    def serve(self, client, server):
        threading.Thread(target=self._pass, args=(client, server, None), daemon=True).start()
        self._pass(server, client, messages())

    def _pass(self, source, sink, kinds):
        try:
            while data := source.recv(1 << 16):
                sink.sendall(data)
                if kinds and not self.seen.is_set() and b"d" in kinds(data):
                    self.first = time.monotonic()
                    self.seen.set()
        except OSError:
            pass
        finally:
            for end in (source, sink):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass


def messages():
    """Splits what a server sends (a type byte, then a length that counts itself) into messages as they come; gives the
    types of those that begin in each piece. Sound without TLS only: there, each byte of the stream is of a message."""
    head = bytearray()
    skip = 0

    def types(data):
        nonlocal skip
        found, at = bytearray(), 0
        while at < len(data):
            step = min(skip, len(data) - at)
            skip -= step
            at += step
            if skip == 0 and at < len(data):
                head.append(data[at])
                at += 1
                if len(head) == 5:
                    found.append(head[0])
                    skip = int.from_bytes(head[1:], "big") - 4
                    head.clear()
        return bytes(found)

    return types


def first_byte(command, port, env, errors_path):
    """Seconds from the start of a program to the first CopyData message it is sent, or None if there is none within 60
    seconds. `command` is made from the port to connect to. The program is ended then."""
    relay = Relay(port)
    try:
        with open(errors_path, "wb") as errors:
            started = time.monotonic()
            process = _start(command(relay.port), env, errors)
            found = relay.seen.wait(60)
            process.terminate()
            _end(process)
        return relay.first - started if found else None
    finally:
        relay.close()
