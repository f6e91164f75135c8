#!/usr/bin/env bash
# Prints the path of one tool of the chart's tests and makes the tool first if this machine has not got it yet:
#
#   helm      Helm itself
#   upgrade   what an object looks like after `helm upgrade`; go/helm/upgrade/main.go
#   openapi   the Kubernetes OpenAPI schema, a JSON file
#   crds      cert-manager's definitions of its Issuer and its Certificate, a YAML file
#   monitors  the Prometheus Operator's definitions of what the chart writes for it, a YAML file
#
# All are made from Go modules pinned in go/*/go.mod and checked against go/*/go.sum. They are kept outside the tree, in
# ${DARNER_CACHE:-~/.cache/darner}, under a name that changes with whatever they are made from. Messages go to standard error.
set -euo pipefail

tool=${1:?"tool.sh: say which tool: helm, upgrade, openapi, crds or monitors"}
here=$(dirname "$(readlink -f "$0")")
PATH=$PATH:/usr/local/go/bin:$HOME/go/bin
export CGO_ENABLED=0

pinned() { # MODULE FILE: the version that a go.mod requires
    awk -v module="$1" '$1 == "require" { shift = 1 } $(1 + shift) == module { print $(2 + shift); exit } { shift = 0 }' "$2"
}

case $tool in
helm | upgrade)
    module=$here/go/helm
    version=$(pinned helm.sh/helm/v3 "$module/go.mod")
    inputs=("$module/go.mod" "$module/go.sum" "$module/upgrade/main.go" "$0")
    ;;
openapi)
    module=$here/go/kubernetes
    version=$(pinned k8s.io/kubernetes "$module/go.mod")
    inputs=("$module/go.mod" "$module/go.sum" "$0")
    ;;
crds)
    module=$here/go/cert-manager
    version=$(pinned github.com/cert-manager/cert-manager "$module/go.mod")
    inputs=("$module/go.mod" "$module/go.sum" "$0")
    ;;
monitors)
    module=$here/go/prometheus-operator
    version=$(pinned github.com/prometheus-operator/prometheus-operator "$module/go.mod")
    inputs=("$module/go.mod" "$module/go.sum" "$0")
    ;;
*)
    echo "tool.sh: no tool is called $tool; there are helm, upgrade, openapi, crds and monitors" >&2
    exit 2
    ;;
esac

folder=${DARNER_CACHE:-$HOME/.cache/darner}/chart/$(basename "$module")-$version-$(cat "${inputs[@]}" | sha256sum | cut -c1-12)
path=$folder/$tool
if [ -e "$path" ]; then
    echo "$path"
    exit
fi

command -v go >/dev/null || {
    echo "tool.sh: making $tool needs Go $(awk '$1 == "go" { print $2 }' "$module/go.mod") or later, and there is no go command" >&2
    exit 1
}
mkdir -p "$folder"
exec 9>"$folder/lock"
flock 9 # `make check` and the tests may ask at the same time
if [ ! -e "$path" ]; then
    echo "tool.sh: making $tool $version; the first time takes some minutes" >&2
    cd "$module"
    case $tool in
    helm)
        # Helm takes the Kubernetes version that `helm template` assumes from these; without them it is 1.20, which the chart refuses.
        minor=$(pinned k8s.io/client-go go.mod | cut -d. -f2)
        flags="-s -w -X helm.sh/helm/v3/internal/version.version=$version"
        for package in pkg/chartutil pkg/lint/rules; do
            flags+=" -X helm.sh/helm/v3/$package.k8sVersionMajor=1 -X helm.sh/helm/v3/$package.k8sVersionMinor=$minor"
        done
        go build -trimpath -ldflags "$flags" -o "$path.part" helm.sh/helm/v3/cmd/helm
        ;;
    upgrade)
        go build -trimpath -ldflags "-s -w" -o "$path.part" ./upgrade
        ;;
    openapi)
        sources=$(go mod download -json "k8s.io/kubernetes@$version" | sed -n 's/^.*"Dir": "\(.*\)",$/\1/p')
        cp "$sources/api/openapi-spec/swagger.json" "$path.part"
        chmod u+w "$path.part"
        ;;
    crds)
        sources=$(go mod download -json "github.com/cert-manager/cert-manager@$version" | sed -n 's/^.*"Dir": "\(.*\)",$/\1/p')
        for kind in certificates issuers; do
            echo ---
            cat "$sources/deploy/crds/cert-manager.io_$kind.yaml"
        done > "$path.part"
        ;;
    monitors)
        operator=github.com/prometheus-operator/prometheus-operator@$version
        sources=$(go mod download -json "$operator" | sed -n 's/^.*"Dir": "\(.*\)",$/\1/p')
        for kind in podmonitors servicemonitors prometheusrules; do
            cat "$sources/example/prometheus-operator-crd/monitoring.coreos.com_$kind.yaml"
        done > "$path.part"
        ;;
    esac
    mv "$path.part" "$path"
fi
echo "$path"
