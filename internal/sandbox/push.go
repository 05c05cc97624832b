package sandbox

import (
	"errors"
	"fmt"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/getto-systems/hubrelay/internal/dockerhub"
)

// Kinds of pushes.
const (
	MultiArch = "multi-arch" // a new image of two architectures: Docker Hub calls six times
	Single    = "single"     // a new image of one
	Same      = "same"       // the image that the tag points to already
	Back      = "back"       // the image that the tag pointed to before
	Chart     = "chart"      // a Helm chart, which is not an image
	Artifact  = "artifact"   // an attestation of the tag's image, as cosign pushes it
)

// Kinds are all of them.
var Kinds = []string{MultiArch, Single, Same, Back, Chart, Artifact}

const chartType = "application/vnd.cncf.helm.config.v1+json"

// errElsewhere says that there is nothing to push to.
var errElsewhere = errors.New("the images are in a registry that is not the sandbox's: push there")

// Push pushes to a tag, and returns the image and the digest that were pushed.
// For an Artifact the image has another tag.
func (s *Sandbox) Push(image, kind string) (pushed, digest string, err error) {
	repository, tag, err := dockerhub.SplitImage(image)
	switch {
	case err != nil:
		return "", "", err
	case s.elsewhere:
		return "", "", errElsewhere
	}
	l := s.registry
	switch kind {
	case MultiArch, "":
		digest, err = l.build(image)
	case Single:
		digest, err = l.write(repository, tag, random.Image)
	case Chart:
		digest, err = l.write(repository, tag, chart)
	case Same:
		if digest, err = l.digest(repository, tag); err == nil {
			err = l.retag(repository, digest, tag)
		}
	case Back:
		var ok bool
		if digest, ok = l.before(image); !ok {
			return "", "", fmt.Errorf("%s was no other image before: push it twice first", image)
		}
		err = l.retag(repository, digest, tag)
	case Artifact:
		if digest, err = l.digest(repository, tag); err == nil {
			tag = strings.Replace(digest, ":", "-", 1) + ".att"
			digest, err = l.write(repository, tag, random.Image)
		}
	default:
		return "", "", fmt.Errorf("kind %.50q is none of %s", kind, join(Kinds))
	}
	if isNotFound(err) {
		return "", "", fmt.Errorf("there is no image %s: push one first", image)
	}
	return repository + ":" + tag, digest, err
}

// chart makes a manifest with the media type of a Helm chart.
func chart(size, layers int64, options ...random.Option) (v1.Image, error) {
	image, err := random.Image(size, layers, options...)
	if err != nil {
		return nil, err
	}
	return mutate.ConfigMediaType(mutate.MediaType(image, types.OCIManifestSchema1), chartType), nil
}

// write pushes something small.
func (l *localRegistry) write(repository, tag string, build func(size, layers int64, _ ...random.Option) (v1.Image, error)) (digest string, err error) {
	target, err := l.tag(repository, tag)
	if err != nil {
		return "", err
	}
	image, err := build(64, 1)
	if err != nil {
		return "", err
	}
	if err := remote.Write(target, image); err != nil {
		return "", err
	}
	d, err := image.Digest()
	return d.String(), err
}

// Build pushes a new image of two architectures, as docker buildx would, and
// returns its digest.
func (s *Sandbox) Build(image string) (digest string, err error) {
	_, digest, err = s.Push(image, MultiArch)
	return digest, err
}
