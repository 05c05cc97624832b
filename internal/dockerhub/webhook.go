package dockerhub

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Webhook returns the body that Docker Hub documents for a push: for smoke
// tests, and for the sandbox.
func Webhook(repository, tag string, at time.Time) ([]byte, error) {
	repository = Canonical(repository)
	if err := CheckRepository(repository); err != nil {
		return nil, fmt.Errorf("repository %w", err)
	}
	if err := CheckTag(tag); err != nil {
		return nil, fmt.Errorf("tag %w", err)
	}
	namespace, name, _ := strings.Cut(repository, "/")
	return json.Marshal(map[string]any{
		"callback_url": "https://registry.hub.docker.com/u/" + repository + "/hook/0/",
		"push_data": map[string]any{
			"pushed_at": at.Unix(),
			"pusher":    namespace,
			"tag":       tag,
		},
		"repository": map[string]any{
			"comment_count":    0,
			"date_created":     at.Unix(),
			"description":      "",
			"dockerfile":       "",
			"full_description": nil,
			"is_official":      false,
			"is_private":       true,
			"is_trusted":       false,
			"name":             name,
			"namespace":        namespace,
			"owner":            namespace,
			"repo_name":        repository,
			"repo_url":         "https://hub.docker.com/r/" + repository,
			"star_count":       0,
			"status":           "Active",
		},
	})
}
