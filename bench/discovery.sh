#!/bin/bash
# How soon a call reaches a new service once its task runs, and how soon a removed one is a 404.
#
# usage: bench/discovery.sh
#
# RUNS=20                            services created and removed, one after the other
# GATEWAY_IMAGE=skep/gateway         the gateway that is measured
# FUNCTION_IMAGE=skep/catservice     what the services run
#
# Needs a Swarm manager's engine and python3; `make images` before. Everything is made under a random name, on a network
# of its own, and removed at the end.
# shellcheck source=bench/lib.sh
. "$(dirname "$0")/lib.sh"

gateway_image=${GATEWAY_IMAGE:-skep/gateway} function_image=${FUNCTION_IMAGE:-skep/catservice}
name=skep-bench-$(od -An -N4 -tx4 /dev/urandom | tr -d ' ')

need docker docker.io
need python3 python3
[ "$(docker info --format '{{.Swarm.ControlAvailable}}' 2>/dev/null)" = true ] ||
    die "no Swarm manager answers here: docker swarm init"
for image in "$gateway_image" "$function_image"; do
    docker image inspect "$image" >/dev/null 2>&1 || die "image $image is missing: make images"
done

nothing_left() {
    docker network rm "$name" || true
    [ -z "$(docker ps --all --quiet --filter "name=$name")$(docker network ls --quiet --filter "name=$name")" ]
}

# Also after an interruption; the network can go only when the last task has left it, seconds later.
remove_all() {
    docker service ls --quiet --filter "name=$name" | xargs -r docker service rm >/dev/null || true
    docker rm --force "$name" >/dev/null 2>&1 || true
    stop_all
    await "the tasks to leave the network $name" nothing_left
}
trap remove_all EXIT

docker network create --driver overlay --attachable "$name" >/dev/null
docker run --detach --name "$name" --network "$name" --env "network=$name" --publish 127.0.0.1::8080 \
    --volume /var/run/docker.sock:/var/run/docker.sock "$gateway_image" >/dev/null
address=$(docker port "$name" 8080/tcp)
await "the gateway to be ready" python3 -c "import urllib.request as r; r.urlopen('http://$address/readyz')"
python3 bench/discovery.py "$name" "$function_image" "http://$address" "${RUNS:-20}"
