#!/usr/bin/env bash
# Builds the fuzz targets with the stable compiler and runs each for a while; fails if one finds something.
#
#   fuzz/run.sh [SECONDS [TARGET...]]    10 seconds for every target when nothing is said
#
# The target `picture` has a road for each format, named as in picture/jpeg; its folders of seeds are the list of them.
#
# What a target has found worth keeping stays in target/fuzz/TARGET for the next run; an input that breaks it is written
# beside that, and shown.
set -euo pipefail
# shellcheck source=tests/steps.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/../tests/steps.sh"

seconds=${1:-10}
shift $(($# > 0))
if ((!$#)); then
    for target in fuzz/fuzz_targets/*.rs; do
        target=$(basename -s .rs "$target")
        [[ $target == picture ]] || set -- "$@" "$target"
    done
    for road in fuzz/seeds/picture/*; do
        set -- "$@" "picture/${road##*/}"
    done
fi

mkdir -p target/fuzz
CARGO_INCREMENTAL=0 RUSTC_WORKSPACE_WRAPPER=$ROOT/fuzz/rustc.sh \
    quietly "the fuzz targets" "$ROOT/target/setup/build-fuzz.log" cargo build --locked --package mediary-fuzz

# run_target TARGET: prints one line of what was done, or what was found.
run_target() {
    local target=$1 found=$ROOT/target/fuzz/$1 log=$ROOT/target/fuzz/$1.log program=${1%%/*}
    mkdir -p "$found"
    [[ $target == "$program" ]] || export ROAD=${target#*/}
    if ! "$CARGO_TARGET/debug/$program" -max_total_time="$seconds" -timeout=5 -rss_limit_mb=1024 -print_final_stats=1 \
        -dict="fuzz/dictionaries/$program.dict" -artifact_prefix="$found." "$found" "fuzz/seeds/$target" &>"$log"; then
        echo "   $target: broken; the end of $log:" >&2
        tail -n 40 "$log" >&2
        return 1
    fi
    awk -v target="$target" '/DONE/ { edges = $4 } /number_of_executed_units/ { runs = $2 }
        END { printf "   %s: %d inputs tried, %d edges reached\n", target, runs, edges }' "$log"
}
export -f run_target
export seconds ROOT CARGO_TARGET

# As many at a time as there are cores.
printf '%s\n' "$@" | xargs -P "$(nproc)" -I{} bash -c 'run_target {}'
