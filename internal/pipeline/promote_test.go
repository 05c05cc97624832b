package pipeline

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

const (
	username = "canary-user"
	password = "canary-password"
	url1     = "https://gitlab.example/acme/images/api/-/pipelines/1"
	url2     = "https://gitlab.example/acme/images/api/-/pipelines/2"
)

// bothKinds runs a test against a registry with the referrers API, and against
// one without, for cosign stores its signatures differently.
func bothKinds(t *testing.T, test func(*testing.T, *hub)) {
	t.Parallel()
	for kind, referrers := range map[string]bool{"with referrers": true, "without referrers": false} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			test(t, newHub(t, referrers))
		})
	}
}

func TestFirstBuildIsSignedAndBecomesLatest(t *testing.T) {
	bothKinds(t, func(t *testing.T, h *hub) {
		for i, tag := range []string{"1.0.0", "2.0.0"} {
			digest := []func(string) string{h.push, h.pushIndex}[i](tag)
			got := h.promote(tag, digest)
			got.want(0, "success", "signed; latest moved to it")
			h.wantSigned(digest, tag, url1)
			h.wantTag("latest", digest)
			h.wantTag(tag, digest)
			// The signature aside, `latest` is the one thing that was pushed.
			if n := got.writes("PUT /v2/acme/api/manifests/" + tag); n != 0 {
				t.Errorf("the tag %s was pushed %d times", tag, n)
			}
			if n := got.writes("PUT /v2/acme/api/manifests/latest"); n != 1 {
				t.Errorf("latest was pushed %d times", n)
			}
		}
	})
}

func TestASignedPushChangesNothing(t *testing.T) {
	bothKinds(t, func(t *testing.T, h *hub) {
		digest := h.push("1.0.0")
		h.promote("1.0.0", digest).want(0, "success", "")
		h.push("latest") // whatever it is by now
		got := h.promote("1.0.0", digest, "CI_PIPELINE_URL", url2)
		got.want(0, "skipped", "signed already")
		if len(got.all) != 0 {
			t.Errorf("it wrote: %v", got.all)
		}
	})
}

func TestHalfDonePromotionGoesOn(t *testing.T) {
	bothKinds(t, func(t *testing.T, h *hub) {
		digest := h.push("1.0.0")
		h.refuse(http.StatusForbidden, `^PUT .*/manifests/latest$`)
		h.promote("1.0.0", digest).want(3, "failure", "signed, but latest could not be moved")
		h.wantSigned(digest, "1.0.0", url1)

		h.refuse(0, "")
		h.promote("1.0.0", digest, "CI_PIPELINE_URL", url2).want(0, "skipped", "signed already")
		got := h.promote("1.0.0", digest)
		got.want(0, "success", "latest moved to it")
		if len(got.all) != 1 {
			t.Errorf("a retry wrote more than latest: %v", got.all)
		}
		h.wantTag("latest", digest)
	})
}

func TestTheSameImageUnderAnotherTagIsSignedUnderIt(t *testing.T) {
	bothKinds(t, func(t *testing.T, h *hub) {
		digest := h.push("1.0.0-rc1")
		h.promote("1.0.0-rc1", digest).want(0, "success", "latest stays, for 1.0.0-rc1 is not a stable version")
		h.tag(digest, "1.0.0")
		h.promote("1.0.0", digest, "CI_PIPELINE_URL", url2).want(0, "success", "latest moved to it")
		h.wantSigned(digest, "1.0.0", url2)
		h.wantSigned(digest, "1.0.0-rc1", url1)
		h.promote("1.0.0-rc1", digest, "CI_PIPELINE_URL", url2+"0").want(0, "skipped", "signed already")
	})
}

func TestASignatureThatNamesNoTagCounts(t *testing.T) {
	bothKinds(t, func(t *testing.T, h *hub) {
		digest := h.push("1.0.0")
		config := filepath.Join(t.TempDir(), "signing.json")
		h.cosign("signing-config", "create", "--out", config)
		h.cosign("sign", "--yes", "--key", keys(t)+"/cosign.key", "--signing-config", config, h.image+"@"+digest)
		h.promote("1.0.0", digest).want(0, "skipped", "signed already")
	})
}

func TestWhenLatestMoves(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, policy string
		others       string
		tag          string
		moves        bool
	}{
		{"a newer version", "auto", "1.0.0 1.9.9", "1.10.0", true},
		{"an older patch", "auto", "1.2.0 2.0.0", "1.2.1", false},
		{"the same version with a v", "auto", "1.2.1", "v1.2.1", true},
		{"a version with a v below one without", "auto", "2.0.0", "v1.2.1", false},
		{"a pre-release", "auto", "1.0.0", "2.0.0-rc.1", false},
		{"a version above a pre-release of a higher one", "auto", "2.0.0-rc.1 2.0.0-alpine", "1.0.1", true},
		{"a version that is not full", "auto", "1.0.0", "2.0", false},
		{"a date", "auto", "1.0.0", "20261123", false},
		{"a date with dots", "auto", "1.0.0", "2026.11.23", false},
		{"a version beside dates", "auto", "2026.11.22 20261122", "1.0.1", true},
		{"a number beyond 64 bits", "auto", "1.99999999999999999999.0", "1.100000000000000000000.0", true},
		{"a number below one beyond 64 bits", "auto", "1.99999999999999999999.0", "1.99999999999999999998.0", false},
		{"a word", "auto", "", "main", false},
		{"semver: an older patch", "semver", "2.0.0", "1.2.1", true},
		{"semver: a pre-release", "semver", "", "2.0.0-rc.1", false},
		{"always: a date", "always", "2.0.0", "20261123", true},
		{"never: a newer version", "never", "1.0.0", "2.0.0", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHub(t, true)
			before := h.push("latest")
			for _, other := range strings.Fields(c.others) {
				h.tag(before, other)
			}
			digest := h.push(c.tag)
			h.promote(c.tag, digest, "latest_policy", c.policy).want(0, "success", "signed; latest ")
			h.wantSigned(digest, c.tag, url1)
			if c.moves {
				h.wantTag("latest", digest)
			} else {
				h.wantTag("latest", before)
			}
		})
	}
}

func TestAnotherTagMayBeTheOneThatMoves(t *testing.T) {
	t.Parallel()
	h := newHub(t, true)
	digest := h.push("1.0.0")
	h.promote("1.0.0", digest, "latest", "stable").want(0, "success", "stable moved to it")
	h.wantTag("stable", digest)
	if got := h.promote("stable", digest); got.code != 0 {
		t.Errorf("exit code %d\n%s", got.code, got.log)
	}
}

func TestLatestIsNotPushedWhereItIsAlready(t *testing.T) {
	t.Parallel()
	h := newHub(t, true)
	digest := h.push("1.0.0")
	h.tag(digest, "latest")
	got := h.promote("1.0.0", digest)
	got.want(0, "success", "latest is this image already")
	if n := got.writes("PUT /v2/acme/api/manifests/latest"); n != 0 {
		t.Errorf("latest was pushed %d times", n)
	}
}

func TestTheTagIsPushedAgainIfAsked(t *testing.T) {
	t.Parallel()
	h := newHub(t, true)
	digest := h.pushIndex("1.0.0")
	got := h.promote("1.0.0", digest, "push_again", "true", "validate", "true")
	got.want(0, "success", "")
	if n := got.writes("PUT /v2/acme/api/manifests/1.0.0"); n != 1 {
		t.Errorf("the tag was pushed %d times", n)
	}
	h.wantTag("1.0.0", digest)
}

func TestSignaturesMayLieElsewhere(t *testing.T) {
	bothKinds(t, func(t *testing.T, h *hub) {
		digest := h.push("1.0.0")
		got := h.promote("1.0.0", digest, "signature_repository", "acme/api-signatures")
		got.want(0, "success", "")
		for _, write := range got.all {
			if strings.Contains(write, "/acme/api/") && !strings.HasSuffix(write, "/manifests/latest") {
				t.Errorf("it wrote to the image's repository: %s", write)
			}
		}
		h.promote("1.0.0", digest, "signature_repository", "acme/api-signatures", "CI_PIPELINE_URL", url2).
			want(0, "skipped", "signed already")
	})
}

// cosign 3.0 would sign there, and never find it again.
func TestSignaturesDoNotLieElsewhereForAnOldCosign(t *testing.T) {
	t.Parallel()
	h := newHub(t, true)
	dir := t.TempDir()
	fake := "#!/bin/sh\n[ \"$1\" != version ] || { echo 'GitVersion:    v3.0.6'; exit; }\nexec " + tools(t) + "/cosign \"$@\"\n"
	if err := os.WriteFile(filepath.Join(dir, "cosign"), []byte(fake), 0o700); err != nil {
		t.Fatal(err)
	}
	path := dir + ":" + tools(t) + ":" + os.Getenv("PATH")
	digest := h.push("1.0.0")
	got := h.promote("1.0.0", digest, "PATH", path, "signature_repository", "acme/api-signatures")
	got.want(2, "failure", "cosign 3.1 or later")
	if len(got.all) != 0 {
		t.Errorf("it wrote: %v", got.all)
	}
	h.promote("1.0.0", digest, "PATH", path).want(0, "success", "")
}

func TestATagThatMovedOnIsLeftAlone(t *testing.T) {
	bothKinds(t, func(t *testing.T, h *hub) {
		older := h.push("1.0.0")
		newer := h.push("1.0.0")
		got := h.promote("1.0.0", older)
		got.want(0, "skipped", "superseded")
		if len(got.all) != 0 {
			t.Errorf("it wrote: %v", got.all)
		}
		h.wantTag("1.0.0", newer)
	})
}

func TestATagThatMovesDuringThePromotionDoesNotBecomeLatest(t *testing.T) {
	t.Parallel()
	for _, again := range []string{"false", "true"} {
		h := newHub(t, false)
		before := h.push("latest")
		older := h.push("1.0.0")
		newer := make(chan string, 1)
		h.once(`^PUT .*/manifests/sha256-`, func() { newer <- h.push("1.0.0") })
		h.promote("1.0.0", older, "push_again", again).want(0, "skipped", "superseded")
		h.wantTag("latest", before)
		select {
		case digest := <-newer:
			h.wantTag("1.0.0", digest)
		default:
			t.Error("nothing was signed, so the tag did not move")
		}
	}
}

func TestWithoutADigestTheTagIsTakenAsItIs(t *testing.T) {
	t.Parallel()
	h := newHub(t, true)
	digest := h.push("1.0.0")
	got := h.promote("1.0.0", "")
	got.want(0, "success", "")
	if got.dotenv["HUBRELAY_DIGEST"] != digest {
		t.Errorf("the report hears of %s", got.dotenv["HUBRELAY_DIGEST"])
	}
}

func TestNamesMayComeAsVariables(t *testing.T) {
	t.Parallel()
	h := newHub(t, true)
	digest := h.push("1.0.0")
	h.promote("", "", "image_repository", "", "IMAGE_REPOSITORY", "acme/api", "IMAGE_TAG", "1.0.0", "IMAGE_DIGEST", digest).
		want(0, "success", "latest moved to it")
}

func TestWhatCannotBeDoneFailsAndWritesNothing(t *testing.T) {
	bothKinds(t, func(t *testing.T, h *hub) {
		digest := h.push("1.0.0")
		other := filepath.Join(t.TempDir(), "empty")
		if err := os.WriteFile(other, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			name string
			with []string
			code int
			says string
		}{
			{"no such tag", []string{"image_tag", "1.0.1"}, 3, "has no acme/api:1.0.1"},
			{"no such repository", []string{"image_repository", "acme/web"}, 3, "has no acme/web:1.0.0"},
			{"a wrong password", []string{"DOCKERHUB_TOKEN", "wrong"}, 3, "did not tell"},
			{"no password", []string{"DOCKERHUB_TOKEN", ""}, 2, "DOCKERHUB_TOKEN is missing"},
			{"no key", []string{"COSIGN_KEY", ""}, 2, "COSIGN_KEY"},
			{"a key that is not in a file", []string{"COSIGN_KEY", "-----BEGIN"}, 2, "type File"},
			{"a key that is none", []string{"COSIGN_KEY", other}, 2, "the key cannot be read"},
			{"a wrong password of the key", []string{"COSIGN_PASSWORD", "wrong"}, 2, "the key cannot be read"},
			{"keyless without an id token", []string{"signing", "cosign-keyless"}, 2, "SIGSTORE_ID_TOKEN"},
			{"a registry that is away", []string{"registry", "127.0.0.1:1"}, 3, "did not tell"},
		} {
			got := h.promote("1.0.0", digest, c.with...)
			got.want(c.code, "failure", c.says)
			if len(got.all) != 0 {
				t.Errorf("%s: it wrote: %v", c.name, got.all)
			}
		}
		h.refuse(http.StatusInternalServerError, `^GET .*(/referrers/|/manifests/sha256-)`)
		got := h.promote("1.0.0", digest)
		got.want(4, "failure", "cannot be told")
		if len(got.all) != 0 {
			t.Errorf("it wrote without knowing whether the image is signed: %v", got.all)
		}
	})
}

func TestASignatureByAnotherKeyIsADoubt(t *testing.T) {
	bothKinds(t, func(t *testing.T, h *hub) {
		digest := h.push("1.0.0")
		h.promote("1.0.0", digest, "COSIGN_KEY", keys(t)+"/other.key").want(0, "success", "")
		got := h.promote("1.0.0", digest, "CI_PIPELINE_URL", url2)
		got.want(4, "failure", "by another key")
		if len(got.all) != 0 {
			t.Errorf("it wrote: %v", got.all)
		}
	})
}

// A registry that takes a push and forgets it: what was written is read back.
func TestWhatTheRegistryForgotIsNoticed(t *testing.T) {
	t.Parallel()
	h := newHub(t, false)
	h.push("latest")
	digest := h.push("1.0.0")
	h.refuse(http.StatusCreated, `^PUT .*/manifests/sha256-`)
	h.promote("1.0.0", digest).want(4, "failure", "cannot be verified")
	h.refuse(http.StatusCreated, `^PUT .*/manifests/latest$`)
	h.promote("1.0.0", digest).want(3, "failure", "latest did not move")
}

func TestHostileNames(t *testing.T) {
	t.Parallel()
	h := newHub(t, true)
	digest := h.push("1.0.0")
	for _, hostile := range []string{
		"$(touch owned)", "`touch owned`", "a;touch owned", "a\ntouch owned", "1.0.0\n", "--help", "-", "a b", "'", `"`, `\`,
		"${DOCKERHUB_TOKEN}", "../../etc", "*", "é", "1.0.0\r", strings.Repeat("a", 300), strings.Repeat("a", 100_000),
	} {
		for _, variable := range []string{"IMAGE_REPOSITORY", "IMAGE_TAG", "IMAGE_DIGEST"} {
			names := map[string]string{"IMAGE_REPOSITORY": "acme/api", "IMAGE_TAG": "1.0.0", "IMAGE_DIGEST": digest, variable: hostile}
			with := []string{"image_repository", ""}
			for k, v := range names {
				with = append(with, k, v)
			}
			got := h.promote("", "", with...)
			got.want(2, "failure", "is not a ")
			if len(got.all) != 0 {
				t.Errorf("%q as %s: it wrote: %v", hostile, variable, got.all)
			}
			if len(hostile) > 2 && strings.Contains(got.log, hostile) {
				t.Errorf("%q as %s is repeated", hostile, variable)
			}
			if _, err := os.Stat(filepath.Join(got.dir, "owned")); err == nil {
				t.Errorf("%q as %s was run", hostile, variable)
			}
		}
	}
}

func TestTwoJobsAtOnce(t *testing.T) {
	bothKinds(t, func(t *testing.T, h *hub) {
		digest := h.pushIndex("1.0.0")
		var group sync.WaitGroup
		for _, url := range []string{url1, url2} {
			group.Go(func() {
				got := h.promote("1.0.0", digest, "CI_PIPELINE_URL", url)
				if got.code != 0 {
					t.Errorf("exit code %d\n%s", got.code, got.log)
				}
			})
		}
		group.Wait()
		h.wantTag("latest", digest)
		h.wantTag("1.0.0", digest)
		h.cosign("verify", "--key", keys(t)+"/cosign.pub", "--insecure-ignore-tlog=true", "-a", "tag=1.0.0", h.image+"@"+digest)
	})
}

// The runner takes bash where there is one, with its own options, and Alpine
// has BusyBox.
func TestEveryShell(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"dash -e", "bash -eo pipefail", "busybox sh -e"} {
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			command := strings.Fields(shell)
			if _, err := exec.LookPath(command[0]); err != nil {
				notHere(t, command[0]+" is not installed")
			}
			h := newHub(t, true)
			h.shell = command
			if command[0] == "busybox" {
				h.path = applets(t)
			}
			h.tag(h.push("0.10.0"), "latest")
			digest := h.push("1.0.0")
			h.promote("1.0.0", digest).want(0, "success", "latest moved to it")
			h.promote("1.0.0", digest, "CI_PIPELINE_URL", url2).want(0, "skipped", "signed already")
			older := h.push("0.11.0")
			h.promote("0.11.0", older).want(0, "success", "1.0.0 is higher")
			h.promote("1.0.1", digest).want(3, "failure", "has no acme/api:1.0.1")
			h.promote("", "", "IMAGE_TAG", "1.0.0\n1").want(2, "failure", "is not a tag")
		})
	}
}

func TestNoCredentialsAreLeftOrShown(t *testing.T) {
	t.Parallel()
	h := newHub(t, true)
	got := h.promote("1.0.0", h.push("1.0.0"))
	got.want(0, "success", "")
	if strings.Contains(got.log, password) {
		t.Error("the log holds the password")
	}
	err := filepath.WalkDir(got.dir, func(file string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(file)
		if bytes.Contains(text, []byte(password)) || strings.HasSuffix(file, "config.json") {
			t.Errorf("%s is left", file)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(filepath.Join(got.dir, "tmp"))
	if err != nil || len(left) != 0 {
		t.Errorf("left in TMPDIR: %v, %v", left, err)
	}
}

// hub is a registry in memory that asks for a password, counts what is written,
// and refuses what it is told to refuse.
type hub struct {
	t     *testing.T
	host  string
	image string
	shell []string
	path  string

	mu      sync.Mutex
	written []string
	status  int
	refused *regexp.Regexp
	hook    func()
	hooked  *regexp.Regexp
}

func newHub(t *testing.T, referrers bool) *hub {
	t.Helper()
	tools(t)
	h := &hub{t: t, shell: []string{"sh", "-e"}}
	next := registry.New(registry.WithReferrersSupport(referrers), registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, pass, _ := r.BasicAuth(); user != username || pass != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="hub"`)
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED"}]}`, http.StatusUnauthorized)
			return
		}
		request := r.Method + " " + r.URL.Path
		h.mu.Lock()
		status := 0
		if h.refused != nil && h.refused.MatchString(request) {
			status = h.status
		}
		hook := h.hook
		if hook != nil && h.hooked.MatchString(request) {
			h.hook = nil
		} else {
			hook = nil
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead && status == 0 {
			h.written = append(h.written, request)
		}
		h.mu.Unlock()
		if hook != nil {
			hook()
		}
		if status != 0 {
			http.Error(w, `{"errors":[{"code":"DENIED"}]}`, status)
			return
		}
		next.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	h.host = strings.TrimPrefix(server.URL, "http://")
	h.image = h.host + "/acme/api"
	return h
}

// refuse answers, instead of the registry, with the status to requests such as "PUT /v2/…" that match.
func (h *hub) refuse(status int, requests string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.status, h.refused = status, nil
	if requests != "" {
		h.refused = regexp.MustCompile(requests)
	}
}

// once calls do when the first such request arrives.
func (h *hub) once(request string, do func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hook, h.hooked = do, regexp.MustCompile(request)
}

var auth = remote.WithAuth(&authn.Basic{Username: username, Password: password})

// push pushes a new image with one layer, and returns its digest.
func (h *hub) push(tag string) string {
	h.t.Helper()
	image, err := random.Image(64, 1)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := remote.Write(h.ref(tag), image, auth); err != nil {
		h.t.Fatal(err)
	}
	return digestOf(h.t, image)
}

// pushIndex is push for an image of two platforms.
func (h *hub) pushIndex(tag string) string {
	h.t.Helper()
	index, err := random.Index(64, 1, 2)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := remote.WriteIndex(h.ref(tag), index, auth); err != nil {
		h.t.Fatal(err)
	}
	return digestOf(h.t, index)
}

func digestOf(t *testing.T, image interface{ Digest() (v1.Hash, error) }) string {
	t.Helper()
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return digest.String()
}

func (h *hub) ref(tag string) name.Tag {
	h.t.Helper()
	ref, err := name.NewTag(h.image + ":" + tag)
	if err != nil {
		h.t.Fatal(err)
	}
	return ref
}

func (h *hub) tag(digest, tag string) {
	h.t.Helper()
	ref, err := name.NewDigest(h.image + "@" + digest)
	if err != nil {
		h.t.Fatal(err)
	}
	image, err := remote.Get(ref, auth)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := remote.Tag(h.ref(tag), image, auth); err != nil {
		h.t.Fatal(err)
	}
}

func (h *hub) wantTag(tag, digest string) {
	h.t.Helper()
	got, err := remote.Head(h.ref(tag), auth)
	if err != nil {
		h.t.Fatal(err)
	}
	if got.Digest.String() != digest {
		h.t.Errorf("%s is %s, not %s", tag, got.Digest, digest)
	}
}

// wantSigned asks cosign itself, with none of what the script used.
func (h *hub) wantSigned(digest, tag, pipeline string) {
	h.t.Helper()
	h.cosign("verify", "--key", keys(h.t)+"/cosign.pub", "--insecure-ignore-tlog=true",
		"-a", "tag="+tag, "-a", "pipeline="+pipeline, h.image+"@"+digest)
}

func (h *hub) cosign(args ...string) {
	h.t.Helper()
	config := h.t.TempDir()
	auths, err := json.Marshal(map[string]any{"auths": map[string]any{h.host: map[string]string{"username": username, "password": password}}})
	if err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(config, "config.json"), auths, 0o600); err != nil {
		h.t.Fatal(err)
	}
	command := exec.Command(filepath.Join(tools(h.t), "cosign"), args...)
	command.Env = append(offline(), "HOME="+config, "DOCKER_CONFIG="+config, "COSIGN_PASSWORD="+keyPassword)
	if out, err := command.CombinedOutput(); err != nil {
		h.t.Fatalf("cosign %s: %v\n%s", args[0], err, out)
	}
}

// outcome is how a job ended.
type outcome struct {
	t      *testing.T
	code   int
	log    string
	dir    string
	dotenv map[string]string
	all    []string // what was written meanwhile
}

func (o outcome) want(code int, status, message string) {
	o.t.Helper()
	if o.code != code || o.dotenv["HUBRELAY_STATUS"] != status || !strings.Contains(o.dotenv["HUBRELAY_MESSAGE"], message) {
		o.t.Errorf("got exit code %d and %v, want %d, %s: %q\n%s", o.code, o.dotenv, code, status, message, o.log)
	}
}

func (o outcome) writes(request string) int {
	n := 0
	for _, w := range o.all {
		if w == request {
			n++
		}
	}
	return n
}

// promote runs the job hubrelay-promote. The pairs of with are inputs (in lower
// case) and variables.
func (h *hub) promote(tag, digest string, with ...string) outcome {
	h.t.Helper()
	inputs := map[string]string{
		"notify_url": "https://notify.example", "notify_audience": "notify",
		"registry": h.host, "image_repository": "acme/api", "image_tag": tag, "image_digest": digest,
	}
	env := map[string]string{
		"CI_PIPELINE_URL": url1, "COSIGN_KEY": keys(h.t) + "/cosign.key", "COSIGN_PASSWORD": keyPassword,
		"DOCKERHUB_USERNAME": username, "DOCKERHUB_TOKEN": password,
	}
	for pair := range slices.Chunk(with, 2) {
		if strings.ToLower(pair[0]) == pair[0] {
			inputs[pair[0]] = pair[1]
		} else {
			env[pair[0]] = pair[1]
		}
	}
	h.mu.Lock()
	before := len(h.written)
	h.mu.Unlock()
	o := run(h.t, h.shell, h.path, "hubrelay-promote", inputs, env)
	h.mu.Lock()
	o.all = slices.Clone(h.written[before:])
	h.mu.Unlock()
	return o
}

// run runs a job's script as the runner does: in a shell, with the variables
// that the template makes of the inputs, and nothing to read.
func run(t *testing.T, shell []string, path, name string, inputs, env map[string]string) outcome {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
	job := jobOf(t, name, inputs)
	if path == "" {
		path = os.Getenv("PATH")
	}
	variables := map[string]string{
		"PATH": tools(t) + ":" + path, "HOME": dir, "TMPDIR": dir + "/tmp", "CI_PROJECT_DIR": dir,
	}
	maps.Copy(variables, job.variables)
	maps.Copy(variables, env) // project and trigger variables win
	binary, err := exec.LookPath(shell[0])
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(binary, append(shell[1:], "-c", job.script)...)
	command.Dir = dir
	command.Env = offline()
	for k, v := range variables {
		if v != "" || strings.HasPrefix(k, "PROMOTE_") {
			command.Env = append(command.Env, k+"="+v)
		}
	}
	out, err := command.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	o := outcome{t: t, code: command.ProcessState.ExitCode(), log: string(out), dir: dir, dotenv: map[string]string{}}
	dotenv, err := os.ReadFile(filepath.Join(dir, "hubrelay.env"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(dotenv)) {
		k, v, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if !ok {
			t.Errorf("hubrelay.env has the line %q", line)
		}
		o.dotenv[k] = v
	}
	return o
}

// offline is an environment from which only this machine can be reached: keys
// sign without asking anybody.
func offline() []string {
	return []string{"HTTPS_PROXY=http://127.0.0.1:1", "HTTP_PROXY=http://127.0.0.1:1", "NO_PROXY=127.0.0.1,localhost"}
}

// tools returns the directory of crane and cosign.
func tools(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../../.tools")
	if err != nil {
		t.Fatal(err)
	}
	for _, tool := range []string{"crane", "cosign"} {
		if _, err := os.Stat(filepath.Join(dir, tool)); err != nil {
			notHere(t, tool+" is not in .tools: run make tools")
		}
	}
	return dir
}

func notHere(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(what)
	}
	t.Skip("*** NOT RUN *** " + what)
}

const keyPassword = "canary-key-password"

var keyDir string // removed by TestMain

var makeKeys = sync.OnceValue(func() error {
	for _, key := range []string{"cosign", "other"} {
		command := exec.Command("../../.tools/cosign", "generate-key-pair", "--output-key-prefix", filepath.Join(keyDir, key))
		command.Env = append(offline(), "HOME="+keyDir, "COSIGN_PASSWORD="+keyPassword)
		if out, err := command.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
	}
	return nil
})

// keys returns a directory with cosign.key, cosign.pub and other.key.
func keys(t *testing.T) string {
	t.Helper()
	if err := makeKeys(); err != nil {
		t.Fatal(err)
	}
	return keyDir
}

func TestMain(m *testing.M) {
	var err error
	if keyDir, err = os.MkdirTemp("", "hubrelay-keys-"); err != nil {
		log.Fatal(err)
	}
	code := m.Run()
	os.RemoveAll(keyDir)
	os.Exit(code)
}

// applets returns a PATH on which BusyBox is everything, as in Alpine.
func applets(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("busybox", "--install", "-s", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return dir
}
