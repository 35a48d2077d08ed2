#!/usr/bin/env bash
# Builds a base image for the sandbox out of the Debian packages installed on this machine: full Python, no shell, nothing else.
# In seconds, without any network. Needs Debian's own python3 and a running Docker. `ops/build-base-image.sh` builds a whole Debian.
#   ops/sandbox-base.sh [TAG] [PACKAGE...]    such as python3-numpy python3-pandas, if installed
set -euo pipefail

TAG=${1:-toolweaver-sandbox-base:local}
PACKAGES=("${@:2}")

die() {
  echo "sandbox-base: $*" >&2
  exit 1
}
command -v dpkg-query >/dev/null || die "this needs Debian's packages; elsewhere use python:3.11-slim, the default base"
for package in python3 "${PACKAGES[@]}"; do
  dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || die "$package is not installed: apt-get install $package"
done
docker info >/dev/null 2>&1 || die "no Docker daemon answers; start it, or set DOCKER_HOST"

# What they depend on, as far as it is installed here, without Debian's ways of installing.
closure() {
  { echo "$@" | tr ' ' '\n'; apt-cache depends --recurse --installed --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances "$@" |
    sed -n 's/^\([a-z0-9][^ ]*\)$/\1/p'; } | cat - <(echo tzdata) | sort -u |
    grep -Ev '^(debconf|dpkg|tar|perl-base|dash|bash|debianutils|mawk|sed|grep|coreutils|readline-common|install-info|base-files|adduser|passwd)(:|$)'
}

# Only what runs, and what Debian's installation scripts made of it (links, alternatives such as that of BLAS, the C.UTF-8 locale).
files() {
  { closure "$@" | xargs dpkg-query --listfiles 2>/dev/null || true
    printf '%s\n' /bin /sbin /lib /lib64 /etc/ld.so.cache /etc/localtime
    find /usr/lib/locale/C.utf8 -type f
    find /usr/lib -name '*.so*' -lname '/etc/alternatives/*' -printf '%p\n%l\n'; } |
    sed -E 's#^/(bin|sbin|lib|lib64)/#/usr/\1/#' |
    grep -Ev '^/usr/share/(doc|man|locale|info|lintian|bug|doc-base|applications|pixmaps)/|/include/|\.a$|^/usr/share/bash-completion|^/etc/(apt|init|logcheck|profile)|/tests?/.*\.(csv|npy|npz|pkl|zip|xlsx?)$' | sort -u |
    while read -r file; do if [ -L "$file" ] || [ -f "$file" ]; then printf '%s\0' "${file#/}"; fi; done
}

files python3 "${PACKAGES[@]}" |
  tar --create --directory=/ --no-recursion --null --files-from=- --sort=name --owner=0 --group=0 --numeric-owner |
  docker import --change 'ENV PATH=/usr/local/bin:/usr/bin' --change 'CMD ["python3"]' - "$TAG" >/dev/null
docker image inspect --format "$TAG: {{.Size}} bytes" "$TAG" >&2
echo "TOOLWEAVER_SANDBOX_BASE=$TAG"
