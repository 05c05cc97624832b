package env_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/getto-systems/hubrelay/internal/env"
)

func lookup(values map[string]string) func(string) string {
	return func(name string) string { return values[name] }
}

func TestEveryMistakeIsReportedAtOnce(t *testing.T) {
	t.Parallel()
	r := env.New(lookup(map[string]string{
		"LANGUAGE": "fr",
		"URL":      "gitlab.example",
		"QUERY":    "https://gitlab.example/?a=b",
		"NUMBER":   "x",
	}))
	r.Required("TOPIC")
	r.OneOf("LANGUAGE", "en", "ja")
	r.URL("URL", "")
	r.URL("QUERY", "")
	env.Parse(r, "NUMBER", func(string) (int, error) {
		return 0, errors.Join(errors.New("is no number"), errors.New("is odd"))
	})

	err := r.Err()
	if err == nil {
		t.Fatal("no mistake found")
	}
	lines := strings.Split(err.Error(), "\n")
	want := []string{
		"TOPIC: is required",
		`LANGUAGE: is "fr", must be one of en, ja`,
		"URL: must be a URL that starts with https:// or http://",
		"QUERY: must be a plain base URL, without user, query or fragment",
		"NUMBER: is no number",
		"NUMBER: is odd",
	}
	if len(lines) != len(want) {
		t.Fatalf("got %d mistakes, want %d:\n%v", len(lines), len(want), err)
	}
	for i, w := range want {
		if lines[i] != w {
			t.Errorf("mistake %d is %q, want %q", i, lines[i], w)
		}
	}
}

func TestURLsThatCannotWork(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{
		"canary":                           "must be a URL",
		"ftp://canary":                     "must be a URL",
		"https://":                         "must be a URL",
		"https://:443":                     "must be a URL",
		"https://canary:0":                 "must be a URL",
		"https://canary:99999":             "must be a URL",
		"https://canary:x":                 "must be a URL",
		"https://can ary":                  "must be a URL",
		"https://can\nary":                 "must be a URL",
		"https://user:canary@gitlab.test":  "must be a plain base URL, without user",
		"https://canary/?":                 "must be a plain base URL, without user",
		"https://canary?a=b":               "must be a plain base URL, without user",
		"https://canary/#":                 "must be a plain base URL, without user",
		"https://gitlab.test/can ary":      "has a space",
		"https://gitlab.test/can\u00a0ary": "has a space",
	} {
		r := env.New(lookup(map[string]string{"URL": value}))
		r.URL("URL", "")
		err := r.Err()
		if err == nil || !strings.Contains(err.Error(), "URL: "+want) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%q: got %v, want %q", value, err, want)
		}
	}
}

func TestTokensThatCannotBeSent(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{
		"": "", "xoxb-1-2-canary": "", " canary\n": "", "a+/=~!": "",
		"canary\ncanary": "a line break", "canary\r\ncanary": "a line break", "can ary": "a space", "can\tary": "a space",
		"can\x00ary": "a space", "can\x7fary": "a space", "canäry": "a space", "\ufeffcanary": "a space", "can\u200bary": "a space", "canary\xff": "a space",
	} {
		r := env.New(lookup(map[string]string{"TOKEN": value}))
		got := r.Token("TOKEN")
		err := r.Err()
		switch {
		case want == "" && (err != nil || got.Reveal() != strings.TrimSpace(value)):
			t.Errorf("%q: got %q, %v", value, got.Reveal(), err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), "TOKEN: has "+want) || strings.Contains(err.Error(), "ary")):
			t.Errorf("%q: got %v, want %q", value, err, want)
		}
	}
}

func TestValidSettingsAreRead(t *testing.T) {
	t.Parallel()
	r := env.New(lookup(map[string]string{"A": " a \n", "URL": "https://gitlab.example/x/"}))
	if got := r.Required("A"); got != "a" {
		t.Errorf("Required = %q", got)
	}
	if got := r.String("B", "b"); got != "b" {
		t.Errorf("String = %q", got)
	}
	if got := r.OneOf("C", "en", "ja"); got != "en" {
		t.Errorf("OneOf = %q", got)
	}
	if got := r.URL("URL", ""); got != "https://gitlab.example/x" {
		t.Errorf("URL = %q", got)
	}
	if err := r.Err(); err != nil {
		t.Error(err)
	}
}

func TestSecretDoesNotShow(t *testing.T) {
	t.Parallel()
	s := env.NewSecret("canary")
	in := struct {
		S      env.Secret
		hidden env.Secret
	}{s, s}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
		fmt.Fprintf(&out, verb, s)
		fmt.Fprintf(&out, verb, in)
		fmt.Fprintf(&out, verb, &in)
	}
	if err := json.NewEncoder(&out).Encode(in); err != nil {
		t.Fatal(err)
	}
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "s", s, "in", in)
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "s", s, "in", in)
	if strings.Contains(out.String(), "canary") || strings.Contains(out.String(), "63616e617279") {
		t.Errorf("the secret shows: %s", out.String())
	}
	if s.Reveal() != "canary" || s.IsZero() {
		t.Error("the secret is lost")
	}
}
