#!/bin/sh
# Makes the contact sheet: one PNG with source and thumbnails of every format and method side by side.
#
#   tests/contact-sheet.sh [OUT.png] [FILE or DIRECTORY]...
#
# Pictures made in code are always on it; further files, such as a corpus, come after them, as far as
# thumbnails can be made of them. Look at the result.
set -eu
out=${1:-contact-sheet.png}
[ $# -eq 0 ] || shift
manifest=$(dirname "$0")/../Cargo.toml
cargo build --quiet --manifest-path "$manifest" --bin mediary --example contact-sheet
target=$(cargo metadata --manifest-path "$manifest" --format-version 1 --no-deps |
    sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
exec "$target/debug/examples/contact-sheet" "$target/debug/mediary" "$out" "$@"
