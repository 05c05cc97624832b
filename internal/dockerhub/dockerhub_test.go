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
			dockerhub.Push{ID: id("acme/api", "v1", ""), Repository: "acme/api", Tag: "v1"},
		},
		{
			"pushed_at is a string",
			`{"repository":{"repo_name":"acme/api"},"push_data":{"tag":"v1","pushed_at":"1417566161"}}`,
			dockerhub.Push{ID: id("acme/api", "v1", `"1417566161"`), Repository: "acme/api", Tag: "v1", PushedAt: time.Unix(1417566161, 0).UTC()},
		},
		{
			"pushed_at is no number that could be a time",
			`{"repository":{"repo_name":"acme/api"},"push_data":{"tag":"v1","pushed_at":"NaN"}}`,
			dockerhub.Push{ID: id("acme/api", "v1", `"NaN"`), Repository: "acme/api", Tag: "v1"},
		},
		{
			"pushed_at is beyond any calendar",
			`{"repository":{"repo_name":"acme/api"},"push_data":{"tag":"v1","pushed_at":1e300}}`,
			dockerhub.Push{ID: id("acme/api", "v1", "1e300"), Repository: "acme/api", Tag: "v1"},
		},
		{
			"other fields have any type",
			`{"repository":{"repo_name":"acme/api","name":null,"star_count":"x","full_description":7,"owner":[]},
			  "push_data":{"tag":"v1","images":"none","pusher":{"a":1},"media_type":0},"callback_url":[],"dhi_metadata":true}`,
			dockerhub.Push{ID: id("acme/api", "v1", ""), Repository: "acme/api", Tag: "v1"},
		},
		{
			"a pusher without end is left out",
			`{"repository":{"repo_name":"acme/api"},"push_data":{"tag":"v1","pusher":"` + strings.Repeat("a", 256) + `"}}`,
			dockerhub.Push{ID: id("acme/api", "v1", ""), Repository: "acme/api", Tag: "v1"},
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

func TestDecodeRefusesWhatIsNoPush(t *testing.T) {
	t.Parallel()
	good := dockerhub.Push{ID: "1", Repository: "acme/api", Tag: "v1"}
	data, _ := json.Marshal(good)
	if got, err := dockerhub.Decode(data); err != nil || got != good {
		t.Errorf("got %+v, %v", got, err)
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
