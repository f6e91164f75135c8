#!/usr/bin/env bash
# Prints the path of cosign, and builds it first if this machine has not got it yet.
#
# From Go modules pinned in go/cosign/go.mod and checked against its go.sum; kept outside the tree, in ${DARNER_CACHE:-~/.cache/darner},
# under a name that changes with whatever it is made from. Messages go to standard error.
set -euo pipefail

module=$(dirname "$(readlink -f "$0")")/go/cosign
PATH=$PATH:/usr/local/go/bin

version=$(awk '/sigstore\/cosign\// { print $(NF); exit }' "$module/go.mod")
folder=${DARNER_CACHE:-$HOME/.cache/darner}/cosign-$version-$(cat "$module"/{go.mod,go.sum,main.go} "$0" | sha256sum | cut -c1-12)
if [ ! -e "$folder/cosign" ]; then
    command -v go >/dev/null || {
        wanted=$(awk '$1 == "go" { print $2 }' "$module/go.mod")
        echo "cosign.sh: building cosign $version needs Go $wanted or later, and there is no go command" >&2
        exit 1
    }
    mkdir -p "$folder"
    exec 9>"$folder/lock"
    flock 9 # two releases may be made at the same time
    if [ ! -e "$folder/cosign" ]; then
        echo "cosign.sh: building cosign $version; the first time takes some minutes" >&2
        cd "$module"
        CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$folder/part" .
        mv "$folder/part" "$folder/cosign"
    fi
fi
echo "$folder/cosign"
