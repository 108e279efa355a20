#!/usr/bin/env bash
# Puts Debian's `prometheus` and `promtool` into .tools/prometheus, to test docs/alarms.yml with. The package is unpacked,
# not installed: nobody's machine gets a service by it. apt checks its signature. Does nothing when both are there.
set -euo pipefail
cd "$(dirname "$0")/.."
into=.tools/prometheus
[ -x $into/promtool ] && [ -x $into/prometheus ] && exit 0
mkdir -p $into
work=$(mktemp -d "$PWD/$into/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
fetch() { (cd "$work" && apt-get download -qq "$@" prometheus); }
echo "setup: Debian's prometheus into $into"
if [ "$(id -u)" = 0 ]; then
  fetch -o APT::Sandbox::User=root 2>/dev/null || { apt-get update -qq; fetch -o APT::Sandbox::User=root; }
elif ! fetch; then
  echo "error: apt-get cannot download Debian's package prometheus" >&2
  echo "next: run as root: apt-get update; then the same again" >&2
  exit 1
fi
dpkg-deb --fsys-tarfile "$work"/prometheus_*.deb | tar -x -C "$work" ./usr/bin/prometheus ./usr/bin/promtool
mv "$work"/usr/bin/prometheus "$work"/usr/bin/promtool $into/
