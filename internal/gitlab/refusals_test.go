package gitlab_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/getto-systems/hubrelay/internal/gitlab/gitlabtest"
	"github.com/getto-systems/hubrelay/internal/httpclient"
)

// says is an answer of GitLab's chain of steps.
func says(message string) string { return `{"message":{"base":[` + strconv.Quote(message) + `]}}` }

// refusal is a row of the contract: GitLab's answer, and what follows.
type refusal struct {
	name    string
	status  int
	header  map[string]string
	body    string
	reason  string
	lost    bool
	unknown bool
	hint    []string // are parts of it
	not     string   // is no part of it
	message string
	after   time.Duration
}

// The words are GitLab's: of lib/api/ci/triggers.rb, and of the steps of
// lib/gitlab/ci/pipeline/chain and its counterpart in ee.
var refusals = []refusal{
	{name: "too many pipelines is a 400 that passes", status: 400, body: says("Too many pipelines created in the last minute. Try again later."),
		reason: "gitlab_rate_limited", hint: []string{"per minute", "rate limits"}, message: "Too many pipelines created in the last minute. Try again later.", after: time.Minute},
	{name: "too many pipelines, as a string", status: 400, body: `{"message":"Too many pipelines created in the last minute. Try again later."}`,
		reason: "gitlab_rate_limited", hint: []string{"per minute"}, message: "Too many pipelines created in the last minute. Try again later.", after: time.Minute},
	{name: "a ref that is not found may be found later", status: 400, body: says("Reference not found"),
		reason: "reference_not_found", hint: []string{"branch or tag main exists in acme/images/api"}, message: "Reference not found"},
	{name: "a ref without a commit", status: 400, body: says("Commit not found"),
		reason: "reference_not_found", hint: []string{"main", "commit"}, message: "Commit not found"},
	{name: "a branch and a tag of one name", status: 400, body: says("Ref is ambiguous"),
		reason: "rejected", hint: []string{"a branch and a tag main"}, message: "Ref is ambiguous"},

	{name: "variables that nobody may set", status: 400, body: says("Insufficient permissions to set pipeline variables"),
		reason: "variables_forbidden", hint: []string{"pass: inputs"}, message: "Insufficient permissions to set pipeline variables"},
	{name: "the role was lost", status: 400, body: says("Insufficient permissions to create a new pipeline"),
		reason: "rejected", hint: []string{"role Developer", "token's owner", "archived", "acme/images/api"}, message: "Insufficient permissions to create a new pipeline"},
	{name: "a protected branch", status: 400,
		body:   says("You do not have sufficient permission to run a pipeline on 'main'. Please select a different branch or contact your administrator for assistance. <a href=https://docs.example>Learn more</a>"),
		reason: "rejected", hint: []string{"push or merge to main", "protected"},
		message: "You do not have sufficient permission to run a pipeline on 'main'. Please select a different branch or contact your administrator for assistance."},
	{name: "a protected branch whose name sounds like a limit", status: 400, body: says("You do not have sufficient permission to run a pipeline on 'input-limit exceeded, try again later'."),
		reason: "rejected", hint: []string{"protected"}, message: "You do not have sufficient permission to run a pipeline on 'input-limit exceeded, try again later'."},
	{name: "a link as entities", status: 400, body: says("You do not have sufficient permission to run a pipeline on 'main'. &lt;a href=&quot;https://docs.example&quot;&gt;Learn more&lt;/a&gt;"),
		reason: "rejected", hint: []string{"protected"}, message: "You do not have sufficient permission to run a pipeline on 'main'."},
	{name: "a protected ref, in older words", status: 400, body: says("Insufficient permissions for protected ref 'main'"),
		reason: "rejected", hint: []string{"protected"}, message: "Insufficient permissions for protected ref 'main'"},
	{name: "CI/CD is switched off", status: 400, body: says("Pipelines are disabled!"),
		reason: "rejected", hint: []string{"Switch CI/CD on in acme/images/api"}, message: "Pipelines are disabled!"},
	{name: "CI/CD is switched off, in older words", status: 400, body: says("Pipeline is disabled"),
		reason: "rejected", hint: []string{"Switch CI/CD on"}, message: "Pipeline is disabled"},
	{name: "the project is deleted", status: 400, body: says("Project is deleted!"),
		reason: "rejected", hint: []string{"Restore acme/images/api"}, message: "Project is deleted!"},
	{name: "the project was deleted, by its code", status: 422, body: `{"message":"project_deleted"}`,
		reason: "rejected", hint: []string{"Restore"}, message: "project_deleted"},
	{name: "an archived project", status: 403, body: `{"message":"403 Forbidden - The project is archived"}`,
		reason: "rejected", hint: []string{"Unarchive acme/images/api"}, message: "403 Forbidden - The project is archived"},

	{name: "identity verification", status: 400, body: says("Identity verification is required in order to run CI jobs"),
		reason: "rejected", hint: []string{"verify the identity", "token's owner"}, message: "Identity verification is required in order to run CI jobs"},
	{name: "identity verification as a 403", status: 403, body: says("Identity verification is required in order to run CI jobs"),
		reason: "rejected", hint: []string{"verify the identity"}, not: "address", message: "Identity verification is required in order to run CI jobs"},
	{name: "identity verification, by its code", status: 422, body: `{"message":"user_not_verified"}`,
		reason: "rejected", hint: []string{"verify the identity"}, message: "user_not_verified"},
	{name: "a credit card", status: 422, body: says("Credit card required to be on file in order to create a pipeline"),
		reason: "rejected", hint: []string{"credit card"}, message: "Credit card required to be on file in order to create a pipeline"},
	{name: "a blocked user", status: 403, body: `{"message":"403 Forbidden - Your account has been blocked."}`,
		reason: "rejected", hint: []string{"token's owner unblocked"}, not: "address", message: "403 Forbidden - Your account has been blocked."},
	{name: "a deactivated user", status: 403, body: `{"message":"Your account has been deactivated by your administrator. Please log back in."}`,
		reason: "rejected", hint: []string{"signed in again"}, message: "Your account has been deactivated by your administrator. Please log back in."},
	{name: "terms of service", status: 403, body: `{"message":"You (@ci) must accept the Terms of Service in order to perform this action."}`,
		reason: "rejected", hint: []string{"token's owner"}, message: "You (@ci) must accept the Terms of Service in order to perform this action."},
	{name: "a blocked user, by its code", status: 422, body: `{"message":"user_blocked"}`,
		reason: "rejected", hint: []string{"unblocked"}, message: "user_blocked"},
	{name: "the identity of an AI", status: 422, body: says("This pipeline did not run because the code should be reviewed by a non-AI user first. Please verify this change is okay before running a new pipeline."),
		reason: "rejected", hint: []string{"token of a person"}, message: "This pipeline did not run because the code should be reviewed by a non-AI user first. Please verify this change is okay before running a new pipeline."},
	{name: "the external validation", status: 422, body: says("External validation failed"),
		reason: "rejected", hint: []string{"external service"}, message: "External validation failed"},
	{name: "the external validation, by its code", status: 422, body: `{"message":"external_validation_failure"}`,
		reason: "rejected", hint: []string{"external service"}, message: "external_validation_failure"},

	{name: "rules that leave no jobs", status: 400,
		body:   says("Pipeline will not run for the selected trigger. The rules configuration prevented any jobs from being added to the pipeline."),
		reason: "no_jobs", hint: []string{"rules"}, message: "Pipeline will not run for the selected trigger. The rules configuration prevented any jobs from being added to the pipeline."},
	{name: "rules that leave no jobs, with a link", status: 400,
		body:   says(`The resulting pipeline would have been empty. Review the <a href="/help/ci/yaml/_index.md#rules">rules</a> configuration for the relevant jobs.`),
		reason: "no_jobs", hint: []string{"rules"}, message: "The resulting pipeline would have been empty. Review the rules configuration for the relevant jobs."},
	{name: "workflow rules", status: 400, body: says("Pipeline filtered out by workflow rules."),
		reason: "no_jobs", hint: []string{"workflow"}, message: "Pipeline filtered out by workflow rules."},
	{name: "workflow rules, with a link", status: 400,
		body:   says(`The pipeline did not run. Review the <a href="/help/ci/yaml/_index.md#workflowrules">workflow:rules</a> configuration for the pipeline.`),
		reason: "no_jobs", hint: []string{"workflow"}, message: "The pipeline did not run. Review the workflow:rules configuration for the pipeline."},
	{name: "workflow rules, by their code", status: 422, body: `{"message":"filtered_by_workflow_rules"}`,
		reason: "no_jobs", hint: []string{"workflow"}, message: "filtered_by_workflow_rules"},
	{name: "no stages", status: 400, body: says("No stages / jobs for this pipeline."),
		reason: "no_jobs", hint: []string{"rules"}, message: "No stages / jobs for this pipeline."},
	{name: "no configuration", status: 400, body: says("Missing CI config file"),
		reason: "no_jobs", hint: []string{"Add .gitlab-ci.yml to acme/images/api on main", "CI/CD configuration file"}, not: "rules", message: "Missing CI config file"},
	{name: "no configuration, in older words", status: 400, body: says("Missing .gitlab-ci.yml file"),
		reason: "no_jobs", hint: []string{"Add .gitlab-ci.yml"}, message: "Missing .gitlab-ci.yml file"},

	{name: "inputs that are no map", status: 400, body: `{"error":"inputs is invalid"}`,
		reason: "inputs_refused", hint: []string{"spec: inputs:"}, message: "inputs is invalid"},
	{name: "inputs that are not declared", status: 422, body: says("unknown input arguments: image_tag"),
		reason: "inputs_refused", hint: []string{"pass: variables"}, message: "unknown input arguments: image_tag"},
	{name: "inputs where none is declared", status: 422,
		body:   says("Given inputs not defined in the `spec` section of the included configuration file"),
		reason: "inputs_refused", hint: []string{"spec: inputs:"}, message: "Given inputs not defined in the `spec` section of the included configuration file"},
	{name: "an input without a value", status: 422, body: says("`severity` input: required value has not been provided"),
		reason: "inputs_refused", hint: []string{"spec: inputs:"}, message: "`severity` input: required value has not been provided"},
	{name: "an input of another value, as a 400", status: 400, body: says("`quota` input: `later` cannot be used because it is not in the list of allowed options"),
		reason: "inputs_refused", hint: []string{"types and rules"}, message: "`quota` input: `later` cannot be used because it is not in the list of allowed options"},
	{name: "too many inputs", status: 400, body: says("There cannot be more than 20 inputs"),
		reason: "inputs_refused", hint: []string{"inputs"}, message: "There cannot be more than 20 inputs"},
	{name: "variables that are no text", status: 400, body: `{"message":"variables needs to be a map of key-valued strings"}`,
		reason: "rejected", hint: []string{"inputs", "text"}, message: "variables needs to be a map of key-valued strings"},
	{name: "a variable of a bad name", status: 400, body: `{"message":{"variables.key":["can contain only letters, digits and '_'."]}}`,
		reason: "rejected", hint: []string{"letters, digits"}, message: "variables.key: can contain only letters, digits and '_'."},
	{name: "a variable twice", status: 422, body: says("Duplicate variable name: TRIGGER_PAYLOAD"),
		reason: "rejected", hint: []string{"TRIGGER_PAYLOAD"}, message: "Duplicate variable name: TRIGGER_PAYLOAD"},
	{name: "no token and no ref", status: 400, body: `{"error":"ref is missing, token is missing"}`,
		reason: "rejected", hint: []string{"GITLAB_TRIGGER_TOKENS", "body"}, message: "ref is missing, token is missing"},

	{name: "jobs in active pipelines", status: 400, body: says("Project exceeded the allowed number of jobs in active pipelines. Retry later."),
		reason: "gitlab_capacity", hint: []string{"jobs in active pipelines", "Admin > Settings > CI/CD"}, message: "Project exceeded the allowed number of jobs in active pipelines. Retry later."},
	{name: "jobs in active pipelines, by their code", status: 422, body: `{"message":"job_activity_limit_exceeded"}`,
		reason: "gitlab_capacity", hint: []string{"jobs in active pipelines"}, message: "job_activity_limit_exceeded"},
	{name: "active jobs of a day", status: 422, body: says("Project has too many active jobs created in the last 24 hours! There are 3 active jobs, but the limit is 1."),
		reason: "gitlab_capacity", hint: []string{"jobs in active pipelines"}, message: "Project has too many active jobs created in the last 24 hours! There are 3 active jobs, but the limit is 1."},
	{name: "active pipelines", status: 422, body: says("Project has too many active pipelines! There are 3 active pipelines, but the limit is 1."),
		reason: "gitlab_capacity", hint: []string{"active pipelines per project"}, message: "Project has too many active pipelines! There are 3 active pipelines, but the limit is 1."},
	{name: "active pipelines, in older words", status: 400, body: says("Active pipelines limit exceeded by 2 pipelines!"),
		reason: "gitlab_capacity", hint: []string{"active pipelines per project"}, message: "Active pipelines limit exceeded by 2 pipelines!"},
	{name: "active pipelines, by their code", status: 422, body: `{"message":"activity_limit_exceeded"}`,
		reason: "gitlab_capacity", hint: []string{"active pipelines per project"}, message: "activity_limit_exceeded"},
	{name: "jobs of a pipeline", status: 422, body: says("Pipeline has too many jobs! Requested 2, but the limit is 1."),
		reason: "gitlab_capacity", hint: []string{"jobs in a single pipeline"}, message: "Pipeline has too many jobs! Requested 2, but the limit is 1."},
	{name: "jobs of a pipeline, by their code", status: 422, body: `{"message":"size_limit_exceeded"}`,
		reason: "gitlab_capacity", hint: []string{"jobs in a single pipeline"}, message: "size_limit_exceeded"},
	{name: "jobs of a pipeline, for people", status: 400, body: says("The pipeline size limit was exceeded."),
		reason: "gitlab_capacity", hint: []string{"jobs in a single pipeline"}, message: "The pipeline size limit was exceeded."},
	{name: "deployments", status: 400, body: says("Pipeline has too many deployments! Requested 2, but the limit is 1."),
		reason: "gitlab_capacity", hint: []string{"deployment jobs"}, message: "Pipeline has too many deployments! Requested 2, but the limit is 1."},
	{name: "deployments, by their code", status: 422, body: `{"message":"deployments_limit_exceeded"}`,
		reason: "gitlab_capacity", hint: []string{"deployment jobs"}, message: "deployments_limit_exceeded"},
	{name: "compute minutes", status: 400, body: says("The acme namespace has exceeded its pipeline minutes quota. Buy additional pipeline minutes, or no new jobs or pipelines in its projects will run."),
		reason: "gitlab_capacity", hint: []string{"compute minutes", "Usage quotas"}, message: "The acme namespace has exceeded its pipeline minutes quota. Buy additional pipeline minutes, or no new jobs or pipelines in its projects will run."},
	{name: "compute minutes, by their code", status: 422, body: `{"message":"ci_quota_exceeded"}`,
		reason: "gitlab_capacity", hint: []string{"compute minutes"}, message: "ci_quota_exceeded"},
	{name: "storage", status: 403, body: `{"message":"Your top-level group acme is over the 5 user limit and has been placed in a read-only state."}`,
		reason: "gitlab_capacity", hint: []string{"storage or users"}, message: "Your top-level group acme is over the 5 user limit and has been placed in a read-only state."},
	{name: "a limit that is not known", status: 422, body: `{"message":"merge_train_limit_exceeded"}`,
		reason: "gitlab_capacity", hint: []string{"a limit of GitLab;"}, message: "merge_train_limit_exceeded"},
	{name: "later", status: 400, body: `{"message":"The queue is full. Please try again later."}`,
		reason: "gitlab_capacity", hint: []string{"retried"}, message: "The queue is full. Please try again later."},
	{name: "a maximum", status: 400, body: says("You have exceeded the maximum number of pipelines"),
		reason: "gitlab_capacity", hint: []string{"a limit of GitLab;"}, message: "You have exceeded the maximum number of pipelines"},
	{name: "no minutes left", status: 400, body: says("Namespace has run out of compute minutes"),
		reason: "gitlab_capacity", hint: []string{"compute minutes"}, message: "Namespace has run out of compute minutes"},
	{name: "again", status: 400, body: says("Pipelines are currently unavailable. Please try again"),
		reason: "gitlab_capacity", hint: []string{"retried"}, message: "Pipelines are currently unavailable. Please try again"},
	{name: "later, with its time", status: 422, header: map[string]string{"Retry-After": "30"}, body: `{"message":"Retry later"}`,
		reason: "gitlab_capacity", message: "Retry later", after: 30 * time.Second},

	{name: "a number that was taken", status: 400, body: says("Failed to persist the pipeline, please retry"),
		reason: "gitlab_unavailable", message: "Failed to persist the pipeline, please retry"},
	{name: "a pipeline that cannot be stored", status: 400, body: says("Failed to persist the pipeline: Validation failed: Sha can't be blank"),
		reason: "rejected", unknown: true, hint: []string{"log of"}, message: "Failed to persist the pipeline: Validation failed: Sha can't be blank"},
	{name: "an error of GitLab's own", status: 400, body: says("Undefined error (01J8)"),
		reason: "rejected", unknown: true, hint: []string{"log of"}, message: "Undefined error (01J8)"},
	{name: "a name that is too long", status: 400, body: says("Failed to build pipeline metadata! Name is too long (maximum is 255 characters)"),
		reason: "pipeline_invalid", hint: []string{"workflow: name:"}, message: "Failed to build pipeline metadata! Name is too long (maximum is 255 characters)"},
	{name: "a policy", status: 400, body: says("Pipeline execution policy error: job names must be unique (lint)"),
		reason: "pipeline_invalid", hint: []string{"policy"}, message: "Pipeline execution policy error: job names must be unique (lint)"},
	{name: "422 is for good, for the pipeline was stored", status: 422, body: says("jobs:build config should implement the script:"),
		reason: "pipeline_invalid", hint: []string{"pipelines page"}, message: "jobs:build config should implement the script:"},
	{name: "a stored pipeline, by its code", status: 422, body: `{"message":"config_error"}`,
		reason: "pipeline_invalid", hint: []string{"pipelines page"}, message: "config_error"},
	{name: "a stored pipeline, without words", status: 422, body: `{"message":"Could not create pipeline"}`,
		reason: "pipeline_invalid", hint: []string{"pipelines page"}, message: "Could not create pipeline"},
	{name: "bad YAML as a 400", status: 400, body: says("jobs:build config contains unknown keys: skript"),
		reason: "pipeline_invalid", hint: []string{"Fix .gitlab-ci.yml of acme/images/api on main"}, message: "jobs:build config contains unknown keys: skript"},
	{name: "words of the YAML parser that look like HTML", status: 400, body: says("(<unknown>): did not find expected key while parsing a block mapping at line 3 column 1"),
		reason: "pipeline_invalid", hint: []string{".gitlab-ci.yml"}, message: "(<unknown>): did not find expected key while parsing a block mapping at line 3 column 1"},
	{name: "an included file", status: 400, body: says("Local file `lint.yml` does not exist!"),
		reason: "pipeline_invalid", hint: []string{"includes"}, message: "Local file `lint.yml` does not exist!"},

	{name: "a 400 in words that are not known", status: 400, body: `{"message":"The stars are wrong"}`,
		reason: "rejected", unknown: true, hint: []string{"own words"}, message: "The stars are wrong"},
	{name: "a map of fields", status: 400, body: `{"message":{"sha":["is bad","is old"],"base":["No."],"user":{"name":["is long"]}}}`,
		reason: "rejected", unknown: true, message: "No., sha: is bad, is old, user: name: is long"},
	{name: "a body without words", status: 400, body: `{"code":7}`, reason: "rejected", unknown: true, hint: []string{"proxy"}},
	{name: "an empty body", status: 400, reason: "rejected", unknown: true, hint: []string{"proxy"}},
	{name: "a 400 of a proxy", status: 400, header: map[string]string{"Content-Type": "text/html"}, body: "<html><h1>400 Bad Request</h1><p>cloudfront, try again later</html>",
		reason: "rejected", unknown: true, hint: []string{"proxy", "GITLAB_URL"}, message: "400 Bad Request cloudfront, try again later"},
	{name: "a port that speaks TLS", status: 400, header: map[string]string{"Content-Type": "text/html"}, body: "<html><center>The plain HTTP request was sent to HTTPS port</center></html>",
		reason: "rejected", hint: []string{"https://"}, message: "The plain HTTP request was sent to HTTPS port"},

	{name: "401 is for good", status: 401, body: `{"message":"401 Unauthorized"}`,
		reason: "unauthorized", hint: []string{"GITLAB_TRIGGER_TOKENS"}, message: "401 Unauthorized"},
	{name: "a job's token", status: 401, body: `{"message":"Job is not running"}`,
		reason: "unauthorized", hint: []string{"GITLAB_TRIGGER_TOKENS"}, message: "Job is not running"},
	{name: "a proxy asks for a sign-in", status: 401, header: map[string]string{"Content-Type": "text/html"}, body: "<h1>Sign in</h1>",
		reason: "unauthorized", hint: []string{"proxy in front of"}, not: "TOKENS", message: "Sign in"},
	{name: "403 may pass", status: 403, body: `{"message":"403 Forbidden"}`,
		reason: "forbidden", hint: []string{"address"}, message: "403 Forbidden"},
	{name: "a list of addresses", status: 403, body: `{"message":"Your IP address is not allowed by the group acme"}`,
		reason: "forbidden", hint: []string{"Restrict access by IP address"}, message: "Your IP address is not allowed by the group acme"},
	{name: "an address that is blocked for a time", status: 403, body: `{"message":"403 Forbidden - Your IP has been blocked. Try again later."}`,
		reason: "forbidden", hint: []string{"address"}, message: "403 Forbidden - Your IP has been blocked. Try again later."},
	{name: "a token that has expired", status: 401, body: `{"message":"401 Unauthorized - The token has expired"}`,
		reason: "unauthorized", hint: []string{"new pipeline trigger token"}, message: "401 Unauthorized - The token has expired"},
	{name: "GitLab blocks an address", status: 403, header: map[string]string{"Content-Type": "text/plain"}, body: "Forbidden\n",
		reason: "forbidden", hint: []string{"address"}, message: "Forbidden"},
	{name: "a firewall", status: 403, header: map[string]string{"Content-Type": "text/html"}, body: "<title>Access denied</title><style>b{}</style><script>x()</script>You have been blocked",
		reason: "forbidden", hint: []string{"proxy or firewall"}, message: "Access denied You have been blocked"},
	{name: "maintenance mode", status: 403, body: `{"message":"You cannot perform write operations on a read-only instance"}`,
		reason: "gitlab_unavailable", hint: []string{"maintenance"}, not: "address", message: "You cannot perform write operations on a read-only instance"},
	{name: "maintenance mode with a banner", status: 403, body: `{"message":"GitLab is undergoing maintenance"}`,
		reason: "gitlab_unavailable", hint: []string{"maintenance"}, message: "GitLab is undergoing maintenance"},
	{name: "maintenance mode as a 503", status: 503, body: `{"message":"You cannot perform write operations on a read-only instance"}`,
		reason: "gitlab_unavailable", lost: true, hint: []string{"maintenance"}, message: "You cannot perform write operations on a read-only instance"},
	{name: "404 is for good, and may be the token", status: 404, body: `{"message":"404 Not Found"}`,
		reason: "not_found", hint: []string{"project path acme/images/api and its token"}, message: "404 Not Found"},
	{name: "a proxy's 404", status: 404, header: map[string]string{"Content-Type": "text/html"},
		body:   "<html><title>404 Not Found</title>The requested URL /api/v4/projects/acme/images/api/trigger/pipeline was not found on this server.</html>",
		reason: "not_found", hint: []string{"GITLAB_URL", "proxy", "numeric ID"}, not: "token",
		message: "404 Not Found The requested URL /api/v4/projects/acme/images/api/trigger/pipeline was not found on this server."},
	{name: "an ingress without GitLab", status: 404, header: map[string]string{"Content-Type": "text/plain"}, body: "default backend - 404",
		reason: "not_found", hint: []string{"GITLAB_URL"}, not: "token", message: "default backend - 404"},
	{name: "a 404 without a body", status: 404, reason: "not_found", hint: []string{"GITLAB_URL"}, not: "token"},
	{name: "a path that the API does not know", status: 404, body: `{"error":"404 Not Found"}`,
		reason: "not_found", hint: []string{"%2F", "numeric ID"}, not: "token", message: "404 Not Found"},
	{name: "a project that was moved", status: 405, body: `{"message":"Non GET methods are not allowed for moved projects"}`,
		reason: "rejected", hint: []string{"new path", "acme/images/api"}, not: "GITLAB_URL", message: "Non GET methods are not allowed for moved projects"},
	{name: "405 is not the API", status: 405, reason: "rejected", hint: []string{"GITLAB_URL"}},
	{name: "407 is a proxy's", status: 407, reason: "rejected", hint: []string{"HTTPS_PROXY"}},
	{name: "408 is a time-out", status: 408, reason: "gitlab_unavailable", lost: true},
	{name: "409 is a lock", status: 409, body: `{"message":"409 Conflict: Resource lock, try again later"}`, reason: "gitlab_unavailable", message: "409 Conflict: Resource lock, try again later"},
	{name: "413 is for good", status: 413, header: map[string]string{"Content-Type": "text/html"}, body: "<h1>413 Request Entity Too Large</h1>",
		reason: "rejected", hint: []string{"Send less"}, message: "413 Request Entity Too Large"},
	{name: "414 is for good", status: 414, reason: "rejected", hint: []string{"Send less"}},
	{name: "431 is for good", status: 431, reason: "rejected", hint: []string{"Send less"}},
	{name: "a 422 of GitLab's pages", status: 422, header: map[string]string{"Content-Type": "text/html"}, body: "<h1>The change you requested was rejected (422)</h1>",
		reason: "rejected", hint: []string{"GITLAB_URL"}, message: "The change you requested was rejected (422)"},
	{name: "a 4xx that is not known", status: 418, body: `{"message":"I'm a teapot"}`, reason: "rejected", hint: []string{"own words"}, message: "I'm a teapot"},

	{name: "429 with Retry-After", status: 429, header: map[string]string{"Content-Type": "text/plain", "Retry-After": "42", "RateLimit-Reset": "1"}, body: "Retry later\n",
		reason: "gitlab_rate_limited", message: "Retry later", after: 42 * time.Second},
	{name: "429 with a reset that is over", status: 429, header: map[string]string{"RateLimit-Reset": "1700000000"}, reason: "gitlab_rate_limited"},
	{name: "429 with a reset far away", status: 429, header: map[string]string{"RateLimit-Reset": "99999999999"}, reason: "gitlab_rate_limited", after: time.Hour},
	{name: "429 without a header", status: 429, body: `{"message":{"error":"This endpoint has been requested too many times. Try again later."}}`,
		reason: "gitlab_rate_limited", message: "error: This endpoint has been requested too many times. Try again later."},
	{name: "a reset that goes with every answer is no wish", status: 403, header: map[string]string{"RateLimit-Reset": "99999999999"}, reason: "forbidden"},

	{name: "500 may have created the pipeline", status: 500, body: `{"message":"500 Internal Server Error"}`,
		reason: "gitlab_unavailable", lost: true, message: "500 Internal Server Error"},
	{name: "502 with a page", status: 502, header: map[string]string{"Content-Type": "text/html"}, body: "<h1>Whoops, GitLab is taking too much time to respond.</h1>",
		reason: "gitlab_unavailable", lost: true, message: "Whoops, GitLab is taking too much time to respond."},
	{name: "503 with Retry-After", status: 503, header: map[string]string{"Content-Type": "text/html", "Retry-After": "300"}, body: "<html><title>GitLab is not responding (503)</title></html>",
		reason: "gitlab_unavailable", lost: true, message: "GitLab is not responding (503)", after: 5 * time.Minute},
	{name: "504", status: 504, reason: "gitlab_unavailable", lost: true},
	{name: "521 of a CDN", status: 521, reason: "gitlab_unavailable", lost: true},
	{name: "an answer over the limit may fit later", status: 400, body: `{"message":"` + strings.Repeat("x", httpclient.MaxAnswer) + `"}`,
		reason: "gitlab_unavailable", lost: true},

	{name: "a redirect is not followed", status: 307, header: map[string]string{"Location": "/elsewhere"}, reason: "redirected", hint: []string{"GITLAB_URL"}, not: "leads to"},
	{name: "a redirect to the sign-in", status: 302, header: map[string]string{"Location": "https://sso.example/users/sign_in?token=" + canary},
		reason: "redirected", hint: []string{"GITLAB_URL", "leads to https://sso.example."}, not: "sign_in"},
	{name: "a redirect of a moved project", status: 301, header: map[string]string{"Location": "https://gitlab.example/api/v4/projects/42/pipelines?name=hubrelay+d1&source=trigger"},
		body: `{"message":"301 Moved Permanently"}`, reason: "redirected", hint: []string{"new path in the route"}, not: "token in", message: "301 Moved Permanently"},
	{name: "304 is no success", status: 304, reason: "redirected", hint: []string{"GITLAB_URL"}},
	{name: "200 is no success", status: 200, header: map[string]string{"Content-Type": "text/html"}, body: "<h1>Welcome</h1>", reason: "rejected", hint: []string{"GITLAB_URL"}, message: "Welcome"},
	{name: "204 is no success", status: 204, reason: "rejected", hint: []string{"GITLAB_URL"}},

	{name: "the token comes back", status: 400, body: `{"message":"token ` + canary + ` is bad"}`,
		reason: "rejected", unknown: true, message: "token [secret] is bad"},
	{name: "the token comes back as in a URL", status: 400, body: `{"message":"at /x?token=glptt-canary%2B%2F%3C1%3E"}`,
		reason: "rejected", unknown: true, message: "at /x?token=[secret]"},
	{name: "the token comes back in a page", status: 500, header: map[string]string{"Content-Type": "text/html"}, body: "<p>token=<b>glptt-</b>canary&#43;/&lt;1&gt; or glptt-canary&#43;/&lt;1&gt;",
		reason: "gitlab_unavailable", lost: true, message: "token=[secret] or [secret]"},
	{name: "words over many lines, with control characters", status: 400, header: map[string]string{"Content-Type": "text/plain"}, body: "a\x1b[31m\r\n\tb\xff",
		reason: "rejected", unknown: true, message: "a [31m b"},
	{name: "a long message is shortened", status: 400, body: `{"message":"` + strings.Repeat("é", 600) + `"}`,
		reason: "rejected", unknown: true, message: strings.Repeat("é", 499) + "…"},
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	temporary := map[string]bool{
		"gitlab_unavailable": true, "gitlab_rate_limited": true, "gitlab_capacity": true, "reference_not_found": true, "forbidden": true,
	}
	for _, c := range refusals {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			fake, client := start(t)
			header := http.Header{"Content-Type": {"application/json"}}
			for name, value := range c.header {
				header.Set(name, value)
			}
			// Should the client repeat the request, it succeeds.
			fake.AddProject(gitlabtest.Project{Path: request.Project, Token: canary})
			fake.Fail(gitlabtest.Failure{Status: c.status, Header: header, Body: c.body})

			_, err := client.CreatePipeline(t.Context(), request)
			got := refused(t, err)
			if got.Status != c.status || got.Reason != c.reason || got.Lost != c.lost || got.Unrecognized != c.unknown {
				t.Errorf("got %+v", got)
			}
			if want := temporary[c.reason] || c.unknown; got.Temporary() != want {
				t.Errorf("temporary is %v, want %v", got.Temporary(), want)
			}
			if got.Message != c.message {
				t.Errorf("message is %q, want %q", got.Message, c.message)
			}
			for _, part := range c.hint {
				if !strings.Contains(got.Hint, part) {
					t.Errorf("hint is %q, without %q", got.Hint, part)
				}
			}
			if got.Hint == "" || strings.Contains(got.Hint, "{") || c.not != "" && strings.Contains(got.Hint, c.not) {
				t.Errorf("hint is %q", got.Hint)
			}
			if got.RetryAfter != c.after {
				t.Errorf("wait %v, want %v", got.RetryAfter, c.after)
			}
			if !strings.HasPrefix(err.Error(), "create pipeline for acme/images/api: "+c.reason) {
				t.Errorf("error is %q", err)
			}
			if n := len(fake.Requests()); n != 1 {
				t.Errorf("%d requests for one call", n)
			}
		})
	}
}
