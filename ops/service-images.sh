#!/usr/bin/env bash
# Builds the images that tests start Redis and RabbitMQ from, out of the Debian packages installed on this machine:
# in seconds, without an image registry. Needs the packages (redis-server, rabbitmq-server) and a running Docker.
set -euo pipefail

REDIS_TAG=${1:-toolweaver-test-redis:local}
RABBITMQ_TAG=${2:-toolweaver-test-rabbitmq:local}

die() {
  echo "service-images: $*" >&2
  exit 1
}
command -v dpkg-query >/dev/null || die "this needs Debian's packages; on other systems tests take the official images"
docker info >/dev/null 2>&1 || die "no Docker daemon answers; start it, or set DOCKER_HOST"

# The packages given and all that they depend on, as far as they are installed here, and a shell with its commands.
closure() {
  apt-cache depends --recurse --installed --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances "$@" |
    sed -n 's/^\([a-z0-9][^ ]*\)$/\1/p' | grep -Ev '^(systemd|usrmerge|usr-is-merged|mount|logrotate)' | cat - <(printf '%s\n' dash coreutils sed grep)
}

# Only what runs: no documents, nothing of an init system, nothing for building.
files() {
  { closure "$@" | sort -u | xargs dpkg-query --listfiles 2>/dev/null || true; printf '%s\n' /bin /sbin /lib /lib64 /etc/passwd /etc/group /tmp; } |
    sed -E 's#^/(bin|sbin|lib|lib64)/#/usr/\1/#' |
    grep -Ev '^/usr/share/(doc|man|locale|info|lintian|bug)/|^/usr/lib/systemd/|/include/|\.a$' | sort -u |
    while read -r file; do if [ -L "$file" ] || [ -f "$file" ] || [ "$file" = /tmp ]; then printf '%s\0' "${file#/}"; fi; done
}

image() {
  local tag=$1
  shift
  files "$@" |
    tar --create --directory=/ --no-recursion --null --files-from=- |
    docker import --change 'ENV PATH=/usr/lib/rabbitmq/bin:/usr/sbin:/usr/bin' - "$tag" >/dev/null
  docker image inspect --format "$tag: {{.Size}} bytes" "$tag" >&2
}

image "$REDIS_TAG" redis-server
image "$RABBITMQ_TAG" rabbitmq-server
echo "TEST_REDIS_IMAGE=$REDIS_TAG"
echo "TEST_RABBITMQ_IMAGE=$RABBITMQ_TAG"
