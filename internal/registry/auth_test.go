package registry_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/registry"
)

func TestCredentialsOpenARegistry(t *testing.T) {
	t.Parallel()
	pair := base64.StdEncoding.EncodeToString([]byte(user + ":" + secret))
	for name, test := range map[string]struct {
		hub   *hub
		entry map[string]string
		err   string
	}{
		"an auth, for a token":                     {&hub{locked: true, account: true}, map[string]string{"auth": pair}, ""},
		"an auth without padding":                  {&hub{locked: true, account: true}, map[string]string{"auth": strings.TrimRight(pair, "=")}, ""},
		"user and password, for a token":           {&hub{locked: true, account: true}, map[string]string{"username": user, "password": secret}, ""},
		"user and password, with no token at all":  {&hub{basic: true}, map[string]string{"username": user, "password": secret}, ""},
		"an identity token, for a token":           {&hub{locked: true, oauth: true}, map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte("x:")), "identitytoken": secret}, ""},
		"a wrong password, for a token":            {&hub{locked: true, account: true}, map[string]string{"username": user, "password": "canary-wrong"}, registry.Denied},
		"a wrong password, with no token at all":   {&hub{basic: true}, map[string]string{"username": user, "password": "canary-wrong"}, registry.Denied},
		"a registry token that is not taken":       {&hub{locked: true}, map[string]string{"registrytoken": "canary-wrong"}, registry.Denied},
		"a wrong identity token":                   {&hub{locked: true, oauth: true}, map[string]string{"identitytoken": "canary-wrong"}, registry.Denied},
		"nobody, where only an account gets in":    {&hub{locked: true, account: true}, nil, registry.Denied},
		"nobody, where everybody gets in":          {&hub{locked: true}, nil, ""},
		"nobody, where there is nothing to get in": {&hub{}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHub(t, test.hub)
			want := h.pushImage(t, "acme/api:1.0")
			config := ""
			if test.entry != nil {
				config = h.config(test.entry)
			}
			got, err := h.client(t, config).Digest(t.Context(), "acme/api", "1.0")
			if test.err != "" {
				check(t, err, registry.Error{Status: 401, Reason: test.err})
				return
			}
			if err != nil || got != want {
				t.Errorf("got %q, %v; want %q", got, err, want)
			}
		})
	}
}

func TestARegistryTokenNeedsNoLogin(t *testing.T) {
	t.Parallel()
	h := newHub(t, &hub{locked: true})
	h.pushImage(t, "acme/api:1.0")
	h.valid["canary-token"] = "repository:acme/api:pull"
	if _, err := h.client(t, h.config(map[string]string{"registrytoken": "canary-token"})).Digest(t.Context(), "acme/api", "1.0"); err != nil {
		t.Fatal(err)
	}
	if asked := h.takeAsked(); len(asked) != 1 {
		t.Errorf("asked %v", asked)
	}
}

func TestMistakesInAConfigAreToldWithoutRepeatingIt(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ config, want string }{
		"no JSON":                           {`canary`, "not JSON (at byte 1)"},
		"JSON that was cut":                 {`{"auths":{"canary":`, "not JSON"},
		"another type":                      {`{"auths":"canary"}`, "not those of Docker"},
		"a list":                            {`["canary"]`, "not those of Docker"},
		"no auths":                          {`{"https://index.docker.io/v1/":{"auth":"canary"}}`, `no "auths"`},
		"null":                              {`null`, `no "auths"`},
		"a helper":                          {`{"auths":{},"credsStore":"canary"}`, "credential helper"},
		"a helper for one registry":         {`{"auths":{},"credHelpers":{"canary":"canary"}}`, "credential helper"},
		"an auth that is no base64":         {`{"auths":{"canary":{"auth":"canary!"}}}`, "base64"},
		"an auth that has no password":      {`{"auths":{"canary":{"auth":"Y2FuYXJ5"}}}`, "base64"},
		"an empty entry for the registry":   {`{"auths":{"docker.io":{}}}`, "holds none"},
		"an entry that has a username only": {`{"auths":{"docker.io":{"username":"canary"}}}`, "holds none"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := registry.New("https://registry-1.docker.io", env.NewSecret(test.config))
			if err == nil {
				t.Fatal("taken")
			}
			if !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "config.json") {
				t.Errorf("got %v, want %q and how to mend it", err, test.want)
			}
			if strings.Contains(err.Error(), "canary") || strings.Contains(err.Error(), "Y2FuYXJ5") {
				t.Errorf("the error repeats the config: %v", err)
			}
		})
	}
}

func FuzzAuth(f *testing.F) {
	f.Add("https://index.docker.io/v1/", "auth", "Y2FuYXJ5Om5vdGhlcg==", "")
	f.Add("docker.io", "username", "canary", "}")
	f.Add("registry.example", "identitytoken", "canary", "")
	f.Add("", "registrytoken", "canary", "\x00")
	f.Fuzz(func(t *testing.T, key, field, value, tail string) {
		canary := "canary" + base64.StdEncoding.EncodeToString([]byte(value))
		for _, config := range []string{
			tail,
			value + canary + tail,
			fmt.Sprintf(`{"auths":{%s:{%s:%s}}}%s`, quote(key), quote(field), quote(canary+value), tail),
			fmt.Sprintf(`{"auths":{%s:{%s:%s}}}%s`, quote(canary), quote(field), quote(value), tail),
			fmt.Sprintf(`{%s:%s%s}`, quote(field), quote(canary), tail),
		} {
			c, err := registry.New("https://registry-1.docker.io", env.NewSecret(config))
			if (c == nil) == (err == nil) {
				t.Fatalf("got %v and %v", c, err)
			}
			if err != nil && strings.Contains(err.Error(), "canary") {
				t.Fatalf("the error repeats the config: %v", err)
			}
			if strings.Contains(fmt.Sprintf("%+v", c), "canary") {
				t.Fatal("the client shows the config")
			}
		}
	})
}

func quote(s string) string {
	raw, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(raw)
}
