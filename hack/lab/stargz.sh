#!/usr/bin/env bash
# Prints the folder of `stargz`, containerd's stargz-snapshotter and a converter of layers (go/stargz/main.go), and builds it first
# if this machine has not got it yet: about a minute on two cores.
#
# Built from Go modules pinned in go/stargz/go.mod and checked against go.sum. Kept outside the tree, in
# ${DARNER_CACHE:-~/.cache/darner}, under a name that changes with whatever it is made from. Messages go to standard error.
set -euo pipefail

here=$(dirname "$(readlink -f "$0")")
module=$here/go/stargz
PATH=$PATH:/usr/local/go/bin
export CGO_ENABLED=0

version=$(awk '$1 == "github.com/containerd/stargz-snapshotter" { print substr($2, 2) }' "$module/go.mod")
inputs=$(cat "$module"/* "$0" | sha256sum | cut -c1-12)
folder=${DARNER_CACHE:-$HOME/.cache/darner}/stargz-$version-$inputs
if [ -e "$folder/bin" ]; then
    echo "$folder/bin"
    exit
fi

command -v go >/dev/null || {
    echo "stargz.sh: building stargz-snapshotter $version needs Go $(awk '$1 == "go" { print $2 }' "$module/go.mod") or later, and there is no go command" >&2
    exit 1
}
mkdir -p "$folder"
exec 9>"$folder/lock"
flock 9 # two test runs may ask at the same time
if [ ! -e "$folder/bin" ]; then
    echo "stargz.sh: building stargz-snapshotter $version; the first time takes a minute" >&2
    rm -rf "$folder/part"
    mkdir "$folder/part"
    (cd "$module" && go build -trimpath -ldflags "-s -w" -o "$folder/part/" .)
    mv "$folder/part" "$folder/bin" # whole or not there
fi
echo "$folder/bin"
