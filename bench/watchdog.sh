#!/bin/bash
# How much of the machine's own rate of starting processes is left with the watchdog and HTTP in between; its memory, its
# start, and that it does nothing when nobody calls.
#
# usage: bench/watchdog.sh
#
# ROUNDS=7        rounds; in each, every program is measured once, so that noise meets all of them
# SECONDS_EACH=2  how long one of these measurements lasts
# RUNS=3000       runs of each of spawnloop's threads
# CALLS=100000    calls after which the memory is looked at
# WATCHDOG=       paths of further watchdogs to measure beside ours; dist/fwatchdog-musl (make fwatchdog-musl) is one
#
# The floor is spawnloop: it starts the same static cat (posix_spawn, five bytes in, output read to its end, reaped)
# without any HTTP. One call at a time is compared with one such run plus one call of /_/health, which starts nothing.
# Needs wrk, strace, gcc, musl-gcc, python3; `make build` before.
# shellcheck source=bench/lib.sh
. "$(dirname "$0")/lib.sh"

rounds=${ROUNDS:-7} seconds=${SECONDS_EACH:-2} runs=${RUNS:-3000} calls=${CALLS:-100000}
read -ra others <<<"${WATCHDOG:-}"
watchdogs=(dist/fwatchdog "${others[@]}")

need wrk wrk
need strace strace
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
    # Each has a lock file of its own: without it nobody would be healthy.
    start watchdog env fprocess="$work/cat" port="$port" metrics_port=0 TMPDIR="$(mktemp -d -p "$work")" "$1"
    await "$1 to listen" listens "$port"
    url=http://127.0.0.1:$port/
}

# Milliseconds from exec to the first connection that is accepted.
time_start() { # program
    python3 - "$1" "$(free_port)" <<'END'
import os, socket, sys, time
environment = dict(os.environ, fprocess="true", port=sys.argv[2], metrics_port="0", suppress_lock="true")
quiet = [(os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0)]
began = time.monotonic()
process = os.posix_spawn(sys.argv[1], [sys.argv[1]], environment, file_actions=quiet)
while True:
    with socket.socket(socket.AF_INET6) as s:
        if s.connect_ex(("::1", int(sys.argv[2]))) == 0:
            break
    if time.monotonic() - began > 30:
        sys.exit(f"{sys.argv[1]} does not listen")
print(f"{(time.monotonic() - began) * 1000:.2f}")
os.kill(process, 9)
os.waitpid(process, 0)
END
}

# System calls that a watchdog makes in ten seconds without a call.
count_idle_calls() { # process
    timeout 10 strace -f -o "$work/strace" -p "$1" 2>/dev/null || true
    # Those that it waits in, before and after, have no result.
    grep -c ' = ' "$work/strace" || true
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
        WRK_BODY='' load 1 "$seconds" "${urls[i]}_/health"
        note "health.$i" "$p50"
        note "start.$i" "$(time_start "${watchdogs[i]}")"
        # Pages that the kernel maps in beforehand differ from start to start, so idle memory is a median, too.
        start_watchdog "${watchdogs[i]}"
        sleep 1
        note "idle.$i" "$(resident "${started[-1]}")"
        stop "${started[-1]}"
        unset 'started[-1]'
    done
done

# Whatever was measured so far, each has had this many calls then.
for i in "${!watchdogs[@]}"; do
    made=0
    while [ "$made" -lt "$calls" ]; do
        load 16 "$seconds" "${urls[i]}"
        made=$((made + answers))
    done
    sleep 2
    note "idle-calls.$i" "$(count_idle_calls "${processes[i]}")"
done

row() { printf '%-36s %9s %9s %7s  %-11s %s\n' "$@"; }
floor=$(median floor) one=$(median one)
for i in "${!watchdogs[@]}"; do
    rate=$(median "rate.$i") p50=$(median "p50.$i") idle=$(median "idle.$i") bytes=$(stat -L -c %s "${watchdogs[i]}")
    single=$(awk "BEGIN {print $one + $(median "health.$i")}") loaded=$(resident "${processes[i]}")
    most_bytes=2000000 most_idle=1800 most_loaded=3000
    case ${watchdogs[i]} in *musl*) most_bytes=900000 most_idle=900 most_loaded=1200 ;; esac
    echo "${watchdogs[i]}: medians of $rounds rounds"
    row "" watchdog floor ratio rounds target
    row "runs/s, 16 at a time" "$rate" "$floor" "$(ratio "$rate" "$floor")" "$(spread "rate.$i" floor)" \
        "$(verdict "$rate / $floor" '>=' 1.00)"
    row "one at a time, p50, µs" "$p50" "$single" "$(ratio "$p50" "$single")" "" "$(verdict "$p50 / $single" '<=' 1.5)"
    row "from exec to accepting, ms" "$(median "start.$i")" "" "" "" "$(verdict "$(median "start.$i")" '<=' 5)"
    row "system calls in 10 idle seconds" "$(median "idle-calls.$i")" "" "" "" "$(verdict "$(median "idle-calls.$i")" '<=' 0)"
    row "resident, idle, kB" "$idle" "" "" "" "$(verdict "$idle" '<=' "$most_idle")"
    row "resident, after $calls calls, kB" "$loaded" "" "" "" "$(verdict "$loaded" '<=' "$most_loaded")"
    row "bytes of the program" "$bytes" "" "" "" "$(verdict "$bytes" '<=' "$most_bytes")"
done
