// Package auth identifies callers, by a shared token or by an OpenID Connect id
// token.
package auth

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
)

// MinToken is the minimum length of a shared token, in characters.
const MinToken = 20

// Tokens are shared secrets. All are valid, so that one can be rotated without
// a gap. The zero value accepts none.
type Tokens struct {
	sums [][sha256.Size]byte
}

// Placeholder matches the values that people leave from an example.
const Placeholder = `(?i)^[<{\[$]|change[-_ ]?me|replace[-_ ]?(me|this)|your[-_ ]|example|placeholder|insert[-_ ]|x{6,}|\*{6,}`

var placeholder = regexp.MustCompile(Placeholder)

// unreserved matches what stays the same in the path of a URL: the unreserved
// characters of RFC 3986.
var unreserved = regexp.MustCompile(`^[A-Za-z0-9._~-]+$`)

// ParseTokens reads one token per line. Its error says which lines are wrong
// and why, without the tokens.
func ParseTokens(text string) (Tokens, error) {
	var (
		t        Tokens
		mistakes []error
		n        int
	)
	for line := range strings.Lines(text) {
		n++
		token := strings.TrimSpace(line)
		switch {
		case token == "":
			continue
		case len(token) < MinToken:
			mistakes = append(mistakes, fmt.Errorf("line %d is shorter than %d characters: make one with openssl rand -hex 24", n, MinToken))
		case placeholder.MatchString(token), strings.Count(token, token[:1]) == len(token):
			mistakes = append(mistakes, fmt.Errorf("line %d is a placeholder: make a token with openssl rand -hex 24", n))
		case !unreserved.MatchString(token):
			mistakes = append(mistakes, fmt.Errorf("line %d has another character than letters, digits, '.', '_', '~' and '-', which a URL would not keep: make a token with openssl rand -hex 24", n))
		default:
			t.sums = append(t.sums, sha256.Sum256([]byte(token)))
		}
	}
	if err := errors.Join(mistakes...); err != nil {
		return Tokens{}, err
	}
	if len(t.sums) == 0 {
		return Tokens{}, errors.New("has no token: write one a line")
	}
	return t, nil
}

// Valid reports whether token is one of them. The time that it takes does not
// depend on how much of a token is right.
func (t Tokens) Valid(token string) bool {
	sum := sha256.Sum256([]byte(token))
	valid := 0
	for _, s := range t.sums {
		valid |= subtle.ConstantTimeCompare(s[:], sum[:])
	}
	return valid == 1
}

// Bearer returns the token of a request's Authorization header, or "".
func Bearer(h http.Header) string {
	scheme, token, _ := strings.Cut(h.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}
