package env

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
)

// DockerAccount is an account for a registry, or for Docker Hub's API; zero is
// anonymous.
type DockerAccount struct {
	Name     string
	Password Secret // or a token, in the same field
}

// DockerConfigHint ends the error of each mistake in a config.json. No error
// repeats a part of the file.
const DockerConfigHint = `it must be a Docker config.json such as {"auths":{"https://index.docker.io/v1/":{"auth":"BASE64 OF USER:TOKEN"}}}`

// ParseDockerAccount returns the account that a Docker config.json has for a
// registry, by its host; docker.io is Docker Hub. It is zero if there is none:
// public repositories need none.
func ParseDockerAccount(config Secret, host string) (DockerAccount, error) {
	if config.IsZero() {
		return DockerAccount{}, nil
	}
	var file struct {
		Auths       map[string]dockerEntry     `json:"auths"`
		CredsStore  string                     `json:"credsStore"`
		CredHelpers map[string]json.RawMessage `json:"credHelpers"`
	}
	if err := json.Unmarshal([]byte(config.Reveal()), &file); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return DockerAccount{}, fmt.Errorf("the credentials are not JSON (at byte %d): %s", syntax.Offset, DockerConfigHint)
		}
		return DockerAccount{}, errors.New("the credentials are not those of Docker: " + DockerConfigHint)
	}
	// If a credential helper has the account, its entry is empty, or there is
	// none.
	maps.DeleteFunc(file.Auths, func(_ string, e dockerEntry) bool { return e == dockerEntry{} })
	switch {
	case len(file.Auths) > 0:
		return dockerEntryOf(file.Auths, host).account()
	case file.CredsStore != "" || len(file.CredHelpers) > 0:
		return DockerAccount{}, errors.New("the credentials are with a credential helper (credsStore or credHelpers), and a function has none: " + DockerConfigHint)
	}
	return DockerAccount{}, errors.New("the credentials hold no account: " + DockerConfigHint)
}

type dockerEntry struct {
	Auth          string `json:"auth"`
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

func (e dockerEntry) account() (DockerAccount, error) {
	if e == (dockerEntry{}) {
		return DockerAccount{}, nil
	}
	if e.Auth != "" {
		raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(strings.TrimSpace(e.Auth), "="))
		name, password, ok := strings.Cut(string(raw), ":")
		if err != nil || !ok {
			return DockerAccount{}, errors.New("the credentials' auth is not the base64 of user:token: " + DockerConfigHint)
		}
		e.Username, e.Password = name, password
	}
	switch {
	case e.IdentityToken != "" || e.RegistryToken != "":
		return DockerAccount{}, errors.New("the credentials hold an identitytoken or a registrytoken, which soon expire: make an access token, and write it as auth; " + DockerConfigHint)
	case e.Username == "" || e.Password == "":
		return DockerAccount{}, errors.New("the credentials' entry for the registry has no user, or no token: " + DockerConfigHint)
	case strings.ContainsFunc(e.Username+e.Password, unicode.IsControl), strings.TrimSpace(e.Password) != e.Password, strings.ContainsAny(e.Username, " "):
		return DockerAccount{}, errors.New("the credentials' user or token has a line break, a space or a control character (echo adds a line break, printf %s does not): " + DockerConfigHint)
	}
	return DockerAccount{e.Username, NewSecret(e.Password)}, nil
}

// dockerHub are the names of the default registry in a config.json.
var dockerHub = []string{"docker.io", "index.docker.io", "registry-1.docker.io"}

// dockerEntryOf returns the entry for the registry at host, or zero. If there
// are several, the one that the Docker CLI writes wins, then the first by name.
func dockerEntryOf(auths map[string]dockerEntry, host string) dockerEntry {
	const written = "https://index.docker.io/v1/"
	found := ""
	for key := range auths {
		if isRegistry(key, host) && (found == "" || key == written || found != written && key < found) {
			found = key
		}
	}
	if found == "" { // an entry may have no name
		return dockerEntry{}
	}
	return auths[found]
}

// isRegistry reports whether a key of a config.json means the registry at host.
// A key that continues after /v1/ or /v2/ does not: the Docker CLI stores its
// own tokens under such keys.
func isRegistry(key, host string) bool {
	key = strings.TrimPrefix(strings.TrimPrefix(strings.ToLower(key), "https://"), "http://")
	key = strings.TrimSuffix(key, "/")
	key = strings.TrimSuffix(strings.TrimSuffix(key, "/v1"), "/v2")
	host = strings.ToLower(host)
	return key == host || slices.Contains(dockerHub, key) && slices.Contains(dockerHub, host)
}
