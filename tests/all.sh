#!/usr/bin/env bash
# Runs every test: those of the code, those against a real Synapse that is started for them, the answers that they got
# against the specification's own description of the API, real Matrix clients and a browser, the fuzz targets, the examples
# in the documentation, the systemd unit as it is shipped, and tests/try.sh.
#
#   tests/all.sh [NEXTEST-ARGUMENT...]    for instance: tests/all.sh --test upload
set -euo pipefail
# shellcheck source=tests/steps.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/steps.sh"

clean_up_at_exit

step "1/9 what is needed"
tests/setup.sh packages synapse clients photo nextest

step "2/9 building"
mkdir -p target/setup
quietly "the tests" "$ROOT/target/setup/build-tests.log" cargo nextest run --no-run
quietly "the release (minutes, the first time)" "$ROOT/target/setup/build.log" cargo build --release --bin mediary

step "3/9 tests, against a real Synapse"
dir=$(own_dir "$ROOT/target/test-synapse")
synapse=$(tests/synapse.py start --dir "$dir/synapse" --appservice "$dir/appservice.yaml" --set allow_guest_access=true)
MEDIARY_TEST_SYNAPSE_URL=$(field url <<<"$synapse")
MEDIARY_TEST_SYNAPSE_SECRET=$(field registration_shared_secret <<<"$synapse")
MEDIARY_TEST_SYNAPSE_SERVER_NAME=$(field server_name <<<"$synapse")
MEDIARY_TEST_AS_TOKEN=$(field as_token <<<"$synapse")
export MEDIARY_TEST_SYNAPSE_URL MEDIARY_TEST_SYNAPSE_SECRET MEDIARY_TEST_SYNAPSE_SERVER_NAME MEDIARY_TEST_AS_TOKEN
export MEDIARY_TEST_RECORD=$dir/answers
mkdir "$MEDIARY_TEST_RECORD"
cargo nextest run --cargo-quiet "$@"

step "4/9 every answer against the API of the specification"
"$VENV_PYTHON" -B tests/openapi_test.py --quiet
# Not all statuses are to be seen where only some tests were run.
"$VENV_PYTHON" -B tests/openapi.py "$MEDIARY_TEST_RECORD" ${1+--partial}

step "5/9 real clients, and a page in Chromium"
tests/clients/run.sh

step "6/9 fuzz targets, for 10 seconds each"
if (($#)); then
    echo "   left out: only some tests were asked for"
else
    fuzz/run.sh
fi

step "7/9 examples in the documentation"
cargo test --doc --quiet

step "8/9 the systemd unit as it is shipped"
tests/systemd.sh

step "9/9 the first command: tests/try.sh"
tests/try.sh --once

echo "== all passed ($(elapsed 0))"
