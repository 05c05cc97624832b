package env_test

import (
	"fmt"
	"testing"

	"github.com/getto-systems/hubrelay/internal/env"
)

func TestAnEntryIsFoundByTheNamesOfARegistry(t *testing.T) {
	t.Parallel()
	const hub, other = "registry-1.docker.io", "registry.example:5000"
	for name, test := range map[string]struct {
		host  string
		key   string
		found bool
	}{
		"Docker Hub by what the CLI writes":    {hub, "https://index.docker.io/v1/", true},
		"Docker Hub by the host of its index":  {hub, "index.docker.io", true},
		"Docker Hub by its short name":         {hub, "docker.io", true},
		"Docker Hub by the registry's host":    {hub, "registry-1.docker.io", true},
		"Docker Hub by the registry's URL":     {hub, "https://registry-1.docker.io/v2/", true},
		"the index by the registry's host":     {"index.docker.io", "registry-1.docker.io", true},
		"the CLI's own tokens are not for us":  {hub, "https://index.docker.io/v1/access-token", false},
		"another registry's are not for us":    {hub, "registry.example", false},
		"another registry by its host":         {other, "registry.example:5000", true},
		"another registry by its URL":          {other, "https://Registry.Example:5000/v1/", true},
		"another port is another registry":     {other, "registry.example", false},
		"Docker Hub's are for no other":        {other, "docker.io", false},
		"a host that only ends alike is other": {"example:5000", "registry.example:5000", false},
		"an entry without a name is nobody's":  {hub, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := fmt.Sprintf(`{"auths":{%q:{"username":"u","password":"p"}}}`, test.key)
			got, err := env.ParseDockerAccount(env.NewSecret(config), test.host)
			if err != nil {
				t.Fatal(err)
			}
			if found := got.Password.Reveal() == "p"; found != test.found {
				t.Errorf("found is %v, want %v", found, test.found)
			}
		})
	}
}

func TestOfSeveralEntriesTheOneOfTheCLIWins(t *testing.T) {
	t.Parallel()
	const entry = `%q:{"username":"u","password":%q}`
	all := fmt.Sprintf(entry+","+entry+","+entry, "registry-1.docker.io", "3", "https://index.docker.io/v1/", "1", "docker.io", "2")
	some := fmt.Sprintf(entry+","+entry, "registry-1.docker.io", "3", "docker.io", "2")
	for range 50 { // the order of a map is another each time
		for auths, want := range map[string]string{all: "1", some: "2"} {
			got, err := env.ParseDockerAccount(env.NewSecret(`{"auths":{`+auths+`}}`), "registry-1.docker.io")
			if err != nil || got.Password.Reveal() != want {
				t.Fatalf("got entry %s, %v; want %s", got.Password.Reveal(), err, want)
			}
		}
	}
}
