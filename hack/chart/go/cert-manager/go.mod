// Pins the cert-manager release whose definitions the chart's Issuer and Certificate are validated against. Nothing is built from it.
module darner.dev/hack/cert-manager

go 1.26.0

require github.com/cert-manager/cert-manager v1.19.1
