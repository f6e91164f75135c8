// Command coredns is CoreDNS with the plugins that coredns.yaml names, and without the clients of every cloud: those take most of the
// time that it takes to build. Which plugin comes before which is CoreDNS' own list (core/dnsserver/zdirectives.go).
package main

import (
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/hosts"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
)

func main() {
	coremain.Run()
}
