# shellcheck shell=bash
# What the scripts here share: where things live, how they speak, how they start and stop a program.
# Sourced, never run; what looks unused here is used there.
# shellcheck disable=SC2034

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Downloads, base images, the Python environment and the build cache live outside the clone,
# so that a fresh clone finds them. Losing the folder costs time, nothing else.
STATE=${NULLSPACE_STATE:-${XDG_CACHE_HOME:-$HOME/.cache}/nullspace-build}
export NULLSPACE_STATE=$STATE
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$STATE/target}

# What `make setup` made.
VENV_PYTHON=$STATE/venv/bin/python
BUILD_NETWORK=$STATE/build-network.toml
REGISTRY_STORAGE=$STATE/registry
# BuildKit's client and daemon; whoever has others says so.
export NULLSPACE_BUILDCTL=${NULLSPACE_BUILDCTL:-$STATE/bin/buildctl}
export NULLSPACE_BUILDKITD=${NULLSPACE_BUILDKITD:-$STATE/bin/buildkitd}

# Bounds, in seconds, of the waits below.
REGISTRY_START_SECONDS=20
SERVICE_START_SECONDS=60
# The service gives its running builds time to end; this is a little more than it takes at most.
STOP_SECONDS=90

heading() { printf '\n==> %s\n' "$*"; }
note() { printf '    %s\n' "$*"; }
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# Mounts, namespaces and machines all need it; better said here than by the tenth program.
require_root() {
  [[ $(id -u) -eq 0 ]] || die "$1 needs root: it installs packages, mounts file systems and makes namespaces"
}

# wait_until SECONDS COMMAND...: polls until the command succeeds; false once the time is over.
wait_until() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < deadline)) || return 1
    sleep 0.05
  done
}

is_gone() { ! kill -0 "$1" 2>/dev/null; }

# stop_process PID: TERM, wait for the end, KILL when it does not come.
stop_process() {
  local pid=$1
  kill -TERM "$pid" 2>/dev/null || return 0
  if ! wait_until "$STOP_SECONDS" is_gone "$pid"; then
    printf 'warning: process %s did not stop within %s s, killing it\n' "$pid" "$STOP_SECONDS" >&2
    kill -KILL "$pid" 2>/dev/null || true
  fi
}

# detached COMMAND...: becomes the command in a session of its own, so that a Ctrl-C in the terminal
# reaches only the script, which stops things in order; it still ends when the script is killed.
detached() { exec setsid setpriv --pdeathsig TERM "$@"; }

# free_port: a loopback port that nothing listens on at this moment.
free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# write_service_config FILE REGISTRY BUILDKIT: settings that make the service pull from the loopback
# registry, build Dockerfiles by the daemon at that address, and reach the package mirrors the way this
# machine does.
write_service_config() {
  {
    printf '# Written by the scripts for one run.\n'
    printf '[registry]\nmirrors_only = true\n\n'
    printf '[[registry.mirror]]\nregistry = "docker.io"\nhost = "%s"\nplain_http = true\n\n' "$2"
    printf '[buildkit]\nbuildctl = "%s"\n\n' "$NULLSPACE_BUILDCTL"
    printf '[[buildkit.daemon]]\naddress = "%s"\n\n' "$3"
    cat "$BUILD_NETWORK"
  } >"$1"
  chmod 0600 "$1"
}

# service_settled PID URL: ready, dead, or (stopping) not wanted any more.
service_settled() {
  [[ -n ${stopping:-} ]] || is_gone "$1" ||
    curl --silent --fail --output /dev/null --max-time 2 --noproxy '*' "$2/readyz"
}

# wait_for_service PID URL: true once /readyz answers 200.
wait_for_service() {
  wait_until "$SERVICE_START_SECONDS" service_settled "$1" "$2" && [[ -z ${stopping:-} ]] && ! is_gone "$1"
}

# write_env FILE URL DATA_DIR: what a client's shell needs, to be sourced.
write_env() {
  local key
  key=$(<"$3/admin.key")
  (
    umask 077
    {
      printf 'export NULLSPACE_API_URL=%q\n' "$2"
      printf 'export NULLSPACE_API_KEY=%q\n' "$key"
      printf 'export NULLSPACED_DATA_DIR=%q\n' "$3"
    } >"$1.tmp"
  )
  mv "$1.tmp" "$1"
}

# service_binary: the service that make built, by the PROFILE in force.
service_binary() {
  local folder=${PROFILE:-release}
  # Cargo's folder of the dev profile has another name than the profile.
  [[ $folder == dev ]] && folder=debug
  printf '%s\n' "$CARGO_TARGET_DIR/$folder/nullspaced"
}
