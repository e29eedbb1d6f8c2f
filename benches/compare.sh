#!/bin/sh
# Measures Mediary beside nginx and Synapse; see README.md in this folder.
# Installs what is missing, then hands all arguments to compare.py.
#
# --binary FILE measures another Mediary than that of this tree, which is then not built.
# VENV names the virtual environment with Synapse; left out, tests/setup.sh makes one
# in target/venv.
set -eu
cd "$(dirname "$0")/.."

step() { printf '== %s\n' "$*" >&2; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

# need COMMAND [PACKAGE]: the Debian package has the command's name unless it is said.
need() {
    PATH="$PATH:/usr/sbin" command -v "$1" >/dev/null || missing="$missing ${2:-$1}"
}

install_tools() {
    missing=
    case $mode in
        run | passthrough) need wrk; need nginx ;;
        held | dead) need wrk ;;
        firstbyte | crowd) need openssl ;;
        syscalls) need strace ;;
        thumbnails-busy) need wrk; need vips libvips-tools ;;
        thumbnails-cold | thumbnails-memory) need vips libvips-tools ;;
    esac
    [ -n "$missing" ] || return 0
    step "installing$missing"
    as_root apt-get update -qq
    # shellcheck disable=SC2086 # a list of names
    as_root apt-get install -y -qq --no-install-recommends $missing >&2
    case $missing in
        *nginx*) # The package starts a server of its own; only the program is wanted.
            [ ! -d /run/systemd/system ] || as_root systemctl disable --now nginx >&2 ;;
    esac
}

# True unless `--only` leaves Mediary out, or `--binary` names one that is there.
must_build() {
    case " $* " in
        *" --binary"*) false ;;
        *mediary*) true ;;
        *" --only"*) false ;;
        *) true ;;
    esac
}

mode=run
for word; do
    case $word in
        passthrough | memory | firstbyte | crowd | bodies | held | dead | syscalls) mode=$word ;;
        thumbnails-cold | thumbnails-busy | thumbnails-memory) mode=$word ;;
    esac
done
install_tools

if [ -z "${VENV:-}" ]; then
    VENV=target/venv
    if [ ! -x "$VENV/bin/python" ]; then
        step "Synapse into $VENV"
        tests/setup.sh packages synapse
    fi
fi

case $mode in
    thumbnails-*) tests/setup.sh photo >&2 ;;
esac

if must_build "$@"; then
    step "cargo build --release"
    cargo build --release --quiet
fi

PATH="$PATH:/usr/sbin" exec "$VENV/bin/python" -B benches/compare.py "$@"
