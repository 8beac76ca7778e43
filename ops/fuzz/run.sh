#!/usr/bin/env bash
# Runs one fuzz target under libFuzzer for some minutes of CPU time: run.sh TARGET MINUTES. Stable Rust; needs a C++ compiler.
# What is new goes to the working corpus in $CARGO_TARGET_DIR/fuzz/TARGET; `merge.sh TARGET` takes the least of it into fuzz/corpus/TARGET.
# A finding is a file fuzz/findings/TARGET-*, to be replayed with: run.sh TARGET 0 FILE
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${1:?which target: events, queries, batches, segments, wire}
minutes=${2:-1}
shift $(( $# < 2 ? $# : 2 ))
source ops/fuzz/build.sh

if [ $# -gt 0 ]; then
  TARGET=$target exec "$driver" "$@"
fi
findings=$PWD/fuzz/findings
work=$CARGO_TARGET_DIR/fuzz/$target
mkdir -p "$work" "$findings" "fuzz/corpus/$target"
log=$CARGO_TARGET_DIR/fuzz/$target.log
TARGET=$target nice -n 19 "$driver" "$work" "fuzz/corpus/$target" -max_len=16384 -len_control=20 -timeout=120 -rss_limit_mb=2048 -use_value_profile=1 \
  -print_final_stats=1 -artifact_prefix="$findings/$target-" >"$log" 2>&1 &
fuzzer=$!
trap 'kill -INT $fuzzer 2>/dev/null || true' INT TERM EXIT
# Minutes of CPU, not of the clock: other work on the machine does not shorten the run.
ticks=$(( minutes * 60 * $(getconf CLK_TCK) ))
used() { awk '{ sub(/.*\) /, ""); print $12 + $13 }' "/proc/$fuzzer/stat" 2>/dev/null || echo "$ticks"; }
spent=0
while kill -0 $fuzzer 2>/dev/null && [ "$spent" -lt "$ticks" ]; do
  sleep 2
  now=$(used)
  [ "$now" = "$ticks" ] || spent=$now
  [ "$now" -lt "$ticks" ] || break
done
kill -INT $fuzzer 2>/dev/null || true
code=0
wait $fuzzer || code=$?
trap - INT TERM EXIT
echo "$target: $(( spent / $(getconf CLK_TCK) )) s of CPU"
grep -aE 'cov:' "$log" | tail -1
grep -aE '^stat::' "$log" || true
# 72: stopped from outside, as above.
if [ $code != 0 ] && [ $code != 72 ]; then
  grep -avE '^(#[0-9]|NEW|INFO)' "$log" | head -60
  exit 1
fi
