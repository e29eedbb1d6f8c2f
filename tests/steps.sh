# shellcheck shell=bash
# What the scripts share; sourced, not run. Ends in the project's root with its tools on the PATH.

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT" || exit

# A new rustup is on the PATH of the next login only.
PATH=$ROOT/target/tools/bin:$PATH:$HOME/.cargo/bin
# Everything the scripts talk to is on loopback.
export PATH no_proxy=127.0.0.1,localhost NO_PROXY=127.0.0.1,localhost

# The interpreter that has Synapse, and what is read with it.
VENV_PYTHON=$ROOT/target/venv/bin/python

# The one that has the clients that the tests use; Node.js is beside it.
# shellcheck disable=SC2034 # for those who source this
CLIENTS_VENV=$ROOT/target/clients/venv

# Where cargo puts what it builds.
# shellcheck disable=SC2034 # for those who source this
CARGO_TARGET=${CARGO_TARGET_DIR:-$ROOT/target}

fail() {
    echo "${0##*/}: $*" >&2
    exit 1
}

# elapsed SINCE: minutes and seconds since $SECONDS was SINCE.
elapsed() {
    local seconds=$((SECONDS - $1))
    printf '%d:%02d' $((seconds / 60)) $((seconds % 60))
}

# step NAME: a heading, with the time since the script began.
step() {
    echo "== $* ($(elapsed 0))"
}

# quietly LABEL LOG COMMAND...: runs a command with its output in LOG. Shows that it goes on: on a terminal in one line
# that moves, elsewhere with a line every half minute. Shows the end of LOG if it fails.
quietly() {
    local label=$1 log=$2 began=$SECONDS status=0 ticker
    shift 2
    mkdir -p "$(dirname "$log")"
    : >"$log"
    # The command is in the foreground, so that Ctrl-C reaches it.
    show_progress "$label" "$log" &
    ticker=$!
    "$@" >"$log" 2>&1 </dev/null || status=$?
    kill "$ticker" 2>/dev/null || true
    wait "$ticker" 2>/dev/null || true
    [[ ! -t 1 ]] || printf '\r\e[K'
    if ((status)); then
        echo "   $label: failed after $(elapsed "$began"); the end of $log:" >&2
        tail -n 100 "$log" >&2
        return "$status"
    fi
    echo "   $label: done in $(elapsed "$began")"
}

show_progress() {
    local label=$1 log=$2 began=$SECONDS now
    while kill -0 $$ 2>/dev/null; do
        if [[ -t 1 ]]; then
            sleep 0.5 &>/dev/null
            now=$(tail -n 1 "$log" | tr -d '\r' | cut -c1-50)
            printf '\r\e[K   %s %s  %s' "$label" "$(elapsed "$began")" "$now"
        else
            sleep 30 &>/dev/null # or a pipe that we write to would stay open after us
            now=$(tail -n 1 "$log" | cut -c1-80)
            printf '   %s %s  %s\n' "$label" "$(elapsed "$began")" "$now"
        fi
    done
}

# field NAME: that field of the JSON object on standard input.
field() {
    "$VENV_PYTHON" -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"
}

# own_dir PARENT: makes a folder for this run alone, and prints its name. What runs that are gone have left in PARENT is
# ended and removed. Bash does not end `$(own_dir ...)` at a failure, so each step says it.
own_dir() {
    local left
    mkdir -p "$1" || return
    for left in "$1"/*/; do
        [[ -d $left && ! -d /proc/$(basename "$left") ]] || continue
        "$ROOT/tests/synapse.py" stop --dir "$left/synapse" || return
        rm -rf "$left" || return
    done
    mkdir -p "$1/$$" || return
    echo "$1/$$"
}

mediary= # its process id, while one that start_mediary has started runs

# start_mediary LOG ADMIN BINARY ARGUMENT...: runs Mediary with its output in LOG, and returns when it is ready. ADMIN is
# the address of its metrics and health.
start_mediary() {
    local log=$1 admin=$2 deadline=$((SECONDS + 30))
    shift 2
    # In a session of its own: Ctrl-C is for us, who then end it in order.
    setsid "$1" run --admin-listen "$admin" "${@:2}" &>"$log" &
    mediary=$!
    until curl -sf -o /dev/null "http://$admin/ready"; do
        kill -0 "$mediary" 2>/dev/null || fail "Mediary ended while starting"
        ((SECONDS < deadline)) || fail "Mediary is not ready after 30 s"
        sleep 0.05
    done
}

# Ends Mediary as a service manager would; fails unless it ends well and in time.
stop_mediary() {
    local pid=$mediary status=0
    mediary=
    [[ $pid ]] || return 0
    kill -TERM "$pid" 2>/dev/null || true
    timeout 20 tail --pid="$pid" --sleep-interval=0.05 -f /dev/null || kill -KILL "$pid"
    wait "$pid" || status=$?
    return "$status"
}

dir=    # everything of this run: Mediary's log, and Synapse
shown=0 # lines of Mediary's log that are on the terminal

# Shows the end of what Mediary has logged since it was last shown.
show_log() {
    local log=$dir/mediary.log before=$shown
    [[ $dir && -s $log ]] || return 0
    shown=$(wc -l <"$log")
    ((shown > before)) || return 0
    echo "the end of $log:" >&2
    tail -n "$((shown - before < 60 ? shown - before : 60))" "$log" >&2
}

# From here on, however the script ends, Mediary and the Synapse in $dir are ended too. Then $dir is removed, except after
# a failure: what is in it is kept until the next run.
clean_up_at_exit() {
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

clean_up() {
    local status=$?
    trap '' INT TERM
    trap - EXIT
    ((status == 0 || status == 130)) || show_log
    stop_mediary || true
    if [[ $dir ]]; then
        "$ROOT/tests/synapse.py" stop --dir "$dir/synapse" || true
        ((status != 0 && status != 130)) || rm -rf "$dir"
    fi
    exit "$status"
}
