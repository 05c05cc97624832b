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
		"an auth, for a token":                    {&hub{locked: true, account: true}, map[string]string{"auth": pair}, ""},
		"an auth without padding":                 {&hub{locked: true, account: true}, map[string]string{"auth": strings.TrimRight(pair, "=")}, ""},
		"user and password, for a token":          {&hub{locked: true, account: true}, map[string]string{"username": user, "password": secret}, ""},
		"user and password, with no token at all": {&hub{basic: true}, map[string]string{"username": user, "password": secret}, ""},
		"a wrong password, for a token":           {&hub{locked: true, account: true}, map[string]string{"username": user, "password": "canary-wrong"}, registry.Denied},
		"a wrong password, with no token at all":  {&hub{basic: true}, map[string]string{"username": user, "password": "canary-wrong"}, registry.Denied},
		"no account, and one is required":         {&hub{locked: true, account: true}, nil, registry.Denied},
		"no account, and a token for everybody":   {&hub{locked: true}, nil, ""},
		"no account, and no login":                {&hub{}, nil, ""},
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

func TestMistakesInAConfigAreReportedWithoutItsContents(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ config, want string }{
		"no JSON":                           {`canary`, "not JSON (at byte 1)"},
		"JSON that was cut":                 {`{"auths":{"canary":`, "not JSON"},
		"another type":                      {`{"auths":"canary"}`, "not those of Docker"},
		"a list":                            {`["canary"]`, "not those of Docker"},
		"no auths":                          {`{"https://index.docker.io/v1/":{"auth":"canary"}}`, "no account"},
		"null":                              {`null`, "no account"},
		"no entry":                          {`{"auths":{}}`, "no account"},
		"a helper":                          {`{"auths":{},"credsStore":"canary"}`, "credential helper"},
		"a helper, and what it leaves":      {`{"auths":{"https://index.docker.io/v1/":{}},"credsStore":"canary"}`, "credential helper"},
		"a helper for one registry":         {`{"credHelpers":{"canary":"canary"}}`, "credential helper"},
		"an auth that is not base64":        {hubEntry(`"auth":"canary!"`), "base64"},
		"an auth that has no password":      {hubEntry(`"auth":"Y2FuYXJ5"`), "base64"},
		"an auth that has an empty one":     {hubEntry(auth("canary:")), "no user, or no token"},
		"an auth that has no user":          {hubEntry(auth(":canary")), "no user, or no token"},
		"an auth made with echo":            {hubEntry(auth("user:canary\n")), "echo adds a line break"},
		"an auth with a line break inside":  {hubEntry(auth("user:can\r\nary")), "line break"},
		"an auth with a control character":  {hubEntry(auth("user:canary\x00")), "control character"},
		"an auth after a byte order mark":   {hubEntry(`"auth":"\ufeffY2FuYXJ5OmI="`), "base64"},
		"a password with a line break":      {hubEntry(`"username":"canary","password":"canary\n"`), "line break"},
		"a user with a space":               {hubEntry(`"username":"can ary","password":"canary"`), "a space"},
		"an identity token":                 {hubEntry(auth("canary:") + `,"identitytoken":"canary"`), "identitytoken"},
		"a registry token":                  {hubEntry(`"registrytoken":"canary"`), "registrytoken"},
		"an entry that has a username only": {hubEntry(`"username":"canary"`), "no user, or no token"},
		"accounts of other registries":      {`{"auths":{"hub.docker.com":{"username":"canary","password":"canary"}}}`, "other registries"},
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

func hubEntry(fields string) string {
	return `{"auths":{"https://index.docker.io/v1/":{` + fields + `}}}`
}

func auth(pair string) string {
	return `"auth":"` + base64.StdEncoding.EncodeToString([]byte(pair)) + `"`
}

func TestAnAccountIsForItsRegistryAndForDockerHub(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ config, host, want string }{
		"none":                                 {``, "docker.io", ""},
		"Docker Hub's":                         {hubEntry(auth("a:b:c")), "registry-1.docker.io", "a b:c"},
		"Docker Hub's, for its API":            {hubEntry(auth("a:b")), "docker.io", "a b"},
		"Docker Hub's, for another":            {hubEntry(auth("a:b")), "registry.example", ""},
		"another's, for Docker Hub":            {`{"auths":{"registry.example":{` + auth("a:b") + `}}}`, "docker.io", ""},
		"beside one that a helper keeps":       {`{"auths":{"ghcr.io":{},"docker.io":{` + auth("a:b") + `}},"credHelpers":{"ghcr.io":"x"}}`, "docker.io", "a b"},
		"beside a broken one":                  {`{"auths":{"azurecr.io":{"identitytoken":"x"},"docker.io":{` + auth("a:b") + `}}}`, "docker.io", "a b"},
		"beside what the Docker CLI keeps too": {`{"auths":{"https://index.docker.io/v1/access-token":{` + auth("a:x") + `},"https://index.docker.io/v1/":{` + auth("a:b") + `}}}`, "docker.io", "a b"},
	} {
		got, err := env.ParseDockerAccount(env.NewSecret(c.config), c.host)
		if err != nil || strings.TrimSpace(got.Name+" "+got.Password.Reveal()) != c.want {
			t.Errorf("%s: got %s %s, %v", name, got.Name, got.Password.Reveal(), err)
		}
	}
	for _, url := range []string{"https://registry.example", "https://registry-1.docker.io"} {
		if _, err := registry.New(url, env.NewSecret(hubEntry(auth("a:b")))); err != nil {
			t.Errorf("%s: %v", url, err)
		}
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
