package pipeline

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// artifact is something that a registry may have under a tag.
type artifact struct {
	manifest string
	image    bool
}

// childManifest is the manifest of the entries of an index. It is an image, so
// that only the index shows that the whole is not one.
const childManifest = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:0000000000000000000000000000000000000000000000000000000000000001","size":1},"layers":[]}`

// artifacts are manifests as the tools write them, without their blobs.
func artifacts(t *testing.T) map[string]artifact {
	t.Helper()
	hash := func(n int) string { return fmt.Sprintf("sha256:%064d", n) }
	oci := func(config, more string, layers ...string) string {
		var list []string
		for i, l := range layers {
			list = append(list, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":1}`, l, hash(i+2)))
		}
		return fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",%s"config":{"mediaType":%q,"digest":%q,"size":1},"layers":[%s]}`,
			more, config, hash(1), strings.Join(list, ","))
	}
	index := func(more string, children ...string) string {
		return fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json",%s"manifests":[%s]}`, more, strings.Join(children, ","))
	}
	const (
		image       = "application/vnd.oci.image.config.v1+json"
		layer       = "application/vnd.oci.image.layer.v1.tar+gzip"
		emptyConfig = "application/vnd.oci.empty.v1+json"
		ociManifest = "application/vnd.oci.image.manifest.v1+json"
	)
	child := func(kind, platform, more string) string {
		if platform != "" {
			os, arch, _ := strings.Cut(platform, "/")
			platform = fmt.Sprintf(`,"platform":{"os":%q,"architecture":%q}`, os, arch)
		}
		return fmt.Sprintf(`{"mediaType":%q,"digest":"sha256:%x","size":1%s%s}`, kind, sha256.Sum256([]byte(childManifest)), platform, more)
	}
	const attestation = `,"annotations":{"vnd.docker.reference.digest":"sha256:0","vnd.docker.reference.type":"attestation-manifest"}`
	return map[string]artifact{
		"an image":                                 {oci(image, "", layer), true},
		"an image without layers":                  {oci(image, ""), true},
		"an image of zstd layers":                  {oci(image, "", "application/vnd.oci.image.layer.v1.tar+zstd"), true},
		"an image with annotations like a chart's": {oci(image, `"annotations":{"config/mediaType":"application/vnd.cncf.helm.config.v1+json","a":"}],\"artifactType\":\"x\""},`, layer), true},
		"what buildx builds":                       {index("", child(ociManifest, "linux/amd64", ""), child(ociManifest, "unknown/unknown", attestation)), true},
		"platforms and an unknown one":             {index("", child(ociManifest, "unknown/unknown", ""), child(ociManifest, "linux/arm64", "")), true},
		"a manifest list": {strings.ReplaceAll(index("", child("application/vnd.docker.distribution.manifest.v2+json", "windows/amd64", "")),
			"application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"), true},

		"a Helm chart":                       {oci("application/vnd.cncf.helm.config.v1+json", "", "application/vnd.cncf.helm.chart.content.v1.tar+gzip"), false},
		"a build cache":                      {index("", child(layer, "", ""), child("application/vnd.buildkit.cacheconfig.v0", "", "")), false},
		"a build cache as an image":          {oci("application/vnd.buildkit.cacheconfig.v0", "", layer), false},
		"a Compose file":                     {oci(emptyConfig, `"artifactType":"application/vnd.docker.compose.project",`, "application/vnd.docker.compose.file+yaml"), false},
		"an artifact with an image's config": {oci(image, `"artifactType":"application/spdx+json",`, layer), false},
		"an attestation of buildx":           {oci(image, "", "application/vnd.in-toto+json"), false},
		"a signature of cosign 2":            {oci(image, "", "application/vnd.dev.cosign.simplesigning.v1+json"), false},
		"a model":                            {oci("application/vnd.docker.ai.model.config.v0.1+json", "", "application/vnd.docker.ai.gguf.v3"), false},
		"a plugin of Docker":                 {oci("application/vnd.docker.plugin.v1+json", "", "application/vnd.docker.image.rootfs.diff.tar.gzip"), false},
		"an index of attestations":           {index("", child(ociManifest, "unknown/unknown", attestation)), false},
		"an index of artifacts":              {index("", child(ociManifest, "", `,"artifactType":"application/spdx+json"`)), false},
		"a list of referrers":                {index("", child(ociManifest, "", `,"artifactType":"application/vnd.dev.sigstore.bundle.v0.3+json"`)), false},
		"an index of an artifact type":       {index(`"artifactType":"application/x",`, child(ociManifest, "linux/amd64", "")), false},
		"an empty index":                     {index(""), false},
	}
}

func TestOnlyImagesArePromoted(t *testing.T) {
	t.Parallel()
	h := newHub(t, true)
	for name, a := range artifacts(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHub(t, true)
			h.put("child", childManifest)
			h.put("1.0.0", a.manifest)
			got := h.promote("1.0.0", "")
			if a.image {
				got.want(0, "success", "signed; latest moved to it")
				return
			}
			got.want(0, "skipped", "1.0.0 is not an image, but ")
			if len(got.all) != 0 {
				t.Errorf("it wrote: %v", got.all)
			}
		})
	}
	// What an index does not say about its children is in the children.
	for name, is := range map[string]bool{"an image": true, "a Helm chart": false} {
		h.put("inner", artifacts(t)[name].manifest)
		tag := strings.ReplaceAll(name, " ", "-")
		h.put(tag, fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"size":1}]}`,
			h.digest("inner")))
		want := "skipped"
		if is {
			want = "success"
		}
		h.promote(tag, "").want(0, want, "")
	}
}

// buildx adds attestations, and may compress by zstd: both are refused by
// `crane validate`.
func TestWhatBuildxBuildsIsValid(t *testing.T) {
	t.Parallel()
	h := newHub(t, true)
	image, err := random.Image(64, 1)
	if err != nil {
		t.Fatal(err)
	}
	image, err = mutate.AppendLayers(image, static.NewLayer([]byte("no gzip at all, but a whole layer"), "application/vnd.oci.image.layer.v1.tar+zstd"))
	if err != nil {
		t.Fatal(err)
	}
	attestation, err := mutate.AppendLayers(empty.Image, static.NewLayer([]byte(`{"_type":"https://in-toto.io/Statement/v1"}`), "application/vnd.in-toto+json"))
	if err != nil {
		t.Fatal(err)
	}
	index := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex),
		mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}},
		mutate.IndexAddendum{Add: attestation, Descriptor: v1.Descriptor{
			Platform:    &v1.Platform{OS: "unknown", Architecture: "unknown"},
			Annotations: map[string]string{"vnd.docker.reference.type": "attestation-manifest"},
		}})
	if err := remote.WriteIndex(h.ref("1.0.0"), index, auth); err != nil {
		t.Fatal(err)
	}
	h.promote("1.0.0", digestOf(t, index), "validate", "true").want(0, "success", "signed; latest moved to it")

	// A layer with another digest, and one that is missing.
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	hash, err := layers[1].Digest()
	if err != nil {
		t.Fatal(err)
	}
	for status, code := range map[int]int{http.StatusNotFound: 3, http.StatusOK: 3, http.StatusTooManyRequests: 6} {
		h.refuse(status, `^GET .*/blobs/`+hash.String())
		got := h.promote("1.0.0", digestOf(t, index), "validate", "true")
		got.want(code, "failure", "the image is not complete")
		if len(got.all) != 0 {
			t.Errorf("it wrote: %v", got.all)
		}
	}
}
