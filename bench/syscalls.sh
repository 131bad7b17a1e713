#!/bin/sh
# See explain.py: system calls per request of a proxy under the load of a scenario.
#   bench/syscalls.sh --contenders rhumb,nginx --scenario h1-1k
exec python3 "$(dirname "$0")/explain.py" syscalls "$@"
