#!/usr/bin/env bash
# Lints the chart with Helm, strictly, and validates what it renders against Kubernetes' schema: with default values, with every
# option, and with every option but the parts switched off. Switched off as a whole it renders nothing, and is linted too. PYTHON
# needs PyYAML and jsonschema.
set -euo pipefail
cd "$(dirname "$0")/../.."

helm=$(hack/chart/tool.sh helm)
schemas=("$(hack/chart/tool.sh openapi)" "$(hack/chart/tool.sh crds)" "$(hack/chart/tool.sh monitors)" hack/chart/openshift.yaml)
options=charts/darner/ci/every-option-values.yaml

try() { # VALUES...: flags for Helm
    echo "helm lint --strict charts/darner $*"
    "$helm" lint --strict --quiet charts/darner "$@"
    "$helm" template darner charts/darner --namespace darner-system "$@" | "${PYTHON:-python}" hack/chart/strict.py "${schemas[@]}"
}

try
try --values "$options" --set enabled=true --set webhook.enabled=true --set supernode.enabled=true
try --values "$options" --set enabled=true
"$helm" lint --strict --quiet charts/darner --set enabled=false
