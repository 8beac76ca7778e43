# Builds the fuzz driver; sets $driver. Sourced by the other scripts here.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
host=$(rustc -vV | sed -n 's/^host: //p')
# The coverage that libFuzzer reads: counters, their places, and the operands of comparisons. With a target named, build scripts go without.
passes="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
passes+=" -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
RUSTFLAGS=$passes cargo build --quiet --locked --package tallymesh-fuzz --features libfuzzer --bin libfuzzer --profile fuzz --target "$host"
driver=$CARGO_TARGET_DIR/$host/fuzz/libfuzzer
