#!/bin/bash
# How much of the machine's own rate of starting processes is left with the watchdog and HTTP in between, and its memory.
#
# usage: bench/watchdog.sh
#
# ROUNDS=7        rounds; in each, every program is measured once, so that noise meets all of them
# SECONDS_EACH=2  how long one of these measurements lasts
# RUNS=3000       runs of each of spawnloop's threads
# WATCHDOG=       paths of further watchdogs to measure beside ours
#
# The floor is spawnloop: it starts the same static cat (posix_spawn, five bytes in, output read to its end, reaped)
# without any HTTP. Needs wrk, gcc, musl-gcc, python3; `make build` before.
# shellcheck source=bench/lib.sh
. "$(dirname "$0")/lib.sh"

rounds=${ROUNDS:-7} seconds=${SECONDS_EACH:-2} runs=${RUNS:-3000}
read -ra others <<<"${WATCHDOG:-}"
watchdogs=(dist/fwatchdog "${others[@]}")

need wrk wrk
need gcc gcc
need musl-gcc musl-tools
need python3 python3
built dist/fwatchdog build
musl-gcc -static -O2 -o "$work/cat" bench/cat.c
gcc -O2 -pthread -o "$work/spawnloop" bench/spawnloop.c
export WRK_BODY=hello

start_watchdog() { # program; sets url
    local port
    port=$(free_port)
    start watchdog env fprocess="$work/cat" port="$port" metrics_port=0 TMPDIR="$work" "$1"
    await "$1 to listen" listens "$port"
    url=http://127.0.0.1:$port/
}

processes=() urls=()
for program in "${watchdogs[@]}"; do
    start_watchdog "$program"
    processes+=("${started[-1]}") urls+=("$url")
done

for ((round = 0; round < rounds; round++)); do
    note floor "$("$work/spawnloop" "$runs" 4 posix_spawn "$work/cat" | cut -d' ' -f1)"
    note one "$("$work/spawnloop" "$((runs / 3))" 1 posix_spawn "$work/cat" | awk '{print $3}')"
    for i in "${!watchdogs[@]}"; do
        load 16 "$seconds" "${urls[i]}"
        note "rate.$i" "$rate"
        load 1 "$seconds" "${urls[i]}"
        note "p50.$i" "$p50"
        # Pages that the kernel maps in beforehand differ from start to start, so idle memory is a median, too.
        start_watchdog "${watchdogs[i]}"
        sleep 1
        note "idle.$i" "$(resident "${started[-1]}")"
        stop "${started[-1]}"
        unset 'started[-1]'
    done
done

row() { printf '%-28s %9s %9s %7s  %-11s %s\n' "$@"; }
floor=$(median floor) one=$(median one)
for i in "${!watchdogs[@]}"; do
    rate=$(median "rate.$i") p50=$(median "p50.$i") idle=$(median "idle.$i") bytes=$(stat -L -c %s "${watchdogs[i]}")
    echo "${watchdogs[i]}: medians of $rounds rounds"
    row "" watchdog floor ratio rounds target
    row "runs/s, 16 at a time" "$rate" "$floor" "$(ratio "$rate" "$floor")" "$(spread "rate.$i" floor)" \
        "$(verdict "$rate / $floor" '>=' 0.60)"
    row "one at a time, p50, µs" "$p50" "$one" "$(ratio "$p50" "$one")" "$(spread "p50.$i" one)" ""
    row "resident, idle, kB" "$idle" "" "" "" "$(verdict "$idle" '<=' 1800)"
    row "resident, after load, kB" "$(resident "${processes[i]}")" "" "" "" ""
    row "bytes of the program" "$bytes" "" "" "" "$(verdict "$bytes" '<=' 2000000)"
done
