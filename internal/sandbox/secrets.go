package sandbox

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"regexp"
	"strings"
)

// hidden replaces a secret.
const hidden = "•••"

// secrets removes from a text everything that must not be shown: the known
// secrets, and everything that looks like a token.
type secrets struct{ known *strings.Replacer }

// leastSecret is the minimum length of a secret. A shorter one would be found
// in the middle of words.
const leastSecret = 8

// newSecrets knows these values, also the values in JSON, and their form in a
// URL.
func newSecrets(values ...string) *secrets {
	var pairs []string
	add := func(v string) {
		if len(v) < leastSecret {
			return
		}
		for _, form := range []string{v, url.QueryEscape(v), url.PathEscape(v)} {
			pairs = append(pairs, form, hidden)
		}
	}
	addAccount := func(v string) { // from a Docker config.json: user and password
		add(v)
		if raw, err := base64.StdEncoding.DecodeString(v); err == nil {
			if _, password, ok := strings.Cut(string(raw), ":"); ok {
				add(password)
			}
		}
	}
	for _, v := range values {
		add(v)
		var tree any
		if json.Unmarshal([]byte(v), &tree) == nil {
			leaves(tree, addAccount)
		}
	}
	return &secrets{strings.NewReplacer(pairs...)}
}

// leaves calls f for every string in JSON, but not for names.
func leaves(v any, f func(string)) {
	switch v := v.(type) {
	case string:
		f(v)
	case []any:
		for _, each := range v {
			leaves(each, f)
		}
	case map[string]any:
		for _, each := range v {
			leaves(each, f)
		}
	}
}

// Id tokens and Docker Hub's tokens, which are JWTs; and everything after
// Bearer.
var tokens = regexp.MustCompile(`\beyJ[A-Za-z0-9_-]*\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?|(?i:\b(bearer|basic) )[A-Za-z0-9._~+/=-]{8,}`)

func (s *secrets) hide(text string) string {
	if text == "" {
		return ""
	}
	return tokens.ReplaceAllString(s.known.Replace(text), hidden)
}
