#!/usr/bin/env bash
# The systemd unit as it is shipped, under a real systemd: Mediary starts with thumbnails.sandbox = "require", so its
# workers lock themselves in wholly in spite of the unit's own filter, and make a thumbnail. With one system call less it
# does not start.
#
#   tests/systemd.sh
#
# It runs in a container with a throw-away copy of this machine's root. That takes root and systemd-nspawn (Debian:
# systemd-container); without them it says so and is left out. MEDIARY_BIN=FILE takes that binary instead of building one.
set -euo pipefail
# shellcheck source=tests/steps.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/steps.sh"

if ((EUID != 0)) || ! type -P systemd-nspawn >/dev/null || ! type -P python3 >/dev/null; then
    echo "   left out: it takes root, systemd-nspawn and python3"
    exit 0
fi

binary=${MEDIARY_BIN:-$CARGO_TARGET/release/mediary}
[[ ${MEDIARY_BIN:-} ]] ||
    quietly "the release" "$ROOT/target/setup/build.log" cargo build --release --bin mediary

place=$(mktemp -d /tmp/mediary-systemd.XXXXXX)
clean_up() {
    local status=$?
    umount -q "$place/root" "$place" || true
    rmdir "$place" || true
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT TERM
# Within a container of somebody else's there may be no mounts, and no further container.
if ! mount -t tmpfs tmpfs "$place" 2>/dev/null; then
    echo "   left out: nothing can be mounted here"
    exit 0
fi
mkdir "$place"/{upper,work,root}
mount -t overlay overlay -o "lowerdir=/,upperdir=$place/upper,workdir=$place/work" "$place/root"

# --- what is in the container -----------------------------------------------------------------------------------------

root=$place/root
install -D -m 755 "$binary" "$root/usr/bin/mediary"
install -D -m 644 systemd/mediary.service "$root/etc/systemd/system/mediary.service"
install -D -m 644 systemd/mediary.sysusers "$root/usr/lib/sysusers.d/mediary.conf"
install -D -m 755 tests/systemd/judge.sh "$root/usr/local/bin/judge"
install -D -m 644 tests/systemd/homeserver.py "$root/usr/local/lib/homeserver.py"
install -D -m 644 /dev/stdin "$root/etc/mediary/mediary.toml" <<'END'
[server]
listen = ["127.0.0.1:8010"]
[homeserver]
url = "http://127.0.0.1:8009"
server_name = "example.org"
[thumbnails]
sandbox = "require"
END
# Nothing of this machine's own services, but for those that every system starts with.
cat >"$root/etc/systemd/system/judge.target" <<'END'
[Unit]
Requires=basic.target judge.service
END
cat >"$root/etc/systemd/system/judge.service" <<'END'
[Unit]
After=basic.target systemd-sysusers.service
Wants=systemd-sysusers.service
[Service]
Type=oneshot
ExecStart=/usr/local/bin/judge
StandardOutput=file:/judged
StandardError=file:/judged
ExecStopPost=systemctl --force --no-block poweroff
END

# --- the run ----------------------------------------------------------------------------------------------------------

# Not known to this machine's systemd, where there is one, and without its network. What it forbids by itself is of no
# interest: older ones know nothing of landlock.
timeout 120 systemd-nspawn --quiet --directory="$root" --machine="mediary-$$" --register=no --keep-unit \
    --system-call-filter="landlock_create_ruleset landlock_add_rule landlock_restrict_self seccomp" \
    --private-network --console=pipe --boot -- --unit=judge.target &>"$place/console" </dev/null || true
if [[ ! -e $root/judged ]]; then
    tail -n 5 "$place/console"
    echo "   left out: no container comes up here"
    exit 0
fi
if ! grep -q "^== all as it should be" "$root/judged" 2>/dev/null; then
    tail -n 30 "$place/console" >&2
    cat "$root/judged" >&2 || true
    fail "the unit does not work as it is shipped"
fi
cat "$root/judged"
