package pipeline

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/getto-systems/hubrelay/internal/coordinator"
	"github.com/getto-systems/hubrelay/internal/skip"
	"github.com/getto-systems/hubrelay/internal/version"
)

// hub is a registry in memory that requires a password, counts writes, and can
// refuse requests.
type hub struct {
	referrers bool
	bearer    bool // it wants tokens, not the password
	old       bool // the runner is an older one

	t     *testing.T
	host  string
	image string
	shell []string
	path  string
	next  http.Handler

	mu      sync.Mutex
	written []string
	status  int
	times   int
	refused *regexp.Regexp
	hook    func()
	again   bool
	hooked  *regexp.Regexp
}

func newHub(t *testing.T, referrers bool) *hub {
	t.Helper()
	tools(t)
	h := &hub{referrers: referrers, t: t, shell: []string{"bash", "-l"}}
	next := registry.New(registry.WithReferrersSupport(referrers), registry.Logger(log.New(io.Discard, "", 0)))
	h.next = next
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		request := r.Method + " " + r.URL.Path
		h.mu.Lock()
		bearer := h.bearer
		status := 0
		if h.refused != nil && h.refused.MatchString(request) && h.times > 0 {
			h.times--
			status = h.status
		}
		hook := h.hook
		if hook != nil && h.hooked.MatchString(request) {
			if !h.again {
				h.hook = nil
			}
		} else {
			hook = nil
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead && status == 0 {
			h.written = append(h.written, request)
		}
		h.mu.Unlock()
		if !h.lets(w, r, bearer, status) {
			return
		}
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

// lets reports whether a request may go on, and answers those that may not.
// With bearer it wants a token for the very repository, as Docker Hub does.
func (h *hub) lets(w http.ResponseWriter, r *http.Request, bearer bool, status int) bool {
	user, pass, _ := r.BasicAuth()
	known := user == username && pass == password
	switch {
	case bearer && r.URL.Path == "/token":
		if status == 0 && !known {
			status = http.StatusUnauthorized
		}
		if status != 0 {
			http.Error(w, `{"errors":[{"code":"DENIED"}]}`, status)
			return false
		}
		_, _ = fmt.Fprintf(w, `{"token":%q}`, strings.Join(r.URL.Query()["scope"], " "))
		return false
	case bearer:
		repository, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/manifests/")
		for _, end := range []string{"/blobs/", "/tags/", "/referrers/"} {
			repository, _, _ = strings.Cut(repository, end)
		}
		token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if ok && strings.Contains(" "+token, " repository:"+repository+":") {
			return true
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+h.host+`/token",service="hub"`)
	case known:
		return true
	default:
		w.Header().Set("WWW-Authenticate", `Basic realm="hub"`)
	}
	http.Error(w, `{"errors":[{"code":"UNAUTHORIZED"}]}`, http.StatusUnauthorized)
	return false
}

// refuse answers, instead of the registry, with the status to requests such as "PUT /v2/…" that match.
func (h *hub) refuse(status int, requests string) { h.refuseTimes(1<<30, status, requests) }

// refuseTimes is refuse for so many requests.
func (h *hub) refuseTimes(times, status int, requests string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.times, h.status, h.refused = times, status, nil
	if requests != "" {
		h.refused = regexp.MustCompile(requests)
	}
}

// once calls do when the first such request arrives.
func (h *hub) once(request string, do func()) {
	h.always(request, do)
	h.again = false
}

// always calls do when such a request arrives, which must not make one itself.
func (h *hub) always(request string, do func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hook, h.again, h.hooked = do, true, regexp.MustCompile(request)
}

// put pushes a manifest as it stands; what it refers to need not be there.
func (h *hub) put(tag, manifest string) {
	h.t.Helper()
	kind := struct{ MediaType string }{}
	if err := json.Unmarshal([]byte(manifest), &kind); err != nil {
		h.t.Fatal(err)
	}
	h.request(http.MethodPut, tag, kind.MediaType, manifest)
}

// digest returns what a tag is.
func (h *hub) digest(tag string) string {
	h.t.Helper()
	d, err := remote.Head(h.ref(tag), auth)
	if err != nil {
		h.t.Fatal(err)
	}
	return d.Digest.String()
}

// get returns the manifest under a tag.
func (h *hub) get(tag string) string { return h.request(http.MethodGet, tag, "", "") }

func (h *hub) request(method, tag, kind, body string) string {
	h.t.Helper()
	req := httptest.NewRequest(method, "/v2/acme/api/manifests/"+tag, strings.NewReader(body))
	req.Header.Set("Content-Type", kind)
	answer := httptest.NewRecorder()
	h.next.ServeHTTP(answer, req)
	if answer.Code/100 != 2 {
		h.t.Fatalf("%s %s: %d %s", method, tag, answer.Code, answer.Body)
	}
	return answer.Body.String()
}

// sign and attest act like another party, with a key of keys.
func (h *hub) sign(digest, key string, more ...string) { h.write("sign", digest, key, more...) }

func (h *hub) attest(digest, key string) {
	predicate := filepath.Join(h.t.TempDir(), "sbom.json")
	if err := os.WriteFile(predicate, []byte(`{"spdxVersion":"SPDX-2.3","name":"1.0.0","tag":"1.0.0"}`), 0o600); err != nil {
		h.t.Fatal(err)
	}
	h.write("attest", digest, key, "--type", "spdxjson", "--predicate", predicate)
}

func (h *hub) write(verb, digest, key string, more ...string) {
	h.t.Helper()
	dir := h.t.TempDir()
	h.cosign("signing-config", "create", "--out", dir+"/signing.json")
	h.cosign("trusted-root", "create", "--out", dir+"/root.json")
	h.cosign(append([]string{
		verb, "--yes", "--key", keys(h.t) + "/" + key + ".key", "--signing-config", dir + "/signing.json", "--trusted-root", dir + "/root.json",
	}, append(more, h.image+"@"+digest)...)...)
}

// wantSignatures expects a number of signatures of the image, in the list of a
// registry with the referrers API.
func (h *hub) wantSignatures(digest string, n int) {
	h.t.Helper()
	req := httptest.NewRequest(http.MethodGet, "/v2/acme/api/referrers/"+digest, nil)
	if !h.referrers {
		req = httptest.NewRequest(http.MethodGet, "/v2/acme/api/manifests/sha256-"+strings.TrimPrefix(digest, "sha256:"), nil)
	}
	answer := httptest.NewRecorder()
	h.next.ServeHTTP(answer, req)
	var list struct{ Manifests []struct{} }
	if err := json.Unmarshal(answer.Body.Bytes(), &list); err != nil {
		h.t.Fatalf("%v: %s", err, answer.Body)
	}
	if len(list.Manifests) != n {
		h.t.Errorf("there are %d signatures, not %d", len(list.Manifests), n)
	}
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

// wantSigned verifies with cosign itself, independently of the script.
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

// saysVersion is a line of each log.
const saysVersion = "hubrelay: version " + version.Number + "\n"

func (o outcome) want(code int, status, message string) {
	o.t.Helper()
	if o.code != code || o.dotenv["HUBRELAY_STATUS"] != status || !strings.Contains(o.dotenv["HUBRELAY_MESSAGE"], message) {
		o.t.Errorf("got exit code %d and %v, want %d, %s: %q\n%s", o.code, o.dotenv, code, status, message, o.log)
	}
	if !strings.Contains(o.log, saysVersion) {
		o.t.Errorf("the log does not say the version:\n%s", o.log)
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
// case) and variables; @NAME is a variable of type File, and what follows it the
// path of its content.
func (h *hub) promote(tag, digest string, with ...string) outcome {
	h.t.Helper()
	with = append([]string{"image_repository", "acme/api", "image_tag", tag, "image_digest", digest}, with...)
	with = append([]string{"registry", h.host}, with...)
	h.mu.Lock()
	before := len(h.written)
	h.mu.Unlock()
	o := h.run(with...)
	h.mu.Lock()
	o.all = slices.Clone(h.written[before:])
	h.mu.Unlock()
	return o
}

// run runs the job hubrelay-promote in a pipeline of its own.
func (h *hub) run(with ...string) outcome {
	h.t.Helper()
	p, runner := pipelineWith(h.t, h.shell, h.path, with...)
	runner.Old = h.old
	a, err := runner.RunJob(h.t.Context(), p, "hubrelay-promote", nil)
	if err != nil {
		h.t.Fatal(err)
	}
	return outcome{t: h.t, code: a.Code, log: a.Log, dir: runner.Dir, dotenv: a.Dotenv}
}

// pipelineWith is the pipeline that hubrelay starts, and a runner for it, with
// what is in most projects' settings.
func pipelineWith(t *testing.T, shell []string, path string, with ...string) (*coordinator.Pipeline, *coordinator.Runner) {
	t.Helper()
	if path == "" {
		path = os.Getenv("PATH")
	}
	inputs := map[string]any{"notify_url": "https://notify.example", "notify_audience": "notify"}
	request := coordinator.Request{Variables: map[string]string{}, URL: url1}
	variables := map[string]coordinator.Variable{
		"PATH":               {Value: filepath.Join(keyDir, "bin") + ":" + tools(t) + ":" + path, Raw: true},
		"COSIGN_KEY":         {Value: read(t, keys(t)+"/cosign.key"), File: true},
		"COSIGN_PASSWORD":    {Value: keyPassword},
		"DOCKERHUB_USERNAME": {Value: username},
		"DOCKERHUB_TOKEN":    {Value: password},
	}
	for pair := range slices.Chunk(with, 2) {
		name, value := pair[0], pair[1]
		switch file, isFile := strings.CutPrefix(name, "@"); {
		case isFile:
			variables[file] = coordinator.Variable{Value: read(t, value), File: true}
		case name == "CI_PIPELINE_URL":
			request.URL = value
			id, err := strconv.Atoi(value[strings.LastIndex(value, "/")+1:])
			if err != nil {
				t.Fatal(err)
			}
			request.ID = id
		case name == "PATH":
			variables[name] = coordinator.Variable{Value: filepath.Join(keyDir, "bin") + ":" + value, Raw: true}
		case strings.HasPrefix(name, "IMAGE_") || name == "PROMOTION_ID":
			request.Variables[name] = value
		case strings.ToLower(name) != name:
			variables[name] = coordinator.Variable{Value: value}
		case value == "true" || value == "false":
			inputs[name] = value == "true"
		default:
			inputs[name] = value
		}
	}
	project := consumer(t, inputs)
	for name, v := range variables {
		v.Name = name
		project.Variables = append(project.Variables, v)
	}
	p, err := project.Create(request)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
	return p, &coordinator.Runner{Dir: dir, Shell: shell, Env: append(offline(), "PATH="+os.Getenv("PATH"), "HOME="+dir, "TMPDIR="+dir+"/tmp")}
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
			skip.UnlessCI(t, tool+" is not in .tools: run make tools")
		}
	}
	return dir
}

const keyPassword = "canary-key-password"

var keyDir string // removed by TestMain

var makeKeys = sync.OnceValue(func() error {
	var both []byte
	for _, key := range []string{"cosign", "other"} {
		command := exec.Command("../../.tools/cosign", "generate-key-pair", "--output-key-prefix", filepath.Join(keyDir, key))
		command.Env = append(offline(), "HOME="+keyDir, "COSIGN_PASSWORD="+keyPassword)
		if out, err := command.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		public, err := os.ReadFile(filepath.Join(keyDir, key+".pub"))
		if err != nil {
			return err
		}
		both = append(both, public...)
	}
	return os.WriteFile(filepath.Join(keyDir, "both.pub"), both, 0o600)
})

// keys returns a directory with cosign.key, cosign.pub, other.key, other.pub,
// and both.pub.
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
	// Waits of the scripts would only take time here.
	sleep := filepath.Join(keyDir, "bin", "sleep")
	if err := errors.Join(os.Mkdir(filepath.Dir(sleep), 0o700), os.WriteFile(sleep, []byte("#!/bin/sh\n"), 0o700)); err != nil {
		log.Fatal(err)
	}
	code := m.Run()
	os.RemoveAll(keyDir)
	os.Exit(code)
}

// applets returns a PATH with only BusyBox, as in Alpine.
func applets(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("busybox", "--install", "-s", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	curl, err := exec.LookPath("curl")
	if err == nil {
		err = os.Symlink(curl, filepath.Join(dir, "curl"))
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

type job = coordinator.Job

// recordingProxy is a proxy that refuses everything; asked returns the hosts
// that were requested.
func recordingProxy(t *testing.T) (asked func() []string, url string) {
	t.Helper()
	var mu sync.Mutex
	var hosts []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		hosts = append(hosts, r.Host)
		w.WriteHeader(http.StatusBadGateway)
	}))
	t.Cleanup(server.Close)
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(hosts)
	}, server.URL
}
