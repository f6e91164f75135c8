#!/usr/bin/env bash
# Installs the Debian packages that the tests use, where a command is missing and we are root; otherwise says what is missing.
# `hack/setup.sh python` installs only what makes a virtual environment. Nothing that it installs is started.
set -euo pipefail

# The command that tells whether a package is needed. A container engine from elsewhere is found by its command and is left as it is.
declare -A package_of=(
    [containerd]=containerd [ctr]=containerd [runc]=runc [docker-registry]=docker-registry [skopeo]=skopeo [umoci]=umoci
    [ip]=iproute2 [jq]=jq [git]=git [curl]=curl
    [iptables]=iptables [nft]=nftables [conntrack]=conntrack [ipset]=ipset [socat]=socat [openssl]=openssl
    [podman]=podman [nginx]=nginx-light [buildah]=buildah [mmdebstrap]=mmdebstrap [sysctl]=procps [gcc]=gcc
    [dockerd]=docker.io [promtool]=prometheus [chromium]=chromium
)

missing=()
if [[ "${1:-}" == python ]]; then
    missing=(python3 python3-venv)
else
    for command in "${!package_of[@]}"; do
        PATH=$PATH:/usr/sbin:/sbin command -v "$command" >/dev/null || missing+=("${package_of[$command]}")
    done
    # The rootfs of test images is this one file, so it has to be the static build.
    dpkg -s busybox-static >/dev/null 2>&1 || missing+=(busybox-static)
    [[ -x /usr/lib/cni/bridge ]] || missing+=(containernetworking-plugins)
    # What compiles the scheduler: a compiler, the headers of C, and those of the Python in .venv, unless it brought its own.
    [[ -e /usr/include/stdlib.h ]] || missing+=(libc6-dev)
    include=$("${BASH_SOURCE[0]%/*}/../.venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
    [[ -e $include/Python.h || $include != /usr/include/python* ]] || missing+=("${include##*/}-dev")
fi

install_packages() {
    # Debian starts a service as soon as its package is installed; this is its own way to say no.
    local policy=/usr/sbin/policy-rc.d
    if [[ ! -e $policy ]]; then
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
        printf '#!/bin/sh\nexit 101\n' > $policy
        chmod +x $policy
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update
    # --no-remove: a machine with another container engine keeps it, and hears of the conflict.
    apt-get -qq install -y --no-install-recommends --no-remove "$@" >/dev/null
}

if ((${#missing[@]})); then
    mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
    if [[ $EUID -eq 0 ]] && command -v apt-get >/dev/null; then
        echo "installing ${missing[*]}"
        install_packages "${missing[@]}"
    else
        echo "hack/setup.sh: missing: ${missing[*]}; as root on Debian they are installed, else please install them" >&2
        [[ "${1:-}" != python ]] || exit 1
    fi
fi

if [[ "${1:-}" != python ]] && ! PATH=$PATH:/usr/local/go/bin command -v go >/dev/null; then
    echo 'hack/setup.sh: no Go: the tests that use Helm and containerd 2 build them with Go 1.26 or later; put `go` on the PATH' >&2
fi
