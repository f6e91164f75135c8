//go:build tools

// Package tools pins Helm, which the chart's tests and lint run, in this module's go.mod and go.sum.
package tools

import _ "helm.sh/helm/v3/cmd/helm"
