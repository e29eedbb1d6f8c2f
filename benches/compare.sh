#!/bin/sh
# Measures Mediary beside nginx and Synapse; see README.md in this folder.
# Installs what is missing, then hands all arguments to compare.py.
#
# VENV names the virtual environment with Synapse; left out, tests/setup.sh makes one
# in target/venv.
set -eu
cd "$(dirname "$0")/.."

step() { printf '== %s\n' "$*" >&2; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

install_tools() {
    missing=
    command -v wrk >/dev/null || missing="$missing wrk"
    PATH="$PATH:/usr/sbin" command -v nginx >/dev/null || missing="$missing nginx"
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

# True unless `--only` leaves Mediary out.
wants_mediary() {
    case " $* " in
        *mediary*) true ;;
        *" --only"*) false ;;
        *) true ;;
    esac
}

install_tools

if [ -z "${VENV:-}" ]; then
    VENV=target/venv
    if [ ! -x "$VENV/bin/python" ]; then
        step "Synapse into $VENV"
        tests/setup.sh
    fi
fi

if wants_mediary "$@"; then
    step "cargo build --release"
    cargo build --release --quiet
fi

PATH="$PATH:/usr/sbin" exec "$VENV/bin/python" -B benches/compare.py "$@"
