#!/bin/bash
# What a thousand functions cost: how soon a new one can be called among them, what the engine and the gateway use when nothing
# changes, and how long a lookup takes among ten thousand.
#
# usage: bench/discovery-many.sh
#
# Needs root, dockerd, and the images (`make images`) in the machine's engine; starts an engine of its own. The measuring is that
# of the tests gateway/tests/nodes/many.rs and gateway/tests/local/lookup.rs, in their long forms.
set -euo pipefail
cd "$(dirname "$0")/.."

measure() { # test target, test
    CI=true cargo test --locked --quiet --release -p skep --test "$1" -- --include-ignored --nocapture --test-threads 1 "$2"
}

measure nodes among_a_thousand_functions_each
measure local a_lookup_among
