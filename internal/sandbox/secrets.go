package sandbox

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"regexp"
	"strings"
)

// hidden stands in the place of a secret.
const hidden = "•••"

// secrets takes all that must not be shown out of a text: what it knows, and
// what looks like a token of its own making.
type secrets struct{ known *strings.Replacer }

// leastSecret is how long a secret is at least. What is shorter would be found
// in the middle of words.
const leastSecret = 8

// newSecrets knows these values, those in JSON among them, and what they are in
// a URL.
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
	addAccount := func(v string) { // of a Docker config.json: user and password
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

// Of id tokens and of Docker Hub's, both JWTs; and of whatever follows Bearer.
var tokens = regexp.MustCompile(`\beyJ[A-Za-z0-9_-]*\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?|(?i:\b(bearer|basic) )[A-Za-z0-9._~+/=-]{8,}`)

func (s *secrets) hide(text string) string {
	if text == "" {
		return ""
	}
	return tokens.ReplaceAllString(s.known.Replace(text), hidden)
}
