//go:build tools

// Package tools names CoreDNS, so that go.mod and go.sum pin every byte of its source.
package tools

import _ "github.com/coredns/coredns"
