#!/bin/bash
# The gateway beside nginx on an overlay network of Docker Swarm: the same calls of the same task, through one and the other.
#
# usage: bench/overlay.sh
#
# ROUNDS=7        rounds; in each, every path is measured once, so that noise meets all of them
# SECONDS_EACH=3  how long one of these measurements lasts
# SHARE=0.5       the constant rate, as a share of the rate that the slower of both took
#
# All four are containers on one network: the caller, the gateway, which finds the function through the engine and calls its
# task's address, an nginx with two workers that is told this address, and the task, an nginx with one worker that answers
# `ok`. Both proxies are started anew in each round, as in gateway.sh. Nothing is pulled: one image has all programs, taken
# from this machine with the libraries that they are linked with. Needs a Swarm manager's engine on this machine and the right
# to see its processes, wrk, nginx and cargo; `make build` before. Everything is made under a random name and removed at the
# end.
# shellcheck source=bench/lib.sh
. "$(dirname "$0")/lib.sh"

rounds=${ROUNDS:-7} seconds=${SECONDS_EACH:-3}
name=skep-bench-$(od -An -N4 -tx4 /dev/urandom | tr -d ' ')

need docker docker.io
need wrk wrk
need nginx nginx-light
[ "$(docker info --format '{{.Swarm.ControlAvailable}}' 2>/dev/null)" = true ] ||
    die "no Swarm manager answers here: docker swarm init"
built dist/skep build
build_pace

nothing_left() {
    docker network rm "$name" || true
    # Without force: that would only take the name off an image that the task still runs.
    docker image rm "$name" || true
    [ -z "$(docker ps --all --quiet --filter "name=$name")$(docker network ls --quiet --filter "name=$name")$(
        docker image ls --quiet "$name")" ]
}

# Also after an interruption; the network can go only when the last task has left it, seconds later.
remove_all() {
    docker service ls --quiet --filter "name=$name" | xargs -r docker service rm >/dev/null || true
    docker rm --force --volumes "$name-caller" "$name-skep" "$name-nginx" >/dev/null 2>&1 || true
    stop_all
    await "the tasks to leave the network $name" nothing_left
}
trap remove_all EXIT

# Puts a program into the image, with what it is linked with; a static one is linked with nothing.
take() { # program, its name there
    local library
    install -D "$1" "$work/root/usr/bin/$2"
    for library in $(ldd "$1" 2>/dev/null | grep -o '/[^ ]*'); do install -D "$library" "$work/root$library"; done
}
take dist/skep skep
take "$pace" pace
for program in nginx wrk sleep; do take "$(command -v "$program")" "$program"; done
pace=pace
install -D bench/wrk.lua "$work/root/bench/wrk.lua"
mkdir -p "$work/root/etc" "$work/root/tmp"
# Whom nginx's workers run as.
echo 'nobody:x:65534:65534:nobody:/:/bin/false' >"$work/root/etc/passwd"
echo 'nogroup:x:65534:' >"$work/root/etc/group"
nginx_conf /tmp 1 "server { listen 8080; location / { return 200 ok; } }" >"$work/root/etc/upstream.conf"
tar -C "$work/root" --owner 0 --group 0 --numeric-owner -c . |
    docker import --change 'ENV PATH=/usr/bin' --change 'WORKDIR /' - "$name" >/dev/null

docker network create --driver overlay --attachable "$name" >/dev/null
docker service create --detach --quiet --no-resolve-image --name "$name-up" --network "$name" --endpoint-mode dnsrr \
    "$name" nginx -e stderr -c /etc/upstream.conf >/dev/null
task() {
    docker ps --quiet --filter "label=com.docker.swarm.service.name=$name-up" | grep .
}
await "the task to run" task
task=$(task)

# A container on the network, for as long as this runs.
run() { # last part of its name, docker's options and the command...
    docker run --detach --name "$name-$1" --network "$name" "${@:2}" >/dev/null
}
# Inside the network.
address() { # container
    docker inspect --format "{{(index .NetworkSettings.Networks \"$name\").IPAddress}}" "$1"
}
# Of its first process, as this machine sees it.
process() { # container
    docker inspect --format '{{.State.Pid}}' "$1"
}

nginx_conf /tmp 2 "$(proxy_conf "$(address "$task"):8080" 8080 "/function/$name-up/")" >"$work/proxy.conf"
run nginx --volume "$work/proxy.conf:/etc/proxy.conf:ro" "$name" nginx -e stderr -c /etc/proxy.conf
run skep --volume /var/run/docker.sock:/var/run/docker.sock:ro --env "network=$name" "$name" skep --workers 2 --log-level warn
run caller "$name" sleep infinity
there=(docker exec "$name-caller")

upstream_url=http://$(address "$task"):8080/
answers() (load 1 1 "$1")

# Sets skep, nginx_processes and the addresses of both.
start_both() {
    local nginx
    docker restart "$name-nginx" "$name-skep" >/dev/null
    nginx_url=http://$(address "$name-nginx"):8080/function/$name-up/
    skep_url=http://$(address "$name-skep"):8080/function/$name-up/
    await "nginx to answer" answers "$nginx_url"
    await "the gateway to find the function" answers "$skep_url"
    skep=$(process "$name-skep")
    nginx=$(process "$name-nginx")
    read -ra nginx_processes <<<"$nginx $(cat "/proc/$nginx/task/$nginx/children")"
}

for ((round = 0; round < rounds; round++)); do
    start_both
    load_both get64 64 ""
    load 64 "$seconds" "$upstream_url"
    note upstream.get64.rate "$rate"
    note upstream.get64.p99 "$p99"
done

pace_all "$rounds" "$seconds" start_both

echo "overlay: medians of $rounds rounds of $seconds s"
row "" skep nginx direct ratio rounds target
compare "GET, 64 connections, calls/s" get64.rate '>=' 1.0
compare "  p99, µs" get64.p99 '<=' 1.1
compare "  processor time, µs/call" get64.cpu '<=' 1.15
compare "$steady calls/s, p50, ms" steady.p50 '<=' 1.0
compare "  p99, ms" steady.p99 '<=' 1.0
