"""Waits for an Azure Blob Storage server and makes a container in it.

azure.py wait ENDPOINT ACCOUNT KEY CONTAINER PID    until the server made CONTAINER (or its process is gone)
"""

import base64
import hashlib
import hmac
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from email.utils import formatdate


def make_container(endpoint, account, key, container):
    """One PUT with the account's shared key, as the service's documentation spells the string to sign."""
    date = formatdate(usegmt=True)
    url = f"{endpoint}/{container}"
    headers = f"x-ms-date:{date}\nx-ms-version:2021-12-02\n"
    resource = f"/{account}{urllib.parse.urlsplit(url).path}\nrestype:container"
    text = "PUT" + "\n" * 12 + headers + resource
    signed = base64.b64encode(hmac.new(base64.b64decode(key), text.encode(), hashlib.sha256).digest()).decode()
    request = urllib.request.Request(f"{url}?restype=container", method="PUT")
    request.add_header("x-ms-date", date)
    request.add_header("x-ms-version", "2021-12-02")
    request.add_header("Authorization", f"SharedKey {account}:{signed}")
    # No proxy of the environment stands between here and a loopback port.
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10).close()


def wait(endpoint, account, key, container, pid):
    deadline = time.monotonic() + 60
    while True:
        try:
            return make_container(endpoint, account, key, container)
        except (OSError, urllib.error.URLError) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code == 403:
                sys.exit(f"error: {endpoint}: {error.read().decode(errors='replace')}")
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                sys.exit(f"error: no server at {endpoint}: {error}")
            if time.monotonic() > deadline:
                sys.exit(f"error: no server at {endpoint}: {error}")
        time.sleep(0.1)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["wait", endpoint, account, key, container, pid]:
            wait(endpoint, account, key, container, int(pid))
        case _:
            sys.exit(__doc__)
