#!/bin/bash
# What a call of a Python function costs when its process was started ahead, beside the same without that.
#
# usage: bench/prefork.sh
#
# ROUNDS=7      rounds; in each, both are measured once, so that noise meets both of them
# CALLS=40      calls of one of these measurements, one after the other on one connection
# PAUSE=0.05    seconds between two calls, in which the next process is started
# POOL=4        processes that wait
# WATCHDOG=     path of the watchdog, dist/fwatchdog unless given
#
# The function reads JSON and writes JSON. Its interpreter is the real one, not a launcher in front of it. Needs
# python3; `make build` before.
# shellcheck source=bench/lib.sh
. "$(dirname "$0")/lib.sh"

rounds=${ROUNDS:-7} calls=${CALLS:-40} pause=${PAUSE:-0.05} pool=${POOL:-4} watchdog=${WATCHDOG:-dist/fwatchdog}

need python3 python3
built "$watchdog" build
python=$(python3 -c 'import os, sys; print(os.path.realpath(sys.executable))')

cat >"$work/handler.py" <<'END'
import json
import sys

call = json.load(sys.stdin)
json.dump({"hello": call["name"]}, sys.stdout)
END

# Calls in a row, each timed from its first byte to the end of its answer; prints the median in µs.
cat >"$work/caller.py" <<'END'
import http.client
import statistics
import sys
import time

port, calls, pause = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
connection = http.client.HTTPConnection("127.0.0.1", port)
times = []
for _ in range(calls):
    time.sleep(pause)
    began = time.perf_counter()
    connection.request("POST", "/", b'{"name": "skep"}')
    answer = connection.getresponse()
    body = answer.read()
    times.append(time.perf_counter() - began)
    if answer.status != 200 or body != b'{"hello": "skep"}':
        sys.exit(f"{answer.status}: {body}")
print(round(statistics.median(times) * 1e6))
END

declare -A port
for series in prefork fresh; do
    port[$series]=$(free_port)
    ahead=0
    [ "$series" = fresh ] || ahead=$pool
    mkdir "$work/$series"
    start "$series.log" env fprocess="$python $work/handler.py" prefork="$ahead" port="${port[$series]}" metrics_port=off \
        TMPDIR="$work/$series" "$watchdog"
    await "$watchdog to listen" listens "${port[$series]}"
done

for ((round = 0; round < rounds; round++)); do
    for series in prefork fresh; do
        figure=$("$python" "$work/caller.py" "${port[$series]}" "$calls" "$pause") || die "a call failed"
        note "$series" "$figure"
    done
done

ahead=$(median prefork) fresh=$(median fresh)
row() { printf '%-28s %9s %9s %7s  %-11s %s\n' "$@"; }
echo "$watchdog: medians of $rounds rounds of $calls calls, ${pause}s between two"
row "" "prefork=$pool" prefork=0 ratio rounds target
row "Python and JSON, p50, µs" "$ahead" "$fresh" "$(ratio "$ahead" "$fresh")" "$(spread prefork fresh)" \
    "$(verdict "$ahead / $fresh" '<=' 0.25)"
