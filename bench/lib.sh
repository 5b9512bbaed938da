#!/bin/bash
# What the measurements share. They read this file; run by itself it does nothing.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
work=$(mktemp -d)
started=()
# What puts a caller where it is to call from: nothing, or a command that runs the rest elsewhere.
there=()

# Ends what `start` started, all of it or some.
stop() { # process...
    local process left=()
    [ $# = 0 ] || kill "$@" 2>/dev/null || true
    [ $# = 0 ] || wait "$@" 2>/dev/null || true
    for process in "${started[@]}"; do
        [[ " $* " == *" $process "* ]] || left+=("$process")
    done
    started=("${left[@]}")
}

stop_all() {
    stop "${started[@]}"
    rm -rf "$work"
}
trap stop_all EXIT
trap 'exit 130' INT TERM

die() { # sentence
    echo "${0##*/}: $1" >&2
    exit 1
}

need() { # program, package
    command -v "$1" >/dev/null || die "$1 is missing: apt-get install $2"
}

built() { # file, make target
    [ -e "$1" ] || die "$1 is missing: make $2"
}

# Starts a program in the background; its process is then $!, its output in $work/<name>.
start() { # name, command...
    "${@:2}" >"$work/$1" 2>&1 </dev/null &
    started+=($!)
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Waits for a condition, 30 s at most.
await() { # what, command...
    local i
    for ((i = 0; i < 600; i++)); do
        "${@:2}" >/dev/null 2>&1 && return
        sleep 0.05
    done
    die "gave up waiting for $1"
}

# Whether somebody listens, without a connection: one would make the program touch memory.
listens() { # port
    grep -qs "$(printf ':%04X [0-9A-F]*:0000 0A' "$1")" /proc/net/tcp /proc/net/tcp6
}

resident() { # process; kB
    awk '/^VmRSS/ {print $2}' "/proc/$1/status"
}

# Processor time that processes have used so far, in clock ticks.
ticks() { # process...
    local process
    for process; do sed 's/.*) //' "/proc/$process/stat"; done | awk '{used += $12 + $13} END {print used}'
}

# Loads a URL. Sets rate (answers a second), p50 and p99 (µs) and answers; a failed call ends the measurement.
load() { # connections, seconds, URL
    local threads=$(($1 < 2 ? 1 : 2)) failed
    "${there[@]}" wrk -t "$threads" -c "$1" -d "$2" -s bench/wrk.lua "$3" >"$work/wrk" || die "wrk could not load $3"
    # shellcheck disable=SC2034  # for the caller
    read -r rate p50 answers failed p99 < <(sed -n 's/^figures //p' "$work/wrk")
    [ "$failed" = 0 ] || die "$failed of $answers calls of $3 failed"
}

# Builds what `pace` runs.
build_pace() {
    cargo build --locked --quiet --release -p skep --example pace
    pace=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/release/examples/pace
}

# Calls a URL at a constant rate; notes the median and the 99th percentile, in ms from when each call was due.
pace() { # series, calls a second, seconds, URL
    local p50 p99
    "${there[@]}" "$pace" --rate "$2" --count $(($2 * $3)) "$4" >"$work/pace" 2>&1 ||
        die "$4 at $2 calls a second, a lower SHARE may do: $(cat "$work/pace")"
    read -r p50 p99 < <(sed -n 's/.* p50 \([0-9.]*\), p99 \([0-9.]*\), longest.*/\1 \2/p' "$work/pace")
    note "$1.p50" "$p50"
    note "$1.p99" "$p99"
}

# Who is measured first changes from round to round.
in_turn() { # round
    if (($1 % 2)); then echo nginx skep; else echo skep nginx; fi
}

# Calls all three at one rate, in rounds: SHARE of the lower of the rates that the proxies took. Sets steady.
pace_all() { # rounds, seconds, what each round begins with...
    local round path url
    steady=$(share skep.get64.rate nginx.get64.rate)
    for ((round = 0; round < $1; round++)); do
        "${@:3}"
        for path in $(in_turn "$round") upstream; do
            url=${path}_url
            pace "$path.steady" "$steady" "$2" "${!url}"
        done
    done
}

# Keeps a figure of this round; `median` gives the middle of all rounds.
note() { # series, figure
    echo "$2" >>"$work/series.$1"
}

median() { # series
    sort -g "$work/series.$1" | awk '{a[NR] = $1} END {print (a[int((NR + 1) / 2)] + a[int(NR / 2) + 1]) / 2}'
}

ratio() { # figure, figure
    awk "BEGIN {printf \"%.2f\", $1 / $2}"
}

# The lowest and highest ratio that two series had in one round.
spread() { # series, series
    paste "$work/series.$1" "$work/series.$2" |
        awk '{r = $1 / $2} NR == 1 || r < lo {lo = r} r > hi {hi = r} END {printf "%.2f-%.2f", lo, hi}'
}

# A target and whether a figure meets it; both are exact, only what is printed is rounded.
verdict() { # figure, <= or >=, target
    awk "BEGIN {print \"$2 $3\", ($1 $2 $3) ? \"PASS\" : \"FAIL\"}"
}

# The constant rate for two series: SHARE of the lower one.
share() { # series, series
    awk "BEGIN {a = $(median "$1"); b = $(median "$2"); print int((a < b ? a : b) * ${SHARE:-0.5})}"
}

# The tables of the comparisons with nginx.
row() { printf '%-36s %9s %9s %9s %7s  %-11s %s\n' "$@"; }
compare() { # label, series, operator and target
    local ours theirs direct=-
    ours=$(median "skep.$2") theirs=$(median "nginx.$2")
    [ ! -e "$work/series.upstream.$2" ] || direct=$(median "upstream.$2")
    row "$1" "$ours" "$theirs" "$direct" "$(ratio "$ours" "$theirs")" "$(spread "skep.$2" "nginx.$2")" \
        "${3:+$(verdict "$ours / $theirs" "${@:3}")}"
}

# What an nginx of our own is told.
nginx_conf() { # folder for its files, workers, what goes into http {}
    cat <<END
daemon off;
worker_processes $2;
pid $1/pid;
error_log stderr error;
events { worker_connections 4096; }
http {
  access_log off;
  keepalive_requests 1000000000;
  client_max_body_size 4m; client_body_buffer_size 2m;
  client_body_temp_path $1; proxy_temp_path $1; fastcgi_temp_path $1; uwsgi_temp_path $1; scgi_temp_path $1;
  $3
}
END
}

# The part of it that makes nginx the proxy to compare with: connections to the upstream kept, the path stripped.
proxy_conf() { # address of the upstream, address to listen on, path
    cat <<END
  upstream up { server $1; keepalive 512; keepalive_requests 1000000000; }
  server {
    listen $2;
    location $3 { proxy_pass http://up/; proxy_http_version 1.1; proxy_set_header Connection ""; }
  }
END
}

# Starts an nginx of our own; its process is then $!.
start_nginx() { # name, workers, what goes into http {}
    mkdir -p "$work/$1.d"
    nginx_conf "$work/$1.d" "$2" "$3" >"$work/$1.conf"
    start "$1" nginx -p "$work/$1.d" -e stderr -c "$work/$1.conf"
}

# Starts what is behind the proxies: an nginx with one worker that answers `ok`, and at /files/ with what is in
# $work/files. Sets upstream_port and upstream_url.
start_upstream() {
    upstream_port=$(free_port)
    mkdir -p "$work/files"
    # Its worker is nobody, who is to get at the files.
    chmod 711 "$work"
    start_nginx upstream 1 "server { listen 127.0.0.1:$upstream_port;
      location / { return 200 ok; }
      location /files/ { root $work; } }"
    await "the upstream to listen" listens "$upstream_port"
    # shellcheck disable=SC2034  # for the caller
    upstream_url=http://127.0.0.1:$upstream_port/
}

# Starts the nginx to compare with, with two workers. Sets nginx_url and nginx_processes.
start_nginx_proxy() { # path
    local port process
    port=$(free_port)
    start_nginx proxy 2 "$(proxy_conf "127.0.0.1:$upstream_port" "127.0.0.1:$port ${LISTEN:-}" "$1")"
    process=$!
    await "nginx to listen" listens "$port"
    # shellcheck disable=SC2034  # for the caller
    nginx_url=http://127.0.0.1:$port$1
    # shellcheck disable=SC2034  # for the caller
    read -ra nginx_processes <<<"$process $(cat "/proc/$process/task/$process/children")"
}

# Loads a URL through a proxy; also notes the 99th percentile and the processor time of one call.
load_proxy() { # series, connections, seconds, URL, process...
    local before used
    before=$(ticks "${@:5}")
    load "$2" "$3" "$4"
    used=$(($(ticks "${@:5}") - before))
    note "$1.rate" "$rate"
    note "$1.p99" "$p99"
    note "$1.cpu" "$(awk "BEGIN {printf \"%.1f\", $used / $(getconf CLK_TCK) / $answers * 1e6}")"
}

# Loads both, one right after the other, in a round whose number is in `round`, for `seconds`.
# shellcheck disable=SC2154  # the caller sets them
load_both() { # series, connections, path
    local proxy
    for proxy in $(in_turn "$round"); do
        case $proxy in
        skep) load_proxy "skep.$1" "$2" "$seconds" "$skep_url$3" "$skep" ;;
        nginx) load_proxy "nginx.$1" "$2" "$seconds" "$nginx_url$3" "${nginx_processes[@]}" ;;
        esac
    done
}
