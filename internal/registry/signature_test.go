package registry_test

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"strings"
	"testing"

	fake "github.com/google/go-containerregistry/pkg/registry"

	"github.com/getto-systems/hubrelay/internal/registry"
)

// What cosign writes, by kind: the type, the type of the config, annotations.
const (
	bundle = "application/vnd.dev.sigstore.bundle.v0.3+json"
	empty  = "application/vnd.oci.empty.v1+json"
	sig    = "application/vnd.dev.cosign.artifact.sig.v1+json"
	sbom   = "application/vnd.dev.cosign.artifact.sbom.v1+json"
)

func predicate(kind string) map[string]string {
	return map[string]string{
		"dev.sigstore.bundle.content":       "dsse-envelope",
		"dev.sigstore.bundle.predicateType": kind,
	}
}

func TestSignedIsWhatHasACosignSignature(t *testing.T) {
	t.Parallel()
	tag := func(suffix string) func(*testing.T, *hub, string) {
		return func(t *testing.T, h *hub, digest string) {
			h.pushImage(t, "acme/api:"+strings.Replace(digest, ":", "-", 1)+suffix)
		}
	}
	attach := func(artifactType, configType string, annotations map[string]string) func(*testing.T, *hub, string) {
		return func(t *testing.T, h *hub, digest string) {
			h.attach(t, "acme/api", digest, artifactType, configType, annotations)
		}
	}
	signature := attach(bundle, empty, predicate("https://sigstore.dev/cosign/sign/v1"))
	provenance := attach(bundle, empty, predicate("https://slsa.dev/provenance/v1"))

	for name, test := range map[string]struct {
		attached []func(*testing.T, *hub, string)
		want     bool
	}{
		"nothing is attached":                        {nil, false},
		"cosign 2 signed":                            {[]func(*testing.T, *hub, string){tag(".sig")}, true},
		"cosign 2 attached an attestation":           {[]func(*testing.T, *hub, string){tag(".att"), tag(".sbom")}, false},
		"an image has the tag of the list":           {[]func(*testing.T, *hub, string){tag("")}, false},
		"cosign 2 signed by OCI 1.1":                 {[]func(*testing.T, *hub, string){attach(sig, sig, nil)}, true},
		"cosign 2 attached an SBOM by OCI 1.1":       {[]func(*testing.T, *hub, string){attach(sbom, sbom, nil)}, false},
		"cosign 3 signed":                            {[]func(*testing.T, *hub, string){signature}, true},
		"cosign 3 attested":                          {[]func(*testing.T, *hub, string){provenance}, false},
		"cosign 3 attested and signed":               {[]func(*testing.T, *hub, string){provenance, attach(sbom, sbom, nil), signature}, true},
		"another client signed with a message":       {[]func(*testing.T, *hub, string){attach(bundle, empty, map[string]string{"dev.sigstore.bundle.content": "message-signature"})}, true},
		"a bundle does not say what it is":           {[]func(*testing.T, *hub, string){attach(bundle, empty, nil)}, false},
		"another image of the repository was signed": {[]func(*testing.T, *hub, string){func(t *testing.T, h *hub, _ string) { signature(t, h, h.pushImage(t, "acme/api:2.0")) }}, false},
	} {
		for _, api := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, referrers API %v", name, api), func(t *testing.T) {
				t.Parallel()
				h := newHub(t, &hub{registry: fake.New(fake.Logger(log.New(io.Discard, "", 0)), fake.WithReferrersSupport(api))})
				digest := h.pushImage(t, "acme/api:1.0")
				for _, attach := range test.attached {
					attach(t, h, digest)
				}
				got, err := h.client(t, "").Signed(t.Context(), "acme/api", digest)
				if err != nil || got != test.want {
					t.Errorf("got %v, %v; want %v", got, err, test.want)
				}
			})
		}
	}
}

func TestSignaturesMayHaveARepositoryOfTheirOwn(t *testing.T) {
	t.Parallel()
	h := newHub(t, &hub{})
	digest := h.pushImage(t, "acme/api:1.0")
	h.attach(t, "acme/api-signatures", digest, bundle, empty, predicate("https://sigstore.dev/cosign/sign/v1"))
	c := h.client(t, "")
	for repository, want := range map[string]bool{"acme/api": false, "acme/api-signatures": true, "acme/none": false} {
		if got, err := c.Signed(t.Context(), repository, digest); err != nil || got != want {
			t.Errorf("%s: got %v, %v; want %v", repository, got, err, want)
		}
	}
}

func TestAnUnsignedImageCostsNoPull(t *testing.T) {
	t.Parallel()
	h := newHub(t, &hub{})
	digest := h.pushImage(t, "acme/api:1.0")
	if signed, err := h.client(t, "").Signed(t.Context(), "acme/api", digest); err != nil || signed {
		t.Fatalf("got %v, %v", signed, err)
	}
	for _, asked := range h.takeAsked() {
		if asked == "GET manifests" {
			t.Error("a manifest was pulled")
		}
	}
}

func TestAListThatCannotBeReadIsAnError(t *testing.T) {
	t.Parallel()
	list := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if kind(r.URL.Path) == "manifests" {
				http.NotFound(w, r)
				return
			}
			w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json; charset=utf-8")
			_, _ = fmt.Fprint(w, body)
		}
	}
	for name, body := range map[string]string{
		"nothing":     "",
		"no JSON":     "canary",
		"cut JSON":    `{"manifests":[`,
		"other types": `{"manifests":"canary"}`,
		"too much":    `{"manifests":[]` + strings.Repeat(" ", 2<<20) + `}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHub(t, &hub{fail: list(body)})
			_, err := h.client(t, "").Signed(t.Context(), "acme/api", "sha256:"+strings.Repeat("a", 64))
			check(t, err, registry.Error{Status: 200, Reason: registry.Unavailable})
		})
	}
}
