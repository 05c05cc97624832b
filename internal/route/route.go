// Package route is the table that says which repository gets which pipeline and
// which Slack channel. The operators of hubrelay write it.
package route

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/Masterminds/semver/v3"

	"github.com/getto-systems/hubrelay/internal/dockerhub"
)

// Values of GitLab.Pass, Route.OncePer and Slack.Tell.
const (
	PassInputs    = "inputs"
	PassVariables = "variables"

	OncePerDigest   = "digest"
	OncePerDelivery = "delivery"

	TellAll      = "all"
	TellFailures = "failures"
)

// Everything is the key of the route, or of the token, for everything that no
// other key matches.
const Everything = "*"

// Table finds the route of a repository. The zero value has no routes.
type Table struct {
	routes []Route // exact keys first, then the longest glob
}

// Route says what happens to the pushes of a repository.
type Route struct {
	Key     string `json:"-"` // a repository, or a glob over repositories
	GitLab  GitLab `json:"gitlab"`
	Tags    Tags   `json:"tags"`
	Latest  string `json:"latest"` // the moving tag
	OncePer string `json:"once_per"`
	Slack   Slack  `json:"slack"`
	// Inputs are passed to the pipeline in addition to hubrelay's own.
	Inputs map[string]string `json:"inputs"`
}

// GitLab names the pipeline.
type GitLab struct {
	Project string `json:"project"` // a path, in which {namespace} and {name} may stand, or an ID
	Ref     string `json:"ref"`
	Pass    string `json:"pass"`
}

// Slack names the channel, and says what is shown there.
type Slack struct {
	Channel string `json:"channel"`
	// Mention is pinged for failures: the ID of a user or a user group, @here
	// or @channel. "" pings nobody.
	Mention string `json:"mention"`
	// Tell is all, or failures, which keeps successes out of the channel.
	Tell string `json:"tell"`
}

// Tags says which tags are promoted: globs, or "semver:" and a constraint.
type Tags struct {
	Include []string `json:"include"` // none means every tag
	Exclude []string `json:"exclude"`
}

// Parse reads a table from JSON. Its error has every mistake, one per line.
func Parse(text string) (Table, error) {
	raw, err := decodeStrictly(text)
	if err != nil {
		return Table{}, err
	}
	var (
		t        Table
		mistakes []error
	)
	for _, key := range slices.Sorted(maps.Keys(raw)) {
		r, err := parseRoute(key, raw[key])
		if err != nil {
			mistakes = append(mistakes, err)
		}
		if i := slices.IndexFunc(t.routes, func(other Route) bool { return other.Key == r.Key }); i >= 0 {
			mistakes = append(mistakes, fmt.Errorf("%q is there twice: as %[1]q and without library/", r.Key))
		}
		t.routes = append(t.routes, r)
	}
	slices.SortStableFunc(t.routes, func(a, b Route) int {
		if a.isGlob() != b.isGlob() {
			if b.isGlob() {
				return -1
			}
			return 1
		}
		return len(b.Key) - len(a.Key)
	})
	return t, errors.Join(mistakes...)
}

// decodeStrictly splits the table into its routes. It refuses a duplicate key,
// which encoding/json accepts.
func decodeStrictly(text string) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(strings.NewReader(text))
	start, err := d.Token()
	if err != nil || start != json.Delim('{') {
		return nil, errors.New("is not a JSON object of routes")
	}
	routes := map[string]json.RawMessage{}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("is not JSON: %w", err)
		}
		var route json.RawMessage
		if err := d.Decode(&route); err != nil {
			return nil, fmt.Errorf("is not JSON: %w", err)
		}
		name := key.(string) // a name is a string, or Decode fails
		if _, twice := routes[name]; twice {
			return nil, fmt.Errorf("%q is there twice", name)
		}
		routes[name] = route
	}
	if _, err := d.Token(); err != nil {
		return nil, fmt.Errorf("is not JSON: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("has something after its end")
	}
	return routes, nil
}

// checkNames reads a value, and reports names that encoding/json accepts
// although they are not exactly those of fields, or are there twice.
func checkNames(d *json.Decoder, fields bool) error {
	start, err := d.Token()
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for start == json.Delim('{') || start == json.Delim('[') {
		if !d.More() {
			_, err := d.Token()
			return err
		}
		fields := fields
		if start == json.Delim('{') {
			token, err := d.Token()
			if err != nil {
				return err
			}
			name := token.(string) // a name is a string
			switch {
			case fields && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz_") != "":
				return fmt.Errorf("unknown field %.100q: names of fields are in lower case", name)
			case seen[name]:
				return fmt.Errorf("%.100q is there twice", name)
			}
			seen[name] = true
			fields = fields && name != "inputs"
		}
		if err := checkNames(d, fields); err != nil {
			return err
		}
	}
	return nil
}

func parseRoute(key string, raw json.RawMessage) (Route, error) {
	r := Route{Key: canonical(key)}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return r, fmt.Errorf("%q: %w", key, err)
	}
	if err := checkNames(json.NewDecoder(bytes.NewReader(raw)), true); err != nil {
		return r, fmt.Errorf("%q: %w", key, err)
	}
	if r.GitLab.Ref == "" {
		r.GitLab.Ref = "main"
	}
	if r.GitLab.Pass == "" {
		r.GitLab.Pass = PassInputs
	}
	if r.Latest == "" {
		r.Latest = "latest"
	}
	if r.OncePer == "" {
		r.OncePer = OncePerDigest
	}
	if r.Slack.Tell == "" {
		r.Slack.Tell = TellAll
	}
	var mistakes []error
	for _, err := range r.check() {
		mistakes = append(mistakes, fmt.Errorf("%q: %w", key, err))
	}
	return r, errors.Join(mistakes...)
}

var (
	project     = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*)+$`)
	projectID   = regexp.MustCompile(`^[1-9][0-9]*$`)
	placeholder = regexp.MustCompile(`\{[^{}]*\}`)
	inputName   = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]*$`)
	ref         = regexp.MustCompile(`^[^\s~^:?*\[\\]+$`)
	channel     = regexp.MustCompile(`^[^\s\p{Z}\p{Cc}]+$`)
)

// Limits of GitLab and Slack.
const (
	maxInputs     = 15   // of a route; GitLab accepts 20, and hubrelay adds five
	maxInputValue = 1023 // bytes; GitLab refuses an input of 1 KB
	maxChannel    = 80   // bytes
)

// reserved are the inputs that hubrelay sets itself.
var reserved = []string{"image_repository", "image_tag", "image_digest", "image_pushed_at", "promotion_id"}

// mention matches an ID of Slack, of a user or a user group.
var mention = regexp.MustCompile(`^(?:@here|@channel|[UWS][A-Z0-9]{2,20})$`)

func (r Route) check() []error {
	var mistakes []error
	wrong := func(format string, args ...any) {
		mistakes = append(mistakes, fmt.Errorf(format, args...))
	}
	if err := checkKey(r.Key); err != nil {
		wrong("the key %w", err)
	}
	filled := strings.NewReplacer("{namespace}", "n", "{name}", "n").Replace(r.GitLab.Project)
	switch {
	case r.GitLab.Project == "":
		wrong("gitlab.project is required")
	case placeholder.MatchString(filled):
		wrong("gitlab.project has %s; only {namespace} and {name} are allowed", placeholder.FindString(filled))
	case !project.MatchString(filled) && !projectID.MatchString(r.GitLab.Project):
		wrong("gitlab.project %q is neither a path, such as acme/images/api, nor an ID", r.GitLab.Project)
	}
	if !ref.MatchString(r.GitLab.Ref) {
		wrong("gitlab.ref %q is not the name of a branch or tag", r.GitLab.Ref)
	}
	if !slices.Contains([]string{PassInputs, PassVariables}, r.GitLab.Pass) {
		wrong("gitlab.pass is %q, must be inputs or variables", r.GitLab.Pass)
	}
	if !slices.Contains([]string{OncePerDigest, OncePerDelivery}, r.OncePer) {
		wrong("once_per is %q, must be digest or delivery", r.OncePer)
	}
	if err := dockerhub.CheckTag(r.Latest); err != nil {
		wrong("latest %w", err)
	}
	if r.Slack.Channel == "" {
		wrong("slack.channel is required")
	} else if _, err := ParseChannel(r.Slack.Channel); err != nil {
		wrong("slack.channel %w", err)
	}
	if r.Slack.Mention != "" && !mention.MatchString(r.Slack.Mention) {
		wrong("slack.mention is %.50q, must be @here, @channel, or the ID of a user (U…) or a user group (S…)", r.Slack.Mention)
	}
	if !slices.Contains([]string{TellAll, TellFailures}, r.Slack.Tell) {
		wrong("slack.tell is %.50q, must be all or failures", r.Slack.Tell)
	}
	for _, list := range []struct {
		name     string
		patterns []string
	}{{"include", r.Tags.Include}, {"exclude", r.Tags.Exclude}} {
		for _, p := range list.patterns {
			if _, err := matchTag(p, "1.2.3"); err != nil {
				wrong("tags.%s %q %w", list.name, p, err)
			}
		}
	}
	return append(mistakes, r.checkInputs()...)
}

// ParseChannel reads the name of a Slack channel, which should be its ID. Whether
// there is such a channel only Slack knows.
func ParseChannel(text string) (string, error) {
	if len(text) > maxChannel || !channel.MatchString(text) {
		return "", fmt.Errorf("%.100q is not a channel's ID, such as C0123456789", text)
	}
	return text, nil
}

func (r Route) checkInputs() []error {
	var mistakes []error
	if len(r.Inputs) > maxInputs {
		mistakes = append(mistakes, fmt.Errorf("inputs has %d, must be %d at most", len(r.Inputs), maxInputs))
	}
	seen := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(r.Inputs)) {
		lower := strings.ToLower(name)
		switch {
		case !inputName.MatchString(name), r.GitLab.Pass == PassVariables && strings.Contains(name, "-"):
			mistakes = append(mistakes, fmt.Errorf("inputs: %.100q cannot be the name of an input or variable", name))
		case slices.Contains(reserved, lower):
			mistakes = append(mistakes, fmt.Errorf("inputs: %q is what hubrelay itself sends", name))
		case seen[lower]:
			mistakes = append(mistakes, fmt.Errorf("inputs: %q is there twice, in different cases", name))
		case len(r.Inputs[name]) > maxInputValue:
			mistakes = append(mistakes, fmt.Errorf("inputs: the value of %q is over %d bytes", name, maxInputValue))
		}
		seen[lower] = true
	}
	return mistakes
}

func checkKey(key string) error {
	if key == Everything {
		return nil
	}
	if !IsGlob(key) {
		return dockerhub.CheckRepository(key)
	}
	if _, err := path.Match(key, "acme/api"); err != nil {
		return fmt.Errorf("%q is not a glob: a bracket or backslash is not closed", key)
	}
	if strings.Count(key, "/") != 1 {
		return fmt.Errorf("%q matches no repository of Docker Hub: write namespace/name, such as acme/*, or * for every one", key)
	}
	return nil
}

// canonical returns the full name of a repository. A name without a namespace
// is one of Docker's official images.
func canonical(name string) string {
	if name == Everything || strings.Contains(name, "/") || IsGlob(name) || dockerhub.CheckRepository(name) != nil {
		return name
	}
	return "library/" + name
}

// IsGlob reports whether a text has characters that path.Match does not take
// literally, so that it may match more than itself.
func IsGlob(text string) bool { return strings.ContainsAny(text, `*?[\`) }

func (r Route) isGlob() bool { return IsGlob(r.Key) }

func (r Route) matches(repository string) bool {
	if r.Key == Everything || r.Key == repository {
		return true
	}
	ok, _ := path.Match(r.Key, repository) // the glob was checked by Parse
	return ok && r.isGlob()
}

// All returns the routes, in the order in which they are tried.
func (t Table) All() []Route { return slices.Clone(t.routes) }

// Find returns the route of a repository with its placeholders filled. An
// exact key wins, then the longest glob.
func (t Table) Find(repository string) (Route, bool) {
	repository = canonical(repository)
	for _, r := range t.routes {
		if r.matches(repository) {
			return r.fill(repository), true
		}
	}
	return Route{}, false
}

// ByKey returns the route of a key, with its placeholders.
func (t Table) ByKey(key string) (Route, bool) {
	i := slices.IndexFunc(t.routes, func(r Route) bool { return r.Key == key })
	if i < 0 {
		return Route{}, false
	}
	return t.routes[i], true
}

// Namespaces returns the namespaces that the keys name, sorted: those whose
// repositories are known, or can be asked for.
func (t Table) Namespaces() []string {
	names, _ := Namespaces(t.keys())
	return names
}

// Repositories returns the repositories of a namespace that keys name exactly.
func (t Table) Repositories(namespace string) []string {
	var names []string
	for _, r := range t.routes {
		if !r.isGlob() && strings.HasPrefix(r.Key, namespace+"/") {
			names = append(names, r.Key)
		}
	}
	return names
}

// HasGlobs reports whether a glob may match repositories of the namespace that
// no key names.
func (t Table) HasGlobs(namespace string) bool {
	return slices.ContainsFunc(t.routes, func(r Route) bool {
		glob, _, _ := strings.Cut(r.Key, "/")
		ok, _ := path.Match(glob, namespace)
		return r.isGlob() && ok
	})
}

// Uncovered returns the keys that may match repositories of namespaces which no
// key names.
func (t Table) Uncovered() []string {
	_, globs := Namespaces(t.keys())
	return globs
}

func (t Table) keys() []string {
	var keys []string
	for _, r := range t.routes {
		keys = append(keys, r.Key)
	}
	return keys
}

// Namespaces returns the namespaces that keys of routes name, sorted, and the
// keys that name none.
func Namespaces(keys []string) (names, globs []string) {
	for _, key := range keys {
		if namespace, _, ok := strings.Cut(key, "/"); ok && !IsGlob(namespace) {
			names = append(names, namespace)
		} else {
			globs = append(globs, key)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), globs
}

// Rules is a text that differs if other tags are promoted.
func (r Route) Rules() string {
	text, _ := json.Marshal([]any{r.Tags.Include, r.Tags.Exclude, r.Latest, r.OncePer}) // strings do not fail
	return string(text)
}

func (r Route) fill(repository string) Route {
	namespace, name := path.Split(repository)
	r.GitLab.Project = strings.NewReplacer(
		"{namespace}", strings.TrimSuffix(namespace, "/"),
		"{name}", name,
	).Replace(r.GitLab.Project)
	return r
}

// OfProject returns the routes whose pipelines run in the GitLab project, with
// their placeholders.
func (t Table) OfProject(p Project) []Route {
	var found []Route
	for _, r := range t.routes {
		if r.GitLab.Project == p.ID || r.projectPattern().MatchString(p.Path) {
			found = append(found, r)
		}
	}
	return found
}

func (r Route) projectPattern() *regexp.Regexp {
	p := regexp.QuoteMeta(r.GitLab.Project)
	p = strings.NewReplacer(`\{namespace\}`, `[^/]+`, `\{name\}`, `[^/]+`).Replace(p)
	return regexp.MustCompile("(?i)^" + p + "$")
}

// Project is a GitLab project as an id token names it.
type Project struct{ ID, Path string }

// RunsIn reports whether the pipelines of a route that Find returned run in the
// project. GitLab ignores the case of a path.
func (r Route) RunsIn(p Project) bool {
	return strings.EqualFold(r.GitLab.Project, p.Path) || r.GitLab.Project == p.ID
}

func firstMatch(patterns []string, tag string) string {
	for _, p := range patterns {
		if ok, _ := matchTag(p, tag); ok { // the pattern was checked by Parse
			return p
		}
	}
	return ""
}

// matchTag matches a whole tag. A constraint matches full versions only.
func matchTag(pattern, tag string) (bool, error) {
	constraint, isSemver := strings.CutPrefix(pattern, semverPrefix)
	if !isSemver {
		if pattern == "" {
			return false, errors.New("is empty")
		}
		ok, err := path.Match(pattern, tag)
		if err != nil {
			return false, errors.New("is not a glob: a bracket or backslash is not closed")
		}
		return ok, nil
	}
	c, err := semver.NewConstraint(constraint)
	if err != nil {
		return false, fmt.Errorf("is not a version constraint: %w", err)
	}
	v, err := version(tag)
	return err == nil && c.Check(v), nil
}

// Image is what the pipeline of a promotion gets.
type Image struct {
	Repository, Tag, Digest string
	PromotionID             string
	// PushedAt is when the promotion began: a later one is newer.
	PushedAt time.Time
}

// pushedAt is RFC 3339 with a fixed width, so that two times can be compared as
// text.
const pushedAt = "2006-01-02T15:04:05.000000Z07:00"

// Values returns what the pipeline of a promotion gets, as inputs or as
// variables, as the route says.
func (r Route) Values(i Image) map[string]string {
	values := map[string]string{
		"image_repository": i.Repository,
		"image_tag":        i.Tag,
		"image_digest":     i.Digest,
		"image_pushed_at":  i.PushedAt.UTC().Format(pushedAt),
		"promotion_id":     i.PromotionID,
	}
	maps.Copy(values, r.Inputs)
	if r.GitLab.Pass != PassVariables {
		return values
	}
	upper := make(map[string]string, len(values))
	for name, value := range values {
		upper[strings.ToUpper(name)] = value
	}
	return upper
}
