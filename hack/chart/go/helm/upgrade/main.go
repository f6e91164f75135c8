// Command upgrade says what one object looks like after `helm upgrade`.
//
// Standard input is a JSON object with "old" and "new", the object as the old and the new release render it, and "live",
// the object as the API server holds it. Standard output is the live object after Helm's patch, in JSON. The patch is made
// by the call that Helm's own createPatch makes (helm.sh/helm/v3/pkg/kube/client.go), at the version that Helm is built with.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	admission "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	var given struct{ Old, New, Live json.RawMessage }
	if err := json.NewDecoder(os.Stdin).Decode(&given); err != nil {
		return err
	}
	kind := admission.MutatingWebhookConfiguration{}
	meta, err := strategicpatch.NewPatchMetaFromStruct(kind)
	if err != nil {
		return err
	}
	patch, err := strategicpatch.CreateThreeWayMergePatch(given.Old, given.New, given.Live, meta, true)
	if err != nil {
		return err
	}
	after, err := strategicpatch.StrategicMergePatch(given.Live, patch, kind)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(after)
	return err
}
