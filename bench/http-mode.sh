#!/bin/bash
# The watchdog's mode=http beside nginx: the same calls of the same child, through one and the other.
#
# usage: bench/http-mode.sh
#
# ROUNDS=7        rounds; in each, every path is measured once, so that noise meets all of them
# SECONDS_EACH=3  how long one of these measurements lasts
# WATCHDOG=       paths of further watchdogs to measure beside ours
#
# nginx has two workers, a watchdog as many as it takes; both keep connections to the child, an nginx with one worker that
# answers `ok`. What the watchdogs start is a process that does nothing: all have to pass calls to the same child.
# Needs wrk, nginx, python3; `make build` before.
# shellcheck source=bench/lib.sh
. "$(dirname "$0")/lib.sh"

rounds=${ROUNDS:-7} seconds=${SECONDS_EACH:-3}
read -ra others <<<"${WATCHDOG:-}"
watchdogs=(dist/fwatchdog "${others[@]}")

need wrk wrk
need nginx nginx-light
need python3 python3
built dist/fwatchdog build

start_upstream
start_nginx_proxy /

processes=() urls=()
for program in "${watchdogs[@]}"; do
    port=$(free_port)
    start watchdog env mode=http fprocess="sleep infinity" http_upstream_url="${upstream_url%/}" port="$port" \
        TMPDIR="$work" "$program"
    processes+=("$!") urls+=("http://127.0.0.1:$port/")
    await "$program to reach the child" curl -sf "${urls[-1]}"
done

# What is compared is measured one right after the other.
for ((round = 0; round < rounds; round++)); do
    for i in "${!watchdogs[@]}"; do
        load_proxy "watchdog.$i" 64 "$seconds" "${urls[i]}" "${processes[i]}"
        load_proxy "nginx.$i" 64 "$seconds" "$nginx_url" "${nginx_processes[@]}"
        load 1 "$seconds" "${urls[i]}"
        note "watchdog.$i.p50" "$p50"
        load 1 "$seconds" "$nginx_url"
        note "nginx.$i.p50" "$p50"
    done
done

row() { printf '%-28s %9s %9s %7s  %-11s %s\n' "$@"; }
compare() { # number of the watchdog, label, series, operator and target
    local ours theirs
    ours=$(median "watchdog.$1.$3") theirs=$(median "nginx.$1.$3")
    row "$2" "$ours" "$theirs" "$(ratio "$ours" "$theirs")" "$(spread "watchdog.$1.$3" "nginx.$1.$3")" \
        "${4:+$(verdict "$ours / $theirs" "${@:4}")}"
}
for i in "${!watchdogs[@]}"; do
    echo "${watchdogs[i]}, mode=http: medians of $rounds rounds of $seconds s"
    row "" watchdog nginx ratio rounds target
    compare "$i" "calls/s, 64 connections" rate '>=' 0.90
    compare "$i" "1 connection, p50, µs" p50
    compare "$i" "processor time, µs/call" cpu
    row "resident, after load, kB" "$(resident "${processes[i]}")" "" "" "" ""
done
