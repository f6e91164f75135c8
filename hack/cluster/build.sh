#!/usr/bin/env bash
# Prints the folder of the programs of one part of a cluster, and builds them first if this machine has not got them yet:
#
#   etcd              etcd
#   coredns           coredns, with the plugins that coredns.yaml names
#   kubernetes-1.36   kube-apiserver, kube-controller-manager, kube-scheduler, kube-proxy, kubelet, kubectl: links to one binary.
#                     Other versions of Kubernetes are kubernetes-*, by whatever is in go/.
#
# Built from Go modules pinned in go/*/go.mod and checked against go/*/go.sum. Kept outside the tree, in
# ${DARNER_CACHE:-~/.cache/darner}, under a name that changes with whatever they are made from. Messages go to standard error.
set -euo pipefail

here=$(dirname "$(readlink -f "$0")")
module=$here/go/${1:?"build.sh: say what to build: $(cd "$here/go" && echo *)"}
[ -e "$module/go.mod" ] || {
    echo "build.sh: there is no $1; there are $(cd "$here/go" && echo *)" >&2
    exit 2
}
PATH=$PATH:/usr/local/go/bin
export CGO_ENABLED=0

pinned() { # MODULE: the version that go.mod requires
    awk -v module="$1" '$1 == "require" { shift = 1 } $(1 + shift) == module { print $(2 + shift); exit } { shift = 0 }' "$module/go.mod"
}
case $1 in
etcd) package=go.etcd.io/etcd/server/v3 version=$(pinned go.etcd.io/etcd/server/v3) minutes=2 ;;
coredns) package=. version=$(pinned github.com/coredns/coredns) minutes=1 ;;
kubernetes-*) package=. version=$(pinned k8s.io/kubernetes) minutes=6 ;;
esac

inputs=$(cat "$module"/* "$0" | sha256sum | cut -c1-12)
folder=${DARNER_CACHE:-$HOME/.cache/darner}/cluster/${1%%-*}-$version-$inputs
if [ -e "$folder/bin" ]; then
    echo "$folder/bin"
    exit
fi

command -v go >/dev/null || {
    echo "build.sh: building ${1%%-*} $version needs Go $(awk '$1 == "go" { print $2 }' "$module/go.mod") or later, and there is no go command" >&2
    exit 1
}
mkdir -p "$folder"
exec 9>"$folder/lock"
flock 9 # two clusters may ask at the same time
if [ ! -e "$folder/bin" ]; then
    echo "build.sh: building ${1%%-*} $version; the first time takes $minutes minutes on two cores" >&2
    rm -rf "$folder/part"
    mkdir "$folder/part"
    flags="-s -w"
    if [[ $1 == kubernetes-* ]]; then
        # What the programs say of themselves, and what they compare to know each other's version.
        minor=${version#v1.}
        stamp=k8s.io/component-base/version
        flags+=" -X $stamp.gitVersion=$version -X $stamp.gitMajor=1 -X $stamp.gitMinor=${minor%%.*}"
        for name in kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl; do
            ln -s kubernetes "$folder/part/$name"
        done
    fi
    (cd "$module" && go build -trimpath -ldflags "$flags" -o "$folder/part/${1%%-*}" "$package")
    mv "$folder/part" "$folder/bin" # whole or not there
fi
echo "$folder/bin"
