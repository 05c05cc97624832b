package registry

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/getto-systems/hubrelay/internal/dockerhub"
)

// How cosign marks what it attaches to an image, in the list of an image's
// referrers. cosign 3 stores signatures and attestations alike as bundles, so
// that only the annotation tells them apart.
// https://github.com/sigstore/cosign/blob/main/specs/BUNDLE_SPEC.md
const (
	bundleContent      = "dev.sigstore.bundle.content"
	bundlePredicate    = "dev.sigstore.bundle.predicateType"
	signaturePredicate = "https://sigstore.dev/cosign/sign/v1"
	messageSignature   = "message-signature"
	oldSignature       = "application/vnd.dev.cosign.artifact.sig.v1+json" // cosign 2 with COSIGN_EXPERIMENTAL
)

// Signed tells whether the repository holds a cosign signature of the digest.
// Whether that signature is valid, and whose it is, it does not tell. The
// digest itself need not be in the repository: where signatures are kept in
// one of their own (COSIGN_REPOSITORY), that is the one to name.
//
// A signature that cannot be told from an attestation, for want of cosign's
// annotations, does not count; of a long list of referrers only the first page
// does. What that costs is a signature more, where the opposite would cost a
// promotion.
func (c *Client) Signed(ctx context.Context, repository, digest string) (bool, error) {
	if err := errors.Join(dockerhub.CheckRepository(repository), dockerhub.CheckDigest(digest)); err != nil {
		return false, &Error{Reason: NotInRegistry, Cause: err}
	}
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()

	signed, err := c.signed(ctx, repository, digest)
	if err != nil {
		return false, explain("signature of "+repository+"@"+digest, err)
	}
	return signed, nil
}

func (c *Client) signed(ctx context.Context, repository, digest string) (bool, error) {
	tag := strings.Replace(digest, ":", "-", 1)
	if found, err := c.exists(ctx, repository, tag+".sig"); found || err != nil {
		return found, err
	}
	list, ok, err := c.index(ctx, repository, "referrers/"+digest)
	if err != nil {
		return false, err
	}
	if !ok {
		// The registry has no referrers API, so the list is kept under a tag. It
		// is looked for with HEAD first: a GET would be a pull.
		if found, err := c.exists(ctx, repository, tag); !found || err != nil {
			return false, err
		}
		if list, _, err = c.index(ctx, repository, "manifests/"+tag); err != nil {
			return false, err
		}
	}
	return hasSignature(list)
}

// exists tells whether there is such a tag.
func (c *Client) exists(ctx context.Context, repository, tag string) (bool, error) {
	_, err := c.head(ctx, repository, tag)
	var e *Error
	if errors.As(err, &e) && e.Reason == NotInRegistry {
		return false, nil
	}
	return err == nil, err
}

// index returns an OCI index, and false where there is none at path.
func (c *Client) index(ctx context.Context, repository, path string) ([]byte, bool, error) {
	res, err := c.ask(ctx, http.MethodGet, repository, path, string(types.OCIImageIndex))
	if err != nil {
		return nil, false, err
	}
	defer drain(res.Body)
	switch res.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound, http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusNotAcceptable:
		return nil, false, nil // so do registries answer that do not know referrers
	default:
		return nil, false, refused(res)
	}
	if kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); kind != string(types.OCIImageIndex) {
		return nil, false, nil
	}
	body, err := io.ReadAll(res.Body)
	switch {
	case ctx.Err() != nil:
		return nil, false, ctx.Err()
	case err != nil:
		return nil, false, &Error{Status: res.StatusCode, Reason: Unavailable, Cause: errors.New("the answer is too large, or was cut")}
	}
	return body, true, nil
}

// hasSignature tells whether a list of referrers, an OCI index, has one that
// is a signature. No list has none.
func hasSignature(list []byte) (bool, error) {
	if list == nil {
		return false, nil
	}
	var index struct {
		Manifests []struct {
			ArtifactType string            `json:"artifactType"`
			Annotations  map[string]string `json:"annotations"`
		} `json:"manifests"`
	}
	if err := json.Unmarshal(list, &index); err != nil {
		return false, &Error{Reason: Unavailable, Cause: errors.New("the list of referrers is not an OCI index")}
	}
	for _, m := range index.Manifests {
		// Some registries give the artifact type of an empty config for a bundle,
		// so that it says nothing where there are annotations.
		if m.Annotations[bundlePredicate] == signaturePredicate ||
			m.Annotations[bundleContent] == messageSignature ||
			m.ArtifactType == oldSignature {
			return true, nil
		}
	}
	return false, nil
}
