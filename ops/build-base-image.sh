#!/usr/bin/env bash
# Builds the base images from Debian packages, for a machine that reaches no image registry:
# a Python base (for BASE_IMAGE) and a Redis (for REDIS_IMAGE). Needs root, debootstrap and a running Docker.
set -euo pipefail

SUITE=${SUITE:-bookworm} # the release whose Python is 3.11
MIRROR=${MIRROR:-}       # a Debian mirror; empty: debootstrap's own default
PYTHON_TAG=${1:-toolweaver-base:local}
REDIS_TAG=${2:-toolweaver-redis:local}

die() {
  echo "build-base-image: $*" >&2
  exit 1
}
[ "$(id -u)" = 0 ] || die "debootstrap needs root; run it with sudo"
command -v debootstrap >/dev/null || die "debootstrap is missing: apt-get install debootstrap"
docker info >/dev/null 2>&1 || die "no Docker daemon answers; start it, or set DOCKER_HOST"

root=$(mktemp -d)
trap 'rm -rf --one-file-system "$root"' EXIT

echo "1/2 $PYTHON_TAG: Debian $SUITE with its Python" >&2
debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv "$SUITE" "$root" ${MIRROR:+"$MIRROR"} >&2
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale}/*
: >"$root/etc/resolv.conf" # debootstrap copies this machine's; Docker mounts its own
: >"$root/etc/hostname"
tar --numeric-owner -C "$root" -c . | docker import --change 'CMD ["python3"]' - "$PYTHON_TAG" >&2

echo "2/2 $REDIS_TAG: the same with redis-server" >&2
# The host's network, since a machine without a registry often has no NAT for containers either.
docker build --network host --tag "$REDIS_TAG" - >&2 <<DOCKERFILE
FROM $PYTHON_TAG
RUN apt-get update \\
 && apt-get install -y --no-install-recommends redis-server \\
 && rm -rf /var/lib/apt/lists/* \\
 && install -d -o redis -g redis /data
USER redis
WORKDIR /data
CMD ["redis-server"]
DOCKERFILE

echo "BASE_IMAGE=$PYTHON_TAG"
echo "REDIS_IMAGE=$REDIS_TAG"
