# shellcheck shell=bash
# A network namespace that reaches the Internet and nothing of the host: what the service's own builder
# makes for its steps (executor/src/native/network.rs), for the daemon that builds Dockerfiles.
# slirp4netns translates at the level of sockets, as a process of the host's network; routes inside the
# namespace refuse the host's addresses and every private network. Sourced, never run; what looks unused
# here is used there.
# shellcheck disable=SC2034

# The network between a namespace and its slirp4netns, which gives its third address to the name server.
INSIDE=10.0.88.0/24
GATEWAY=10.0.88.2
NAME_SERVER=10.0.88.3
DEVICE=tap0
# Large packets: nothing of them ever meets a wire.
MTU_BYTES=65520
SLIRP_READY_SECONDS=10

# Private, local to a host or a link, shared with a carrier, or multicast (RFC 1122, 1918, 3927, 6598,
# 5771): services of the host and its surroundings live there.
PRIVATE_NETWORKS=(
  0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 169.254.0.0/16 172.16.0.0/12 192.168.0.0/16 224.0.0.0/4
)

# network_of ADDRESS PREFIX: the network of that many bits which the address lies in.
network_of() {
  local a b c d number
  IFS=. read -r a b c d <<<"$1"
  number=$(((a << 24 | b << 16 | c << 8 | d) & 0xffffffff << (32 - $2)))
  printf '%d.%d.%d.%d/%d\n' $((number >> 24)) $((number >> 16 & 255)) $((number >> 8 & 255)) $((number & 255)) "$2"
}

# host_networks: the addresses of the network namespace that this is called in, and their networks.
host_networks() {
  local listed address prefix
  # On its own, so that a listing that fails does not look like a host without addresses.
  listed=$(ip -4 -oneline addr show)
  while read -r _ _ _ address _; do
    prefix=32
    [[ $address == */* ]] && prefix=${address#*/}
    address=${address%/*}
    # Inside, loopback addresses mean the namespace's own loopback.
    [[ -z $address || $address == 127.* ]] && continue
    network_of "$address" 32
    # A host with a route to everything must not take the way out from the namespace.
    ((prefix == 0)) || network_of "$address" "$prefix"
  done <<<"$listed"
}

# in_namespace FILE COMMAND...: with the network of the namespace that is mounted on the file.
in_namespace() {
  local file=$1
  shift
  nsenter --net="$file" -- "$@"
}

# make_namespace FILE [SETTING=VALUE...]: makes one and mounts it on the file. Settings are names below
# /proc/sys/net. IPv6 is off for devices that come into it.
make_namespace() {
  local file=$1
  shift
  : >"$file"
  # shellcheck disable=SC2016
  unshare --net="$file" -- sh -euc '
    # A kernel without IPv6 has nothing to switch off.
    [ ! -e /proc/sys/net/ipv6 ] || printf 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6
    for setting; do
      printf %s "${setting#*=}" >"/proc/sys/net/${setting%%=*}"
    done' sh "$@"
}

# refuse_private FILE: routes in the namespace that refuse what is not to be reached. Called in the host's
# network, and before there is a way out: what is not to be reached never was.
refuse_private() {
  local networks
  networks=$(host_networks)
  # shellcheck disable=SC2086
  printf 'route replace unreachable %s\n' "${PRIVATE_NETWORKS[@]}" $networks | in_namespace "$1" ip -batch -
}

# connect FILE LOG [NETWORK...]: starts slirp4netns for the namespace, and lets these networks through
# although they are private. Its pid is left in $slirp.
connect() {
  local file=$1 log=$2 byte
  shift 2
  # Readiness comes by a pipe of its own, which messages do not reach; it ends with slirp4netns.
  mkfifo "$file.ready"
  setsid slirp4netns --configure --mtu="$MTU_BYTES" --disable-host-loopback --enable-sandbox \
    --enable-seccomp --cidr="$INSIDE" --ready-fd=3 --netns-type=path "$file" "$DEVICE" \
    3>"$file.ready" >>"$log" 2>&1 </dev/null &
  slirp=$!
  if ! read -r -N 1 -t "$SLIRP_READY_SECONDS" byte <"$file.ready"; then
    kill -KILL "$slirp" 2>/dev/null || true
    printf 'slirp4netns did not bring the network up\n' >&2
    return 1
  fi
  rm -f "$file.ready"
  (($#)) || return 0
  printf "route replace %s via $GATEWAY dev $DEVICE\n" "$@" | in_namespace "$file" ip -batch -
}
