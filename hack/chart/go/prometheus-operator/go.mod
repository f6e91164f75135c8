// Pins the release of the Prometheus Operator whose definitions the chart's objects are validated against. Nothing is built from it.
module darner.dev/hack/prometheus-operator

go 1.26.0

require github.com/prometheus-operator/prometheus-operator v0.82.0
