package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"regexp"
	"sync"
	"sync/atomic"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/getto-systems/hubrelay/internal/dockerhub"
)

// localRegistry is a registry in memory that reports every tag that is pushed
// to it, like Docker Hub.
type localRegistry struct {
	host    string
	handler http.Handler
	pushed  func(pushedManifest)
	quiet   atomic.Value // the image whose push is not reported, a string

	mu      sync.Mutex
	history map[string][]string // by image: the digests that it had, the newest last
}

// pushedManifest is a manifest that was pushed to a tag.
type pushedManifest struct {
	repository, tag, digest string
	webhooks                int    // that Docker Hub calls
	artifact                string // its media type, "" of an image
}

func newRegistry(host string, pushed func(pushedManifest)) *localRegistry {
	return &localRegistry{
		host: host,
		handler: registry.New(
			registry.WithReferrersSupport(true),
			registry.Logger(log.New(io.Discard, "", 0)),
		),
		pushed: pushed, history: map[string][]string{},
	}
}

var tagPath = regexp.MustCompile(`^/v2/(.+)/manifests/([A-Za-z0-9_][A-Za-z0-9._-]{0,127})$`)

// multiArchWebhooks is how often Docker Hub calls for one push of an index.
const multiArchWebhooks = 6

// maxManifest bounds how much of a manifest is read, in bytes.
const maxManifest = 1 << 20

func (l *localRegistry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m := tagPath.FindStringSubmatch(r.URL.Path)
	if m == nil || r.Method != http.MethodPut {
		l.handler.ServeHTTP(w, r)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxManifest))
	if err != nil {
		http.Error(w, "the manifest could not be read, or is too large", http.StatusRequestEntityTooLarge)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	status := &statusWriter{ResponseWriter: w}
	l.handler.ServeHTTP(status, r)
	if status.code != http.StatusCreated {
		return
	}
	pushed := pushedManifest{repository: m[1], tag: m[2], digest: w.Header().Get("Docker-Content-Digest"), webhooks: 1, artifact: artifact(body)}
	if types.MediaType(r.Header.Get("Content-Type")).IsIndex() {
		pushed.webhooks = multiArchWebhooks
	}
	l.remember(pushed)
	if l.quiet.Load() != any(pushed.repository+":"+pushed.tag) {
		l.pushed(pushed)
	}
}

// artifact returns the media type of a manifest that is not an image, else "".
func artifact(manifest []byte) string {
	var m struct {
		Config struct {
			MediaType string `json:"mediaType"`
		} `json:"config"`
	}
	if json.Unmarshal(manifest, &m) != nil || dockerhub.MayBeImage(m.Config.MediaType) {
		return ""
	}
	return m.Config.MediaType
}

// Bounds of what is stored: images, and digests of each.
const (
	maxImages  = 20_000
	maxDigests = 20
)

// remember records what a tag is now.
func (l *localRegistry) remember(m pushedManifest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	image := m.repository + ":" + m.tag
	digests := l.history[image]
	if len(digests) > 0 && digests[len(digests)-1] == m.digest {
		return
	}
	if digests = append(digests, m.digest); len(digests) > maxDigests {
		digests = digests[1:]
	}
	if len(l.history) >= maxImages {
		clear(l.history)
	}
	l.history[image] = digests
}

// before returns the previous digest of a tag.
func (l *localRegistry) before(image string) (digest string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	digests := l.history[image]
	if len(digests) < 2 {
		return "", false
	}
	return digests[len(digests)-2], true
}

type statusWriter struct {
	http.ResponseWriter
	code int
}

func (w *statusWriter) WriteHeader(code int) {
	w.code = code
	w.ResponseWriter.WriteHeader(code)
}

func (l *localRegistry) tag(repository, tag string) (name.Tag, error) {
	t, err := name.NewTag(l.host+"/"+repository+":"+tag, name.Insecure)
	if err != nil {
		return t, fmt.Errorf("%s:%s: %w", repository, tag, err)
	}
	return t, nil
}

// build pushes a new image of two architectures, and returns its digest.
func (l *localRegistry) build(image string) (string, error) {
	repository, tag, err := dockerhub.SplitImage(image)
	if err != nil {
		return "", err
	}
	target, err := l.tag(repository, tag)
	if err != nil {
		return "", err
	}
	index := v1.ImageIndex(mutate.IndexMediaType(empty.Index, types.OCIImageIndex))
	for _, arch := range []string{"amd64", "arm64"} {
		img, err := random.Image(256, 1)
		if err != nil {
			return "", err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		})
	}
	if err := remote.WriteIndex(target, index); err != nil {
		return "", err
	}
	digest, err := index.Digest()
	return digest.String(), err
}

// seed builds an image without a webhook.
func (l *localRegistry) seed(image string) error {
	l.quiet.Store(image)
	defer l.quiet.Store("")
	_, err := l.build(image)
	return err
}

// digest returns what a tag points to.
func (l *localRegistry) digest(repository, tag string) (string, error) {
	t, err := l.tag(repository, tag)
	if err != nil {
		return "", err
	}
	d, err := remote.Head(t)
	if err != nil {
		return "", err
	}
	return d.Digest.String(), nil
}

// isNotFound reports whether the registry said that there is no such tag.
func isNotFound(err error) bool {
	var refusal *transport.Error
	return errors.As(err, &refusal) && refusal.StatusCode == http.StatusNotFound
}

// retag pushes a digest as a tag, even if the tag has that digest already.
func (l *localRegistry) retag(repository, digest, tag string) error {
	d, err := name.NewDigest(l.host+"/"+repository+"@"+digest, name.Insecure)
	if err != nil {
		return err
	}
	image, err := remote.Get(d)
	if err != nil {
		return err
	}
	t, err := l.tag(repository, tag)
	if err != nil {
		return err
	}
	return remote.Tag(t, image)
}

// pretendSignature pushes a manifest to the tag of cosign 2's signatures. It
// signs nothing.
func (l *localRegistry) pretendSignature(repository, digest string) error {
	t, err := l.tag(repository, signatureTag(digest))
	if err != nil {
		return err
	}
	signature := mutate.Annotations(empty.Image, map[string]string{"hubrelay.sandbox": "not a signature"}).(v1.Image)
	return remote.Write(t, signature)
}

func (l *localRegistry) signed(repository, digest string) bool {
	_, err := l.digest(repository, signatureTag(digest))
	return err == nil
}

func signatureTag(digest string) string {
	hash, _ := v1.NewHash(digest) // a digest of this registry
	return hash.Algorithm + "-" + hash.Hex + ".sig"
}
