#!/bin/bash
# The stack of docker-compose.yml, brought up or taken down, and waited for:
#
#   stack.sh up|down [STACK]      STACK defaults to `faas`
#
# Its ports, images and network are set by the variables that docker-compose.yml names.
set -euo pipefail
cd "$(dirname "$0")/.."

stack=${2:-faas}
network=${FUNCTIONS_NETWORK:-functions}
seconds=${WAIT_SECONDS:-120}

up() {
    if [ "$(docker info --format '{{.Swarm.ControlAvailable}}')" != true ]; then
        echo "stack.sh: this engine is no Swarm manager; make it one with: docker swarm init" >&2
        exit 1
    fi
    # Docker's own message would say only that the network exists, not what to do.
    local owner
    if owner=$(docker network inspect --format '{{index .Labels "com.docker.stack.namespace"}}' "$network" 2>/dev/null) &&
        [ "$owner" != "$stack" ]; then
        echo "stack.sh: there is already a network '$network' that is not this stack's: choose another name with" >&2
        echo "          FUNCTIONS_NETWORK=..., or remove it with: docker network rm $network" >&2
        exit 1
    fi
    # The images are local, so no registry is asked for their digests.
    docker stack deploy --resolve-image never -c docker-compose.yml "$stack"

    renew

    local before='' now
    for ((; SECONDS < seconds; )); do
        now=$(docker stack services --format '{{.Name}} {{.Replicas}}' "$stack" | sort | paste -sd ' ')
        [ "$now" = "$before" ] || echo "$now"
        before=$now
        if settled; then
            echo "up after $SECONDS s"
            return
        fi
        sleep 0.5
    done
    echo "stack.sh: not all running after $seconds s:" >&2
    docker stack ps --no-trunc --format '{{.Name}}: {{.CurrentState}} {{.Error}}' "$stack" >&2
    exit 1
}

# An image built anew under the same name is no change of a service to Swarm: services with containers of the old one
# are told to start over.
renew() {
    local service image container
    for service in $(docker stack services --format '{{.Name}}' "$stack"); do
        image=$(docker service inspect --format '{{.Spec.TaskTemplate.ContainerSpec.Image}}' "$service")
        image=$(docker image inspect --format '{{.Id}}' "$image" 2>/dev/null) || continue
        for container in $(docker ps -q --filter "label=com.docker.swarm.service.name=$service"); do
            if [ "$(docker inspect --format '{{.Image}}' "$container")" != "$image" ]; then
                echo "Renewing service $service"
                docker service update --detach --force "$service" >/dev/null
                break
            fi
        done
    done
}

# Does every service run as many tasks as it wants, with no update under way?
settled() {
    docker stack services --format '{{.Replicas}}' "$stack" |
        awk '{split($1, count, "/"); if (count[1] != count[2]) exit 1}' || return 1
    local service
    for service in $(docker stack services --format '{{.Name}}' "$stack"); do
        [ "$(docker service inspect --format '{{with .UpdateStatus}}{{.State}}{{end}}' "$service")" != updating ] || return 1
    done
}

down() {
    docker stack rm "$stack"
    # `rm` returns at once; until containers and networks are gone, the next `up` would fail on them.
    local left
    for ((; SECONDS < seconds; )); do
        left=$(docker ps -aq --filter "label=com.docker.stack.namespace=$stack"
            docker network ls -q --filter "label=com.docker.stack.namespace=$stack")
        [ -n "$left" ] || { echo "down after $SECONDS s"; return; }
        sleep 0.5
    done
    echo "stack.sh: containers or networks of '$stack' are still there after $seconds s" >&2
    exit 1
}

command=${1:-}
case $command in
up | down) "$command" ;;
*) echo "usage: stack.sh up|down [STACK]" >&2; exit 2 ;;
esac
