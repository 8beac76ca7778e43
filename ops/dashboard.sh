#!/usr/bin/env bash
# Builds the dashboard into dashboard/dist when its sources have changed, or runs one of its npm scripts: ops/dashboard.sh [build|check|test|e2e]
set -euo pipefail
cd "$(dirname "$0")/../dashboard"
export npm_config_update_notifier=false npm_config_fund=false npm_config_audit=false

# Vite asks for Node 20.19 or later; Debian 12 has 18. npm has Node itself as a package.
new_enough() { node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)' 2>/dev/null; }
if ! new_enough; then
  tools="${XDG_CACHE_HOME:-$HOME/.cache}/tallymesh-node"
  [ -x "$tools/node_modules/node/bin/node" ] || npm install --prefix "$tools" --no-save node@22 >/dev/null
  PATH="$tools/node_modules/node/bin:$PATH"
  new_enough || { echo "the dashboard needs Node 20.19 or later" >&2; exit 1; }
fi

if [ ! -f node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.installed ]; then
  # Not `npm ci`: it wants the optional binaries of every platform in the lock file, and not every registry has them all.
  npm install --no-save --loglevel=error
  touch node_modules/.installed
fi

case "${1:-build}" in
  build)
    # The stamp holds the checksum of everything that the build reads.
    sum=$(find src public index.html package-lock.json vite.config.ts tsconfig.json -type f | LC_ALL=C sort | xargs sha256sum | sha256sum | cut -c1-32)
    if [ "$(cat dist/.sources 2>/dev/null)" != "$sum" ]; then
      npm run --silent build
      echo "$sum" >dist/.sources
    fi
    ;;
  *) npm run --silent "$1" ;;
esac
