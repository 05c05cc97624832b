package check

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/getto-systems/hubrelay/functions/trigger"
	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/gitlab"
	"github.com/getto-systems/hubrelay/internal/httpclient"
	"github.com/getto-systems/hubrelay/internal/route"
)

// soon is how long before its end a token should be replaced.
const soon = 14 * 24 * time.Hour

// The oldest GitLab that has what the template needs, and pipeline inputs.
var (
	oldest           = [2]int{17, 0}
	oldestWithInputs = [2]int{18, 1}
)

// templateVersion is the version of the template that a project includes.
type templateVersion struct {
	project string
	probe   *probe
	version string // once the probe is done; "" where the template does not say
}

// gitlab looks at the GitLab, and at each project with its ref.
func (c *checker) gitlab(s settings, t targets) []*templateVersion {
	needs := s.need("GITLAB_URL")
	if len(needs) == 0 && s.trigger.Pipelines == nil {
		return nil
	}
	g := gitlabChecks{checker: c, settings: s, tokens: map[string]*probe{}, keys: map[string]string{}, projects: map[string]*project{}}
	g.url = c.add("gitlab.url", "", needs, g.askVersion)
	g.issuerProbe()
	g.accessTokens()
	for _, key := range t.keys {
		c.known("gitlab.project", key, t.open[key])
		c.known("gitlab.trigger_token", key, t.open[key])
	}
	if routes := s.need("ROUTES"); len(routes) > 0 {
		for _, id := range []string{"gitlab.project", "gitlab.trigger_token", "gitlab.variables_role", "gitlab.ref"} {
			c.add(id, "", routes, nil)
		}
		for _, id := range []string{"gitlab.ci_file", "gitlab.job", "gitlab.template", "gitlab.inputs", "gitlab.workflow"} {
			if !c.Pre {
				c.add(id, "", routes, nil)
			}
		}
	}
	seen := map[string]bool{}
	first := func(parts ...string) bool {
		key := strings.Join(parts, "\x00")
		was := seen[key]
		seen[key] = true
		return !was
	}
	for _, target := range t.list { // of the routes to a project, any may have the token
		r := target.route
		if key := tokenKey(s.trigger.APITokens, r.Key); key != "" && g.keys[r.GitLab.Project] == "" {
			g.keys[r.GitLab.Project] = key
		}
	}
	for _, target := range t.list {
		r := target.route
		p := g.project(r)
		if first("token", r.GitLab.Project, tokenKey(s.trigger.Tokens, r.Key)) {
			g.triggerToken(p, r, first("project", r.GitLab.Project))
		}
		if first("role", r.GitLab.Project, r.GitLab.Pass) {
			g.variablesRole(p, r.GitLab.Pass, first("role", r.GitLab.Project))
		}
		if first("ref", r.GitLab.Project, r.GitLab.Ref) {
			g.ref(p, r.GitLab.Ref)
		}
		if sent, _ := json.Marshal(r.Inputs); first("inputs", r.GitLab.Project, r.GitLab.Ref, r.GitLab.Pass, string(sent)) {
			g.inputs(p, target)
		}
	}
	return g.templates
}

type gitlabChecks struct {
	*checker
	settings
	url       *probe
	tokens    map[string]*probe // of access tokens, by their key in GITLAB_API_TOKENS
	keys      map[string]string // that key, by the project which is asked about with the token
	projects  map[string]*project
	templates []*templateVersion
}

// project is one of GitLab's, and what was found out about it.
type project struct {
	name  string
	token env.Secret
	probe *probe
	shown gitlab.Project // once probe is done and in order
	refs  map[string]*probe
	files map[string]func(context.Context) ([]byte, error) // the CI configuration, by ref
}

// tokenKey is the key by which a route's token stands in a map of tokens, "" where
// there is none.
func tokenKey(tokens trigger.Tokens, key string) string {
	for _, k := range []string{key, route.Everything} {
		if _, ok := tokens[k]; ok {
			return k
		}
	}
	return ""
}

// refusal is what an error says of a question to which any answer but an error
// would have told.
func refusal(err error) result {
	var e *gitlab.Error
	if !errors.As(err, &e) {
		return unknown(again, "%v", err)
	}
	if e.Status == http.StatusForbidden && e.Reason == gitlab.Unauthorized {
		return unknown("Give the access token's user or project the role Reporter, and the token the scope read_api.",
			"the access token may not see it: GitLab answered %s", cmp.Or(e.Message, "403"))
	}
	return unknown(cmp.Or(e.Hint, "Run it again when GitLab answers."), "%s", e.Error())
}

// notGitLabs is the mend where an answer is JSON, and not what GitLab says.
const notGitLabs = "Check GITLAB_URL, and any proxy in front of it."

func reasonOf(err error) string {
	var e *gitlab.Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}

// statusOf returns that of GitLab's answer, or 0.
func statusOf(err error) int {
	var e *gitlab.Error
	if errors.As(err, &e) {
		return e.Status
	}
	return 0
}

func within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, callTimeout)
}

// letIn begins the mend where a proxy or firewall refuses: it may do so to this machine
// alone.
const letIn = "Let this machine through the proxy or firewall that refuses it, or correct "

func keptOut(status int) bool {
	return status == http.StatusUnauthorized || status == http.StatusForbidden || status == http.StatusProxyAuthRequired
}

func (g *gitlabChecks) askVersion(ctx context.Context) result {
	ctx, cancel := within(ctx)
	defer cancel()
	host := g.trigger.Pipelines.Host()
	text, err := g.trigger.Pipelines.Version(ctx, env.Secret{})
	for _, key := range slices.Sorted(maps.Keys(g.trigger.APITokens)) { // any that GitLab takes will do
		if reasonOf(err) == gitlab.Unauthorized {
			text, err = g.trigger.Pipelines.Version(ctx, g.trigger.APITokens[key])
		}
	}
	status := statusOf(err)
	switch reason := reasonOf(err); {
	case reason == gitlab.Unauthorized:
		return pass("GitLab's API answers at %s; it shows its version only to those with an access token", host)
	case reason == gitlab.Rejected && keptOut(status):
		return unknown(letIn+"GITLAB_URL.", "what answers at %s keeps this machine out: %d, and not from GitLab's API", host, status)
	case reason == gitlab.Redirected, reason == gitlab.Rejected, reason == gitlab.NotFound:
		return fail("Set GITLAB_URL to the base URL of GitLab.", "what answers at %s is not GitLab's API", host)
	case err != nil:
		return refusal(err)
	}
	version, ok := majorMinor(text)
	inputs := slices.ContainsFunc(g.trigger.Routes.All(), func(r route.Route) bool { return r.GitLab.Pass == route.PassInputs })
	switch {
	case !ok:
		return unknown("Open Help in GitLab: it shows the version.", "GitLab's answer names no version")
	case slices.Compare(version[:], oldest[:]) < 0:
		return fail("Upgrade GitLab: the template needs 17.0.", "GitLab is %s", text)
	case inputs && slices.Compare(version[:], oldestWithInputs[:]) < 0:
		return fail("Set gitlab.pass of the routes to variables, or upgrade GitLab: pipeline inputs need 18.1.", "GitLab is %s", text)
	}
	return pass("GitLab is %s", text)
}

var versionNumber = regexp.MustCompile(`^([0-9]+)\.([0-9]+)(?:[.-]|$)`)

func majorMinor(text string) (v [2]int, ok bool) {
	parts := versionNumber.FindStringSubmatch(text)
	if parts == nil {
		return v, false
	}
	major, err := strconv.Atoi(parts[1])
	minor, err2 := strconv.Atoi(parts[2])
	return [2]int{major, minor}, err == nil && err2 == nil
}

// issuerProbe asks the issuer of id tokens for its name, as Notify will.
func (g *gitlabChecks) issuerProbe() {
	needs := g.need("OIDC_ISSUER", "OIDC_AUDIENCE")
	if len(needs) == 0 && g.notify.IDTokens == nil {
		g.known("gitlab.issuer", "", notAsked("id tokens are not taken: OIDC_AUDIENCE is not set"))
		return
	}
	issuer := g.notify.Issuer
	g.add("gitlab.issuer", "", needs, func(ctx context.Context) result {
		got, err := get(ctx, issuer+"/.well-known/openid-configuration", nil)
		if err != nil {
			return unknown("Let this machine reach "+issuer+", or check it from a machine that does.", "%s did not answer: %v", issuer, err)
		}
		var said struct {
			Issuer string `json:"issuer"`
		}
		switch _ = json.Unmarshal(got.body, &said); {
		case got.status >= 500, got.status == http.StatusTooManyRequests:
			return unknown("Run it again when it answers.", "%s answered %d", issuer, got.status)
		case keptOut(got.status):
			return unknown(letIn+"OIDC_ISSUER.", "%s answered %d", issuer, got.status)
		case got.status != http.StatusOK, said.Issuer == "":
			return fail("Set OIDC_ISSUER to the URL of GitLab.", "%s names no issuer: it answered %d", issuer, got.status)
		case said.Issuer != issuer:
			return fail("Set OIDC_ISSUER to what GitLab calls itself, or correct GitLab's external_url.", "GitLab calls itself %s, and OIDC_ISSUER is %s", said.Issuer, issuer)
		}
		return pass("%s", issuer)
	})
}

func (g *gitlabChecks) accessTokens() {
	needs := append(g.need("GITLAB_API_TOKENS", "ROUTES"), g.url)
	if len(g.trigger.APITokens) == 0 {
		g.tokens[""] = g.add("gitlab.api_token", "", needs, func(context.Context) result {
			return notAsked("GITLAB_API_TOKENS is not set: what only an access token can see was not asked")
		})
		return
	}
	for _, key := range slices.Sorted(maps.Keys(g.trigger.APITokens)) {
		token := g.trigger.APITokens[key]
		g.tokens[key] = g.add("gitlab.api_token", key, needs, func(ctx context.Context) result {
			return g.accessToken(ctx, key, token)
		})
	}
}

func (g *gitlabChecks) accessToken(ctx context.Context, key string, token env.Secret) result {
	ctx, cancel := within(ctx)
	defer cancel()
	mend := fmt.Sprintf("Make an access token of the project or its group with the role Reporter and the scope read_api, and set it for %q in GITLAB_API_TOKENS.", key)
	const look = "Look at the token in GitLab: Settings > Access tokens of the project, group or user."
	self, err := g.trigger.Pipelines.Self(ctx, token)
	var e *gitlab.Error
	switch {
	case errors.As(err, &e) && e.Reason == gitlab.Unauthorized && e.Status == http.StatusUnauthorized:
		return fail(mend, "GitLab does not accept it: %s", cmp.Or(e.Message, "401"))
	case errors.As(err, &e) && e.Reason == gitlab.NotFound:
		return result{status: Skip, found: "this GitLab does not describe tokens", goOn: true}
	case err != nil:
		return refusal(err)
	case !self.Active && self.Scopes == nil:
		return unknown(look, "GitLab's answer does not say whether the token is active")
	case !self.Active:
		return fail(mend, "the token is not active")
	case !slices.Contains(self.Scopes, "read_api") && !slices.Contains(self.Scopes, "api"):
		return fail(mend, "the token has the scopes %s", cmp.Or(strings.Join(self.Scopes, ", "), "none"))
	}
	expires := self.Expires()
	found := "active, with " + strings.Join(self.Scopes, ", ")
	switch left := time.Until(expires); {
	case expires.IsZero() && self.ExpiresAt != "":
		return unknown(look, "%s, until %s, which is not a date", found, self.ExpiresAt)
	case expires.IsZero():
		return pass("%s, never expires", found)
	case left < soon:
		return warn(mend, "%s, until %s", found, self.ExpiresAt)
	}
	return pass("%s, until %s", found, self.ExpiresAt)
}

// project returns the project of a route, which is looked at once.
func (g *gitlabChecks) project(r route.Route) *project {
	if p, ok := g.projects[r.GitLab.Project]; ok {
		return p
	}
	key := g.keys[r.GitLab.Project]
	p := &project{
		name: r.GitLab.Project, token: g.trigger.APITokens[key],
		refs: map[string]*probe{}, files: map[string]func(context.Context) ([]byte, error){},
	}
	g.projects[p.name] = p
	needs := []*probe{g.url}
	if key != "" {
		needs = append(needs, g.tokens[key])
	}
	p.probe = g.asked("gitlab.project", p.name, p, needs, func(ctx context.Context) result {
		var r result
		p.shown, r = g.showProject(ctx, p)
		return r
	})
	return p
}

// asked adds a probe that takes an access token.
func (g *gitlabChecks) asked(id, subject string, p *project, needs []*probe, run func(context.Context) result) *probe {
	if wrong := g.need("GITLAB_API_TOKENS"); len(wrong) > 0 {
		return g.add(id, subject, wrong, nil)
	}
	if p.token.IsZero() {
		return g.known(id, subject, notAsked("GITLAB_API_TOKENS has no token for it"))
	}
	return g.add(id, subject, needs, func(ctx context.Context) result {
		ctx, cancel := within(ctx)
		defer cancel()
		return run(ctx)
	})
}

func (g *gitlabChecks) showProject(ctx context.Context, p *project) (gitlab.Project, result) {
	shown, err := g.trigger.Pipelines.Project(ctx, p.name, p.token)
	_, notNumber := strconv.ParseInt(p.name, 10, 64)
	const moved = "Set gitlab.project of the route to the new path, or to the project's ID, which stays: id tokens name the new path."
	switch reason := reasonOf(err); {
	case reason == gitlab.NotFound:
		return shown, fail("Correct gitlab.project of the route, or let the access token see the project.",
			"GitLab answered 404: there is no such project, or the access token does not see it")
	case reason == gitlab.Redirected:
		return shown, fail(moved, "the project was moved or renamed")
	case err != nil:
		return shown, refusal(err)
	case shown.Path == "":
		return shown, unknown(notGitLabs, "GitLab's answer names no project")
	case notNumber != nil && !strings.EqualFold(shown.Path, p.name):
		return shown, fail(moved, "the project was moved to %s", shown.Path)
	case shown.Archived:
		return shown, fail("Unarchive it (Settings > General > Advanced), or set another project in the route.", "the project is archived")
	case shown.BuildsAccess == "disabled":
		return shown, fail("Switch CI/CD on: Settings > General > Visibility, project features, permissions.", "CI/CD is switched off")
	case shown.Empty:
		return shown, fail("Push a commit with .gitlab-ci.yml.", "the repository is empty")
	}
	return shown, pass("%s, ID %d", shown.Path, shown.ID)
}

// triggerToken asks for a pipeline on a ref that cannot exist. GitLab looks at the
// token first, then at the rights of its maker, and only then at the ref.
func (g *gitlabChecks) triggerToken(p *project, r route.Route, first bool) {
	subject, token := p.name, g.trigger.Tokens.Of(r.Key)
	if !first {
		subject += " by " + tokenKey(g.trigger.Tokens, r.Key)
	}
	needs := append(g.need("GITLAB_TRIGGER_TOKENS"), g.url)
	asked := g.add("gitlab.trigger_token", subject, needs, func(ctx context.Context) result {
		switch {
		case g.NoTrigger:
			return notAsked("switched off by -no-trigger")
		case token.IsZero():
			return notAsked("GITLAB_TRIGGER_TOKENS has no token for it")
		}
		ctx, cancel := within(ctx)
		defer cancel()
		random := make([]byte, 8)
		_, _ = rand.Read(random) // never fails
		created, err := g.trigger.Pipelines.CreatePipeline(ctx, gitlab.Request{
			Project: p.name, Ref: "hubrelay-check-" + hex.EncodeToString(random), Token: token,
		})
		return judgeTrigger(created, err, p, tokenKey(g.trigger.Tokens, r.Key))
	})
	asked.after = []*probe{p.probe}
}

func judgeTrigger(created gitlab.Pipeline, err error, p *project, key string) result {
	var e *gitlab.Error
	if err == nil {
		return fail("CANCEL THE PIPELINE, see what it has done, and report this as a bug of hubrelay. Until then use -no-trigger.",
			"GITLAB HAS CREATED A PIPELINE on a ref that does not exist: %s", cmp.Or(created.URL, "it does not say which"))
	}
	if !errors.As(err, &e) {
		return unknown(again, "%v", err)
	}
	newToken := fmt.Sprintf("Make a token in Settings > CI/CD > Pipeline trigger tokens of %s, and set it for %q in GITLAB_TRIGGER_TOKENS.", p.name, key)
	seen := p.probe.result
	switch {
	case e.Reason == gitlab.ReferenceNotFound:
		return pass("GitLab accepts the token, and its owner may run pipelines")
	case e.Astray:
		return fail(e.Hint, "GitLab answered 404 to the path of the request, before it looked at the project or the token: %s", e.Message)
	case e.Reason == gitlab.NotFound && p.shown.Path != "":
		return fail(newToken, "the project is there, and GitLab answered 404: the token is not one of this project, or was revoked")
	case e.Reason == gitlab.NotFound && seen.status == Fail:
		return fail("Correct gitlab.project first.", "GitLab answered 404, as it does to the access token: the project is wrong, and the token perhaps, too")
	case e.Reason == gitlab.NotFound && p.token.IsZero():
		return fail("Check the path of the project, then the token. With an access token in GITLAB_API_TOKENS hubrelay check can tell which of the two is wrong.",
			"GitLab answered 404: the project or the token is wrong, and GitLab does not say which")
	case e.Reason == gitlab.NotFound:
		return fail("Check the path of the project, then the token.", "GitLab answered 404: the project or the token is wrong, and GitLab does not say which")
	case e.Temporary():
		return unknown(cmp.Or(e.Hint, "Run it again."), "%s", e.Error())
	}
	return fail(e.Hint, "%s", e.Error())
}

func (g *gitlabChecks) variablesRole(p *project, how string, first bool) {
	subject := p.name
	if !first {
		subject += " with pass: " + how
	}
	g.asked("gitlab.variables_role", subject, p, []*probe{p.probe}, func(context.Context) result {
		role := p.shown.VariablesRole
		switch {
		case role == "":
			return notAsked("GitLab shows it to a Maintainer only; look at Settings > CI/CD > Variables > Minimum role to use pipeline variables")
		case how == route.PassVariables && role == "no_one_allowed":
			return fail("Raise Settings > CI/CD > Variables > Minimum role to use pipeline variables, or set gitlab.pass of the route to inputs.",
				"no one may set pipeline variables").wanting("a role that the owner of the trigger token has")
		case how == route.PassInputs && role != "no_one_allowed":
			return warn("Set Settings > CI/CD > Variables > Minimum role to use pipeline variables to no one: a variable wins over every setting of the template.",
				"%s may set pipeline variables", role).wanting("no one, with pass: inputs")
		}
		return pass("%s, with pass: %s", role, how)
	})
}

// ref looks at a branch or tag, and at the configuration that stands there.
func (g *gitlabChecks) ref(p *project, ref string) {
	subject := p.name + "@" + ref
	refProbe := g.asked("gitlab.ref", subject, p, []*probe{p.probe}, func(ctx context.Context) result {
		found, kind := gitlab.Ref{}, "branch"
		found, err := g.trigger.Pipelines.Branch(ctx, p.name, ref, p.token)
		if reasonOf(err) == gitlab.NotFound {
			kind = "tag"
			found, err = g.trigger.Pipelines.Tag(ctx, p.name, ref, p.token)
		}
		switch {
		case reasonOf(err) == gitlab.NotFound:
			return fail("Set gitlab.ref of the route to a branch or tag of the project, or push it.", "there is neither a branch nor a tag %s", ref)
		case err != nil:
			return refusal(err)
		case found.Name == "":
			return unknown(notGitLabs, "GitLab's answer does not say which %s it is", kind)
		case !found.Protected:
			r := fail("Protect it: Settings > Repository > Protected branches, or tags. Notify refuses reports of others, and they have no protected variables.",
				"%s is a %s that is not protected", ref, kind)
			r.goOn = true
			return r
		}
		return pass("%s is a protected %s", ref, kind)
	})
	p.refs[ref] = refProbe
	if g.Pre { // the file names what the deploy makes
		return
	}
	var lint gitlab.Lint
	file := g.asked("gitlab.ci_file", subject, p, []*probe{refProbe}, func(ctx context.Context) result {
		var err error
		lint, err = g.trigger.Pipelines.Lint(ctx, p.name, ref, p.token)
		switch {
		case err != nil:
			return refusal(err)
		case !lint.Valid && len(lint.Errors) == 0:
			return unknown("Look at it in Build > Pipeline editor.", "GitLab's answer does not say what is wrong")
		case !lint.Valid:
			return fail("Fix .gitlab-ci.yml: Build > Pipeline editor shows where.", "GitLab finds errors: %s", strings.Join(lint.Errors, "; "))
		}
		return pass("GitLab finds no errors")
	})
	g.asked("gitlab.job", subject, p, []*probe{file}, func(context.Context) result {
		if lint.Jobs == nil {
			return notAsked("GitLab does not list the jobs")
		}
		for _, job := range lint.Jobs {
			if job.Name == gitlab.PromotionJob {
				return pass("%s is one of %s", job.Name, count(len(lint.Jobs), "job"))
			}
		}
		return fail("Include the template in .gitlab-ci.yml.", "the configuration has %s, and %s is none of them", count(len(lint.Jobs), "job"), gitlab.PromotionJob)
	})
	version := &templateVersion{project: subject}
	version.probe = g.asked("gitlab.template", subject, p, []*probe{file}, func(context.Context) result {
		var r result
		version.version, r = template(lint)
		return r
	})
	g.templates = append(g.templates, version)
	g.workflow(p, ref, subject, file, &lint)
}

// hubrelayVersion stands in the variables of the template's jobs.
var hubrelayVersion = regexp.MustCompile(`(?m)^\s*HUBRELAY_VERSION: ["']?([0-9A-Za-z.+-]{1,64})["']?\s*$`)

// template says which version of the template a configuration includes, and how it
// is pinned.
func template(l gitlab.Lint) (version string, r result) {
	if m := hubrelayVersion.FindStringSubmatch(l.Merged); m != nil {
		version = m[1]
	}
	of := ""
	if version != "" {
		of = ", version " + version
	}
	included := ""
	for _, include := range l.Includes {
		location := include.Location
		if !strings.Contains(location, "promote") {
			continue
		}
		var names []string // of which one is a version or a commit
		switch {
		case include.Type == "component":
			_, ref, _ := strings.Cut(location, "@")
			names = []string{ref}
		case include.Type == "remote":
			names = strings.FieldsFunc(location, func(c rune) bool { return strings.ContainsRune("/@?&=", c) })
		case include.Extra.Ref != "":
			location += "@" + include.Extra.Ref
			names = []string{include.Extra.Ref}
		default: // a file of this project
			included = cmp.Or(included, location)
			continue
		}
		if !slices.ContainsFunc(names, pinned) {
			return version, warn("Pin it to a version or a commit: the template sees the key.", "%s%s, which can change", location, of)
		}
		included = cmp.Or(included, location)
	}
	switch {
	case included != "":
		return version, pass("%s%s", included, of)
	case version != "":
		return version, pass("version %s", version)
	}
	return "", notAsked("no include of the configuration is called promote")
}

// pinned tells whether a name is that of a version, or of a commit. GitLab takes 1 and
// 1.2 for the newest version that begins so. Digits alone are the ID of a project.
func pinned(name string) bool {
	return fullVersion.MatchString(name) || commit.MatchString(name) && strings.ContainsAny(name, "abcdef")
}

var (
	fullVersion = regexp.MustCompile(`^v?[0-9]+\.[0-9]+\.[0-9]+(?:[-+][0-9A-Za-z.+-]+)?$`)
	commit      = regexp.MustCompile(`^[0-9a-f]{7,64}$`)
)

// file returns what reads the CI configuration of a project at a ref, once.
func (g *gitlabChecks) file(p *project, ref string) func(context.Context) ([]byte, error) {
	if read, ok := p.files[ref]; ok {
		return read
	}
	var (
		once sync.Once
		text []byte
		err  error
	)
	read := func(ctx context.Context) ([]byte, error) {
		once.Do(func() {
			text, err = g.trigger.Pipelines.File(ctx, p.name, ref, cmp.Or(p.shown.ConfigPath, ".gitlab-ci.yml"), p.token)
		})
		return text, err
	}
	p.files[ref] = read
	return read
}

// readConfig reads the CI configuration, or says why it cannot be.
func readConfig(ctx context.Context, p *project, read func(context.Context) ([]byte, error)) (config, *result) {
	stop := func(r result) (config, *result) { return config{}, &r }
	if path := p.shown.ConfigPath; strings.Contains(path, "@") || strings.Contains(path, "://") {
		return stop(notAsked("the configuration is in another place: %s", path))
	}
	text, err := read(ctx)
	switch {
	case reasonOf(err) == gitlab.NotFound:
		return stop(fail("Commit .gitlab-ci.yml to the ref.", "there is no %s", cmp.Or(p.shown.ConfigPath, ".gitlab-ci.yml")))
	case err != nil:
		return stop(refusal(err))
	}
	parsed, err := parseConfig(text)
	if err != nil {
		return stop(unknown("Look at it in Build > Pipeline editor.", "the configuration cannot be read here: %v", err))
	}
	return parsed, nil
}

// inputs compares what a route sends with what the configuration declares.
func (g *gitlabChecks) inputs(p *project, t target) {
	if g.Pre {
		return
	}
	r := t.route
	repository := cmp.Or(t.repository, "acme/example")
	read := g.file(p, r.GitLab.Ref)
	g.asked("gitlab.inputs", cmp.Or(t.repository, r.Key), p, []*probe{p.probe, p.refs[r.GitLab.Ref]}, func(ctx context.Context) result {
		parsed, stop := readConfig(ctx, p, read)
		if stop != nil {
			return *stop
		}
		sent := map[string]string{} // with pass: variables
		if r.GitLab.Pass == route.PassInputs {
			sent = r.Values(route.Image{
				Repository: repository, Tag: cmp.Or(t.tag, "1.0.0"), Digest: "sha256:" + strings.Repeat("0", 64),
				PromotionID: strings.Repeat("0", 32), PushedAt: time.Now(),
			})
		}
		switch mistakes := parsed.refuses(sent); {
		case len(mistakes) > 0:
			return fail("Correct spec: inputs: at the head of .gitlab-ci.yml, or the route's inputs.", "%s", strings.Join(mistakes, "; "))
		case parsed.InputsElsewhere:
			return notAsked("spec: include: has inputs declared in other files, which are not read here")
		case len(sent) == 0:
			return pass("none is sent, and none is required")
		}
		return pass("%s, all declared", count(len(sent), "input"))
	})
}

// workflow looks at what stands in the project's own file or, where it has none, in
// one that it includes.
func (g *gitlabChecks) workflow(p *project, ref, subject string, file *probe, lint *gitlab.Lint) {
	read := g.file(p, ref)
	g.asked("gitlab.workflow", subject, p, []*probe{file}, func(ctx context.Context) result {
		parsed, stop := readConfig(ctx, p, read)
		if merged, err := parseConfig([]byte(lint.Merged)); stop == nil && parsed.Workflow.Name == "" && err == nil {
			parsed.Workflow = merged.Workflow
		}
		switch {
		case stop != nil:
			return *stop
		case parsed.Workflow.Name == "":
			return warn("Give workflow: a name, as the page shows: it shows which image a pipeline is about.", "workflow: has no name")
		case !parsed.keepsPromotions():
			return warn("Set auto_cancel: on_new_commit: none, as the page shows: else a commit cancels a promotion that waits.", "workflow: has a name, and no auto_cancel")
		}
		return pass("named %s", parsed.Workflow.Name)
	})
}

// got is an answer to a question that is no adapter's.
type got struct {
	status int
	header http.Header
	body   []byte
}

var plain = sync.OnceValue(func() *http.Client { return httpclient.New(callTimeout) })

func get(ctx context.Context, address string, header http.Header) (got, error) {
	return ask(ctx, http.MethodGet, address, header, nil)
}

// ask sends one request. Its error holds no URL.
func ask(ctx context.Context, method, address string, header http.Header, body []byte) (got, error) {
	r, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return got{}, errors.New("it is no URL")
	}
	maps.Copy(r.Header, header)
	r.Header.Set("User-Agent", "hubrelay check")
	res, err := plain().Do(r)
	if err != nil {
		return got{}, httpclient.Unanswered(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return got{}, httpclient.Unanswered(err)
	}
	return got{res.StatusCode, res.Header, answer}, nil
}
