#!/usr/bin/env bash
# What tests/systemd.sh asks of the unit; runs in its container. The last line says whether all was well.
set -euo pipefail

fail() {
    echo "FAIL $*"
    journalctl --quiet --no-pager --output=cat --unit=mediary --lines=20 || true
    exit 1
}

python3 /usr/local/lib/homeserver.py &
homeserver=http://127.0.0.1:8009
mediary=http://127.0.0.1:8010
until curl -sf -o /dev/null "$homeserver/_matrix/client/versions"; do sleep 0.1; done

# With one call less the workers cannot lock themselves in; "require" says that Mediary does not start then.
drop_in=/run/systemd/system/mediary.service.d/less.conf
while read -r less lack; do
    install -D -m 644 /dev/stdin "$drop_in" <<<$'[Service]\nRestart=no\nSystemCallFilter=~'"$less"
    systemctl daemon-reload
    ! systemctl start mediary &>/dev/null || fail "it starts without $less"
    journalctl --sync
    said=$(journalctl --quiet --unit=mediary --output=cat --grep "demands: $lack" --lines=1)
    [[ $said ]] || fail "it does not say why without $less"
    systemctl reset-failed mediary
    echo "ok   without $less it does not start, and says why"
done <<'END'
landlock_create_ruleset files and sockets are not closed
landlock_restrict_self files and sockets are not closed
seccomp system calls are not filtered
setpriority the priority cannot be lowered
END

# Programs are locked in otherwise; here one that is always there stands for them.
install -D -m 644 /dev/stdin "$drop_in" <<'END'
[Service]
ExecStartPre=/usr/bin/mediary thumbnail-probe program /usr/bin/perl -e "exit(open(my $$f, '<', '/etc/passwd') ? 1 : 0)"
END
systemctl daemon-reload

systemctl start mediary || fail "it does not start"
journalctl --quiet --unit=mediary --output=cat | grep "started the thumbnail workers" | tail -n 1 | grep . || fail "it does not say how far it is locked in"
echo "ok   a program can be locked in, and it starts, with its workers locked in"

# A filter of the unit's, one or two more of the worker's own, and no privilege.
main=$(systemctl show --property=MainPID --value mediary)
for worker in $(pgrep --parent "$main"); do
    status=$(tr '\n\t' ' :' </proc/"$worker"/status)
    for part in "NoNewPrivs::1 " "Seccomp::2 " "CapEff::0000000000000000 "; do
        [[ $status == *"$part"* ]] || fail "worker $worker has no $part"
    done
    mine=$(sed -n 's/^Seccomp_filters:\t//p' /proc/"$worker"/status)
    theirs=$(sed -n 's/^Seccomp_filters:\t//p' /proc/"$main"/status)
    ((mine == theirs + 2)) || fail "worker $worker has $mine filters, and its parent $theirs"
    nice=$(ps -o nice= -p "$worker")
    ((nice == 19)) || fail "worker $worker has the niceness $nice"
    echo "ok   worker $worker has two filters more than its parent, and the lowest priority"
done
[[ ${worker:-} ]] || fail "there is no worker"

uri=$(curl -sS --fail-with-body -H "Authorization: Bearer anybody" -H "Content-Type: image/png" \
    --data-binary @<(python3 /usr/local/lib/homeserver.py picture) "$mediary/_matrix/media/v3/upload" |
    sed -n 's|.*mxc://example.org/\([^"]*\)".*|\1|p')
[[ $uri ]] || fail "the upload was not taken"
curl -sS --fail-with-body -H "Authorization: Bearer anybody" -o /thumbnail -D /head \
    "$mediary/_matrix/client/v1/media/thumbnail/example.org/$uri?width=96&height=96&method=crop" ||
    fail "there is no thumbnail"
grep -qi "^content-type: image/jpeg" /head || fail "the thumbnail is no JPEG"
[[ $(head -c 3 /thumbnail | od -An -tx1 | tr -d ' \n') == ffd8ff ]] || fail "what is sent is no JPEG"
echo "ok   a thumbnail is made"

systemctl stop mediary || fail "it does not stop"
[[ $(systemctl show --property=Result --value mediary) == success ]] || fail "it does not end well"
! journalctl --quiet --unit=mediary | grep -E "code=dumped|status=31/SYS" || fail "something was killed"
echo "ok   it stops"
echo "== all as it should be"
