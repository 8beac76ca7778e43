#!/usr/bin/env bash
# Sends requests made from /openapi.json to a node of its own: no fault of the server, no answer that the document does not know.
#   ops/api-fuzz/run.sh [further arguments of `schemathesis run`]
# Needs python3 with venv, and PyPI the first time. EXAMPLES a phase and operation (50), SEED (1), BIN (built if it is not given).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
version=4.32.5
venv=$target/api-fuzz/schemathesis-$version
http=${HTTP:-127.0.0.1:7171}

if [[ ! -x $venv/bin/schemathesis ]]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet "schemathesis==$version"
fi
if [[ -z ${BIN:-} ]]; then
    (cd "$root" && cargo build --locked --package tallymesh-node)
    BIN=$target/debug/tallymesh
fi

work=$(mktemp -d)
node=
stop() {
    if [[ -n $node ]]; then kill "$node" 2>/dev/null || true; wait "$node" 2>/dev/null || true; fi
    rm -rf "$work"
}
trap stop EXIT
"$BIN" serve --data-dir "$work/data" --http "$http" --set disk.readonly_below=1MiB 2>"$work/log" &
node=$!
for _ in {1..100}; do
    curl -sf "http://$http/ready" >/dev/null && break
    kill -0 "$node" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
    sleep 0.2
done
# Something to ask for.
"$BIN" seed --count 5000 --url "http://$http" >/dev/null

cd "$work"
checks=not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance,unsupported_method
# /v1/tail answers without end; the node's own tests hold its errors.
"$venv/bin/schemathesis" --config-file "$here/schemathesis.toml" run "http://$http/openapi.json" --exclude-path /v1/tail --checks "$checks" \
    --max-examples "${EXAMPLES:-50}" --seed "${SEED:-1}" --generation-database none --warnings off --request-timeout 20 --continue-on-failure "$@"
kill -0 "$node" || { echo "the node ended" >&2; cat "$work/log" >&2; exit 1; }
! grep -E "panicked|ended in a panic" "$work/log"
