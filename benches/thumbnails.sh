#!/bin/sh
# Measures thumbnails in a warm process beside libvips and Pillow as Synapse uses it; see README.md in this folder.
# Installs what is missing, builds both programs, then hands all arguments to thumbnails.py.
#
# VENV names the virtual environment with Synapse; left out, tests/setup.sh makes one in target/venv.
set -eu
cd "$(dirname "$0")/.."

step() { printf '== %s\n' "$*" >&2; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

if ! pkg-config --exists vips 2>/dev/null || ! command -v vips >/dev/null; then
    step "installing libvips"
    as_root apt-get update -qq
    as_root apt-get install -y -qq --no-install-recommends libvips-dev libvips-tools pkg-config gcc >&2
fi
# Both are quick where all is there.
tests/setup.sh photo >&2
if [ -z "${VENV:-}" ]; then
    VENV=target/venv
    tests/setup.sh synapse >&2
fi

mkdir -p target/bench
step "building"
# shellcheck disable=SC2046 # a list of flags
gcc -O2 benches/vips.c -o target/bench/vips $(pkg-config --cflags --libs vips)
# `cargo bench` would run it as well; its name ends in a hash.
program=$(cargo bench --quiet --bench thumbnail --no-run --message-format=json |
    sed -n 's/.*"name":"thumbnail".*"executable":"\([^"]*\)".*/\1/p')
exec "$VENV/bin/python" benches/thumbnails.py --mediary "$program" --vips target/bench/vips "$@"
