#!/bin/sh
# Calls samples and compares what they answer with what is stored beside them.
#
#   check.sh [-u URL] [NAME...]     the named samples, or all, at URL/function/NAME (default http://127.0.0.1:8080)
#   check.sh -w URL NAME            one sample, at its own watchdog: URL itself
#
# Each folder holds `request.txt`, the body sent, and one of
#   expected.txt      the answer, byte for byte
#   expected.pattern  for answers that differ between machines: one extended regular expression a line, each of which
#                     some line of the answer has to match
set -eu
cd "$(dirname "$0")"

gateway=http://127.0.0.1:8080
watchdog=
while getopts u:w: option; do
    case $option in
    u) gateway=$OPTARG ;;
    w) watchdog=$OPTARG ;;
    *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))
if [ $# -eq 0 ]; then
    for request in */request.txt; do set -- "$@" "${request%/*}"; done
fi

answer=$(mktemp)
trap 'rm -f "$answer"' EXIT

# Is the answer in $answer the one stored for sample $1?
matches() {
    if [ -f "$1/expected.txt" ]; then
        cmp -s "$1/expected.txt" "$answer"
    else
        while IFS= read -r pattern; do
            grep -Eq "$pattern" "$answer" || return 1
        done <"$1/expected.pattern"
    fi
}

failed=0
for name in "$@"; do
    url=${watchdog:-$gateway/function/$name}
    if status=$(curl -sS --max-time 30 --data-binary "@$name/request.txt" -o "$answer" -w '%{http_code}' "$url") &&
        [ "$status" = 200 ] && matches "$name"; then
        echo "ok      $name"
    else
        failed=1
        echo "FAILED  $name: $url answered $status"
        sed 's/^/        | /' "$answer"
    fi
done
exit "$failed"
