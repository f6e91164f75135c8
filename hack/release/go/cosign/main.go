// Cosign's own commands, without the key services of clouds that its main program adds: keys come from the environment or from files.
package main

import (
	"log"

	"github.com/sigstore/cosign/v3/cmd/cosign/cli"
)

func main() {
	log.SetFlags(0)
	if err := cli.New().Execute(); err != nil {
		log.Fatal(err)
	}
}
