// Pins the Kubernetes release whose OpenAPI schema the chart is validated against. Nothing is built from it.
module darner.dev/hack/kubernetes

go 1.26.0

require k8s.io/kubernetes v1.36.3
