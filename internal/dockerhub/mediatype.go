package dockerhub

import (
	"mime"
	"strings"
)

// imageTypes begin the media types of images: of their configurations,
// manifests and indexes, in any version.
var imageTypes = []string{
	"application/vnd.oci.image.",
	"application/vnd.docker.container.image.",
	"application/vnd.docker.distribution.manifest.",
	"application/vnd.docker.image.",
}

// artifactTypes begin the media types that somebody registered for what is not
// an image: a configuration's type names the artifact, such as a Helm chart.
// https://github.com/opencontainers/image-spec/blob/main/manifest.md#guidelines-for-artifact-usage
var artifactTypes = []string{
	"application/vnd.",
	"application/wasm",
	"application/spdx",
}

// MayBeImage is false for a media type that names something else than an image.
// One that names nothing, such as application/json, may be an image's: to lose
// an image is worse than to start a pipeline that refuses what it finds.
func MayBeImage(mediaType string) bool {
	kind, _, _ := mime.ParseMediaType(mediaType) // "" for what is no media type
	return begins(kind, imageTypes) || !begins(kind, artifactTypes)
}

func begins(s string, prefixes []string) bool {
	for _, prefix := range prefixes {
		if strings.HasPrefix(s, prefix) {
			return true
		}
	}
	return false
}
