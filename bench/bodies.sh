#!/bin/bash
# Large bodies through the watchdog and one process, there and back, beside the same bytes through a pipeline of cats.
#
# usage: bench/bodies.sh
#
# ROUNDS=5        rounds; in each, everything is measured once, so that noise meets all of it
# GIGABYTES=2     size of the large body
# CALLS=200       calls with 1 MiB over each of four connections
# WATCHDOG=       paths of further watchdogs to measure beside ours
#
# The floor is `cat BIG | cat | cat >/dev/null`. The caller (bench/echo.c) copies nothing that it need not.
# Needs gcc, musl-gcc, python3; `make build` before.
# shellcheck source=bench/lib.sh
. "$(dirname "$0")/lib.sh"

rounds=${ROUNDS:-5} gigabytes=${GIGABYTES:-2} calls=${CALLS:-200}
read -ra others <<<"${WATCHDOG:-}"
watchdogs=(dist/fwatchdog "${others[@]}")

need gcc gcc
need musl-gcc musl-tools
need python3 python3
built dist/fwatchdog build
musl-gcc -static -O2 -o "$work/cat" bench/cat.c
gcc -O2 -pthread -o "$work/echo" bench/echo.c
# Of zeros that take no room on the disk; the pipeline reads it once before it counts.
truncate -s "$gigabytes"G "$work/big"
truncate -s 1M "$work/small"

pipeline() { # sets speed, bytes/s
    local began=${EPOCHREALTIME/./}
    # shellcheck disable=SC2002  # three of them are what is compared with
    cat "$work/big" | cat | cat >/dev/null
    speed=$((gigabytes * 1024 ** 3 * 1000000 / (${EPOCHREALTIME/./} - began)))
}

peak() { # process; kB
    awk '/^VmHWM/ {print $2}' "/proc/$1/status"
}

processes=() ports=() peaks=()
for program in "${watchdogs[@]}"; do
    port=$(free_port)
    start watchdog env fprocess="$work/cat" port="$port" TMPDIR="$work" "$program"
    processes+=("$!") ports+=("$port")
    await "$program to listen" listens "$port"
done

pipeline
for ((round = 0; round < rounds; round++)); do
    for i in "${!watchdogs[@]}"; do
        pipeline
        note "floor.$i" "$speed"
        note "big.$i" "$("$work/echo" "${ports[i]}" "$work/big" 1 1)"
        note "small.$i" "$("$work/echo" "${ports[i]}" "$work/small" 4 "$calls")"
        # After each kind of body has passed once, nothing may grow any more.
        [ "$round" -gt 0 ] || peaks+=("$(peak "${processes[i]}")")
    done
done

row() { printf '%-34s %10s %10s %7s  %-11s %s\n' "$@"; }
megabytes() { awk "BEGIN {printf \"%.0f\", $1 / 1e6}"; }
for i in "${!watchdogs[@]}"; do
    floor=$(median "floor.$i") big=$(median "big.$i") small=$(median "small.$i") peak=$(peak "${processes[i]}")
    echo "${watchdogs[i]}: medians of $rounds rounds"
    row "" "" "beside" ratio rounds target
    row "$gigabytes GiB, MB/s, beside cat|cat|cat" "$(megabytes "$big")" "$(megabytes "$floor")" "$(ratio "$big" "$floor")" \
        "$(spread "big.$i" "floor.$i")" "$(verdict "$big / $floor" '>=' 0.40)"
    row "1 MiB, 4 at a time, MB/s, beside it" "$(megabytes "$small")" "$(megabytes "$big")" "$(ratio "$small" "$big")" \
        "$(spread "small.$i" "big.$i")" "$(verdict "$small / $big" '>=' 0.50)"
    row "peak memory, kB, beside round 1" "$peak" "${peaks[i]}" "$(ratio "$peak" "${peaks[i]}")" "" \
        "$(verdict "$peak / ${peaks[i]}" '<=' 1.25)"
done
