package check_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	diff "github.com/google/go-cmp/cmp"

	"github.com/getto-systems/hubrelay/functions/notify"
	"github.com/getto-systems/hubrelay/functions/trigger"
	"github.com/getto-systems/hubrelay/functions/webhook"
	"github.com/getto-systems/hubrelay/internal/check"
	"github.com/getto-systems/hubrelay/internal/gitlab/gitlabtest"
	"github.com/getto-systems/hubrelay/internal/hub/hubtest"
	"github.com/getto-systems/hubrelay/internal/slack/slacktest"
)

// want is what a finding must say.
type want struct {
	name   string // ID and subject
	status string // pass, warn, fail, skip or unknown
	says   string // a part of what was found
	mend   string // a part of the mend
}

func (w want) check(t *testing.T, r check.Report) {
	t.Helper()
	f := find(t, r, w.name)
	status := string(f.Status)
	if f.Unknown {
		status = "unknown"
	}
	parts := strings.Split(f.Found, "; ")
	slices.Sort(parts)
	if once := slices.Compact(slices.Clone(parts)); len(once) < len(parts) {
		t.Errorf("%s says something twice: %s", w.name, f.Found)
	}
	if status != w.status || !strings.Contains(f.Found, w.says) || !strings.Contains(f.Mend, w.mend) {
		t.Errorf("%s is %s: %s\nmend: %s\nwant %s: %s\nmend: %s", w.name, status, f.Found, f.Mend, w.status, w.says, w.mend)
	}
	if (f.Status == check.Fail || f.Status == check.Warn) && f.Mend == "" {
		t.Errorf("%s is %s and does not say what to mend", w.name, status)
	}
	if f.Wanted == "" || !strings.HasPrefix(f.Page, check.Docs) {
		t.Errorf("%s wants %q, and its page is %q", w.name, f.Wanted, f.Page)
	}
}

const (
	project = "acme/images/api"
	onMain  = "acme/images/api@main"
	channel = "slack.channel C0123456789"
)

// routes makes ROUTES of one route.
func routes(key, rest string) string {
	return `{"` + key + `": {` + rest + `}}`
}

const (
	toAPI     = `"gitlab": {"project": "acme/images/api"}`
	toChannel = `"slack": {"channel": "C0123456789"}`
)

// Each finding, in each of its outcomes.
func TestFindings(t *testing.T) {
	t.Parallel()
	set := func(name, value string) func(*world) { return func(w *world) { w.settings[name] = value } }
	unset := func(names ...string) func(*world) {
		return func(w *world) {
			for _, name := range names {
				delete(w.settings, name)
			}
		}
	}
	refused := func(status int, body string) func(*world) {
		return func(w *world) {
			w.gitlab.AnswerQuestions(&gitlabtest.Failure{Status: status, Body: body, Header: http.Header{"Content-Type": {"application/json"}}})
		}
	}
	for _, c := range []struct {
		name   string
		change func(*world)
		wants  []want
	}{
		{"all is set up right", func(*world) {}, []want{
			{"settings.webhook", "pass", "1 token, and TOPIC projects/acme/topics/pushes", ""},
			{"settings.trigger", "pass", "1 route, GitLab at", ""},
			{"settings.notify", "pass", "1 shared token", ""},
			{"settings.issuer", "pass", "http://", ""},
			{"settings.ledger", "pass", "firestore:projects/acme/databases/hubrelay", ""},
			{"routes.table", "pass", "acme/api", ""},
			{"routes.tags acme/api", "pass", "every tag but latest", ""},
			{"routes.missed", "pass", "acme", ""},
			{"gitlab.url", "pass", "18.5.0-ee", ""},
			{"gitlab.issuer", "pass", "http://", ""},
			{"gitlab.api_token *", "pass", "active, with read_api", ""},
			{"gitlab.project " + project, "pass", "ID 7", ""},
			{"gitlab.trigger_token " + project, "pass", "GitLab accepts the token", ""},
			{"gitlab.variables_role " + project, "pass", "no_one_allowed", ""},
			{"gitlab.ref " + onMain, "pass", "main is a protected branch", ""},
			{"gitlab.ci_file " + onMain, "pass", "no errors", ""},
			{"gitlab.job " + onMain, "pass", "hubrelay-promote is one of 4 jobs", ""},
			{"gitlab.template " + onMain, "pass", "promote@1.2.0, version 1.2.0", ""},
			{"gitlab.inputs acme/api", "pass", "5 inputs, all declared", ""},
			{"gitlab.workflow " + onMain, "pass", "named $PIPELINE_NAME", ""},
			{"dockerhub.account", "pass", "accepts the account", ""},
			{"dockerhub.pull acme/api", "pass", "latest is sha256:0123456789ab", ""},
			{"dockerhub.limit", "pass", "names no limit", ""},
			{"dockerhub.missed acme", "pass", "audit log", ""},
			{"slack.token", "pass", "hubrelay in Sandbox", ""},
			{"slack.scopes", "pass", "chat:write", ""},
			{channel, "pass", "the bot is in #images", ""},
			{"deployed.webhook", "pass", "200", ""},
			{"deployed.webhook_token token 1 of 1", "pass", "Webhook accepts it", ""},
			{"deployed.notify", "pass", "200", ""},
			{"deployed.notify_token token 1 of 1", "pass", "Notify accepts it", ""},
			{"deployed.trigger", "pass", "403 without credentials", ""},
			{"deployed.version", "pass", "Webhook 1.2.0, Notify 1.2.0, the template of acme/images/api@main 1.2.0", ""},
		}},

		// Settings.
		{"a file with a misspelt name", func(w *world) { w.options.Names = []string{"ROUTES", "GITLAB_TRIGGER_TOKEN"} }, []want{
			{"settings.names GITLAB_TRIGGER_TOKEN", "warn", "is not a setting of hubrelay, and GITLAB_TRIGGER_TOKENS is", "Correct the name"},
		}},
		{"a file with a name in lower case", func(w *world) { w.options.Names = []string{"registry_auth"} }, []want{
			{"settings.names registry_auth", "warn", "and REGISTRY_AUTH is", ""},
		}},
		{"a file whose names are all read", func(w *world) { w.options.Names = []string{"ROUTES", "TOPIC"} }, []want{{"settings.names", "pass", "2 settings", ""}}},
		{"a file with names of others", func(w *world) {
			w.options.Names = []string{"WEBHOOK_TOKENS", "WEBHOOK_TOKEN", "TF_VAR_webhook_tokens", "TF_VAR_slack_bot_token", "COSIGN_PASSWORD", "PATH", "A", "TOKEN", "LOGGER"}
		}, []want{{"settings.names", "pass", "1 setting,", ""}}},
		{"a webhook token that is too short", set("WEBHOOK_TOKENS", "canary"), []want{
			{"settings.webhook WEBHOOK_TOKENS", "fail", "shorter than 20 characters", "Set WEBHOOK_TOKENS"},
			{"deployed.webhook_token token 1 of 1", "skip", "needs settings.webhook WEBHOOK_TOKENS, which failed", ""},
		}},
		{"a dead-letter topic without its project", set("DEAD_LETTER_TOPIC", "dead"), []want{
			{"settings.trigger DEAD_LETTER_TOPIC", "fail", "is not the full name of a topic", ""},
			{"gitlab.ref " + onMain, "pass", "", ""},
		}},
		{"a mistake that two readers of a setting find", set("GITLAB_URL", "https://gitlab.example/?x"), []want{{"settings.trigger GITLAB_URL", "fail", "without user, query or fragment", ""}}},
		{"a topic that the deploy makes", unset("TOPIC"), []want{{"settings.webhook TOPIC", "fail", "is required", "-pre"}}},
		{"nobody could report", unset("OIDC_AUDIENCE", "NOTIFY_TOKENS"), []want{
			{"settings.notify OIDC_AUDIENCE", "fail", "nobody could report", ""},
			{"deployed.notify_token", "skip", "NOTIFY_TOKENS is not set", ""},
		}},
		{"two mistakes in one setting", set("ROUTES", `{"acme/api": {}}`), []want{
			{"settings.trigger ROUTES", "fail", "gitlab.project is required; \"acme/api\": slack.channel is required", ""},
			{"routes.table", "skip", "needs settings.trigger ROUTES, which failed", ""},
			{"routes.tags", "skip", "needs settings.trigger ROUTES", ""},
			{"routes.missed", "skip", "needs settings.trigger ROUTES", ""},
		}},
		{"id tokens of another GitLab", set("OIDC_ISSUER", "https://gitlab.com"), []want{{"settings.issuer", "fail", "OIDC_ISSUER is https://gitlab.com, and GITLAB_URL is", "401"}}},
		{"no id tokens", unset("OIDC_AUDIENCE"), []want{
			{"settings.issuer", "skip", "OIDC_AUDIENCE is not set", ""}, {"gitlab.issuer", "skip", "OIDC_AUDIENCE is not set", ""},
		}},
		{"a GitLab that is no URL", set("GITLAB_URL", "gitlab.example"), []want{
			{"settings.trigger GITLAB_URL", "fail", "must be a URL", ""}, {"settings.issuer", "skip", "GITLAB_URL", ""},
			{"gitlab.url", "skip", "needs settings.trigger GITLAB_URL, which failed", ""},
		}},
		{"a ledger in memory", set("LEDGER", "memory:x"), []want{
			{"settings.ledger", "warn", "gone with the process", "Firestore"}, {"deployed.heard acme/api", "skip", "cannot be read from here", ""},
		}},
		{"a ledger that is none", set("LEDGER", "mysql:x"), []want{
			{"settings.trigger LEDGER", "fail", "is not a ledger", ""}, {"settings.ledger", "skip", "needs settings.trigger LEDGER", ""},
			{"deployed.heard acme/api", "skip", "needs settings.trigger LEDGER", ""},
		}},

		// Routes.
		{"no route", set("ROUTES", `{}`), []want{{"routes.table", "fail", "there is no route", "Write a route"}}},
		{"a key as docker pull takes it", set("ROUTES", routes("docker.io/acme/api", toAPI+","+toChannel)), []want{
			{"routes.table docker.io/acme/api", "fail", `leave out docker.io/: Docker Hub calls it "acme/api"`, "matches no push"}, {"routes.table", "pass", "1 route", ""},
		}},
		{"everything is excluded", set("ROUTES", routes("acme/api", toAPI+","+toChannel+`,"tags":{"exclude":["*"]}`)), []want{{"routes.tags acme/api", "fail", "tags.exclude has * alone", ""}}},
		{"some tags are excluded", set("ROUTES", routes("acme/api", toAPI+","+toChannel+`,"tags":{"exclude":["*-rc*"]}`)), []want{{"routes.tags acme/api", "pass", `every tag but latest and what "*-rc*" match`, ""}}},
		{"everything is excluded in other words", set("ROUTES", routes("acme/api", toAPI+","+toChannel+`,"tags":{"include":["semver:>=1"],"exclude":["**"]}`)), []want{{"routes.tags acme/api", "fail", `no tag can be promoted: what "semver:>=1"`, ""}}},
		{"what is included is a part of what is excluded", set("ROUTES", routes("acme/api", toAPI+","+toChannel+`,"tags":{"include":["v1.*","v2.[0-9]","w*"],"exclude":["v*"]}`)), []want{{"routes.tags acme/api", "warn", `nothing is promoted by "v1.*", "v2.[0-9]": `, ""}}},
		{"what is excluded is only in a class of what is included", set("ROUTES", routes("acme/api", toAPI+","+toChannel+`,"tags":{"include":["v[0-9].*","[1-3]","a\\*b"],"exclude":["*-*","*2*"]}`)), []want{{"routes.tags acme/api", "pass", "match", ""}}},
		{"what is excluded is a part of what is included", set("ROUTES", routes("acme/api", toAPI+","+toChannel+`,"tags":{"include":["v*","s*"],"exclude":["v?","*-rc*","semver:<1"]}`)), []want{{"routes.tags acme/api", "pass", `what "v*", "s*" match`, ""}}},
		{"what is included is excluded", set("ROUTES", routes("acme/api", toAPI+","+toChannel+`,"tags":{"include":["v*"],"exclude":["v*"]}`)), []want{{"routes.tags acme/api", "fail", `no tag can be promoted: what "v*"`, "-explain"}}},
		{"only the moving tag is included", set("ROUTES", routes("acme/api", toAPI+","+toChannel+`,"latest":"stable","tags":{"include":["stable"]}`)), []want{{"routes.tags acme/api", "fail", "the moving tag stable", ""}}},
		{"a pattern that promotes nothing", set("ROUTES", routes("acme/api", toAPI+","+toChannel+`,"tags":{"include":["v*","latest"]}`)), []want{{"routes.tags acme/api", "warn", `nothing is promoted by "latest": `, ""}}},
		{"versions only", set("ROUTES", routes("acme/api", toAPI+","+toChannel+`,"tags":{"include":["semver:>=1.2"]}`)), []want{{"routes.tags acme/api", "pass", `what "semver:>=1.2" match`, ""}}},
		{"a key without a namespace", set("ROUTES", routes("*", toAPI+","+toChannel)), []want{
			{"routes.missed", "warn", `there is no namespace in "*"; missed pushes are looked for in none`, "Write a key for each namespace"},
			{"gitlab.project *", "skip", "names no namespace", ""},
			{"gitlab.project " + project, "pass", "", ""},
			{"dockerhub.pull *", "skip", "-image", ""},
		}},

		// Which repositories a glob stands for.
		{"a glob, by what Docker Hub has", set("ROUTES", routes("acme/*", `"gitlab":{"project":"acme/images/{name}"},`+toChannel)), []want{
			{"gitlab.project " + project, "pass", "", ""}, {"dockerhub.pull acme/api", "pass", "", ""}, {"gitlab.inputs acme/api", "pass", "", ""},
		}},
		{"a glob that matches many repositories", func(w *world) {
			w.settings["ROUTES"] = routes("acme/*", `"gitlab":{"project":"acme/images/{name}"},`+toChannel)
			for i := range 8 {
				w.hub.Push(hubtest.Push{Repository: "acme/x" + strings.Repeat("y", i), Tag: "1.0.0", Digest: digest})
			}
		}, []want{{"gitlab.project acme/*", "skip", "only the 5 that were pushed last are checked, of 9 repositories", ""}}},
		{"too many repositories", func(w *world) {
			var many []string
			for i := range 102 {
				many = append(many, fmt.Sprintf(`"acme/x%d": {%s,%s}`, 100+i, toAPI, toChannel))
			}
			w.settings["ROUTES"] = "{" + strings.Join(many, ",") + "}"
			w.options.Only = []string{"gitlab.project", "routes"}
		}, []want{{"gitlab.project acme/x201", "unknown", "no more than 100 repositories", "fewer routes"}, {"gitlab.project " + project, "pass", "", ""}}},
		{"before the deploy, a GitLab of one's own", func(w *world) {
			w.options.Pre = true
			delete(w.settings, "OIDC_ISSUER")
		}, []want{{"settings.issuer", "pass", "http://", ""}, {"gitlab.issuer", "pass", "http://", ""}}},
		{"two access tokens, of which GitLab takes one", set("GITLAB_API_TOKENS", `{"*":"glpat-canary-another-one","acme/api":"`+apiToken+`"}`), []want{
			{"gitlab.url", "pass", "18.5.0-ee", ""}, {"gitlab.api_token *", "fail", "", ""}, {"gitlab.api_token acme/api", "pass", "", ""}, {"gitlab.project " + project, "pass", "", ""},
		}},
		{"a glob that matches no repository", set("ROUTES", routes("acme/x*", `"gitlab":{"project":"acme/images/{name}"},`+toChannel)), []want{
			{"gitlab.project acme/x*", "skip", "no repository that the key matches", ""}, {"gitlab.trigger_token acme/x*", "skip", "no repository that the key matches", ""}, {"dockerhub.pull acme/x*", "skip", "", ""}, {"deployed.heard acme/x*", "skip", "", ""},
		}},
		{"a glob, and Docker Hub is away", func(w *world) {
			w.settings["ROUTES"] = routes("acme/*", `"gitlab":{"project":"acme/images/{name}"},`+toChannel)
			w.hub.Away(hubtest.Failure{Status: 502})
		}, []want{{"gitlab.project acme/*", "unknown", "Docker Hub did not list", "-image"}}},
		{"a glob, and Docker Hub is not asked", func(w *world) {
			w.settings["ROUTES"] = routes("acme/*", `"gitlab":{"project":"acme/images/{name}"},`+toChannel)
			w.settings["RECONCILE"] = "off"
		}, []want{{"gitlab.project acme/*", "skip", "-image names one", ""}}},
		{"a glob, and a repository that was named", func(w *world) {
			w.settings["ROUTES"] = routes("*", `"gitlab":{"project":"acme/images/{name}"},`+toChannel)
			w.options.Images = []check.Image{{Repository: "acme/api", Tag: "1.0.0"}}
		}, []want{{"gitlab.project " + project, "pass", "", ""}, {"dockerhub.pull acme/api", "fail", "may be pulled, and has no tag 1.0.0", "Push the tag"}}},

		{"a repository that was named twice, with two tags", func(w *world) {
			w.options.Images = []check.Image{{Repository: "acme/api", Tag: "1.0.0"}, {Repository: "acme/api", Tag: "1.0.0"}, {Repository: "acme/api", Tag: "latest"}, {Repository: "acme/api"}}
		}, []want{
			{"dockerhub.pull acme/api", "fail", "has no tag 1.0.0", ""}, {"dockerhub.pull acme/api:latest", "pass", "latest is", ""}, {"deployed.heard acme/api", "unknown", "", ""},
		}},

		// Secrets of what is deployed, which is not here.
		{"what is deployed has secrets of its own", func(w *world) {
			w.options.Deployed = true
			for _, name := range []string{"WEBHOOK_TOKENS", "GITLAB_TRIGGER_TOKENS", "GITLAB_API_TOKENS", "REGISTRY_AUTH", "SLACK_BOT_TOKEN", "NOTIFY_TOKENS"} {
				delete(w.settings, name)
			}
		}, []want{
			{"settings.webhook WEBHOOK_TOKENS", "skip", "is not given here", ""}, {"settings.trigger GITLAB_TRIGGER_TOKENS", "skip", "is not given here", ""},
			{"slack.token", "skip", "needs settings.notify SLACK_BOT_TOKEN, which was not checked", ""},
			{"dockerhub.pull acme/api", "unknown", "REGISTRY_AUTH is not given here", "Give REGISTRY_AUTH"},
			{"deployed.webhook", "pass", "200", ""}, {"deployed.webhook_token", "skip", "", ""},
		}},
		{"what is deployed, and a secret with a mistake", func(w *world) {
			w.options.Deployed = true
			w.settings["WEBHOOK_TOKENS"] = "canary"
		}, []want{{"settings.webhook WEBHOOK_TOKENS", "fail", "shorter", ""}}},

		// GitLab.
		{"a GitLab without a token for its API", unset("GITLAB_API_TOKENS"), []want{
			{"gitlab.url", "pass", "GitLab's API answers", ""},
			{"gitlab.api_token", "skip", "GITLAB_API_TOKENS is not set", ""},
			{"gitlab.project " + project, "skip", "has no token for it", ""},
			{"gitlab.ref " + onMain, "skip", "has no token for it", ""},
			{"gitlab.trigger_token " + project, "pass", "", ""},
		}},
		{"an old GitLab and inputs", func(w *world) { w.gitlab.SetVersion("18.0.6") }, []want{{"gitlab.url", "fail", "GitLab is 18.0.6", "pass of the routes to variables"}}},
		{"an old GitLab and variables", func(w *world) {
			w.gitlab.SetVersion("18.0.6")
			w.settings["ROUTES"] = routes("acme/api", `"gitlab":{"project":"acme/images/api","pass":"variables"},`+toChannel)
		}, []want{{"gitlab.url", "pass", "GitLab is 18.0.6", ""}}},
		{"a GitLab that is too old", func(w *world) { w.gitlab.SetVersion("16.11.1") }, []want{{"gitlab.url", "fail", "GitLab is 16.11.1", "Upgrade"}}},
		{"a GitLab with a version of its own", func(w *world) { w.gitlab.SetVersion("master") }, []want{{"gitlab.url", "unknown", "names no version", ""}}},
		{"something else than GitLab", refused(200, "<html>Sign in</html>"), []want{{"gitlab.url", "unknown", "the answer is not GitLab's", ""}}},
		{"a page for people", refused(404, "<html>Not here</html>"), []want{
			{"gitlab.url", "fail", "is not GitLab's API", "Set GITLAB_URL"}, {"gitlab.api_token *", "skip", "needs gitlab.url, which failed", ""},
			{"gitlab.trigger_token " + project, "skip", "needs gitlab.url, which failed", ""},
		}},
		{"a page that keeps this machine out", refused(403, "<html>Just a moment</html>"), []want{{"gitlab.url", "unknown", "keeps this machine out: 403", "GITLAB_URL"}}},
		{"an issuer that limits", func(w *world) { w.settings["OIDC_ISSUER"] = w.settings["NOTIFY_URL"]; w.notify = answering(429, "") }, []want{
			{"gitlab.issuer", "unknown", "answered 429", "Run it again"}, {"deployed.notify", "unknown", "429", "Run it again"},
		}},
		{"an issuer that keeps this machine out", func(w *world) { w.settings["OIDC_ISSUER"] = w.settings["NOTIFY_URL"]; w.notify = answering(403, "") }, []want{
			{"gitlab.issuer", "unknown", "answered 403", "OIDC_ISSUER"},
		}},
		{"a redirect", refused(301, ""), []want{{"gitlab.url", "fail", "is not GitLab's API", ""}}},
		{"a GitLab that fails", refused(502, ""), []want{
			{"gitlab.url", "unknown", "502", "Run it again"}, {"gitlab.project " + project, "skip", "needs gitlab.url, which could not be checked", ""},
		}},
		{"a GitLab that limits", refused(429, "Retry later"), []want{{"gitlab.url", "unknown", "gitlab_rate_limited", ""}}},
		{"nobody listens at GITLAB_URL", func(w *world) {
			w.settings["GITLAB_URL"], w.settings["OIDC_ISSUER"] = "http://127.0.0.1:1", "http://127.0.0.1:1"
		}, []want{
			{"gitlab.url", "unknown", "connection refused", ""}, {"gitlab.issuer", "unknown", "did not answer", ""},
		}},
		{"an issuer that calls itself something else", func(w *world) {
			w.settings["OIDC_ISSUER"] = strings.Replace(w.settings["OIDC_ISSUER"], "127.0.0.1", "localhost", 1)
		}, []want{
			{"gitlab.issuer", "fail", "GitLab calls itself", "external_url"}, {"settings.issuer", "fail", "", ""},
		}},
		{"an issuer that names nobody", func(w *world) { w.settings["OIDC_ISSUER"] = w.settings["HUB_URL"] }, []want{{"gitlab.issuer", "fail", "names no issuer: it answered 404", ""}}},

		{"an access token that GitLab does not know", set("GITLAB_API_TOKENS", `{"*":"glpat-canary-another-one"}`), []want{
			{"gitlab.api_token *", "fail", "GitLab does not accept it: 401 Unauthorized", "read_api"},
			{"gitlab.project " + project, "skip", "needs gitlab.api_token *, which failed", ""},
			{"gitlab.trigger_token " + project, "pass", "", ""},
		}},
		{"an access token that was revoked", func(w *world) { w.access.Revoked = true }, []want{{"gitlab.api_token *", "fail", "Token was revoked", ""}}},
		{"an access token that has expired", func(w *world) { w.access.ExpiresAt = time.Now().Add(-time.Hour) }, []want{{"gitlab.api_token *", "fail", "Token is expired", ""}}},
		{"an access token that expires soon", func(w *world) { w.access.ExpiresAt = time.Now().Add(72 * time.Hour) }, []want{{"gitlab.api_token *", "warn", "until 20", "Make an access token"}}},
		{"an access token that lasts", func(w *world) { w.access.ExpiresAt = time.Now().Add(72 * 24 * time.Hour) }, []want{{"gitlab.api_token *", "pass", "until 20", ""}}},
		{"an access token with another scope", func(w *world) { w.access.Scopes = []string{"read_repository"} }, []want{{"gitlab.api_token *", "fail", "the scopes read_repository", "read_api"}}},
		{"an access token of a route alone", set("GITLAB_API_TOKENS", `{"acme/api":"`+apiToken+`"}`), []want{{"gitlab.api_token acme/api", "pass", "", ""}, {"gitlab.project " + project, "pass", "", ""}}},

		{"an access token of the second route to a project", func(w *world) {
			w.settings["ROUTES"] = `{"acme/api": {` + toAPI + "," + toChannel + `}, "acme/web": {` + toAPI + "," + toChannel + `}}`
			w.settings["GITLAB_API_TOKENS"] = `{"acme/web":"` + apiToken + `"}`
		}, []want{{"gitlab.api_token acme/web", "pass", "", ""}, {"gitlab.project " + project, "pass", "ID 7", ""}, {"gitlab.ref " + onMain, "pass", "", ""}}},
		{"a project that is not there", set("ROUTES", routes("acme/api", `"gitlab":{"project":"acme/images/apii"},`+toChannel)), []want{
			{"gitlab.project acme/images/apii", "fail", "GitLab answered 404", "Correct gitlab.project"},
			{"gitlab.trigger_token acme/images/apii", "fail", "the project is wrong, and the token perhaps, too", "Correct gitlab.project first"},
			{"gitlab.ref acme/images/apii@main", "skip", "needs gitlab.project acme/images/apii, which failed", ""},
		}},
		{"a project that the access token does not see", func(w *world) { w.access.Projects = []string{"acme/other"} }, []want{
			{"gitlab.project " + project, "fail", "does not see it", "let the access token see"}, {"gitlab.trigger_token " + project, "pass", "", ""},
		}},
		{"a project that was moved", func(w *world) {
			w.project.MovedFrom = "acme/old/api"
			w.settings["ROUTES"] = routes("acme/api", `"gitlab":{"project":"acme/old/api"},`+toChannel)
		}, []want{
			{"gitlab.project acme/old/api", "fail", "moved or renamed", "new path"}, {"gitlab.trigger_token acme/old/api", "fail", "Non GET methods", "new path"},
		}},
		{"a project by its ID", set("ROUTES", routes("acme/api", `"gitlab":{"project":"7"},`+toChannel)), []want{{"gitlab.project 7", "pass", "acme/images/api, ID 7", ""}}},
		{"a project in another case", set("ROUTES", routes("acme/api", `"gitlab":{"project":"acme/images/api"},`+toChannel)), []want{{"gitlab.project " + project, "pass", "", ""}}},
		{"an archived project", func(w *world) { w.project.Archived = true }, []want{
			{"gitlab.project " + project, "fail", "is archived", "Unarchive"}, {"gitlab.trigger_token " + project, "fail", "Insufficient permissions", "the project archived"},
		}},
		{"a project without CI/CD", func(w *world) { w.project.CIDisabled = true }, []want{
			{"gitlab.project " + project, "fail", "switched off", "Switch CI/CD on"}, {"gitlab.trigger_token " + project, "fail", "Pipelines are disabled!", "Switch CI/CD on"},
		}},
		{"an empty project", func(w *world) { w.project.EmptyRepo = true }, []want{{"gitlab.project " + project, "fail", "is empty", "Push a commit"}}},

		{"a wrong trigger token, and the project is seen", set("GITLAB_TRIGGER_TOKENS", `{"*":"glptt-canary-another-one"}`), []want{
			{"gitlab.project " + project, "pass", "", ""},
			{"gitlab.trigger_token " + project, "fail", "the token is not one of this project, or was revoked", `set it for "*" in GITLAB_TRIGGER_TOKENS`},
		}},
		{"a wrong trigger token, and nobody sees the project", func(w *world) {
			w.settings["GITLAB_TRIGGER_TOKENS"] = `{"*":"glptt-canary-another-one"}`
			delete(w.settings, "GITLAB_API_TOKENS")
		}, []want{{"gitlab.trigger_token " + project, "fail", "the project or the token is wrong, and GitLab does not say which", "GITLAB_API_TOKENS"}}},
		{"a wrong trigger token, and an access token that GitLab does not take", func(w *world) {
			w.settings["GITLAB_TRIGGER_TOKENS"] = `{"*":"glptt-canary-another-one"}`
			w.access.Revoked = true
		}, []want{{"gitlab.trigger_token " + project, "fail", "GitLab does not say which", ""}}},
		{"no trigger token", unset("GITLAB_TRIGGER_TOKENS"), []want{
			{"settings.trigger GITLAB_TRIGGER_TOKENS", "fail", "is required", ""}, {"gitlab.trigger_token " + project, "skip", "needs settings.trigger GITLAB_TRIGGER_TOKENS, which failed", ""},
		}},
		{"a trigger token of somebody who has left", func(w *world) { w.project.NoRight = true }, []want{{"gitlab.trigger_token " + project, "fail", "Insufficient permissions to create a new pipeline", "role Developer"}}},
		{"a trigger token, and the address is blocked", func(w *world) {
			w.project.Refuse = &gitlabtest.Failure{Status: 403, Body: `{"message":"403 Forbidden"}`}
		}, []want{{"gitlab.trigger_token " + project, "unknown", "403", ""}}},
		{"a trigger token, and words that nobody knows", func(w *world) {
			w.project.Refuse = &gitlabtest.Failure{Status: 400, Body: `{"message":"the moon is full"}`}
		}, []want{{"gitlab.trigger_token " + project, "unknown", "the moon is full", ""}}},
		{"a trigger token, and GitLab does create a pipeline", func(w *world) {
			w.project.Refuse = &gitlabtest.Failure{Status: 201, Body: `{"id":1,"web_url":"https://gitlab.example/p/1"}`}
		}, []want{{"gitlab.trigger_token " + project, "fail", "GITLAB HAS CREATED A PIPELINE on a ref that does not exist: https://gitlab.example/p/1", "CANCEL"}}},
		{"a GitLab that takes its own payload for a variable", func(w *world) { w.project.ForbidPayload = true }, []want{{"gitlab.trigger_token " + project, "fail", "Insufficient permissions to set pipeline variables", "Minimum role"}}},
		{"the trigger token is not tried", func(w *world) { w.options.NoTrigger = true }, []want{{"gitlab.trigger_token " + project, "skip", "-no-trigger", ""}}},

		{"variables that no one may set", func(w *world) {
			w.settings["ROUTES"] = routes("acme/api", `"gitlab":{"project":"acme/images/api","pass":"variables"},`+toChannel)
		}, []want{{"gitlab.variables_role " + project, "fail", "no one may set", "Raise"}}},
		{"a project of two routes that pass in two ways", func(w *world) {
			w.settings["ROUTES"] = `{"acme/api": {` + toAPI + "," + toChannel + `}, "acme/web": {"gitlab": {"project": "acme/images/api", "pass": "variables"},` + toChannel + `}}`
		}, []want{
			{"gitlab.variables_role " + project, "pass", "no_one_allowed, with pass: inputs", ""},
			{"gitlab.variables_role " + project + " with pass: variables", "fail", "no one may set", "Raise"},
		}},
		{"variables that a Developer may set", func(w *world) {
			w.settings["ROUTES"] = routes("acme/api", `"gitlab":{"project":"acme/images/api","pass":"variables"},`+toChannel)
			w.project.VariablesRole = gitlabtest.RoleDeveloper
		}, []want{{"gitlab.variables_role " + project, "pass", "developer, with pass: variables", ""}}},
		{"inputs, and variables that anybody may set", func(w *world) { w.project.VariablesRole = gitlabtest.RoleMaintainer }, []want{{"gitlab.variables_role " + project, "warn", "maintainer may set pipeline variables", "to no one"}}},
		{"an access token that does not see who may set variables", func(w *world) { w.access.Maintainer = false }, []want{{"gitlab.variables_role " + project, "skip", "to a Maintainer only", ""}}},

		{"a branch that is not there", set("ROUTES", routes("acme/api", `"gitlab":{"project":"acme/images/api","ref":"trunk"},`+toChannel)), []want{
			{"gitlab.ref acme/images/api@trunk", "fail", "neither a branch nor a tag trunk", "gitlab.ref"}, {"gitlab.ci_file acme/images/api@trunk", "skip", "needs gitlab.ref", ""},
			{"gitlab.trigger_token " + project, "pass", "", ""},
		}},
		{"a branch that is not protected", func(w *world) { w.project.Unprotected = []string{"main"} }, []want{
			{"gitlab.ref " + onMain, "fail", "main is a branch that is not protected", "Protect it"}, {"gitlab.ci_file " + onMain, "pass", "", ""},
		}},
		{"a protected tag", func(w *world) {
			w.settings["ROUTES"] = routes("acme/api", `"gitlab":{"project":"acme/images/api","ref":"v1/release"},`+toChannel)
			w.project.Tags = []string{"v1/release"}
		}, []want{{"gitlab.ref acme/images/api@v1/release", "pass", "v1/release is a protected tag", ""}}},
		{"an access token that reads no code", func(w *world) { w.access.Guest = true }, []want{{"gitlab.ref " + onMain, "unknown", "403", "Reporter"}}},

		{"a configuration with a mistake", func(w *world) { w.project.InvalidYAML = true }, []want{
			{"gitlab.ci_file " + onMain, "fail", "jobs config should contain at least one visible job", "Pipeline editor"}, {"gitlab.job " + onMain, "skip", "needs gitlab.ci_file", ""},
		}},
		{"no configuration", func(w *world) { w.project.Files = map[string]string{} }, []want{
			{"gitlab.ci_file " + onMain, "fail", "Please provide content", ""}, {"gitlab.inputs acme/api", "fail", "there is no .gitlab-ci.yml", "Commit"},
			{"gitlab.workflow " + onMain, "skip", "needs gitlab.ci_file", ""},
		}},
		{"a configuration without the template", func(w *world) { w.project.Jobs, w.project.Includes, w.project.Merged = []string{"build"}, nil, "" }, []want{
			{"gitlab.job " + onMain, "fail", "has 1 job, and hubrelay-promote is none of them", "Include the template"},
			{"gitlab.template " + onMain, "skip", "no include", ""},
		}},
		{"a template that moves", func(w *world) { w.project.Includes[0].Location = "gitlab.example/acme/hubrelay/promote@~latest" }, []want{{"gitlab.template " + onMain, "warn", "~latest, version 1.2.0, which can change", "Pin it"}}},
		{"a template by URL", func(w *world) {
			w.project.Includes = []gitlabtest.Include{{Type: "remote", Location: "https://raw.example/getto-systems/hubrelay/0123abc/templates/promote.yml"}}
		}, []want{{"gitlab.template " + onMain, "pass", "0123abc/templates/promote.yml, version 1.2.0", ""}}},
		{"a template by the URL of a branch", func(w *world) {
			w.project.Includes = []gitlabtest.Include{{Type: "remote", Location: "https://raw.example/getto-systems/hubrelay/main/templates/promote.yml"}}
		}, []want{{"gitlab.template " + onMain, "warn", "which can change", ""}}},
		{"a template by a component's minor version", func(w *world) { w.project.Includes[0].Location = "gitlab.example/acme/hubrelay/promote@1.2" }, []want{{"gitlab.template " + onMain, "warn", "promote@1.2, version 1.2.0, which can change", "Pin it"}}},
		{"a template by a component's branch", func(w *world) { w.project.Includes[0].Location = "gitlab.example/acme/hubrelay/promote@trunk" }, []want{{"gitlab.template " + onMain, "warn", "which can change", ""}}},
		{"a template by a URL that names no version", func(w *world) {
			w.project.Includes = []gitlabtest.Include{{Type: "remote", Location: "https://ci.example/promote.yml"}}
		}, []want{{"gitlab.template " + onMain, "warn", "https://ci.example/promote.yml", ""}}},
		{"a template by the URL of a tag", func(w *world) {
			w.project.Includes = []gitlabtest.Include{{Type: "remote", Location: "https://raw.example/getto-systems/hubrelay/refs/tags/v0.1.0-rc.1/templates/promote.yml"}}
		}, []want{{"gitlab.template " + onMain, "pass", "", ""}}},
		{"a template by GitLab's API at a branch", func(w *world) {
			w.project.Includes = []gitlabtest.Include{{Type: "remote", Location: "https://gitlab.example/api/v4/projects/12345678/repository/files/templates%2Fpromote.yml/raw?ref=main"}}
		}, []want{{"gitlab.template " + onMain, "warn", "which can change", ""}}},
		{"a template by GitLab's API at a tag", func(w *world) {
			w.project.Includes = []gitlabtest.Include{{Type: "remote", Location: "https://gitlab.example/api/v4/projects/12345678/repository/files/templates%2Fpromote.yml/raw?ref=v1.2.0"}}
		}, []want{{"gitlab.template " + onMain, "pass", "", ""}}},
		{"a template by the URL of a cache that names the tag", func(w *world) {
			w.project.Includes = []gitlabtest.Include{{Type: "remote", Location: "https://cdn.example/gh/getto-systems/hubrelay@v1.2.0/templates/promote.yml"}}
		}, []want{{"gitlab.template " + onMain, "pass", "", ""}}},
		{"a template of another project at no ref", func(w *world) {
			w.project.Includes = []gitlabtest.Include{{Type: "file", Location: "templates/promote.yml", Ref: "HEAD"}}
		}, []want{{"gitlab.template " + onMain, "warn", "templates/promote.yml@HEAD, version 1.2.0, which can change", ""}}},
		{"a template of another project at a commit", func(w *world) {
			w.project.Includes = []gitlabtest.Include{{Type: "file", Location: "templates/promote.yml", Ref: "0123456789abcdef0123456789abcdef01234567"}}
		}, []want{{"gitlab.template " + onMain, "pass", "", ""}}},
		{"a template that a file of the project includes", func(w *world) {
			w.project.Includes = []gitlabtest.Include{{Type: "local", Location: "ci/promote.yml"}, {Type: "component", Location: "gitlab.example/acme/hubrelay/promote@main"}}
		}, []want{{"gitlab.template " + onMain, "warn", "promote@main", ""}}},
		{"a template of another project", func(w *world) {
			w.project.Includes = []gitlabtest.Include{{Type: "file", Location: "templates/promote.yml"}}
		}, []want{{"gitlab.template " + onMain, "pass", "templates/promote.yml, version 1.2.0", ""}}},
		{"a template that was copied", func(w *world) { w.project.Includes = nil }, []want{{"gitlab.template " + onMain, "pass", "version 1.2.0", ""}}},

		{"an input that is not declared", set("ROUTES", routes("acme/api", toAPI+","+toChannel+`,"inputs":{"severity":"low"}`)), []want{{"gitlab.inputs acme/api", "fail", "severity is sent and not declared", "spec: inputs:"}}},
		{"no header", func(w *world) { w.project.Files[".gitlab-ci.yml"] = "build: {script: [make]}\n" }, []want{
			{"gitlab.inputs acme/api", "fail", "image_digest is sent and not declared; image_pushed_at", ""}, {"gitlab.workflow " + onMain, "warn", "workflow: has no name", "a name"},
		}},
		{"an input that is required, and not sent", func(w *world) {
			w.project.Files[".gitlab-ci.yml"] = strings.Replace(ciFile, "inputs:\n", "inputs:\n    team:\n", 1)
		}, []want{{"gitlab.inputs acme/api", "fail", "team is required and not sent", ""}}},
		{"an input whose default rules choose", func(w *world) {
			w.project.Files[".gitlab-ci.yml"] = strings.Replace(ciFile, "inputs:\n", "inputs:\n    team: {rules: [{default: core}]}\n", 1)
		}, []want{{"gitlab.inputs acme/api", "pass", "all declared", ""}}},
		{"a route that passes variables, and a required input", func(w *world) {
			w.settings["ROUTES"] = routes("acme/api", `"gitlab":{"project":"acme/images/api","pass":"variables"},`+toChannel)
			w.project.Files[".gitlab-ci.yml"] = "spec:\n  inputs:\n    image_tag:\n---\nbuild: {script: [make]}\n"
		}, []want{{"gitlab.inputs acme/api", "fail", "image_tag is required and not sent", ""}}},
		{"a route that passes variables", func(w *world) {
			w.settings["ROUTES"] = routes("acme/api", `"gitlab":{"project":"acme/images/api","pass":"variables"},`+toChannel)
		}, []want{{"gitlab.inputs acme/api", "pass", "none is sent, and none is required", ""}}},
		{"an input of another type, and options and a regex that refuse", func(w *world) {
			file := strings.Replace(ciFile, `image_tag: {type: string, default: ""}`, "image_tag: {type: number}", 1)
			file = strings.Replace(file, `image_digest: {type: string, default: ""}`, "image_digest: {regex: ^sha512:}", 1)
			w.project.Files[".gitlab-ci.yml"] = strings.Replace(file, `image_repository: {type: string, default: ""}`, "image_repository: {options: [acme/web]}", 1)
		}, []want{{"gitlab.inputs acme/api", "fail", `image_digest is sent as "sha256:` + strings.Repeat("0", 64) + `", which its regex does not match; image_repository is sent as "acme/api", which is none of its options; image_tag is declared as a number`, ""}}},
		{"inputs that another file declares", func(w *world) {
			w.project.Files[".gitlab-ci.yml"] = "spec:\n  include: [{local: ci/inputs.yml}]\n---\nbuild: {script: [make]}\n"
		}, []want{{"gitlab.inputs acme/api", "skip", "declared in other files", ""}}},
		{"inputs that another file declares, and one here that is wrong", func(w *world) {
			w.project.Files[".gitlab-ci.yml"] = "spec:\n  include: [{local: ci/inputs.yml}]\n  inputs:\n    image_tag: {type: number}\n---\nbuild: {script: [make]}\n"
		}, []want{{"gitlab.inputs acme/api", "fail", "image_tag is declared as a number", ""}}},
		{"a workflow that an included file has", func(w *world) {
			w.project.Files[".gitlab-ci.yml"] = strings.Replace(ciFile, "workflow:\n", "other:\n", 1)
			w.project.Merged += "workflow: {name: $PIPELINE_NAME, auto_cancel: {on_new_commit: none}}\n"
		}, []want{{"gitlab.workflow " + onMain, "pass", "named $PIPELINE_NAME", ""}}},
		{"a configuration of another name", func(w *world) {
			w.project.CIConfigPath = "ci/main.yml"
			w.project.Files = map[string]string{"ci/main.yml": ciFile}
		}, []want{{"gitlab.inputs acme/api", "pass", "", ""}, {"gitlab.ci_file " + onMain, "pass", "", ""}}},
		{"a configuration of another project", func(w *world) {
			w.project.CIConfigPath = "main.yml@acme/ci"
			w.project.Files["main.yml@acme/ci"] = "x"
		}, []want{{"gitlab.inputs acme/api", "skip", "is in another place", ""}}},
		{"a configuration that is no YAML", func(w *world) { w.project.Files[".gitlab-ci.yml"] = "a: [" }, []want{{"gitlab.inputs acme/api", "unknown", "not YAML", ""}}},
		{"a workflow that cancels", func(w *world) {
			w.project.Files[".gitlab-ci.yml"] = strings.Replace(ciFile, "auto_cancel: {on_new_commit: none}", "when: always", 1)
		}, []want{{"gitlab.workflow " + onMain, "warn", "no auto_cancel", "on_new_commit: none"}}},
		{"a workflow that cancels nothing at all", func(w *world) {
			w.project.Files[".gitlab-ci.yml"] = "workflow: {name: x, auto_cancel: {on_new_commit: none}}\n"
		}, []want{{"gitlab.workflow " + onMain, "pass", "named x", ""}}},

		// Docker Hub.
		{"no account", func(w *world) {
			delete(w.settings, "REGISTRY_AUTH")
			w.registry.AddRepository("acme/api")
		}, []want{
			{"dockerhub.account", "skip", "public repositories only", ""}, {"dockerhub.pull acme/api", "pass", "", ""},
			{"dockerhub.missed acme", "pass", "by the tags of its repositories, such as acme/api", ""},
		}},
		{"an account that Docker Hub does not take", func(w *world) {
			w.settings["REGISTRY_AUTH"] = dockerConfig(strings.TrimPrefix(w.settings["REGISTRY"], "http://"), "acme", "dckr_pat_canaryanother")
		}, []want{
			{"dockerhub.account", "fail", "hub_login_denied", "Docker Hub's API does not take"}, {"dockerhub.pull acme/api", "fail", "registry_denied", "does not take the account"},
		}},
		{"an account for another registry only", func(w *world) {
			host := strings.TrimPrefix(w.settings["REGISTRY"], "http://")
			w.settings["REGISTRY_AUTH"] = `{"auths":{"` + host + `":{"username":"acme","password":"` + dockerToken + `"}}}`
		}, []want{{"dockerhub.account", "skip", "no account for Docker Hub", ""}, {"dockerhub.pull acme/api", "pass", "", ""}}},
		{"credentials that are none", set("REGISTRY_AUTH", "canary"), []want{
			{"settings.trigger REGISTRY_AUTH", "fail", "not JSON", ""}, {"dockerhub.pull", "skip", "needs settings.trigger REGISTRY_AUTH", ""},
		}},
		{"a repository that the account may not pull", func(w *world) { w.registry.AddRepository("acme/api", "other") }, []want{{"dockerhub.pull acme/api", "fail", "registry_denied", "not for this repository"}}},
		{"a private repository, and no account", unset("REGISTRY_AUTH"), []want{{"dockerhub.pull acme/api", "fail", "registry_denied", "set REGISTRY_AUTH"}}},
		{"a repository without its moving tag", set("ROUTES", routes("acme/api", toAPI+","+toChannel+`,"latest":"stable"`)), []want{{"dockerhub.pull acme/api", "pass", "has no tag stable yet", ""}}},
		{"a registry that limits", func(w *world) { w.registry.Answer(429) }, []want{{"dockerhub.pull acme/api", "unknown", "registry_rate_limited", ""}, {"dockerhub.limit", "skip", "about no repository", ""}}},
		{"a registry that fails", func(w *world) { w.registry.Answer(500) }, []want{{"dockerhub.pull acme/api", "unknown", "registry_unavailable", ""}}},
		{"pulls are left", func(w *world) { w.registry.LimitPulls(200, 150) }, []want{{"dockerhub.limit", "pass", "150 of 200 pulls are left, of the account", ""}}},
		{"few pulls are left, of nobody's", func(w *world) {
			delete(w.settings, "REGISTRY_AUTH")
			w.registry.AddRepository("acme/api")
			w.registry.LimitPulls(100, 9)
		}, []want{{"dockerhub.limit", "warn", "9 of 100 pulls are left, of this machine's address", "REGISTRY_AUTH"}}},
		{"no audit log", func(w *world) { w.hub.NoAuditLog("acme") }, []want{{"dockerhub.missed acme", "pass", "by the tags of its repositories", ""}}},
		{"no audit log, and no repository is known", func(w *world) {
			w.hub.NoAuditLog("acme")
			w.settings["ROUTES"] = routes("acme/x*", toAPI+","+toChannel)
		}, []want{{"dockerhub.missed acme", "skip", "no repository of the namespace is known", ""}}},
		{"Docker Hub does not know the repository", func(w *world) {
			w.hub.NoAuditLog("acme")
			w.settings["ROUTES"] = routes("acme/nosuch", toAPI+","+toChannel)
		}, []want{{"dockerhub.missed acme", "fail", "hub_not_found", ""}}},
		{"Docker Hub is away", func(w *world) { w.hub.Away(hubtest.Failure{Status: 503}) }, []want{
			{"dockerhub.account", "unknown", "hub_unavailable", "Run it again"}, {"dockerhub.missed acme", "unknown", "hub_unavailable", ""},
		}},
		{"a page in the place of Docker Hub's API", func(w *world) { w.hub.Away(hubtest.Failure{Status: 404}) }, []want{
			{"dockerhub.account", "unknown", "not in JSON", "HUB_URL"},
		}},
		{"missed pushes are not looked for", set("RECONCILE", "off"), []want{
			{"dockerhub.missed", "warn", "RECONCILE is off", "RECONCILE=on"}, {"routes.missed", "skip", "is not asked", ""}, {"dockerhub.account", "skip", "is not asked", ""},
		}},
		{"another registry", unset("HUB_URL"), []want{{"dockerhub.missed", "warn", "REGISTRY is not Docker Hub's", "HUB_URL"}}},

		// Slack.
		{"a token that Slack does not know", set("SLACK_BOT_TOKEN", "xoxb-canary-another"), []want{
			{"slack.token", "fail", "invalid_auth", "SLACK_BOT_TOKEN"}, {channel, "skip", "needs slack.token, which failed", ""}, {"slack.scopes", "skip", "needs slack.token", ""},
		}},
		{"a channel by its name, and no token for Slack", func(w *world) {
			w.settings["DEFAULT_CHANNEL"] = "#images"
			delete(w.settings, "SLACK_BOT_TOKEN")
		}, []want{{"slack.channel #images", "warn", "not a channel's ID", "ID"}, {channel, "skip", "needs slack.token", ""}}},
		{"no token for Slack", unset("SLACK_BOT_TOKEN"), []want{{"settings.notify SLACK_BOT_TOKEN", "fail", "is required", ""}, {"slack.token", "skip", "needs settings.notify SLACK_BOT_TOKEN", ""}}},
		{"a person's token", func(w *world) { w.slack.BelongToPerson() }, []want{{"slack.token", "warn", "not of a bot", "xoxb-"}}},
		{"Slack is away", func(w *world) { w.slack.Away(slacktest.Failure{Status: 503}) }, []want{{"slack.token", "unknown", "503", "Run it again"}}},
		{"a proxy keeps this machine from Slack", func(w *world) { w.slack.Away(slacktest.Failure{Status: 403, Body: "<html>Blocked"}) }, []want{{"slack.token", "unknown", "403", "Let this machine through"}}},
		{"Slack answers with a page", func(w *world) { w.slack.Away(slacktest.Failure{Status: 404, Body: "<html>"}) }, []want{{"slack.token", "fail", "404", "SLACK_API_URL"}}},
		{"a bot that may not write", func(w *world) { w.slack.SetScopes("channels:read", "groups:read") }, []want{{"slack.scopes", "fail", "the token has channels:read, groups:read", "chat:write"}}},
		{"Slack does not name scopes", func(w *world) { w.slack.SetScopes() }, []want{{"slack.scopes", "skip", "does not name", ""}, {channel, "skip", "may not ask", ""}}},
		{"a bot that may write alone", func(w *world) { w.slack.SetScopes("chat:write") }, []want{{"slack.scopes", "pass", "chat:write", ""}, {channel, "skip", "-say", ""}}},
		{"a bot that may write alone, and posts a line", func(w *world) {
			w.slack.SetScopes("chat:write")
			w.options.Say = true
		}, []want{{channel, "pass", "has posted a line", ""}}},
		{"a bot that may write alone, and is not in the channel", func(w *world) {
			w.slack.SetScopes("chat:write")
			w.slack.RemoveBot("C0123456789")
			w.options.Say = true
		}, []want{{channel, "fail", "not_in_channel", "Invite the bot"}}},
		{"a channel that the bot is not in", func(w *world) { w.slack.RemoveBot("C0123456789") }, []want{{channel, "fail", "the bot is not in #images", "/invite @hubrelay"}}},
		{"an archived channel", func(w *world) { w.slack.Archive("C0123456789") }, []want{{channel, "fail", "#images is archived", "Unarchive"}}},
		{"a channel that is not there", set("DEFAULT_CHANNEL", "C0000000000"), []want{{"slack.channel C0000000000", "fail", "no such channel, or it is private", "Correct the channel's ID"}, {channel, "pass", "", ""}}},
		{"a private channel, and a bot that asks about public ones", func(w *world) {
			w.slack.SetScopes("chat:write", "channels:read")
			w.settings["DEFAULT_CHANNEL"] = "C0000000000"
		}, []want{{"slack.channel C0000000000", "skip", "may not ask about private ones", ""}}},
		{"a private channel that nobody may ask about, and a line", func(w *world) {
			w.slack.SetScopes("chat:write", "channels:read")
			w.slack.AddChannel("C0000000000", "secret")
			w.slack.MakePrivate("C0000000000")
			w.settings["DEFAULT_CHANNEL"] = "C0000000000"
			w.options.Say = true
		}, []want{{"slack.channel C0000000000", "pass", "has posted a line", ""}}},
		{"a channel by its name", set("DEFAULT_CHANNEL", "images"), []want{{"slack.channel images", "warn", "not a channel's ID", "ID"}}},

		// What is deployed.
		{"nothing is known of the deploy", unset("WEBHOOK_URL", "NOTIFY_URL", "TRIGGER_URL"), []want{
			{"deployed.webhook", "skip", "webhook_url has it", ""}, {"deployed.notify", "skip", "notify_url has it", ""}, {"deployed.trigger", "skip", "trigger_url has it", ""},
			{"deployed.webhook_token token 1 of 1", "skip", "needs deployed.webhook, which was not checked", ""}, {"deployed.version", "skip", "fewer than two", ""},
		}},
		{"the webhook's URL with its token", func(w *world) { w.settings["WEBHOOK_URL"] += "/" + webhookToken }, []want{{"deployed.webhook", "fail", "it ends in a token", "alone"}}},
		{"the webhook's URL with a token that is not given", func(w *world) { w.settings["WEBHOOK_URL"] += "/canary-another-0123456789" }, []want{{"deployed.webhook", "fail", "405", "without a token"}}},
		{"the webhook's URL without its scheme", set("WEBHOOK_URL", "hubrelay.example"), []want{{"deployed.webhook", "fail", "not a base URL", "such as https://"}}},
		{"Google lets nobody in", func(w *world) { w.webhook, w.notify = answering(403, "<html>"), answering(401, "<html>") }, []want{
			{"deployed.webhook", "fail", "Google lets nobody in", "run.invoker"}, {"deployed.notify", "fail", "401", ""}, {"deployed.webhook_token token 1 of 1", "skip", "needs deployed.webhook, which failed", ""},
		}},
		{"nothing is there", func(w *world) { w.webhook = answering(404, "<html>") }, []want{{"deployed.webhook", "fail", "404", "Correct WEBHOOK_URL"}}},
		{"a function that does not start", func(w *world) { w.notify = answering(503, "Service Unavailable") }, []want{{"deployed.notify", "fail", "503", "log"}}},
		{"something else", func(w *world) { w.notify = answering(200, "<html>hello") }, []want{{"deployed.notify", "fail", "is not hubrelay", "Correct NOTIFY_URL"}}},
		{"a function that hangs up", func(w *world) { w.webhook, w.trigger = breaking(), breaking() }, []want{
			{"deployed.webhook", "unknown", "no answer", ""}, {"deployed.trigger", "unknown", "no answer", ""},
			{"deployed.webhook_token token 1 of 1", "skip", "could not be checked", ""},
		}},
		{"tokens that the functions do not know", func(w *world) {
			w.settings["WEBHOOK_TOKENS"] += "\ncanary-another-0123456789"
			w.settings["NOTIFY_TOKENS"] = "canary-another-0123456789"
		}, []want{
			{"deployed.webhook_token token 1 of 2", "pass", "", ""}, {"deployed.webhook_token token 2 of 2", "fail", "Webhook answered 401", "WEBHOOK_TOKENS"},
			{"deployed.notify_token token 1 of 1", "fail", "Notify answered 401", "NOTIFY_TOKENS"},
		}},
		{"a token that is too long for Docker Hub", set("WEBHOOK_TOKENS", "canary"+strings.Repeat("0123456789", 25)), []want{{"deployed.webhook_token token 1 of 1", "fail", "characters", "shorter"}}},
		{"a function that fails after it was ready", func(w *world) { w.webhook, w.notify = onlyReady(500), onlyReady(418) }, []want{
			{"deployed.webhook_token token 1 of 1", "unknown", "500", ""}, {"deployed.notify_token token 1 of 1", "fail", "418", ""},
		}},
		{"Trigger that everybody may call", func(w *world) { w.trigger = answering(200, "ok") }, []want{{"deployed.trigger", "fail", "everybody may call", "run.invoker"}}},
		{"Trigger that lets in internal traffic only", func(w *world) {
			w.trigger = answering(404, "<html>")
			w.options.Deployed = true
		}, []want{{"deployed.trigger", "pass", "404 without credentials", ""}}},
		{"an address of Trigger that somebody wrote, and nothing answers there", func(w *world) { w.trigger = answering(404, "<html>") }, []want{{"deployed.trigger", "unknown", "or there is no function at this address", "TRIGGER_URL"}}},
		{"an address of Trigger that is a website", func(w *world) { w.trigger = answering(200, "<html>hello") }, []want{{"deployed.trigger", "fail", "is not hubrelay", "trigger_url"}}},
		{"an address of Trigger without its scheme", set("TRIGGER_URL", "trigger.example"), []want{{"deployed.trigger", "fail", "not a base URL", "such as https://"}}},
		{"an address of Trigger that is Webhook's", func(w *world) { w.settings["TRIGGER_URL"] = w.settings["WEBHOOK_URL"] + "/" }, []want{
			{"deployed.trigger", "fail", "the same as WEBHOOK_URL", "trigger_url"}, {"deployed.webhook", "fail", "the same as TRIGGER_URL", ""},
		}},
		{"Trigger that fails", func(w *world) { w.trigger = answering(500, "") }, []want{{"deployed.trigger", "unknown", "500", ""}}},
		{"another version", func(w *world) { w.options.Version = "1.3.0" }, []want{{"deployed.version", "warn", "hubrelay check 1.3.0, Webhook 1.2.0", "Deploy the version"}}},
		{"a ledger that cannot be read", func(*world) {}, []want{{"deployed.heard acme/api", "unknown", "the ledger cannot be read", "gcloud auth"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			c.change(w)
			r := w.run(t)
			for _, want := range c.wants {
				want.check(t, r)
			}
			if len(w.gitlab.Pipelines()) > 0 {
				t.Error("a pipeline was created")
			}
		})
	}
}

// onlyReady is a function that answers GET /ready, and a status to all else.
func onlyReady(status int) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/ready" {
			_, _ = rw.Write([]byte("ok"))
			return
		}
		rw.WriteHeader(status)
		_, _ = rw.Write([]byte(`{"error":"x"}`))
	})
}

// Every finding of the catalogue is in the table above with what it passes by.
func TestEveryFindingCanBeFound(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.options.Names = []string{"ROUTES"}
	var ids []string
	for _, f := range w.run(t).Findings {
		ids = append(ids, f.ID)
	}
	var all []string
	for _, section := range check.Sections {
		all = append(all, check.IDs(section)...)
	}
	if d := diff.Diff(all, slices.Compact(ids)); d != "" {
		t.Error(d)
	}
}

// The pages that findings name are there.
func TestPages(t *testing.T) {
	t.Parallel()
	anchors := map[string][]string{}
	for _, f := range newWorld(t).run(t).Findings {
		file, anchor, ok := strings.Cut(strings.TrimPrefix(f.Page, check.Docs), "#")
		if !ok {
			t.Fatalf("%s has the page %q", f.ID, f.Page)
		}
		if anchors[file] == nil {
			text, err := os.ReadFile(filepath.Join("..", "..", file))
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(string(text), -1) {
				plain := regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(strings.ToLower(m[1]), "")
				anchors[file] = append(anchors[file], strings.ReplaceAll(plain, " ", "-"))
			}
		}
		if !slices.Contains(anchors[file], anchor) {
			t.Errorf("%s names the page %s, whose heading is not there", f.ID, f.Page)
		}
	}
}

func TestExitCode(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change func(*world)
		want   int
	}{
		{"all is well", func(w *world) { w.settings["LEDGER"] = "memory:x" }, 0},
		{"what nobody gave the means to ask does no harm", func(w *world) {
			w.settings["LEDGER"] = "memory:x"
			delete(w.settings, "GITLAB_API_TOKENS")
		}, 0},
		{"something failed", func(w *world) { w.slack.Archive("C0123456789") }, 1},
		{"a failure outweighs what is unknown", func(w *world) {
			w.slack.Archive("C0123456789")
			w.hub.Away(hubtest.Failure{Reset: true})
		}, 1},
		{"something could not be checked", func(w *world) { w.hub.Away(hubtest.Failure{Reset: true}) }, 2},
		{"nothing was checked", func(w *world) {
			w.options.Only = []string{"deployed"}
			for _, name := range []string{"WEBHOOK_URL", "NOTIFY_URL", "TRIGGER_URL"} {
				delete(w.settings, name)
			}
			w.settings["LEDGER"] = "memory:x"
			w.options.Only = []string{"deployed.webhook"}
		}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			c.change(w)
			if r := w.run(t); r.ExitCode() != c.want {
				t.Errorf("ends with %d, want %d:\n%s", r.ExitCode(), c.want, w.text(t, r))
			}
		})
	}
}

func TestOnlyLooksAtWhatIsNeeded(t *testing.T) {
	t.Parallel()
	for only, want := range map[string][]string{
		"slack":           {"slack.token", "slack.scopes", "slack.channel"},
		"slack.channel":   {"slack.token", "slack.channel"},
		"gitlab.ref":      {"gitlab.url", "gitlab.api_token", "gitlab.project", "gitlab.ref"},
		"routes":          {"routes.table", "routes.tags", "routes.missed"},
		"routes.tags":     {"routes.tags"},
		"deployed.notify": {"deployed.notify"},
	} {
		w := newWorld(t)
		w.options.Only = []string{only}
		var ids []string
		for _, f := range w.run(t).Findings {
			ids = append(ids, f.ID)
		}
		if d := diff.Diff(want, ids); d != "" {
			t.Errorf("-only %s: %s", only, d)
		}
	}
	w := newWorld(t)
	w.options.Only = []string{"slack.channel"}
	w.settings["SLACK_BOT_TOKEN"] = ""
	r := w.run(t)
	want{"settings.notify SLACK_BOT_TOKEN", "fail", "is required", ""}.check(t, r)
	if r.ExitCode() != 1 {
		t.Error("what keeps a finding from being looked at does no harm")
	}
	w.options = check.Options{Images: []check.Image{{Repository: "evil/api"}}, Getenv: func(name string) string { return w.settings[name] }}
	if _, err := check.Run(t.Context(), w.options); err == nil || err.Error() != "-image: no route matches evil/api" {
		t.Errorf("an image without a route: %v", err)
	}
	for _, o := range []check.Options{{Only: []string{"gitlub"}}, {Only: []string{"gitlab.nosuch"}}, {Pre: true, Only: []string{"deployed"}}, {Pre: true, Only: []string{"deployed.trigger"}}} {
		o.Getenv = func(string) string { return "" }
		if _, err := check.Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), o.Only[0]) {
			t.Errorf("%v: %v", o.Only, err)
		}
	}
}

func TestBeforeTheDeployNothingIsMissedThatItMakes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.options.Pre = true
	for _, name := range []string{"TOPIC", "DEAD_LETTER_TOPIC", "LEDGER", "OIDC_AUDIENCE", "NOTIFY_TOKENS", "WEBHOOK_URL", "NOTIFY_URL", "TRIGGER_URL"} {
		delete(w.settings, name)
	}
	w.project.Files = map[string]string{}
	r := w.run(t)
	if r.ExitCode() != 0 {
		t.Error("it is not well")
	}
	golden(t, "pre.txt", w.text(t, r))
	w.settings["DEAD_LETTER_TOPIC"] = "wrong" // what is set must be right all the same
	want{"settings.trigger DEAD_LETTER_TOPIC", "fail", "is not the full name", ""}.check(t, w.run(t))
}

func TestAnInterruptEndsIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w.options.Getenv = func(name string) string { return w.settings[name] }
	if _, err := check.Run(ctx, w.options); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := diff.Diff(string(want), got); d != "" {
		t.Errorf("%s: %s", file, d)
	}
}

// troubled has some of everything.
func troubled(t *testing.T) *world {
	w := newWorld(t)
	w.options.Names = []string{"ROUTES", "GITLAB_TRIGGER_TOKEN"}
	w.settings["GITLAB_TRIGGER_TOKENS"] = `{"*":"glptt-canary-another-one"}`
	w.settings["LEDGER"] = "memory:x"
	w.project.Unprotected = []string{"main"}
	w.slack.SetScopes("chat:write")
	w.hub.Away(hubtest.Failure{Status: 503})
	w.registry.LimitPulls(100, 9)
	w.notify = answering(403, "<html>")
	w.webhook = onlyReady(401)
	return w
}

func TestWhatPeopleRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.settings["LEDGER"] = "memory:x"
	golden(t, "well.txt", w.text(t, w.run(t)))
	w = troubled(t)
	r := w.run(t)
	golden(t, "troubled.txt", w.text(t, r))
	golden(t, "troubled.json", w.json(t, r))

	var out strings.Builder
	if err := r.WriteText(&out, true); err != nil || !strings.Contains(out.String(), "\x1b[31m✗ fail\x1b[0m gitlab.trigger_token") {
		t.Errorf("no colours, %v, in %q", err, cmp.Or(out.String(), "nothing"))
	}
	var empty strings.Builder
	if err := (check.Report{}).WriteJSON(&empty); err != nil || !json.Valid([]byte(empty.String())) || !strings.Contains(empty.String(), `"findings": []`) {
		t.Errorf("%v, %s", err, empty.String())
	}
}

// Every setting that a function reads is known, so that a misspelt one is told
// from it.
func TestNamesAreThoseThatFunctionsRead(t *testing.T) {
	t.Parallel()
	read := map[string]bool{}
	w := newWorld(t)
	getenv := func(name string) string {
		read[name] = true
		return w.settings[name]
	}
	_, err := webhook.ReadSettings(getenv)
	_, err2 := trigger.ReadSettings(getenv)
	_, err3 := notify.ReadSettings(getenv)
	if err := errors.Join(err, err2, err3); err != nil {
		t.Fatal(err)
	}
	for name := range read {
		if !slices.Contains(check.Names, name) {
			t.Errorf("%s is read, and not known", name)
		}
	}
	// These are read by no function of ours: by Go, by the logs, by the framework, and
	// by the check.
	for _, name := range []string{"SSL_CERT_FILE", "GOOGLE_CLOUD_PROJECT", "LOG_EXECUTION_ID", "WEBHOOK_URL", "NOTIFY_URL", "TRIGGER_URL"} {
		read[name] = true
	}
	for _, name := range check.Names {
		if !read[name] {
			t.Errorf("%s is known, and nobody reads it", name)
		}
	}
}
