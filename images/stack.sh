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
gateway_port=${GATEWAY_PORT:-8080}
prometheus_port=${PROMETHEUS_PORT:-9090}

up() {
    if [ "$(docker info --format '{{.Swarm.ControlAvailable}}')" != true ]; then
        echo "stack.sh: this engine is no Swarm manager; make it one with: docker swarm init" >&2
        exit 1
    fi
    check_surroundings

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
            show_urls
            return
        fi
        sleep 0.5
    done
    echo "stack.sh: not all running after $seconds s:" >&2
    docker stack ps --no-trunc --format '{{.Name}}: {{.CurrentState}} {{.Error}}' "$stack" >&2
    exit 1
}

# What would keep the stack from coming up, such as what the README's quickstart leaves behind: each thing is named, with the commands that
# make way. Docker's own messages would say that a network exists, or that a port is taken, and not what to do.
check_surroundings() {
    local troubles=() removals=() settings=() owner services='' containers='' name port
    if owner=$(docker network inspect --format '{{index .Labels "com.docker.stack.namespace"}}' "$network" 2>/dev/null) &&
        [ "$owner" != "$stack" ]; then
        services=$(services_on "$network")
        containers=$(containers_on "$network")
        troubles+=("there is already a network '$network' that is not this stack's${services:+; services on it: $services}${containers:+; containers on it: $containers}")
        [ -z "$services" ] || removals+=("docker service rm $services")
        [ -z "$containers" ] || removals+=("docker rm --force $containers")
        # A service's tasks leave a network a moment after the service is gone, and the node forgets it another moment later.
        removals+=("while docker network inspect $network; do docker network rm $network; sleep 1; done >/dev/null 2>&1")
        settings+=("FUNCTIONS_NETWORK=$stack-functions")
    fi
    # On several nodes another one may have the port free.
    if [ "$(docker node ls --quiet | wc -l)" -eq 1 ]; then
        for name in GATEWAY_PORT PROMETHEUS_PORT; do
            port=$gateway_port
            [ "$name" = GATEWAY_PORT ] || port=$prometheus_port
            is_taken "$port" || continue
            settings+=("$name=$(free_port $((port + 1)))")
            check_holder "$port"
        done
    fi
    [ ${#troubles[@]} -gt 0 ] || return 0
    {
        printf 'stack.sh: %s\n' "${troubles[@]}"
        echo "Remove what is in the way, and bring the stack up again:"
        printf '    %s\n' "${removals[@]}" "make up"
        echo "Or leave it, and give the stack other ones:"
        echo "    ${settings[*]} make up"
    } >&2
    exit 1
}

# Who has a port, and how to end that, for check_surroundings.
check_holder() { # port
    local container service
    read -r container service < <(docker ps --filter "publish=$1" --format '{{.Names}} {{.Label "com.docker.swarm.service.name"}}') || true
    service=${service:-$(docker service ls --format '{{.Name}} {{.Ports}}' | awk -v port=":$1->" 'index($0, port) {print $1; exit}')}
    if [ -n "$service" ]; then
        troubles+=("port $1 is taken by the service $service")
        [[ " $services " = *" $service "* ]] || removals=("docker service rm $service" "${removals[@]}")
    elif [ -n "$container" ]; then
        troubles+=("port $1 is taken by the container $container")
        [[ " $containers " = *" $container "* ]] || removals=("docker rm --force $container" "${removals[@]}")
    else
        troubles+=("port $1 is taken by another program")
        removals+=("ss -ltnp 'sport = :$1'   # shows which: end it")
    fi
}

# Names of services on a network, in one line.
services_on() { # network
    local id all
    id=$(docker network inspect --format '{{.Id}}' "$1")
    mapfile -t all < <(docker service ls --quiet)
    [ ${#all[@]} -gt 0 ] || return 0
    docker service inspect --format '{{.Spec.Name}}{{range .Spec.TaskTemplate.Networks}} {{.Target}}{{end}} ' "${all[@]}" |
        awk -v id=" $id " -v name=" $1 " 'index($0, id) || index($0, name) {print $1}' | paste -sd ' '
}

# Names of containers on a network that are no service's tasks, stopped ones too, in one line.
containers_on() { # network
    docker ps --all --filter "network=$1" --format '{{.Names}} {{.Label "com.docker.swarm.service.name"}}' |
        awk 'NF == 1 {print $1}' | paste -sd ' '
}

# Does anything but this stack listen on a port of this machine?
is_taken() { # port
    [ -z "$(docker ps --quiet --filter "publish=$1" --filter "label=com.docker.stack.namespace=$stack")" ] || return 1
    (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# The first port from this one on that nothing listens on.
free_port() { # port
    local port=$1
    while is_taken "$port"; do port=$((port + 1)); done
    echo "$port"
}

show_urls() {
    local url=http://localhost:$gateway_port
    echo "functions   $url/function/catservice   (try: curl -d hello $url/function/catservice)"
    echo "metrics     http://localhost:$prometheus_port"
    echo "management  $url/system/functions   (user admin; this shows the password:"
    echo "            docker exec \$(docker ps -q -f label=com.docker.swarm.service.name=${stack}_gateway) skep password)"
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
