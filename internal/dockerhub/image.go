package dockerhub

import (
	"fmt"
	"path"
	"strings"
)

// CheckShort says what is wrong with the name of an image or a repository that begins
// with Docker Hub's own, as docker pull takes it: Docker Hub's webhook leaves it out.
func CheckShort(name string) error {
	host, rest, ok := strings.Cut(name, "/")
	switch {
	case !ok:
	case host == "docker.io", host == "index.docker.io", host == "registry-1.docker.io":
		return fmt.Errorf("%.100q: leave out %s: Docker Hub calls it %.100q", name, host+"/", strings.TrimPrefix(rest, "library/"))
	}
	return nil
}

// SplitImage reads REPOSITORY:TAG, and returns the repository's full name.
func SplitImage(image string) (repository, tag string, err error) {
	if err := CheckShort(image); err != nil {
		return "", "", err
	}
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
