#!/usr/bin/env bash
# Takes into fuzz/corpus/TARGET the fewest inputs of the working corpus (and of what is there) that cover as much: merge.sh TARGET
# Large ones are left where they are: the corpus is in the repository.
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${1:?which target: events, queries, batches, segments}
source ops/fuzz/build.sh
work=$CARGO_TARGET_DIR/fuzz/$target
merged=$CARGO_TARGET_DIR/fuzz/$target.merged
rm -rf "$merged"
mkdir -p "$merged" "$work"
small=$(mktemp -d)
trap 'rm -rf "$small"' EXIT
find "$work" -type f -size -2k -exec cp -t "$small" {} +
TARGET=$target nice -n 19 "$driver" -merge=1 "$merged" "fuzz/corpus/$target" "$small" >"$merged.log" 2>&1
rm -f "fuzz/corpus/$target"/*
cp "$merged"/* "fuzz/corpus/$target/"
echo "$target: $(find "fuzz/corpus/$target" -type f | wc -l) inputs, $(du -sb "fuzz/corpus/$target" | cut -f1) bytes"
