#!/bin/bash
# Instructions of the gateway for one small call, as valgrind counts them: nearly the same in each run, whatever else the machine does.
#
# usage: bench/instructions.sh [PROGRAM...]     dist/skep by default; several are compared
#
# SECONDS_EACH=2  how long the shorter of two runs lasts, of which the difference is counted; the other lasts three times as long
#
# 64 connections, one worker, a GET that an nginx answers with `ok`. The start and the warm-up cancel out. Needs valgrind, nginx,
# wrk and curl; `make build` before.
# shellcheck source=bench/lib.sh
. "$(dirname "$0")/lib.sh"

seconds=${SECONDS_EACH:-2}
programs=("$@")
[ $# -gt 0 ] || programs=(dist/skep)

need valgrind valgrind
need nginx nginx-light
need wrk wrk
need curl curl
start_upstream
cat >"$work/stack.yml" <<END
version: 1.0
provider:
  name: openfaas
functions:
  up:
    annotations:
      skep.upstream: http://127.0.0.1:$upstream_port
END

# Sets counted, the instructions of a gateway's whole life, and answers, the calls in it.
count() { # program, seconds
    local skep url
    start skep valgrind --tool=callgrind --callgrind-out-file="$work/callgrind" \
        "$1" local "$work/stack.yml" --workers 1 --port 0 --log-level warn
    skep=$!
    await "the gateway to listen" grep -q 'listens on' "$work/skep"
    url=$(sed -n 's/.* listens on //p' "$work/skep")/function/up/
    await "the gateway to answer" curl -sf "$url"
    load 64 "$2" "$url"
    kill -TERM "$skep"
    await "the gateway's end" test -s "$work/callgrind"
    wait "$skep" 2>/dev/null || true
    stop "$skep"
    counted=$(sed -n 's/^summary: //p' "$work/callgrind")
    rm "$work/callgrind"
}

for program in "${programs[@]}"; do
    [ -x "$program" ] || die "$program is missing: make build"
    count "$program" "$seconds"
    before=$counted few=$answers
    count "$program" $((seconds * 3))
    printf '%-30s %6d instructions a call\n' "$program" $(((counted - before) / (answers - few)))
done
