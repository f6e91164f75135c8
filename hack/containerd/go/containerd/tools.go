//go:build tools

// Package tools names the programs of containerd 2 that the tests run, so that go.mod and go.sum pin every byte of their source.
package tools

import (
	_ "github.com/containerd/containerd/v2/cmd/containerd"
	_ "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"
	_ "github.com/containerd/containerd/v2/cmd/ctr"
)
