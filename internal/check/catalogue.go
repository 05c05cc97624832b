package check

import "strings"

// Docs is where the pages are that findings name.
const Docs = "https://github.com/getto-systems/hubrelay/blob/main/"

// Sections are in the order in which they are shown.
var Sections = []string{"settings", "routes", "gitlab", "dockerhub", "slack", "deployed"}

// kind is what is the same of every finding with an ID.
type kind struct {
	id     string
	wanted string
	page   string // below Docs
	order  int
}

// catalogue has every finding that there can be, in the order in which they are
// shown.
var catalogue = []kind{
	{id: "settings.names", wanted: "no misspelt name of a setting", page: "README.md#settings"},
	{id: "settings.webhook", wanted: "settings that Webhook can start with", page: "README.md#settings"},
	{id: "settings.trigger", wanted: "settings that Trigger can start with", page: "README.md#settings"},
	{id: "settings.notify", wanted: "settings that Notify can start with", page: "README.md#settings"},
	{id: "settings.issuer", wanted: "OIDC_ISSUER is GITLAB_URL", page: "docs/architecture.md#who-may-report"},
	{id: "settings.ledger", wanted: "a ledger that outlives the process", page: "docs/architecture.md#the-ledger"},

	{id: "routes.table", wanted: "one route or more", page: "docs/architecture.md#routes"},
	{id: "routes.tags", wanted: "tags that can be promoted", page: "docs/architecture.md#routes"},
	{id: "routes.missed", wanted: "keys that name a namespace", page: "docs/architecture.md#missed-pushes"},

	{id: "gitlab.url", wanted: "GitLab 17.0 or newer, 18.1 with pass: inputs", page: "docs/gitlab.md#the-pipeline-in-gitlab"},
	{id: "gitlab.issuer", wanted: "the issuer that id tokens name", page: "docs/architecture.md#who-may-report"},
	{id: "gitlab.api_token", wanted: "an active token with read_api, for 14 days or more", page: "docs/operations.md#an-access-token-of-gitlabs-api"},
	{id: "gitlab.project", wanted: "a project at this path, with CI/CD switched on", page: "docs/operations.md#2-the-gitlab-project"},
	{id: "gitlab.trigger_token", wanted: "a trigger token of this project, whose owner may run pipelines", page: "docs/operations.md#a-trigger-token-of-gitlab"},
	{id: "gitlab.variables_role", wanted: "a role that goes with the route's pass", page: "docs/gitlab.md#set-it-up"},
	{id: "gitlab.ref", wanted: "a branch or tag that is protected", page: "docs/gitlab.md#set-it-up"},
	{id: "gitlab.ci_file", wanted: "a configuration that GitLab can make a pipeline of", page: "docs/gitlab.md#set-it-up"},
	{id: "gitlab.job", wanted: "the job hubrelay-promote", page: "docs/gitlab.md#set-it-up"},
	{id: "gitlab.template", wanted: "a template that is pinned to a version", page: "docs/gitlab.md#set-it-up"},
	{id: "gitlab.inputs", wanted: "every input that the route sends, and no other that is required", page: "docs/gitlab.md#set-it-up"},
	{id: "gitlab.workflow", wanted: "workflow: name, and auto_cancel that leaves promotions alone", page: "docs/gitlab.md#set-it-up"},

	{id: "dockerhub.account", wanted: "an account that Docker Hub accepts, or none", page: "docs/operations.md#credentials-of-the-registry"},
	{id: "dockerhub.pull", wanted: "a repository that may be pulled", page: "docs/operations.md#credentials-of-the-registry"},
	{id: "dockerhub.limit", wanted: "a tenth of the limit of pulls left, or no limit", page: "docs/operations.md#credentials-of-the-registry"},
	{id: "dockerhub.missed", wanted: "Docker Hub lists pushes that no webhook reported", page: "docs/architecture.md#missed-pushes"},

	{id: "slack.token", wanted: "the token of a bot", page: "docs/gitlab.md#slack"},
	{id: "slack.scopes", wanted: "chat:write", page: "docs/gitlab.md#slack"},
	{id: "slack.channel", wanted: "a channel that the bot is in", page: "docs/gitlab.md#slack"},

	{id: "deployed.webhook", wanted: "200 from /ready", page: "docs/operations.md#alert-unreachable"},
	{id: "deployed.webhook_token", wanted: "a token that Webhook accepts, in a URL of 255 characters at most", page: "docs/operations.md#a-token-of-the-webhook"},
	{id: "deployed.notify", wanted: "200 from /ready", page: "docs/operations.md#alert-unreachable"},
	{id: "deployed.notify_token", wanted: "a token that Notify accepts", page: "docs/operations.md#a-token-that-pipelines-report-with"},
	{id: "deployed.trigger", wanted: "no answer without Google's credentials", page: "docs/operations.md#alert-unreachable"},
	{id: "deployed.version", wanted: "one version everywhere", page: "docs/operations.md#upgrade"},
	{id: "deployed.heard", wanted: "Docker Hub's webhook calls for this repository", page: "docs/operations.md#alert-webhooks"},
}

var kinds = func() map[string]kind {
	byID := map[string]kind{}
	for i, k := range catalogue {
		k.order = i
		byID[k.id] = k
	}
	return byID
}()

// IDs returns the IDs of the findings of a section, in the order in which they
// are shown.
func IDs(section string) []string {
	var ids []string
	for _, k := range catalogue {
		if strings.HasPrefix(k.id, section+".") {
			ids = append(ids, k.id)
		}
	}
	return ids
}
