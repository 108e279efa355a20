#!/usr/bin/env bash
# Installs what a node needs from Debian, each with its reason; does nothing when all is there.
set -euo pipefail
declare -A why=(
  [crun]="runs containers (pure cgroup v2)"
  [runc]="runs containers where cgroups are hybrid"
  [conmon]="keeps a container's output and exit code while the agent restarts"
  [erofs-utils]="builds the read-only image file of a container"
  [e2fsprogs]="makes volumes and scratch space of a stated size"
  [nftables]="the reach of container networks"
  [iproute2]="the demo's network namespaces"
  [debian-archive-keyring]="checks the signatures of the demo's packages"
  [gpgv]="checks them"
  [procps]="finds processes in tests"
  [mmdebstrap]="builds the demo's images from Debian packages"
  [umoci]="puts those images into OCI layouts"
  [golang-github-containers-common]="the default seccomp profile"
)
# With `--all`, what only the full test counts need.
if [ "${1:-}" = --all ]; then why+=(
  [postgresql]="the other database that keeps history, tried by the full test counts"
  [libfaketime]="sets one validator's clock an hour off in a test"
); fi
missing=()
for package in "${!why[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" != 0 ]; then
  echo "error: these Debian packages are missing: ${missing[*]}" >&2
  echo "next: run as root: apt-get install -y --no-install-recommends ${missing[*]}" >&2
  exit 1
fi
for package in "${missing[@]}"; do echo "setup: Debian's $package: ${why[$package]}"; done
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
