#!/bin/bash
# What an idle connection costs the gateway, beside a server that is hyper and nothing else (gateway/examples/bare.rs).
#
# usage: bench/idle.sh
#
# ROUNDS=5             rounds; in each, both are started anew and measured once
# CONNECTIONS=10000    idle connections, after one request on each
# SKEP=dist/skep       the gateway
#
# The gateway's requests are calls of a function that is such a bare server, too. Needs python3; `make build` before.
# shellcheck source=bench/lib.sh
. "$(dirname "$0")/lib.sh"

rounds=${ROUNDS:-5} connections=${CONNECTIONS:-10000} skep=${SKEP:-dist/skep}

need python3 python3
built "$skep" build
cargo build --locked --quiet --release -p skep --example bare
target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
[ "$(ulimit -Hn)" -gt $((connections + 100)) ] || die "too few open files are allowed: ulimit -n"
ulimit -n "$(ulimit -Hn)"

# Makes one request on each of so many new connections. Notes the bytes that each of them takes while all lie idle.
idle() { # series, process, URL
    python3 - "$2" "$3" "$connections" >"$work/idle" <<'END'
import re, socket, sys

process, url, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
host, port, path = re.fullmatch(r"http://([^:]+):(\d+)(/.*)", url).groups()
request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


def resident():
    with open(f"/proc/{process}/statm") as file:
        return int(file.read().split()[1]) * 4096


def connect():
    stream = socket.create_connection((host, int(port)), 30)
    stream.sendall(request)
    answer = stream.recv(4096)
    while not answer.endswith(b"ok"):
        more = stream.recv(4096)
        assert more, answer
        answer += more
    return stream


# What is set up once, and not for each connection.
for stream in [connect() for _ in range(50)]:
    stream.close()
before = resident()
held = [connect() for _ in range(count)]
print((resident() - before) / count)
END
    note "$1" "$(cat "$work/idle")"
}

# Each lives as long as its stdin, which is a pipe of ours.
bare() { # name; sets url
    mkfifo "$work/$1.pipe"
    "$target/release/examples/bare" <>"$work/$1.pipe" >"$work/$1" &
    started+=($!)
    await "$1 to listen" grep -q 'listens on' "$work/$1"
    url=$(sed -n 's/.*listens on //p' "$work/$1")
}

bare upstream
cat >"$work/stack.yml" <<END
version: 1.0
provider:
  name: openfaas
functions:
  up:
    annotations:
      skep.upstream: $url
END
for ((round = 0; round < rounds; round++)); do
    bare "bare.$round"
    process=$!
    idle bare "$process" "$url/"
    stop "$process"
    start "skep.$round" "$skep" local "$work/stack.yml" --port 0 --log-level warn
    process=$!
    await "the gateway to listen" grep -q 'listens on' "$work/skep.$round"
    idle skep "$process" "$(sed -n 's/.* listens on //p' "$work/skep.$round")/function/up/"
    stop "$process"
done

ours=$(median skep) theirs=$(median bare)
printf '%-34s %8s %8s %6s  %-11s %s\n' "" skep hyper ratio rounds ""
printf '%-34s %8.0f %8.0f %6s  %-11s %s\n' "resident bytes of an idle connection" "$ours" "$theirs" \
    "$(ratio "$ours" "$theirs")" "$(spread skep bare)" "$(verdict "$(awk "BEGIN {print $ours / $theirs}")" "<=" 1.5)"
