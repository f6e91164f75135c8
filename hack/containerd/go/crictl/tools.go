//go:build tools

// Package tools names crictl, through which the tests ask a container runtime for images as the kubelet does.
package tools

import _ "sigs.k8s.io/cri-tools/cmd/crictl"
