package auth_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/getto-systems/hubrelay/internal/auth"
	"github.com/getto-systems/hubrelay/internal/gitlab/gitlabtest"
)

func TestTokens(t *testing.T) {
	t.Parallel()
	// The third has the 20 characters that are needed.
	tokens, err := auth.ParseTokens("  first-9f31c2ab77e0d415\r\n\nsecond-0c4d11fa90b2e7\nThird.0c4d_11fa~90b2")
	if err != nil {
		t.Fatal(err)
	}
	for token, want := range map[string]bool{
		"first-9f31c2ab77e0d415": true, "second-0c4d11fa90b2e7": true, "Third.0c4d_11fa~90b2": true,
		"": false, "first-9f31c2ab77e0d41": false, "first-9f31c2ab77e0d4155": false, "FIRST-9f31c2ab77e0d415": false,
	} {
		if tokens.Valid(token) != want {
			t.Errorf("Valid(%q) = %v", token, !want)
		}
	}
	if (auth.Tokens{}).Valid("") {
		t.Error("no tokens accept an empty one")
	}
}

func TestTokensThatStopTheStart(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                              "has no token",
		"\n \n":                         "has no token",
		"canary-9f31c2ab77e0":           "line 1 is shorter than 20",
		"ok-9f31c2ab77e0d41512\ncanary": "line 2 is shorter than 20",
		"canary 9f31c2ab77e0d415":       "line 1 has another character",
		"canary//9f31c2ab77e0d415":      "line 1 has another character",
		"canary?9f31c2ab77e0d415":       "line 1 has another character",
		"canary#9f31c2ab77e0d415":       "line 1 has another character",
		"canary%2F9f31c2ab77e0d415":     "line 1 has another character",
		"canary+9f31c2ab77e0d415=":      "line 1 has another character",
		"canary,9f31c2ab77e0d415":       "line 1 has another character",
		"canary\x009f31c2ab77e0d415":    "line 1 has another character",
		"canary-9f31c2ab77e0-ü":         "line 1 has another character",
		"\ufeffcanary-9f31c2ab77e0d415": "line 1 has another character",
		"<canary-9f31c2ab77e0d415>":     "line 1 is a placeholder",
		"change-me-canary-change-me":    "line 1 is a placeholder",
		"your-token-canary-goes-here":   "line 1 is a placeholder",
		"xxxxxxxxxxxxxxxxxxxxxxxx":      "line 1 is a placeholder",
		"${CANARY_TOKEN_FROM_SECRETS}":  "line 1 is a placeholder",
		"aaaaaaaaaaaaaaaaaaaaaaaa":      "line 1 is a placeholder",
	} {
		_, err := auth.ParseTokens(text)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(strings.ToLower(err.Error()), "canary") {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
	_, err := auth.ParseTokens("short\nok-9f31c2ab77e0d41512\n\na b c d e f g h i j k l\nchange-me-change-me-change-me\n")
	for i, line := range []string{"line 1", "line 4", "line 5"} {
		if lines := strings.Split(fmt.Sprint(err), "\n"); len(lines) != 3 || !strings.HasPrefix(lines[i], line+" ") {
			t.Errorf("got %q, want a mistake in %s", lines, line)
		}
	}
}

func TestBearer(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]string{
		"Bearer abc": "abc", "bearer  abc ": "abc", "Basic abc": "", "abc": "", "": "", "Bearer": "",
	} {
		if got := auth.Bearer(http.Header{"Authorization": {header}}); got != want {
			t.Errorf("Bearer(%q) = %q, want %q", header, got, want)
		}
	}
}

const audience = "https://notify.example"

// issuer is a GitLab whose answers a test can break.
func issuer(t *testing.T) (gitlab *gitlabtest.Server, url string, broken *atomic.Bool) {
	t.Helper()
	broken = &atomic.Bool{}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if broken.Load() {
			http.Error(w, "away", http.StatusServiceUnavailable)
			return
		}
		gitlab.ServeHTTP(w, r)
	}))
	url = "http://" + server.Listener.Addr().String()
	gitlab = gitlabtest.New(url)
	server.Start()
	t.Cleanup(server.Close)
	return gitlab, url, broken
}

func token(t *testing.T, gitlab *gitlabtest.Server, c gitlabtest.Claims) string {
	t.Helper()
	if c.Audience == "" {
		c.Audience = audience
	}
	token, err := gitlab.IDToken(c)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestVerify(t *testing.T) {
	t.Parallel()
	gitlab, url, _ := issuer(t)
	other, _, _ := issuer(t)
	v := auth.NewVerifier(url, audience)
	var claims struct {
		Path string `json:"project_path"`
	}
	if err := v.Verify(t.Context(), token(t, gitlab, gitlabtest.Claims{Project: "acme/api"}), &claims); err != nil || claims.Path != "acme/api" {
		t.Fatalf("got %q, %v", claims.Path, err)
	}
	asked := gitlab.KeyRequests()
	for name, bad := range map[string]string{
		"of another audience":   token(t, gitlab, gitlabtest.Claims{Project: "a/b", Audience: "else"}),
		"that has expired":      token(t, gitlab, gitlabtest.Claims{Project: "a/b", Expiry: -time.Minute}),
		"of another issuer":     token(t, other, gitlabtest.Claims{Project: "a/b"}),
		"that is not valid yet": token(t, gitlab, gitlabtest.Claims{Project: "a/b", Extra: map[string]any{"nbf": time.Now().Add(time.Hour).Unix()}}),
		"that is none":          "abc",
		"of three empty parts":  "..",
	} {
		if err := v.Verify(t.Context(), bad, &claims); !errors.Is(err, auth.ErrInvalid) {
			t.Errorf("a token %s: got %v", name, err)
		}
	}
	if gitlab.KeyRequests() != asked {
		t.Error("bad tokens make the issuer work")
	}
}

func TestASignatureByAnotherKey(t *testing.T) {
	t.Parallel()
	gitlab, url, _ := issuer(t)
	v := auth.NewVerifier(url, audience)
	old := token(t, gitlab, gitlabtest.Claims{Project: "a/b"})
	gitlab.RotateKeys()
	if err := v.Verify(t.Context(), old, new(struct{})); !errors.Is(err, auth.ErrInvalid) {
		t.Errorf("got %v", err)
	}
	if err := v.Verify(t.Context(), token(t, gitlab, gitlabtest.Claims{Project: "a/b"}), new(struct{})); err != nil {
		t.Errorf("got %v", err)
	}
}

// If an issuer is down, nothing is known about the token: the caller may try
// again, and must not get the answer that the token is bad.
func TestAnIssuerThatIsDown(t *testing.T) {
	t.Parallel()
	gitlab, url, broken := issuer(t)
	v := auth.NewVerifier(url, audience)
	good := token(t, gitlab, gitlabtest.Claims{Project: "a/b"})
	verify := func(token string) error { return v.Verify(t.Context(), token, new(struct{})) }
	broken.Store(true)
	if err := verify(good); err == nil || errors.Is(err, auth.ErrInvalid) {
		t.Errorf("without discovery: got %v", err)
	}
	broken.Store(false)
	if err := verify(good); err != nil {
		t.Errorf("after it came back: %v", err)
	}
	broken.Store(true)
	if err := verify(good); err != nil {
		t.Errorf("with a key that is known: %v", err)
	}
	gitlab.RotateKeys()
	rotated := token(t, gitlab, gitlabtest.Claims{Project: "a/b"})
	if err := verify(rotated); err == nil || errors.Is(err, auth.ErrInvalid) {
		t.Errorf("with a key that is not known: got %v", err)
	}
	broken.Store(false)
	if err := verify(rotated); err != nil {
		t.Errorf("after it came back: %v", err)
	}
}

// Anybody can make a token of a key that is not known.
func TestForgedTokensAreInvalidHoweverManyComeAndCostTheIssuerLittle(t *testing.T) {
	t.Parallel()
	gitlab, url, _ := issuer(t)
	v := auth.NewVerifier(url, audience)
	verify := func(token string) error { return v.Verify(t.Context(), token, new(struct{})) }
	good := token(t, gitlab, gitlabtest.Claims{Project: "a/b"})
	forged := token(t, gitlabtest.New(url), gitlabtest.Claims{Project: "a/b"})
	began := time.Now()
	for range 500 {
		if err := verify(forged); !errors.Is(err, auth.ErrInvalid) {
			t.Fatalf("a forged token: got %v", err)
		}
		if err := verify(good); err != nil {
			t.Fatalf("meanwhile a good one is not valid: %v", err)
		}
	}
	if asked, most := gitlab.KeyRequests(), 11+int(time.Since(began)/time.Second); asked > most {
		t.Errorf("the issuer was asked %d times, want %d at most", asked, most)
	}

	gitlab.RotateKeys()
	rotated := token(t, gitlab, gitlabtest.Claims{Project: "a/b"})
	for until := time.Now().Add(5 * time.Second); ; {
		if err := verify(forged); !errors.Is(err, auth.ErrInvalid) {
			t.Fatalf("a forged token: got %v", err)
		}
		if verify(rotated) == nil {
			return
		}
		if time.Now().After(until) {
			t.Fatal("forged tokens keep out a good one of a new key")
		}
	}
}

func TestForgedTokensCannotBeJudgedWhileTheIssuerIsDown(t *testing.T) {
	t.Parallel()
	gitlab, url, broken := issuer(t)
	v := auth.NewVerifier(url, audience)
	verify := func(ctx context.Context, token string) error { return v.Verify(ctx, token, new(struct{})) }
	if err := verify(t.Context(), token(t, gitlab, gitlabtest.Claims{Project: "a/b"})); err != nil {
		t.Fatal(err)
	}
	unknown := token(t, gitlabtest.New(url), gitlabtest.Claims{Project: "a/b"})
	broken.Store(true)
	for range 100 {
		if err := verify(t.Context(), unknown); err == nil || errors.Is(err, auth.ErrInvalid) {
			t.Fatalf("got %v", err)
		}
	}
	broken.Store(false)
	for until := time.Now().Add(5 * time.Second); !errors.Is(verify(t.Context(), unknown), auth.ErrInvalid); {
		if time.Now().After(until) {
			t.Fatal("the issuer is back, and nobody asks it")
		}
	}
	// A caller that disconnects says nothing about the issuer.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = verify(ctx, unknown)
	for range 100 {
		if err := verify(t.Context(), unknown); !errors.Is(err, auth.ErrInvalid) {
			t.Fatalf("got %v", err)
		}
	}
}

func TestWhatAnIssuerSaysIsNotRepeatedAtLength(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = w.Write(bytes.Repeat([]byte("x"), 100_000))
	}))
	t.Cleanup(server.Close)
	claimed := base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"` + server.URL + `"}`))
	err := auth.NewVerifier(server.URL, audience).Verify(t.Context(), "e30."+claimed+".x", new(struct{}))
	if err == nil || len(err.Error()) > 1000 {
		t.Errorf("got an error of %d bytes", len(fmt.Sprint(err)))
	}
}
