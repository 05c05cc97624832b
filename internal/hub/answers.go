package hub

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/getto-systems/hubrelay/internal/dockerhub"
)

const (
	pushAction = "repo.tag.push"
	maxActor   = 255 // bytes; Docker Hub's own limit is far below
	maxType    = 255 // bytes of a media type: RFC 6838 has less
)

// isObject tells whether an answer is JSON as the API sends it.
func isObject(body []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("{")) && json.Valid(body)
}

// read decodes what has the expected types, and leaves out the rest.
func read(body []byte, into any) error {
	err := json.Unmarshal(body, into)
	if _, odd := errors.AsType[*json.UnmarshalTypeError](err); odd {
		return nil
	}
	return err
}

// rows decodes a list. A null is an empty one, and what is no list is an error.
func rows[T any](raw json.RawMessage, what string) ([]T, error) {
	var list []T
	if string(raw) != "null" && !bytes.HasPrefix(raw, []byte("[")) || read(raw, &list) != nil {
		return nil, unexpected(what)
	}
	return list, nil
}

// decodePushes reads a page of the audit log, and how many events are on it.
// Events that are no push of a tag are left out.
func decodePushes(body []byte, namespace string) (pushes []Push, events int, err error) {
	var page struct {
		Logs json.RawMessage `json:"logs"`
	}
	if err := read(body, &page); err != nil {
		return nil, 0, unexpected("logs")
	}
	if page.Logs == nil && string(bytes.Join(bytes.Fields(body), nil)) == "{}" {
		return nil, 0, nil // an empty list may be left out
	}
	type event struct {
		Action string `json:"action"`
		Name   string `json:"name"`
		Actor  string `json:"actor"`
		Data   struct {
			Tag    string `json:"tag"`
			Digest string `json:"digest"`
		} `json:"data"`
		Timestamp string `json:"timestamp"`
	}
	list, err := rows[event](page.Logs, "logs")
	if err != nil {
		return nil, 0, err
	}
	unread := 0
	for _, e := range list {
		if e.Action != "" && e.Action != pushAction {
			continue
		}
		p := Push{
			Repository: fullName(namespace, e.Name),
			Tag:        e.Data.Tag,
			Digest:     digest(e.Data.Digest),
			PushedAt:   moment(e.Timestamp),
			Actor:      short(e.Actor, maxActor),
		}
		switch {
		case dockerhub.CheckRepository(p.Repository) != nil, p.PushedAt.IsZero():
			unread++
		case dockerhub.CheckTag(p.Tag) == nil: // else a push by digest
			pushes = append(pushes, p)
		}
	}
	if unread > 0 && unread == len(list) {
		return nil, 0, unexpected("logs with names and times")
	}
	return pushes, len(list), nil
}

// datedTag is a tag and what Docker Hub sorts it by.
type datedTag struct {
	Tag
	updatedAt time.Time
}

// decodeTags reads a page of tags, and whether another one follows. Every tag
// has both times: one that was never pushed is left out.
func decodeTags(body []byte) (tags []datedTag, more bool, err error) {
	var page struct {
		Results json.RawMessage `json:"results"`
		Next    string          `json:"next"`
	}
	if err := read(body, &page); err != nil {
		return nil, false, unexpected("tags")
	}
	type row struct {
		Name   string `json:"name"`
		Digest string `json:"digest"`
		Images []struct {
			Digest string `json:"digest"`
		} `json:"images"`
		LastUpdated string `json:"last_updated"`
		LastPushed  string `json:"tag_last_pushed"`
		MediaType   string `json:"media_type"`
		ContentType string `json:"content_type"`
	}
	list, err := rows[row](page.Results, "tags")
	if err != nil {
		return nil, false, err
	}
	for _, r := range list {
		t := datedTag{
			Tag: Tag{
				Name:        r.Name,
				Digest:      digest(r.Digest),
				PushedAt:    moment(r.LastPushed),
				MediaType:   short(r.MediaType, maxType),
				ContentType: short(r.ContentType, maxType),
			},
			updatedAt: moment(r.LastUpdated),
		}
		if t.PushedAt.IsZero() {
			t.PushedAt = t.updatedAt
		}
		if t.updatedAt.IsZero() {
			t.updatedAt = t.PushedAt
		}
		for _, image := range r.Images {
			if d := digest(image.Digest); d != "" {
				t.Images = append(t.Images, d)
			}
		}
		if dockerhub.CheckTag(t.Name) == nil && !t.PushedAt.IsZero() {
			tags = append(tags, t)
		}
	}
	if len(list) > 0 && len(tags) == 0 {
		return nil, false, unexpected("tags with names and times")
	}
	return tags, page.Next != "" && len(list) > 0, nil
}

// decodeTag reads a single tag, which looks as in a list.
func decodeTag(body []byte) (Tag, error) {
	tags, _, err := decodeTags(slices.Concat([]byte(`{"results":[`), body, []byte("]}")))
	if err != nil || len(tags) != 1 {
		return Tag{}, unexpected("a tag with a name and a time")
	}
	return tags[0].Tag, nil
}

// decodeRepositories reads a page of repositories, and whether another one
// follows.
func decodeRepositories(body []byte, namespace string) (repositories []Repository, more bool, err error) {
	var page struct {
		Results json.RawMessage `json:"results"`
		Next    string          `json:"next"`
	}
	if err := read(body, &page); err != nil {
		return nil, false, unexpected("repositories")
	}
	type row struct {
		Name        string `json:"name"`
		LastUpdated string `json:"last_updated"`
	}
	list, err := rows[row](page.Results, "repositories")
	if err != nil {
		return nil, false, err
	}
	for _, r := range list {
		name := fullName(namespace, r.Name)
		if strings.HasPrefix(name, namespace+"/") && dockerhub.CheckRepository(name) == nil {
			repositories = append(repositories, Repository{name, moment(r.LastUpdated)})
		}
	}
	if len(list) > 0 && len(repositories) == 0 {
		return nil, false, unexpected("repositories with names")
	}
	return repositories, page.Next != "" && len(list) > 0, nil
}

func fullName(namespace, name string) string {
	if strings.Contains(name, "/") {
		return name
	}
	return namespace + "/" + name
}

// moment reads a time, and is zero for what is none, or none after 1970.
func moment(s string) time.Time {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || t.Unix() <= 0 {
		return time.Time{}
	}
	return t.UTC()
}

func digest(s string) string {
	if dockerhub.CheckDigest(s) != nil {
		return ""
	}
	return s
}

// short drops what is too long to be what it should.
func short(s string, limit int) string {
	if len(s) > limit {
		return ""
	}
	return s
}
