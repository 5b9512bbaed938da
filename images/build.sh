#!/bin/bash
# Builds images from what lies in dist/ (`make build`):
#
#   build.sh [gateway] [fwatchdog] [prometheus] [<sample>...]     all of them without arguments
#
# IMAGE_PREFIX=skep/   what the names begin with
# IMAGE_TAG=latest     their tag
# BASES=local          on which base images: `local` takes skep-test/* (images/base.sh makes those that are missing),
#                      `public` the ones named in the Dockerfiles, pulled by Docker
set -euo pipefail
cd "$(dirname "$0")/.."

prefix=${IMAGE_PREFIX:-skep/}
tag=${IMAGE_TAG:-latest}
bases=${BASES:-local}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

dockerfile_of() { # image
    local file
    for file in "images/$1.Dockerfile" "sample-functions/$1/Dockerfile"; do
        [ -f "$file" ] && echo "$file" && return
    done
    echo "build.sh: no such image: $1" >&2
    return 1
}

# The word after `ARG BASE=`, without registry path and tag: prom/prometheus:v2 → prometheus. Nothing without the line.
base_of() { # Dockerfile
    sed -n 's/^ARG BASE=//p' "$1" | sed 's|.*/||; s|:.*||'
}

if [ $# -eq 0 ]; then
    set -- gateway fwatchdog prometheus
    for file in sample-functions/*/Dockerfile; do
        set -- "$@" "$(basename "${file%/Dockerfile}")"
    done
fi

for name in "$@"; do
    file=$(dockerfile_of "$name")
    arguments=()
    base=$(base_of "$file")
    if [ -n "$base" ] && [ "$bases" = local ]; then
        images/base.sh "$base"
        arguments=(--build-arg "BASE=skep-test/$base")
    fi
    old=$(docker image inspect --format '{{.Id}}' "$prefix$name:$tag" 2>/dev/null) || old=
    # Docker's notices (that its classic builder is old, for one) are of use only when something failed.
    if ! docker build --quiet "${arguments[@]}" -f "$file" -t "$prefix$name:$tag" . >"$log" 2>&1; then
        cat "$log" >&2
        exit 1
    fi
    # The image that had the name before would stay without one for good. Where it still runs, Docker keeps it.
    [ -z "$old" ] || [ "$old" = "$(docker image inspect --format '{{.Id}}' "$prefix$name:$tag")" ] ||
        docker rmi "$old" >/dev/null 2>&1 || true
    echo "$prefix$name:$tag"
done
