#!/bin/sh
# Sleeps for the seconds named by the query (`/function/sleep?0.5`) or else by the body; one second without either.
set -eu

seconds=${Http_Query:-$(head -c 32)}
seconds=${seconds:-1}

case $seconds in
. | *[!0-9.]* | *.*.*)
    echo "sleep: want a number of seconds such as 2 or 0.5, in the query or in the body"
    exit 1
    ;;
esac

sleep "$seconds"
echo "slept $seconds s"
