"""Python programs without the start of Python: an interpreter that has imported what they need forks for each of them.

forks.py serve SOCKET                    listens there until it is ended
forks.py run SOCKET FILE ARGUMENT…       what `python FILE ARGUMENT…` does; also `-c CODE ARGUMENT…`,
                                         and `- ARGUMENT…` for a program on standard input

The imports of one program take up to half a second of CPU, and the tests run more than a thousand.
"""

import json
import os
import socket
import struct
import sys

REQUEST_BYTES_MAX = 1 << 20


def run(path, arguments):
    """Hands over what the program gets, and ends as it ends. Without this process the program ends too."""
    request = json.dumps({"arguments": arguments, "environment": dict(os.environ), "folder": os.getcwd()}).encode()
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(path)
        socket.send_fds(server, [struct.pack("!I", len(request))], [0, 1, 2])
        server.sendall(request)
        answer = server.recv(1)
    sys.exit(answer[0] if answer else "the program was ended by a signal")


def serve(path):
    import signal

    preload()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(64)
        while True:
            client, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                program(client)
            client.close()


def preload():
    """What the programs import. None of it starts a thread before it is used, which a fork would lose."""
    import argparse
    import concurrent.futures
    import decimal
    import gc
    import runpy
    import tempfile

    import awscrt.checksums
    import boto3
    import duckdb
    import numpy
    import pyarrow.compute
    import pyarrow.parquet

    # The description of the service is read once.
    boto3.client("s3", region_name="us-east-1", endpoint_url="http://127.0.0.1:9")
    gc.freeze()


def program(client):
    """Never returns."""
    import atexit
    import random
    import runpy
    import threading
    import traceback

    head, descriptors, _, _ = socket.recv_fds(client, 4, 3)
    (length,) = struct.unpack("!I", head)
    if length > REQUEST_BYTES_MAX:
        os._exit(1)
    request = json.loads(client.recv(length, socket.MSG_WAITALL))
    for place, descriptor in enumerate(descriptors):
        os.dup2(descriptor, place)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    random.seed()

    def end_with_the_client():
        client.recv(1)
        os._exit(1)

    threading.Thread(target=end_with_the_client, daemon=True).start()
    name, *arguments = request["arguments"]
    code = 0
    try:
        if name in ("-", "-c"):
            code_text, rest = (sys.stdin.read(), arguments) if name == "-" else (arguments[0], arguments[1:])
            sys.argv = [name, *rest]
            sys.path[0] = ""
            exec(compile(code_text, "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.argv = [name, *arguments]
            sys.path[0] = os.path.dirname(os.path.abspath(name))
            runpy.run_path(name, run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    client.send(bytes([code & 0xFF]))
    os._exit(0)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        run(sys.argv[2], sys.argv[3:])
