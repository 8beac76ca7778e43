#!/usr/bin/env bash
# Installs what a fresh Debian machine with Rust lacks to build Tallymesh; with --browser also what shows its dashboard to the tests, with --chaos
# also what `make chaos` does harm with; with --promtool Prometheus' own client, into a cache directory. Does nothing when all is there.
set -euo pipefail

need_packages=()
command -v cc >/dev/null || need_packages+=(build-essential)
command -v make >/dev/null || need_packages+=(make)
command -v curl >/dev/null || need_packages+=(curl)
command -v npm >/dev/null || need_packages+=(nodejs npm)
[ "${1:-}" != --browser ] || command -v chromium >/dev/null || need_packages+=(chromium)
if [ "${1:-}" = --chaos ]; then
  command -v strace >/dev/null || need_packages+=(strace)
  command -v ip >/dev/null || need_packages+=(iproute2)
  command -v nft >/dev/null || need_packages+=(nftables)
  ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || need_packages+=(libfaketime)
fi
if [ ${#need_packages[@]} -gt 0 ]; then
  as_root=()
  [ "$(id -u)" = 0 ] || as_root=(sudo)
  echo "installing: ${need_packages[*]}"
  "${as_root[@]}" apt-get update -q
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${need_packages[@]}"
fi

if ! command -v cargo >/dev/null; then
  echo "Rust is not installed: get it from https://rustup.rs, then run this again" >&2
  exit 1
fi
for component in rustfmt clippy; do
  case $component in rustfmt) probe="cargo fmt --version" ;; clippy) probe="cargo clippy --version" ;; esac
  $probe >/dev/null 2>&1 || rustup component add "$component"
done

# Out of Debian's package of Prometheus, without installing it: that would also start the service.
promtool="${XDG_CACHE_HOME:-$HOME/.cache}/tallymesh-promtool/promtool"
if [ "${1:-}" = --promtool ] && [ ! -x "$promtool" ]; then
  echo "getting promtool"
  mkdir -p "$(dirname "$promtool")"
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  # World-readable: apt fetches as a user of its own.
  chmod 755 "$work"
  as_root=()
  [ "$(id -u)" = 0 ] || as_root=(sudo)
  (
    cd "$work"
    apt-get download -q prometheus 2>/dev/null || { "${as_root[@]}" apt-get update -q && apt-get download -q prometheus; }
    dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool
  )
  mv "$work/usr/bin/promtool" "$promtool"
fi
