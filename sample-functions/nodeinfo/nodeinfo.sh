#!/bin/sh
# Prints where the function runs. POSIX sh, so that busybox and any distribution run it alike.
set -eu

read -r uptime _ </proc/uptime
# Counted from /proc, which needs no program that an image may lack.
cpus=$(grep -c '^processor' /proc/cpuinfo || true)

echo "Hostname: $(uname -n)"
echo "Kernel:   $(uname -sr)"
echo "CPUs:     ${cpus}"
echo "Uptime:   ${uptime%.*} s"
