#!/bin/sh
# What cargo runs instead of rustc for Mediary and its fuzz targets: the same compiler, told to count which code runs, as
# libFuzzer needs it. These are plain options of LLVM, which the stable compiler knows as well. Dependencies are compiled
# as ever, and so not once more.
exec "$@" -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares
