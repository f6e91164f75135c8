#!/usr/bin/env bash
# Prints the folder of containerd 2 (containerd, containerd-shim-runc-v2, ctr) and crictl, and builds them first if this machine
# has not got them yet: about two minutes on two cores.
#
# Built from Go modules pinned in go/*/go.mod and checked against go/*/go.sum, because Debian has no containerd 2. Kept outside the
# tree, in ${DARNER_CACHE:-~/.cache/darner}, under a name that changes with whatever they are made from. Messages go to standard error.
set -euo pipefail

here=$(dirname "$(readlink -f "$0")")
PATH=$PATH:/usr/local/go/bin
export CGO_ENABLED=0

version=$(awk '$2 == "github.com/containerd/containerd/v2" { print substr($3, 2) }' "$here/go/containerd/go.mod")
inputs=$(cat "$here"/go/*/go.mod "$here"/go/*/go.sum "$0" | sha256sum | cut -c1-12)
folder=${DARNER_CACHE:-$HOME/.cache/darner}/containerd-$version-$inputs
if [ -e "$folder/bin" ]; then
    echo "$folder/bin"
    exit
fi

command -v go >/dev/null || {
    echo "build.sh: building containerd $version needs Go $(awk '$1 == "go" { print $2 }' "$here/go/containerd/go.mod") or later, and there is no go command" >&2
    exit 1
}
mkdir -p "$folder"
exec 9>"$folder/lock"
flock 9 # two test runs may ask at the same time
if [ ! -e "$folder/bin" ]; then
    echo "build.sh: building containerd $version and crictl; the first time takes two minutes" >&2
    rm -rf "$folder/part"
    mkdir "$folder/part"
    module=github.com/containerd/containerd/v2
    cd "$here/go/containerd"
    go build -trimpath -ldflags "-s -w -X $module/version.Version=$version" -o "$folder/part/" \
        $module/cmd/containerd $module/cmd/containerd-shim-runc-v2 $module/cmd/ctr
    cd "$here/go/crictl"
    go build -trimpath -ldflags "-s -w" -o "$folder/part/" sigs.k8s.io/cri-tools/cmd/crictl
    mv "$folder/part" "$folder/bin" # whole or not there
fi
echo "$folder/bin"
