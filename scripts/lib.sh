# What the scripts share; sourced, never run. Sets `root` (the repository) and `cache` (what is installed for tests).

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
# Outside the checkout: the PostgreSQL servers run as another user, who may not be able to enter it, and a fresh clone
# need not download everything again.
cache=${OUTHAUL_TEST_CACHE:-/var/tmp/outhaul-test-$(id -u)}
venv=$cache/venv

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

make_cache() {
    mkdir -p "$cache"
    # A folder in /var/tmp that somebody else made would let them choose what runs here.
    [ "$(stat --format=%u "$cache")" = "$(id -u)" ] || die "$cache belongs to another user; set OUTHAUL_TEST_CACHE"
    chmod 755 "$cache"
}

# apt_install PACKAGE...: only for what is missing, so that a machine without root needs none where all is there.
apt_install() {
    if [ "$(id -u)" = 0 ]; then
        apt-get update --quiet=2
        DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet=2 --no-install-recommends "$@" >&2
    else
        die "please install: $*"
    fi
}

# make_venv: the Python environment of the tests. Its stamp is the list of what it holds, so a changed list rebuilds it.
make_venv() {
    make_cache
    cmp --silent "$root/scripts/requirements.txt" "$venv/requirements.txt" && return
    command -v python3 >/dev/null || apt_install python3 python3-venv
    rm -rf "$venv"
    if ! python3 -m venv "$venv" >/dev/null 2>&1; then
        apt_install python3-venv
        python3 -m venv --clear "$venv"
    fi
    say "installing the tests' Python packages into $venv"
    "$venv/bin/python" -m pip install --quiet --requirement "$root/scripts/requirements.txt" >&2
    cp "$root/scripts/requirements.txt" "$venv/requirements.txt"
}

# free_ports N: N loopback ports that nothing listens on, all different.
free_ports() {
    python3 - "$1" <<'PY'
import socket, sys
taken = [socket.socket() for _ in range(int(sys.argv[1]))]
for s in taken:
    s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in taken))
PY
}

# wait_gone PID: until the process has ended, for 20 seconds; then it is killed.
wait_gone() {
    tries=0
    while kill -0 "$1" 2>/dev/null; do
        tries=$((tries + 1))
        [ "$tries" -lt 200 ] || { kill -KILL "$1" 2>/dev/null || :; return; }
        sleep 0.1
    done
}
