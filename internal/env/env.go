// Package env reads settings from the environment and reports every mistake
// in them at once.
package env

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Reader reads settings and collects every mistake in them, so that one start
// reports everything that must be fixed.
type Reader struct {
	getenv   func(string) string
	mistakes []error
}

// New returns a Reader of getenv, which returns "" for a setting that is not
// set.
func New(getenv func(string) string) *Reader {
	return &Reader{getenv: getenv}
}

// String returns the setting, or fallback if it is not set. Space around a
// value is ignored.
func (r *Reader) String(name, fallback string) string {
	if v := strings.TrimSpace(r.getenv(name)); v != "" {
		return v
	}
	return fallback
}

// Required returns a setting that must not be empty.
func (r *Reader) Required(name string) string {
	v := r.String(name, "")
	if v == "" {
		r.Mistake(name, errors.New("is required"))
	}
	return v
}

// Secret returns a setting that must not be printed.
func (r *Reader) Secret(name string) Secret {
	return NewSecret(r.String(name, ""))
}

// OneOf returns a setting that has one of these values. The first is the
// default.
func (r *Reader) OneOf(name string, values ...string) string {
	v := r.String(name, values[0])
	if !slices.Contains(values, v) {
		r.Mistake(name, fmt.Errorf("is %q, must be one of %s", v, strings.Join(values, ", ")))
		return values[0]
	}
	return v
}

// Token returns a secret that is sent in a header or a body, or zero if it is
// not set.
func (r *Reader) Token(name string) Secret {
	v := r.String(name, "")
	if err := CheckToken(v); err != nil {
		r.Mistake(name, err)
	}
	return NewSecret(v)
}

// CheckToken says why a token cannot be sent as it is. Its error does not
// contain the token.
func CheckToken(token string) error {
	for _, c := range token {
		switch {
		case c == '\n', c == '\r':
			return errors.New("has a line break in it: write the token on one line")
		case c <= ' ' || c > '~':
			return errors.New("has a space, a control character or a letter outside of ASCII in it, which no token has")
		}
	}
	return nil
}

// URL returns the base URL of a service, without its trailing slash.
func (r *Reader) URL(name, fallback string) string {
	v := strings.TrimRight(r.String(name, fallback), "/")
	u, err := url.Parse(v)
	switch {
	case err != nil, u.Scheme != "https" && u.Scheme != "http", u.Hostname() == "", !validPort(u.Port()):
		// The value stays out of the error: a URL may hold a password.
		r.Mistake(name, errors.New("must be a URL that starts with https:// or http://"))
	case u.User != nil, strings.ContainsAny(v, "?#"):
		r.Mistake(name, errors.New("must be a plain base URL, without user, query or fragment"))
	case CheckToken(v) != nil:
		r.Mistake(name, errors.New("has a space or another character in it that a URL cannot have"))
	}
	return v
}

// validPort takes "" for the scheme's own port.
func validPort(port string) bool {
	if port == "" {
		return true
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}

// Parse reads a required setting with parse. The error of parse must not repeat
// a secret.
func Parse[T any](r *Reader, name string, parse func(string) (T, error)) T {
	var zero T
	raw := r.Required(name)
	if raw == "" {
		return zero
	}
	v, err := parse(raw)
	if err != nil {
		r.Mistake(name, err)
		return zero
	}
	return v
}

// Mistake records that the setting is wrong. Each line of err becomes a
// separate mistake.
func (r *Reader) Mistake(name string, err error) {
	for line := range strings.Lines(err.Error()) {
		r.mistakes = append(r.mistakes, fmt.Errorf("%s: %s", name, strings.TrimSpace(line)))
	}
}

// Err returns every mistake, one per line, or nil.
func (r *Reader) Err() error {
	return errors.Join(r.mistakes...)
}
