#!/bin/bash
# The gateway beside nginx: the same calls of the same upstream, through one and the other.
#
# usage: bench/gateway.sh
#
# ROUNDS=7        rounds; in each, every path is measured once, so that noise meets all of them
# SECONDS_EACH=3  how long one of these measurements lasts
# SHARE=0.5       the constant rate, as a share of the rate that the slower of both took
# LISTEN=         what nginx's `listen` says more; by itself one of its workers often takes most of the connections, which
#                 waits less at a low rate and more at a high one; with reuseport they are spread as the gateway spreads them
#
# Both have two workers, keep connections to the upstream, and strip the prefix /function/up, and both are started anew in each
# round: one start differs from the next by up to a tenth, for as long as it runs. The upstream is an nginx with one worker that
# answers `ok`, or a file of 1 MiB. Needs wrk, nginx, python3 and cargo; `make build` before.
# shellcheck source=bench/lib.sh
. "$(dirname "$0")/lib.sh"

rounds=${ROUNDS:-7} seconds=${SECONDS_EACH:-3}

need wrk wrk
need nginx nginx-light
need python3 python3
need curl curl
built dist/skep build
build_pace

start_upstream
head -c 1048576 /dev/zero >"$work/files/large"
cat >"$work/stack.yml" <<END
version: 1.0
provider:
  name: openfaas
functions:
  up:
    annotations:
      skep.upstream: http://127.0.0.1:$upstream_port
END

# Sets skep and skep_url, and what start_nginx_proxy sets.
nginx_processes=()
start_both() {
    stop "${nginx_processes[@]::1}" ${skep:+"$skep"}
    start_nginx_proxy /function/up/
    start skep dist/skep local "$work/stack.yml" --workers 2 --port 0 --log-level warn
    skep=$!
    await "the gateway to listen" grep -q 'listens on' "$work/skep"
    skep_url=$(sed -n 's/.* listens on //p' "$work/skep")/function/up/
    await "the gateway to answer" curl -sf "$skep_url"
}

for ((round = 0; round < rounds; round++)); do
    start_both
    note idle "$(resident "$skep")"
    load_both get64 64 ""
    load 64 "$seconds" "$upstream_url"
    note upstream.get64.rate "$rate"
    load_both get256 256 ""
    export WRK_BODY_BYTES=1024
    load_both post64 64 ""
    load_both post256 256 ""
    WRK_BODY_BYTES=1048576
    load_both up 8 ""
    unset WRK_BODY_BYTES
    load_both down 8 files/large
    for path in $(in_turn "$round") upstream; do
        url=${path}_url
        load 1 "$seconds" "${!url}"
        note "$path.one.p50" "$p50"
    done
    note loaded "$(resident "$skep")"
done

pace_all "$rounds" "$seconds" start_both

echo "gateway: medians of $rounds rounds of $seconds s"
row "" skep nginx direct ratio rounds target
for kind in get:GET "post:POST of 1 KiB"; do
    for connections in 64 256; do
        series=${kind%%:*}$connections label="${kind#*:}, $connections connections"
        compare "$label, calls/s" "$series.rate" '>=' 1.0
        compare "  p99, µs" "$series.p99" '<=' 1.1
        compare "  processor time, µs/call" "$series.cpu" '<=' 1.15
    done
done
compare "GET, 1 connection, p50, µs" one.p50 '<=' 1.1
compare "1 MiB up, 8 connections, calls/s" up.rate '>=' 1.0
compare "  processor time, µs/call" up.cpu
compare "1 MiB down, 8 connections, calls/s" down.rate '>=' 1.0
compare "  processor time, µs/call" down.cpu
compare "$steady calls/s, p50, ms" steady.p50 '<=' 1.0
compare "  p99, ms" steady.p99 '<=' 1.0
idle=$(median idle)
row "resident, idle, kB" "$idle" "" "" "" "" "$(verdict "$idle" '<=' 12000)"
row "resident, after load, kB" "$(median loaded)" "" "" "" "" ""
