#!/bin/sh
# See explain.py: CPU samples by symbol of a proxy under the load of a scenario.
#   bench/profile.sh --contenders rhumb,nginx --scenario h1-1k
exec python3 "$(dirname "$0")/explain.py" profile "$@"
