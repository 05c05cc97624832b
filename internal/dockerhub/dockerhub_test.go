package dockerhub_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/getto-systems/hubrelay/internal/dockerhub"
)

var received = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)

func id(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\n")))
	return hex.EncodeToString(sum[:])
}

// atReceipt is what an ID is made of where a push does not say when it was.
const atReceipt = "2026-11-22T10:00:00Z"

func TestDocumentedPayloads(t *testing.T) {
	t.Parallel()
	pushedAt := time.Unix(1417566161, 0).UTC()
	for file, want := range map[string]dockerhub.Push{
		"documented-2019.json": {
			ID: id("svendowideit/testhook", "latest", "1.417566161e+09"), Repository: "svendowideit/testhook",
			Tag: "latest", Pusher: "trustedbuilder", PushedAt: pushedAt, ReceivedAt: received,
		},
		"documented-today.json": {
			ID: id("acme/api", "1.4.0", "1417566161"), Repository: "acme/api",
			Tag: "1.4.0", Pusher: "trustedbuilder", PushedAt: pushedAt, ReceivedAt: received,
		},
	} {
		body, err := os.ReadFile("testdata/" + file)
		if err != nil {
			t.Fatal(err)
		}
		got, err := dockerhub.Parse(body, received)
		if err != nil {
			t.Errorf("%s: %v", file, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", file, diff)
		}
	}
}

func TestShapesSeenInTheWild(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, body string
		want       dockerhub.Push
	}{
		{
			"namespace and name stand in for repo_name",
			`{"repository":{"namespace":"acme","name":"api"},"push_data":{"tag":"v1","pushed_at":1}}`,
			dockerhub.Push{ID: id("acme/api", "v1", "1"), Repository: "acme/api", Tag: "v1", PushedAt: time.Unix(1, 0).UTC()},
		},
		{
			"pushed_at is absent",
			`{"repository":{"repo_name":"acme/api"},"push_data":{"tag":"v1"}}`,
			dockerhub.Push{ID: id("acme/api", "v1", atReceipt), Repository: "acme/api", Tag: "v1"},
		},
		{
			"pushed_at is a string",
			`{"repository":{"repo_name":"acme/api"},"push_data":{"tag":"v1","pushed_at":"1417566161"}}`,
			dockerhub.Push{ID: id("acme/api", "v1", `"1417566161"`), Repository: "acme/api", Tag: "v1", PushedAt: time.Unix(1417566161, 0).UTC()},
		},
		{
			"pushed_at is no number that could be a time",
			`{"repository":{"repo_name":"acme/api"},"push_data":{"tag":"v1","pushed_at":"NaN"}}`,
			dockerhub.Push{ID: id("acme/api", "v1", atReceipt), Repository: "acme/api", Tag: "v1"},
		},
		{
			"pushed_at is beyond any calendar",
			`{"repository":{"repo_name":"acme/api"},"push_data":{"tag":"v1","pushed_at":1e300}}`,
			dockerhub.Push{ID: id("acme/api", "v1", atReceipt), Repository: "acme/api", Tag: "v1"},
		},
		{
			"pushed_at is a time that somebody did not know",
			`{"repository":{"repo_name":"acme/api"},"push_data":{"tag":"v1","pushed_at":0}}`,
			dockerhub.Push{ID: id("acme/api", "v1", atReceipt), Repository: "acme/api", Tag: "v1"},
		},
		{
			"pushed_at is null",
			`{"repository":{"repo_name":"acme/api"},"push_data":{"tag":"v1","pushed_at":null}}`,
			dockerhub.Push{ID: id("acme/api", "v1", atReceipt), Repository: "acme/api", Tag: "v1"},
		},
		{
			"pushed_at has another type",
			`{"repository":{"repo_name":"acme/api"},"push_data":{"tag":"v1","pushed_at":{"seconds":1}}}`,
			dockerhub.Push{ID: id("acme/api", "v1", atReceipt), Repository: "acme/api", Tag: "v1"},
		},
		{
			"pushed_at is a string in the escapes of JSON",
			`{"repository":{"repo_name":"acme/api"},"push_data":{"tag":"v1","pushed_at":"\u0031417566161"}}`,
			dockerhub.Push{ID: id("acme/api", "v1", `"\u0031417566161"`), Repository: "acme/api", Tag: "v1", PushedAt: time.Unix(1417566161, 0).UTC()},
		},
		{
			"pushed_at has a fraction",
			`{"repository":{"repo_name":"acme/api"},"push_data":{"tag":"v1","pushed_at":1417566161.5}}`,
			dockerhub.Push{ID: id("acme/api", "v1", "1417566161.5"), Repository: "acme/api", Tag: "v1", PushedAt: time.Unix(1417566161, 5e8).UTC()},
		},
		{
			"repo_name has no namespace",
			`{"repository":{"repo_name":"busybox","namespace":"library","name":"busybox"},"push_data":{"tag":"1.36","pushed_at":1}}`,
			dockerhub.Push{ID: id("library/busybox", "1.36", "1"), Repository: "library/busybox", Tag: "1.36", PushedAt: time.Unix(1, 0).UTC()},
		},
		{
			"a byte order mark comes first",
			"\ufeff" + `{"repository":{"repo_name":"acme/api"},"push_data":{"tag":"v1","pushed_at":1}}`,
			dockerhub.Push{ID: id("acme/api", "v1", "1"), Repository: "acme/api", Tag: "v1", PushedAt: time.Unix(1, 0).UTC()},
		},
		{
			"a signature of cosign has the media type of an image",
			`{"repository":{"repo_name":"acme/api"},"push_data":{"tag":"sha256-` + strings.Repeat("a", 64) + `.sig","pushed_at":1,"media_type":"application/vnd.oci.image.config.v1+json"}}`,
			dockerhub.Push{
				ID: id("acme/api", "sha256-"+strings.Repeat("a", 64)+".sig", "1"), Repository: "acme/api",
				Tag: "sha256-" + strings.Repeat("a", 64) + ".sig", PushedAt: time.Unix(1, 0).UTC(),
			},
		},
		{
			"other fields have any type",
			`{"repository":{"repo_name":"acme/api","name":null,"star_count":"x","full_description":7,"owner":[]},
			  "push_data":{"tag":"v1","images":"none","pusher":{"a":1},"media_type":0},"callback_url":[],"dhi_metadata":true}`,
			dockerhub.Push{ID: id("acme/api", "v1", atReceipt), Repository: "acme/api", Tag: "v1"},
		},
		{
			"a pusher without end is left out",
			`{"repository":{"repo_name":"acme/api"},"push_data":{"tag":"v1","pusher":"` + strings.Repeat("a", 256) + `"}}`,
			dockerhub.Push{ID: id("acme/api", "v1", atReceipt), Repository: "acme/api", Tag: "v1"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := dockerhub.Parse([]byte(c.body), received)
			if err != nil {
				t.Fatal(err)
			}
			c.want.ReceivedAt = received
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPushWithoutATag(t *testing.T) {
	t.Parallel()
	for _, data := range []string{
		``, `,"push_data":null`, `,"push_data":{}`, `,"push_data":{"tag":null}`, `,"push_data":{"tag":""}`,
		`,"push_data":{"tag":"sha256:` + strings.Repeat("a", 64) + `"}`,
		`,"push_data":{"tag":"sha512:` + strings.Repeat("a", 128) + `"}`,
	} {
		_, err := dockerhub.Parse([]byte(`{"repository":{"repo_name":"acme/api"}`+data+`}`), received)
		if !errors.Is(err, dockerhub.ErrNoTag) {
			t.Errorf("%s: got %v", data, err)
		}
	}
}

func TestTwoPushesThatDoNotSayWhenAreTwo(t *testing.T) {
	t.Parallel()
	body := []byte(`{"repository":{"repo_name":"acme/api"},"push_data":{"tag":"v1"}}`)
	first, err := dockerhub.Parse(body, received)
	if err != nil {
		t.Fatal(err)
	}
	second, err := dockerhub.Parse(body, received.Add(time.Millisecond))
	if err != nil || first.ID == second.ID {
		t.Errorf("got %s twice, %v", second.ID, err)
	}
}

func TestOnlyWhatSaysThatItIsNoImageIsNone(t *testing.T) {
	t.Parallel()
	for mediaType, image := range map[string]bool{
		`"application/vnd.oci.image.config.v1+json"`:                  true,
		`"application/vnd.oci.image.manifest.v1+json"`:                true,
		`"application/vnd.oci.image.index.v1+json"`:                   true,
		`"application/vnd.docker.container.image.v1+json"`:            true,
		`"application/vnd.docker.distribution.manifest.v2+json"`:      true,
		`"application/vnd.docker.distribution.manifest.list.v2+json"`: true,
		`"Application/VND.OCI.Image.Config.v1+JSON; charset=utf-8"`:   true,
		`""`: true, `null`: true, `7`: true, `["application/vnd.cncf.helm.config.v1+json"]`: true,
		`"image"`: true, `"application/json"`: true, `"application/octet-stream"`: true, `"a b/c"`: true,

		`"application/vnd.cncf.helm.config.v1+json"`:                  false,
		`" Application/vnd.CNCF.helm.config.v1+json; charset=utf-8 "`: false,
		`"application/vnd.buildkit.cacheconfig.v0"`:                   false,
		`"application/vnd.docker.compose.project"`:                    false,
		`"application/vnd.docker.compose.project+json"`:               false,
		`"application/vnd.wasm.config.v0+json"`:                       false,
		`"application/wasm"`:                                          false,
		`"application/vnd.in-toto+json"`:                              false,
		`"application/vnd.dev.sigstore.bundle.v0.3+json"`:             false,
		`"application/vnd.dev.cosign.artifact.sig.v1+json"`:           false,
		`"application/vnd.oci.empty.v1+json"`:                         false,
		`"application/vnd.unknown.config.v1+json"`:                    false,
		`"application/vnd.docker.plugin.v1+json"`:                     false,
		`"application/vnd.docker.ai.model.config.v0.1+json"`:          false,
		`"application/vnd.cncf.flux.config.v1+json"`:                  false,
		`"application/spdx+json"`:                                     false,
	} {
		body := `{"repository":{"repo_name":"acme/api"},"push_data":{"tag":"v1","media_type":` + mediaType + `}}`
		got, err := dockerhub.Parse([]byte(body), received)
		switch {
		case image && err != nil:
			t.Errorf("%s: got %v", mediaType, err)
		case !image && (!errors.Is(err, dockerhub.ErrNotAnImage) || got != dockerhub.Push{Repository: "acme/api", Tag: "v1"}):
			t.Errorf("%s: got %+v, %v", mediaType, got, err)
		}
	}
}

func TestBadBodiesSayWhatIsWrong(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		``:      "not a JSON object",
		`hello`: "not a JSON object",
		`[]`:    "not a JSON object",
		`{"repository":{"repo_name":"acme/api"}} x`: "not a JSON object",
		`{}`:                 "repository is missing",
		`{"repository":"x"}`: "repository is not an object",
		`{"repository":{}}`:  "repo_name is missing",
		`{"repository":{"repo_name":7},"push_data":{"tag":"v1"}}`:                                        "repo_name is not a string",
		`{"repository":{"repo_name":"Acme/API"},"push_data":{"tag":"v1"}}`:                               "is not a repository",
		`{"repository":{"repo_name":"acme/../api"},"push_data":{"tag":"v1"}}`:                            "is not a repository",
		`{"repository":{"repo_name":"` + strings.Repeat("a", 256) + `"},"push_data":{"tag":"v1"}}`:       "longer than 255",
		`{"repository":{"namespace":"acme"},"push_data":{"tag":"v1"}}`:                                   "repo_name is missing",
		`{"repository":{"namespace":"acme","name":"A"},"push_data":{"tag":"v1"}}`:                        "is not a repository",
		`{"repository":{"repo_name":"acme/api"},"push_data":"v1"}`:                                       "push_data is not an object",
		`{"repository":{"repo_name":"acme/api"},"push_data":{"tag":1}}`:                                  "tag is not a string",
		`{"repository":{"repo_name":"acme/api"},"push_data":{"tag":"a b"}}`:                              "is not a tag",
		`{"repository":{"repo_name":"acme/api"},"push_data":{"tag":"-a"}}`:                               "is not a tag",
		`{"repository":{"repo_name":"acme/api"},"push_data":{"tag":"` + strings.Repeat("a", 129) + `"}}`: "is not a tag",
		`{"repository":{"repo_name":"acme/api"},"push_data":{"tag":"$(id)"}}`:                            "is not a tag",
		`{"repository":{"repo_name":"_/nginx","name":"n","namespace":"u"},"push_data":{"tag":"v1"}}`:     "is not a repository",
		`{"repository":{"repo_name":"` + strings.Repeat("a", 250) + `"},"push_data":{"tag":"v1"}}`:       "longer than 255",
		`{"repository":{"repoName":"acme/api"},"pushData":{"tag":"v1"}}`:                                 "repo_name is missing",
		`{"id":"1","action":"push","target":{"repository":"acme/api","tag":"1"}}`:                        "repository is missing",
		`{"events":[{"action":"push","target":{"repository":"acme/zk"}}]}`:                               "repository is missing",
	} {
		_, err := dockerhub.Parse([]byte(body), received)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: got %v, want %q", body, err, want)
		}
	}
}

func TestArtifactTags(t *testing.T) {
	t.Parallel()
	hex := strings.Repeat("0a", 32)
	for tag, want := range map[string]bool{
		"sha256-" + hex:                  true,
		"sha256-" + hex + ".sig":         true,
		"sha256-" + hex + ".att-1":       true,
		"sha256-" + hex[1:]:              false,
		"sha256-" + hex + "-amd64":       false,
		"v1-sha256-" + hex:               false,
		"sha256-" + strings.ToUpper(hex): false,
		"1.4.0":                          false,
	} {
		if got := dockerhub.IsArtifactTag(tag); got != want {
			t.Errorf("IsArtifactTag(%q) = %v", tag, got)
		}
	}
}

func TestDecodeTakesAPushAndNothingElse(t *testing.T) {
	t.Parallel()
	good := dockerhub.Push{ID: "1", Repository: "acme/api", Tag: "v1"}
	data, _ := json.Marshal(good)
	if got, err := dockerhub.Decode(data); err != nil || got != good {
		t.Errorf("got %+v, %v", got, err)
	}
	for data, want := range map[string]string{
		`{"id":"1","repository":"busybox","tag":"v1"}`:             "library/busybox",
		"\ufeff" + `{"id":"1","repository":"acme/api","tag":"v1"}`: "acme/api",
	} {
		if got, err := dockerhub.Decode([]byte(data)); err != nil || got.Repository != want {
			t.Errorf("%s: got %+v, %v", data, got, err)
		}
	}
	for _, data := range []string{``, `null`, `[]`, `{"id":"1","repository":"acme/api"}`, `{"id":"a b","repository":"acme/api","tag":"v1"}`, `{"id":"1","repository":"A","tag":"v1"}`} {
		if _, err := dockerhub.Decode([]byte(data)); err == nil {
			t.Errorf("%q was taken for a push", data)
		}
	}
	_, err := dockerhub.Decode([]byte(`{}`))
	for _, field := range []string{"id", "repository", "tag"} {
		if !strings.Contains(err.Error(), field) {
			t.Errorf("%v does not name %s", err, field)
		}
	}
}

func TestImagesOnACommandLine(t *testing.T) {
	t.Parallel()
	for image, want := range map[string]string{"acme/api:1": "acme/api 1", "busybox:1": "library/busybox 1", ":1": " 1"} {
		repository, tag, err := dockerhub.SplitImage(image)
		if err != nil || repository+" "+tag != want {
			t.Errorf("%s: got %s %s, %v", image, repository, tag, err)
		}
	}
	if _, _, err := dockerhub.SplitImage("acme/api"); err == nil {
		t.Error("an image without a tag is taken")
	}
	for _, c := range []struct {
		pattern, repository string
		want                bool
	}{
		{"*", "acme/api", true}, {"*", "library/busybox", true}, {"*:1.*", "acme/api", true}, {"*:2", "acme/api", false},
		{"busybox", "library/busybox", true}, {"busy*:1.0", "library/busybox", true}, {"busybox", "acme/busybox", false},
		{"acme/*", "acme/api", true}, {"acme/*", "library/acme", false}, {"acme*", "acme/api", false},
	} {
		p, err := dockerhub.ParsePattern(c.pattern)
		if err != nil || p.Matches(c.repository, "1.0") != c.want {
			t.Errorf("%s matches %s: want %v, %v", c.pattern, c.repository, c.want, err)
		}
	}
	for _, pattern := range []string{"", ":1", "acme/[:1", "acme/api:"} {
		if _, err := dockerhub.ParsePattern(pattern); err == nil {
			t.Errorf("%q is taken for a pattern", pattern)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, file := range []string{"documented-2019.json", "documented-today.json"} {
		body, err := os.ReadFile("testdata/" + file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
	}
	f.Add([]byte(`{"repository":{"namespace":"acme","name":"api"},"push_data":{"tag":"v1","pushed_at":"1"}}`))
	f.Add([]byte(`{"repository":{"repo_name":"a/b"},"push_data":{"tag":"sha256:00"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		push, err := dockerhub.Parse(body, received)
		if err != nil {
			return
		}
		// Whatever is accepted survives the way through Pub/Sub unchanged.
		data, err := json.Marshal(push)
		if err != nil {
			t.Fatal(err)
		}
		again, err := dockerhub.Decode(data)
		if err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		if diff := cmp.Diff(push, again); diff != "" {
			t.Error(diff)
		}
		if len(push.ID) != 64 {
			t.Errorf("id %q", push.ID)
		}
	})
}
