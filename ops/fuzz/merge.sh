#!/usr/bin/env bash
# Takes into fuzz/corpus/TARGET the fewest inputs of the working corpus (and of what is there) that reach as much: merge.sh TARGET
# How often a place is reached does not count, so that it stays small.
# Large inputs are left where they are: the corpus is in the repository.
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${1:?which target: events, queries, batches, segments, wire}
source ops/fuzz/build.sh
work=$CARGO_TARGET_DIR/fuzz/$target
merged=$CARGO_TARGET_DIR/fuzz/$target.merged
rm -rf "$merged"
mkdir -p "$merged" "$work"
small=$(mktemp -d)
trap 'rm -rf "$small"' EXIT
find "$work" -type f -size -2k -exec cp -t "$small" {} +
TARGET=$target nice -n 19 "$driver" -merge=1 -use_counters=0 "$merged" "fuzz/corpus/$target" "$small" >"$merged.log" 2>&1
# What was once a finding stays, by its name.
find "fuzz/corpus/$target" -type f ! -name 'found-*' -delete
cp "$merged"/* "fuzz/corpus/$target/"
echo "$target: $(find "fuzz/corpus/$target" -type f | wc -l) inputs, $(du -sb "fuzz/corpus/$target" | cut -f1) bytes"
