#!/bin/bash
# The gateway beside nginx: the same calls of the same upstream, through one and the other.
#
# usage: bench/gateway.sh
#
# ROUNDS=7        rounds; in each, every path is measured once, so that noise meets all of them
# SECONDS_EACH=3  how long one of these measurements lasts
#
# Both have two workers, keep connections to the upstream, and strip the prefix /function/up. The upstream is an nginx
# with one worker that answers `ok`. Needs wrk, nginx, python3; `make build` before.
# shellcheck source=bench/lib.sh
. "$(dirname "$0")/lib.sh"

rounds=${ROUNDS:-7} seconds=${SECONDS_EACH:-3}

need wrk wrk
need nginx nginx-light
need python3 python3
built dist/skep build

start_upstream
start_nginx_proxy /function/up/

cat >"$work/stack.yml" <<END
version: 1.0
provider:
  name: openfaas
functions:
  up:
    annotations:
      skep.upstream: http://127.0.0.1:$upstream_port
END
start skep dist/skep local "$work/stack.yml" --workers 2 --port 0 --log-level warn
skep=$!
await "the gateway to listen" grep -q 'listens on' "$work/skep"
skep_url=$(sed -n 's/.* listens on //p' "$work/skep")
sleep 1
idle=$(resident "$skep")

skep_url=$skep_url/function/up/

# What is compared is measured one right after the other.
for ((round = 0; round < rounds; round++)); do
    load_proxy skep 64 "$seconds" "$skep_url" "$skep"
    load_proxy nginx 64 "$seconds" "$nginx_url" "${nginx_processes[@]}"
    load 64 "$seconds" "$upstream_url"
    note upstream.rate "$rate"
    for path in skep nginx upstream; do
        url=${path}_url
        load 1 "$seconds" "${!url}"
        note "$path.p50" "$p50"
    done
done

row() { printf '%-28s %8s %8s %8s %7s  %-11s %s\n' "$@"; }
compare() { # label, series, operator and target
    local ours theirs direct=-
    ours=$(median "skep.$2") theirs=$(median "nginx.$2")
    [ ! -e "$work/series.upstream.$2" ] || direct=$(median "upstream.$2")
    row "$1" "$ours" "$theirs" "$direct" "$(ratio "$ours" "$theirs")" "$(spread "skep.$2" "nginx.$2")" \
        "${3:+$(verdict "$ours / $theirs" "${@:3}")}"
}
echo "gateway: medians of $rounds rounds of $seconds s"
row "" skep nginx direct ratio rounds target
compare "calls/s, 64 connections" rate '>=' 0.85
compare "1 connection, p50, µs" p50 '<=' 1.25
compare "processor time, µs/call" cpu
row "resident, idle, kB" "$idle" "" "" "" "" "$(verdict "$idle" '<=' 15000)"
row "resident, after load, kB" "$(resident "$skep")" "" "" "" "" ""
