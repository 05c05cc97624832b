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

func TestSettingsThatAreFineAreRead(t *testing.T) {
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
	in := struct{ S env.Secret }{s}
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
