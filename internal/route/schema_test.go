package route_test

// docs/routes.schema.json is for editors: it shows mistakes while you type. The
// functions do not use it, so these tests compare it with what they accept.

import (
	"encoding/json"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/getto-systems/hubrelay/internal/route"
)

const schemaFile = "../../docs/routes.schema.json"

func read(t testing.TB, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func schema(t testing.TB) *jsonschema.Schema {
	t.Helper()
	document, err := jsonschema.UnmarshalJSON(strings.NewReader(read(t, schemaFile)))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("routes.schema.json", document); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("routes.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// judge validates a text with the schema.
func judge(s *jsonschema.Schema, text string) error {
	document, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		return err
	}
	return s.Validate(document)
}

// onlyParseSees are the mistakes that a schema cannot find: it sees each name
// once, and counts characters.
var onlyParseSees = regexp.MustCompile(`is there twice|is not a version constraint|is over 1023 bytes|slack\.channel "[^"]*[^ -~]`)

func onlyForParse(err error) bool {
	for line := range strings.Lines(err.Error()) {
		if !onlyParseSees.MatchString(line) {
			return false
		}
	}
	return true
}

// fields are the names of a struct's fields in JSON, with those of its parts.
func fields(of reflect.Type, prefix string) []string {
	var names []string
	for field := range of.Fields() {
		name := field.Tag.Get("json")
		if name == "-" {
			continue
		}
		names = append(names, prefix+name)
		if field.Type.Kind() == reflect.Struct {
			names = append(names, fields(field.Type, prefix+name+".")...)
		}
	}
	return names
}

func TestTheSchemaHasTheFieldsOfARoute(t *testing.T) {
	t.Parallel()
	type part struct {
		Title       string           `json:"title"`
		Description string           `json:"description"`
		Ref         string           `json:"$ref"`
		Properties  map[string]part  `json:"properties"`
		More        *json.RawMessage `json:"additionalProperties"`
	}
	var whole struct {
		Draft string          `json:"$schema"`
		Defs  map[string]part `json:"$defs"`
	}
	if err := json.Unmarshal([]byte(read(t, schemaFile)), &whole); err != nil {
		t.Fatal(err)
	}
	if whole.Draft != "https://json-schema.org/draft/2020-12/schema" {
		t.Errorf("it is written in %s", whole.Draft)
	}
	var walk func(part, string) []string
	walk = func(p part, prefix string) []string {
		if len(p.Properties) > 0 && (p.More == nil || string(*p.More) != "false") {
			t.Errorf("%s lets other fields pass", prefix)
		}
		var names []string
		for _, name := range slices.Sorted(maps.Keys(p.Properties)) {
			field := p.Properties[name]
			if field.Ref != "" {
				field = whole.Defs[strings.TrimPrefix(field.Ref, "#/$defs/")]
			}
			if field.Title == "" || field.Description == "" {
				t.Errorf("an editor has nothing to show for %s", prefix+name)
			}
			names = append(append(names, prefix+name), walk(field, prefix+name+".")...)
		}
		return names
	}
	want, got := fields(reflect.TypeFor[route.Route](), ""), walk(whole.Defs["route"], "")
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("fields of a route (-), of the schema (+):\n%s", diff)
	}
}

func quote(text string) string {
	quoted, _ := json.Marshal(text) // strings do not fail
	return string(quoted)
}

// Tables of one route, with the given fields and the required ones.
func of(fields string) string {
	return `{"acme/api": {"gitlab": {"project": "a/b"}, "slack": {"channel": "C1"}` + fields + `}}`
}

func gitlab(fields string) string {
	return `{"acme/api": {"gitlab": {` + fields + `}, "slack": {"channel": "C1"}}}`
}

func slack(fields string) string {
	return `{"acme/api": {"gitlab": {"project": "a/b"}, "slack": {` + fields + `}}}`
}

func keyed(key string) string {
	return `{` + quote(key) + `: {"gitlab": {"project": "a/b"}, "slack": {"channel": "C1"}}}`
}

func TestTheSchemaJudgesAsParseDoes(t *testing.T) {
	t.Parallel()
	tag := func(pattern string) string { return of(`, "tags": {"include": [` + quote(pattern) + `]}`) }
	inputs := func(n int) string {
		pairs := make([]string, n)
		for i := range pairs {
			pairs[i] = `"n` + strings.Repeat("x", i) + `": "1"`
		}
		return of(`, "inputs": {` + strings.Join(pairs, ", ") + `}`)
	}
	s := schema(t)
	const yes, no, parse = "both take it", "both refuse it", "only Parse sees it"
	for _, c := range []struct{ name, text, want string }{
		{"the documented table", documented, yes},
		{"no routes", `{}`, yes},
		{"a list", `[]`, no},
		{"nothing", ``, no},
		{"something after the end", `{} {}`, no},
		{"a bracket too many", `{} }`, no},
		{"a list's bracket too many", `{} ]`, no},
		{"half an object", `{"acme/api": `, no},
		{"a byte order mark", "\ufeff" + of(""), no},
		{"the least route", of(""), yes},
		{"null for a route", `{"acme/api": null}`, no},
		{"a route that is empty", `{"acme/api": {}}`, no},
		{"a route that is a list", `{"acme/api": []}`, no},

		{"a field that is not known", of(`, "tag": {}`), no},
		{"a field in capitals", of(`, "Latest": "stable"`), no},
		{"a field with a long s", of(`, "tagſ": {}`), no},
		{"a field within gitlab that is not known", gitlab(`"project": "a/b", "branch": "main"`), no},
		{"a field within gitlab in capitals", gitlab(`"Project": "a/b"`), no},
		{"an editor's link to the schema", `{"$schema": "https://json-schema.org/"}`, no},
		{"a duplicate route", `{"acme/api": {"gitlab": {"project": "a/b"}, "slack": {"channel": "C1"}}, "acme/api": {"gitlab": {"project": "a/b"}, "slack": {"channel": "C1"}}}`, parse},
		{"a duplicate field", of(`, "latest": "a", "latest": "b"`), parse},
		{"a duplicate part", of(`, "tags": {"include": ["a"]}, "tags": {"exclude": ["b"]}`), parse},
		{"a duplicate input", of(`, "inputs": {"a": "1", "a": "2"}`), parse},
		{"what is left out by null", of(`, "tags": null, "latest": null, "once_per": null, "inputs": null`), yes},
		{"what is left out by an empty string", of(`, "latest": "", "once_per": ""`), yes},
		{"gitlab left out by null", `{"acme/api": {"gitlab": null, "slack": {"channel": "C1"}}}`, no},
		{"slack left out by null", `{"acme/api": {"gitlab": {"project": "a/b"}, "slack": null}}`, no},

		{"every repository", keyed("*"), yes},
		{"a glob", keyed("acme/[a-c]*"), yes},
		{"a glob over namespaces", keyed("*/api"), yes},
		{"a glob with an escape", keyed(`acme/\*`), yes},
		{"a glob with a negated class", keyed("acme/[^a-z]?"), yes},
		{"an official image", keyed("nginx"), yes},
		{"a name of 247 characters in library", keyed(strings.Repeat("a", 247)), yes},
		{"a name of 248 characters in library", keyed(strings.Repeat("a", 248)), no},
		{"a name of 255 characters", keyed("a/" + strings.Repeat("a", 253)), yes},
		{"a name of 256 characters", keyed("a/" + strings.Repeat("a", 254)), no},
		{"a duplicate official image", `{"nginx": {"gitlab": {"project": "a/b"}, "slack": {"channel": "C1"}}, "library/nginx": {"gitlab": {"project": "a/b"}, "slack": {"channel": "C1"}}}`, parse},
		{"no key", keyed(""), no},
		{"a key in capitals", keyed("Acme/api"), no},
		{"a key with a tag", keyed("acme/api:1"), no},
		{"a glob without a slash", keyed("acme*"), no},
		{"a glob with two slashes", keyed("a/b/*"), no},
		{"a glob with an open bracket", keyed("acme/[a"), no},
		{"a glob that ends in a backslash", keyed(`acme/a\`), no},
		{"a glob with a range that has no end", keyed("acme/[a-]"), no},
		{"a glob with an empty class", keyed("acme/[]"), no},
		{"a class that begins with a hyphen", keyed("acme/[-a]"), no},
		{"a line break in a key", keyed("acme/api\n"), no},

		{"a project with placeholders", gitlab(`"project": "{namespace}/x-{name}"`), yes},
		{"a project's ID", gitlab(`"project": "4711"`), yes},
		{"a project's ID as a number", gitlab(`"project": 4711`), no},
		{"a project's ID that is zero", gitlab(`"project": "0"`), no},
		{"no project", gitlab(``), no},
		{"an empty project", gitlab(`"project": ""`), no},
		{"a project without a group", gitlab(`"project": "api"`), no},
		{"a project with another placeholder", gitlab(`"project": "a/{tag}"`), no},
		{"a project with a placeholder in a placeholder", gitlab(`"project": "a/{na{name}me}"`), no},
		{"a ref", gitlab(`"project": "a/b", "ref": "release/1"`), yes},
		{"a ref in Japanese", gitlab(`"project": "a/b", "ref": "公開"`), yes},
		{"a ref with a space", gitlab(`"project": "a/b", "ref": "a b"`), no},
		{"a ref with a colon", gitlab(`"project": "a/b", "ref": "a:b"`), no},
		{"pass by variables", gitlab(`"project": "a/b", "pass": "variables"`), yes},
		{"pass by something else", gitlab(`"project": "a/b", "pass": "env"`), no},

		{"another moving tag", of(`, "latest": "stable"`), yes},
		{"a moving tag with a space", of(`, "latest": "a b"`), no},
		{"a moving tag of 129 characters", of(`, "latest": "` + strings.Repeat("a", 129) + `"`), no},
		{"once per delivery", of(`, "once_per": "delivery"`), yes},
		{"once per week", of(`, "once_per": "week"`), no},

		{"everything about Slack", slack(`"channel": "C1", "mention": "@channel", "tell": "failures"`), yes},
		{"a user group", slack(`"channel": "C1", "mention": "S0123456789"`), yes},
		{"nobody by an empty mention", slack(`"channel": "C1", "mention": "", "tell": ""`), yes},
		{"no channel", slack(`"tell": "all"`), no},
		{"an empty channel", slack(`"channel": ""`), no},
		{"a channel with a space", slack(`"channel": "C 1"`), no},
		{"a channel with a line break", slack(`"channel": "C1\n"`), no},
		{"a channel with an ideographic space", slack(`"channel": "C1　"`), no},
		{"a channel with a space that does not break", slack(`"channel": "C1\u00a0"`), no},
		{"a channel with a control character", slack(`"channel": "C1\u0085"`), no},
		{"a channel of 80 characters", slack(`"channel": "` + strings.Repeat("C", 80) + `"`), yes},
		{"a channel of 81 characters", slack(`"channel": "` + strings.Repeat("C", 81) + `"`), no},
		{"a channel of 40 characters that are 120 bytes", slack(`"channel": "` + strings.Repeat("界", 40) + `"`), parse},
		{"a mention of a channel", slack(`"channel": "C1", "mention": "C0123456789"`), no},
		{"a mention in lower case", slack(`"channel": "C1", "mention": "u0123456789"`), no},
		{"a mention that is too short", slack(`"channel": "C1", "mention": "U1"`), no},
		{"tell of nothing", slack(`"channel": "C1", "tell": "nothing"`), no},

		{"tag globs", tag("v[0-9]*"), yes},
		{"an empty tag pattern", tag(""), no},
		{"null for a tag pattern", of(`, "tags": {"include": [null]}`), no},
		{"a tag glob with an open bracket", tag("v["), no},
		{"an emoji in a class", tag("[😀-😂]"), yes},
		{"no tag patterns by null", of(`, "tags": {"include": null, "exclude": []}`), yes},
		{"a text for a list", of(`, "tags": {"include": "v*"}`), no},
		{"a constraint", tag("semver:>=1.2"), yes},
		{"a constraint of everything that there is", tag("semver: ~> v1.2.x-beta.1+build , <2 || 3 - 4.5 || ^6"), yes},
		{"a constraint that says nothing", tag("semver:"), no},
		{"a constraint of words", tag("semver:>=nope"), no},
		{"a constraint with a letter of no version", tag("semver:>=1_2"), no},
		{"a constraint of 513 characters", tag("semver:" + strings.Repeat("1", 513)), no},
		{"a constraint with an operator that there is not", tag("semver:>>1"), parse},
		{"a constraint that ends in an operator", tag("semver:1 ||"), parse},
		{"a constraint of 33 alternatives", tag("semver:1" + strings.Repeat("||1", 32)), parse},

		{"inputs", of(`, "inputs": {"severity": "low", "a-b": ""}`), yes},
		{"null for an input", of(`, "inputs": {"a": null}`), yes},
		{"a number for an input", of(`, "inputs": {"a": 1}`), no},
		{"an input without a name", of(`, "inputs": {"": "1"}`), no},
		{"an input with a space", of(`, "inputs": {"a b": "1"}`), no},
		{"an input that hubrelay sends", of(`, "inputs": {"image_digest": "1"}`), no},
		{"an input that hubrelay sends, in capitals", of(`, "inputs": {"Image_Pushed_At": "1"}`), no},
		{"an input that only begins so", of(`, "inputs": {"image_tags": "1"}`), yes},
		{"inputs that differ in case", of(`, "inputs": {"A": "1", "a": "2"}`), parse},
		{"15 inputs", inputs(15), yes},
		{"16 inputs", inputs(16), no},
		{"an input of 1023 characters", of(`, "inputs": {"a": "` + strings.Repeat("x", 1023) + `"}`), yes},
		{"an input of 1024 characters", of(`, "inputs": {"a": "` + strings.Repeat("x", 1024) + `"}`), no},
		{"an input of 400 characters that are 1200 bytes", of(`, "inputs": {"a": "` + strings.Repeat("界", 400) + `"}`), parse},
		{"an input with a hyphen", `{"acme/api": {"gitlab": {"project": "a/b", "pass": "inputs"}, "slack": {"channel": "C1"}, "inputs": {"a-b": "1"}}}`, yes},
		{"a variable with a hyphen", `{"acme/api": {"gitlab": {"project": "a/b", "pass": "variables"}, "slack": {"channel": "C1"}, "inputs": {"a-b": "1"}}}`, no},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, refused := route.Parse(c.text)
			marked := judge(s, c.text)
			if (refused == nil) != (c.want == yes) || (marked == nil) == (c.want == no) {
				t.Errorf("Parse says %v, the schema %v; want: %s", refused, marked, c.want)
			}
			if c.want == parse && refused != nil && !onlyForParse(refused) {
				t.Errorf("%v is not among what only Parse sees", refused)
			}
		})
	}
}

// refusedByTerraform are tables of routes that Terraform's tests refuse, by name.
func refusedByTerraform(t testing.TB) map[string]json.RawMessage {
	t.Helper()
	var tables map[string]json.RawMessage
	if err := json.Unmarshal([]byte(read(t, "../../terraform/tests/routes/refused.json")), &tables); err != nil {
		t.Fatal(err)
	}
	return tables
}

// Terraform's tables are judged by the schema, too.
func TestTheSchemaJudgesTerraformsTables(t *testing.T) {
	t.Parallel()
	s := schema(t)
	if err := judge(s, read(t, "../../terraform/tests/routes/accepted.json")); err != nil {
		t.Error(err)
	}
	for name, table := range refusedByTerraform(t) {
		_, refused := route.Parse(string(table))
		if refused == nil {
			t.Errorf("%s is accepted", name)
		} else if judge(s, string(table)) == nil && !onlyForParse(refused) {
			t.Errorf("the schema lets %s pass, of which Parse says: %v", name, refused)
		}
	}
}

// An editor never marks what hubrelay accepts. What an editor accepts is
// refused only for mistakes that only Parse can find. The parts make a table of
// one route.
func FuzzTheSchemaJudgesAsParseDoes(f *testing.F) {
	s := schema(f)
	for _, table := range refusedByTerraform(f) {
		f.Add(string(table), "", "", "", "", "", "", "")
	}
	f.Add(documented, "acme/[a-z]*", "{namespace}/{name}", "release/1", "C1", "@here", "semver:x.| || 1 - 2,>3", "A-b")
	f.Add(of(`, "tags": null, "latest": null`), `a/\[`, "1", "\u2028", "界", "S0123", `[^]-a\\]*`, "Promotion_ID")
	f.Add(of(`, "Tags": {}, "inputs": {"a": null}`), "library/busybox", "a/b", "", "", "", "semver:1.x||=>2.*", "")
	f.Fuzz(func(t *testing.T, text, key, project, ref, channel, mention, pattern, input string) {
		made, err := json.Marshal(map[string]any{key: map[string]any{
			"gitlab": map[string]string{"project": project, "ref": ref},
			"slack":  map[string]string{"channel": channel, "mention": mention},
			"tags":   map[string][]string{"include": {pattern}},
			"inputs": map[string]string{input: "1"},
			"latest": pattern,
		}})
		if err != nil {
			t.Fatal(err)
		}
		parts := []string{
			text, string(made),
			keyed(key), gitlab(`"project": ` + quote(project)), gitlab(`"project": "a/b", "ref": ` + quote(ref)),
			slack(`"channel": ` + quote(channel)), slack(`"channel": "C1", "mention": ` + quote(mention)),
			of(`, "tags": {"exclude": [` + quote(pattern) + `]}`), of(`, "latest": ` + quote(pattern)), of(`, "inputs": {` + quote(input) + `: ""}`),
		}
		for _, text := range parts {
			_, refused := route.Parse(text)
			marked := judge(s, text)
			if refused == nil && marked != nil {
				t.Errorf("the schema marks what Parse takes: %s: %v", text, marked)
			}
			if refused != nil && marked == nil && !onlyForParse(refused) {
				t.Errorf("the schema lets pass what Parse refuses: %s: %v", text, refused)
			}
		}
	})
}
