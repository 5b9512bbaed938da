#!/bin/bash
# The gateway beside nginx: the same calls of the same upstream, through one and the other.
#
# usage: bench/gateway.sh
#
# ROUNDS=7        rounds; in each, every path is measured once, so that noise meets all of them
# SECONDS_EACH=3  how long one of these measurements lasts
#
# Both have two workers, keep connections to the upstream, and strip the prefix /function/up. The upstream is an nginx
# with one worker that answers `ok`. Needs wrk, nginx, python3; `make build` before.
# shellcheck source=bench/lib.sh
. "$(dirname "$0")/lib.sh"

rounds=${ROUNDS:-7} seconds=${SECONDS_EACH:-3}

need wrk wrk
need nginx nginx-light
need python3 python3
built dist/skep build

# Starts an nginx of our own; its process is then $!.
start_nginx() { # name, port, workers, what goes into http {}
    mkdir "$work/$1.d"
    cat >"$work/$1.conf" <<END
daemon off;
worker_processes $3;
pid $work/$1.d/pid;
error_log stderr error;
events { worker_connections 1024; }
http {
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path $work/$1.d; proxy_temp_path $work/$1.d; fastcgi_temp_path $work/$1.d;
  uwsgi_temp_path $work/$1.d; scgi_temp_path $work/$1.d;
  $4
}
END
    start "$1" nginx -p "$work/$1.d" -e stderr -c "$work/$1.conf"
}

upstream_port=$(free_port)
start_nginx upstream "$upstream_port" 1 "server { listen 127.0.0.1:$upstream_port; location / { return 200 ok; } }"
await "the upstream to listen" listens "$upstream_port"

nginx_port=$(free_port)
start_nginx proxy "$nginx_port" 2 "
  upstream up { server 127.0.0.1:$upstream_port; keepalive 128; keepalive_requests 1000000000; }
  server {
    listen 127.0.0.1:$nginx_port;
    location /function/up/ { proxy_pass http://up/; proxy_http_version 1.1; proxy_set_header Connection \"\"; }
  }"
nginx=$!
await "nginx to listen" listens "$nginx_port"
read -ra nginx_processes <<<"$nginx $(cat "/proc/$nginx/task/$nginx/children")"

cat >"$work/stack.yml" <<END
version: 1.0
provider:
  name: openfaas
functions:
  up:
    annotations:
      skep.upstream: http://127.0.0.1:$upstream_port
END
start skep dist/skep local "$work/stack.yml" --workers 2 --port 0 --log-level warn
skep=$!
await "the gateway to listen" grep -q 'listens on' "$work/skep"
skep_url=$(sed -n 's/.* listens on //p' "$work/skep")
sleep 1
idle=$(resident "$skep")

skep_url=$skep_url/function/up/
nginx_url=http://127.0.0.1:$nginx_port/function/up/
direct_url=http://127.0.0.1:$upstream_port/

# Also notes the processor time of a call through a proxy.
load_proxy() { # series, URL, process...
    local before used
    before=$(ticks "${@:3}")
    load 64 "$seconds" "$2"
    used=$(($(ticks "${@:3}") - before))
    note "$1.rate" "$rate"
    note "$1.cpu" "$(awk "BEGIN {printf \"%.1f\", $used / $(getconf CLK_TCK) / $answers * 1e6}")"
}

# What is compared is measured one right after the other.
for ((round = 0; round < rounds; round++)); do
    load_proxy skep "$skep_url" "$skep"
    load_proxy nginx "$nginx_url" "${nginx_processes[@]}"
    load 64 "$seconds" "$direct_url"
    note direct.rate "$rate"
    for path in skep nginx direct; do
        url=${path}_url
        load 1 "$seconds" "${!url}"
        note "$path.p50" "$p50"
    done
done

row() { printf '%-28s %8s %8s %8s %7s  %-11s %s\n' "$@"; }
compare() { # label, series, operator and target
    local ours theirs direct=-
    ours=$(median "skep.$2") theirs=$(median "nginx.$2")
    [ ! -e "$work/series.direct.$2" ] || direct=$(median "direct.$2")
    row "$1" "$ours" "$theirs" "$direct" "$(ratio "$ours" "$theirs")" "$(spread "skep.$2" "nginx.$2")" \
        "${3:+$(verdict "$ours / $theirs" "${@:3}")}"
}
echo "gateway: medians of $rounds rounds of $seconds s"
row "" skep nginx direct ratio rounds target
compare "calls/s, 64 connections" rate '>=' 0.85
compare "1 connection, p50, µs" p50 '<=' 1.25
compare "processor time, µs/call" cpu
row "resident, idle, kB" "$idle" "" "" "" "" "$(verdict "$idle" '<=' 15000)"
row "resident, after load, kB" "$(resident "$skep")" "" "" "" "" ""
