package dockerhub

import (
	"fmt"
	"path"
	"strings"
)

// SplitImage reads REPOSITORY:TAG, and returns the repository's full name.
func SplitImage(image string) (repository, tag string, err error) {
	repository, tag, ok := strings.Cut(image, ":")
	if !ok {
		return "", "", fmt.Errorf("%q is not REPOSITORY:TAG", image)
	}
	return Canonical(repository), tag, nil
}

// Pattern says which images are meant: REPOSITORY[:TAG], of which both may be
// globs. A lone * for the repository is every one; any other without a slash is
// in library.
type Pattern struct{ repository, tag string }

// ParsePattern reads a Pattern.
func ParsePattern(text string) (Pattern, error) {
	repository, tag, ok := strings.Cut(text, ":")
	if !ok {
		tag = "*"
	}
	for _, glob := range []string{repository, tag} {
		if _, err := path.Match(glob, ""); err != nil || glob == "" {
			return Pattern{}, fmt.Errorf("%q is not REPOSITORY[:TAG]; both may be globs, such as acme/*:1.*", text)
		}
	}
	if repository != "*" {
		repository = Canonical(repository)
	}
	return Pattern{repository, tag}, nil
}

// Matches tells whether the image is meant.
func (p Pattern) Matches(repository, tag string) bool {
	r, _ := path.Match(p.repository, repository)
	t, _ := path.Match(p.tag, tag)
	return (r || p.repository == "*") && t
}
