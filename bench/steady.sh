#!/bin/bash
# Calls a function at a constant rate while something happens, and counts every call that did not end in the right 200.
#
# usage: bench/steady.sh URL... [-- COMMAND...]
#   bench/steady.sh http://127.0.0.1:8080/function/catservice -- docker service update --force faas_catservice
#
# With several URLs each new connection goes to the first that takes it, as behind a balancer. The command is run once, two
# seconds after the first call; without one the calls are all. Any gateway or proxy can be called.
#
# RATE=500         calls a second
# COUNT=10000      calls in all
# BODY=hello       what is posted, and must come back
# KEEP_ALIVE=yes   no: a connection for each call
#
# Exits with 1 if a call failed, with the command's code if that failed.
# shellcheck source=bench/lib.sh
. "$(dirname "$0")/lib.sh"

urls=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do urls+=("$1") && shift; done
[ ${#urls[@]} -gt 0 ] || die "usage: bench/steady.sh URL... [-- COMMAND...]"
[ $# = 0 ] || shift

options=(--rate "${RATE:-500}" --count "${COUNT:-10000}" --echo "${BODY:-hello}")
[ "${KEEP_ALIVE:-yes}" = yes ] || options+=(--no-keep-alive)

cargo build --locked --quiet --release -p skep --example steady
target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
start tally "$target/release/examples/steady" "${options[@]}" "${urls[@]}"
calls=$! code=0
if [ $# -gt 0 ]; then
    sleep 2
    "$@" || code=$?
fi
wait "$calls" || { failed=$? && [ "$code" != 0 ] || code=$failed; }
cat "$work/tally"
exit "$code"
