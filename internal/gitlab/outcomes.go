package gitlab

import (
	"regexp"
	"slices"
	"strings"
	"sync"
)

// outcome is what an answer means.
type outcome struct {
	from, to     int                   // the status is one of these
	whose        source                // who answers
	says         func() *regexp.Regexp // the message must match this; nil matches everything
	reason       string
	hint         string // {project}, {ref} and {host} are replaced by the request's
	unrecognized bool
}

// source is the system that seems to have answered.
type source int

const (
	anybody source = iota
	noPage         // anything but a page for people
	page           // only a page for people
	notAPI         // only what is not JSON
	nowhere        // only GitLab's API, if it has no such path
)

func (o outcome) fits(status int, s said) bool {
	if status < o.from || o.to < status || o.says != nil && !o.says().MatchString(s.text) {
		return false
	}
	switch o.whose {
	case noPage:
		return !s.page
	case page:
		return s.page
	case notAPI:
		return !s.json
	case nowhere:
		return s.nowhere
	}
	return true
}

// like matches words with one of these patterns. They are compiled when GitLab
// first refuses something, because compiling all of them takes a tenth of a
// function's start.
func like(patterns ...string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile("(?i)" + strings.Join(patterns, "|"))
	})
}

// words is the outcome of a refusal by its words, with any status. The same
// refusal is 400 if no pipeline was stored, 422 if one was, and 403 in some
// versions.
func words(reason, hint string, patterns ...string) outcome {
	return outcome{from: 400, to: 499, whose: noPage, says: like(patterns...), reason: reason, hint: hint}
}

const (
	awayHint = "Check whether GitLab at {host} is up, and what its status page or log says: it answers with an error, or not in time. " +
		"The push is retried until then."
	maintenanceHint = "GitLab at {host} accepts no changes while it is in maintenance or read-only. Wait until the maintenance ends; " +
		"a secondary of Geo stays read-only, so GITLAB_URL must be the primary."
	urlHint      = "Set GITLAB_URL to the base URL of GitLab: the server at {host} is not its API."
	proxyHint    = "Check GITLAB_URL, and the proxy in front of {host}: the answer is not from GitLab's API, but from something that does not accept the request."
	tooLargeHint = "Send less: shorten the route's `inputs`, or let GitLab and the proxy in front of {host} accept more."
	jobTokenHint = "Use a pipeline trigger token of {project} in GITLAB_TRIGGER_TOKENS: GitLab reads the present one as a job token."
	addressHint  = "Check that the group of {project} allows the function's address " +
		"(Settings > General > Permissions and group features > Restrict access by IP address), that GitLab does, too, and that it is not in maintenance."
	wordsHint  = "Fix in {project} what GitLab's own words say."
	inputsHint = "Declare the inputs that the route sends in `spec: inputs:` of the root .gitlab-ci.yml of {project} on {ref}, " +
		"with types and rules that the values fit, or use `pass: variables` in the route."
	storedHint = "Fix .gitlab-ci.yml of {project} on {ref}: the pipeline was stored but failed to be created, " +
		"and the project's pipelines page says why."
	ownerHint  = "The token acts as the user who created it (Settings > CI/CD > Pipeline trigger tokens in {project})."
	limitsHint = "Admin > Settings > CI/CD > CI/CD limits; on GitLab.com the plan sets it. The push is retried until then."
)

// outcomes is the contract with GitLab: how it refuses, and what follows. The
// first outcome that matches an answer counts.
var outcomes = slices.Concat(byStatus, byWords, byStatusAtLast)

// byStatus are the statuses whose meaning does not depend on the words.
var byStatus = []outcome{
	{from: 200, to: 299, reason: Rejected, hint: urlHint}, // 201 does not come here
	{from: 300, to: 399, reason: Redirected, hint: "Set GITLAB_URL to the right base URL of GitLab, or the project's new path in the route: " +
		"{host} redirects, and the token is not sent to another address."},
	{from: 404, to: 404, whose: nowhere, reason: NotFound, hint: "Use the numeric ID as the project of the route, or fix the proxy in front of {host}: " +
		"it decodes %2F, and GitLab's API does not know such a path (Apache: AllowEncodedSlashes NoDecode and nocanon; nginx: proxy_pass without a path)."},
	{from: 404, to: 404, whose: notAPI, reason: NotFound, hint: "Check GITLAB_URL: the answer from {host} is not from GitLab's API, but from another server, " +
		"or a proxy in front of it. It may also be a proxy that decodes %2F; a numeric ID as the project of the route avoids that."},
	{from: 404, to: 404, reason: NotFound, hint: "Check the project path {project} and its token in GITLAB_TRIGGER_TOKENS: " +
		"a wrong, expired or revoked token looks the same as a wrong project."},
	{from: 405, to: 405, says: like(`moved`), reason: Rejected,
		hint: "Set the new path of {project} as the project of the route, or its numeric ID, which never changes: it was renamed or moved."},
	{from: 405, to: 405, reason: Rejected, hint: urlHint},
	{from: 407, to: 407, reason: Rejected, hint: "Put a user and a password into HTTPS_PROXY, or let {host} through: the proxy asks for them."},
	{from: 408, to: 409, reason: Unavailable, hint: awayHint},
	{from: 413, to: 414, reason: Rejected, hint: tooLargeHint},
	{from: 421, to: 421, reason: Unavailable, hint: awayHint},
	{from: 423, to: 423, reason: Unavailable, hint: awayHint},
	{from: 425, to: 425, reason: Unavailable, hint: awayHint},
	{from: 429, to: 429, reason: RateLimited, hint: "GitLab, or the proxy in front of {host}, limits the rate of requests. The push is retried later."},
	{from: 431, to: 431, reason: Rejected, hint: tooLargeHint},
	{from: 503, to: 503, says: like(`read-only`, `maintenance`), reason: Unavailable, hint: maintenanceHint},
	{from: 500, to: 999, reason: Unavailable, hint: awayHint},
}

// byWords are the refusals of GitLab's API for triggers, and of the steps that
// create a pipeline. For a pipeline that was stored, there may be only the code
// of its failure. Refusals that contain a name come first, so that the name
// does not match another pattern.
var byWords = []outcome{
	words(Rejected, "Allow the token's owner to push or merge to {ref}, which is protected (Settings > Repository > Protected branches, or tags), "+
		"or use the token of a user who may. "+ownerHint,
		`permissions? to run a pipeline on`, `permissions? for protected`),
	words(InputsRefused, inputsHint,
		"`[^`]*` input: ", `unknown input arguments?`, `inputs not defined`, `more than \d+ inputs`, `\binputs? (is|are|must|needs?|cannot) `),
	words(Rejected, "Take the variable out of the route's `inputs`: GitLab gets it twice. TRIGGER_PAYLOAD is its own.",
		`duplicate variable`),

	words(VariablesForbidden, "Use `pass: inputs` in the route, or raise Settings > CI/CD > Variables > Minimum role to use pipeline variables in {project}; "+
		"some versions of GitLab need the latter even if no variable is sent.",
		`permissions? to set pipeline variables`),
	words(Rejected, "Give the token's owner the role Developer or a higher one in {project}, or use the token of a user who has it. "+ownerHint+" "+
		"GitLab says the same if that user is blocked, the project archived, or this address not allowed in its group.",
		`permissions? to create a (new )?pipeline`, `not allowed to (create|run|trigger) (a )?(new )?pipelines?`),
	words(Rejected, "Have the token's owner unblocked, confirmed or signed in again at {host}, or use the token of another user. "+ownerHint,
		`account (has been|is|was) (blocked|banned|deactivated|locked|rejected|pending)`, `user_blocked`, `\b(blocked|banned|deactivated) user`,
		`user (is|was|being|has been) (blocked|banned|deactivated|locked)`, `address is not confirmed`, `terms of service`, `internal users`, `password (has )?expired`),
	words(Rejected, "Sign in to {host} as the token's owner and verify the identity (phone or credit card), or use the token of a user who is verified. "+ownerHint,
		`identity verification`, `credit card`, `user_not_verified`, `user (is |was |has |being )*not (been |being )?verified`, `verify your `, `phone (number )?verification`),
	words(Rejected, "Use the trigger token of a person: GitLab does not let the service account of an AI run pipelines in {project}, "+
		"unless Settings > CI/CD > General pipelines allows it. "+ownerHint,
		`non-ai user`, `composite.identit`),
	words(Unauthorized, jobTokenHint,
		`job token`, `job has to be running`, `job is not running`),
	words(Unauthorized, "Create a new pipeline trigger token in {project} and set it in GITLAB_TRIGGER_TOKENS: the present one is no longer valid.",
		`token (has |is |was |has been )?(expired|revoked)`),
	words(Forbidden, addressHint,
		`\b(your|this) ip\b`, `\bip address`, `\ballow-?list`),

	words(Rejected, "Switch CI/CD on in {project}: Settings > General > Visibility, project features, permissions > CI/CD.",
		`(pipelines?|ci/cd|\bci|builds|jobs) (is|are) (disabled|not enabled)`, `builds_disabled`),
	words(Rejected, "Restore {project}, or set another project in the route: it is deleted, or about to be.",
		`project (is|has been|was) deleted`, `project_deleted`, `project .* was deleted`, `(marked|scheduled|pending) (for )?deletion`),
	words(Rejected, "Unarchive {project} (Settings > General > Advanced), or set another project in the route.",
		`\b(is|been|was|are) archived`, `archived (project|group|namespace)`),
	words(Rejected, "Ask the administrator of {host}: its external service for validating pipelines refused this one.",
		`external[ _](pipeline[ _])?validation`),

	words(ReferenceNotFound, "Check that the branch or tag {ref} exists in {project} and has a commit, or set `ref` in the route.",
		`reference not found`, `commit not found`),
	words(Rejected, "There are both a branch and a tag {ref} in {project}: rename or delete one, or set another `ref` in the route.",
		`ref is ambiguous`),
	words(NoJobs, "Add .gitlab-ci.yml to {project} on {ref}, or set where it is: Settings > CI/CD > General pipelines > CI/CD configuration file.",
		`missing ci config`, `missing \S*\.ya?ml`),
	words(NoJobs, "Let a job of .gitlab-ci.yml in {project} on {ref} run for triggers: its `rules:` and `workflow:` see CI_PIPELINE_SOURCE as trigger.",
		`prevented any jobs from being added`, `filtered out by`, `filtered_by_`, `no stages / jobs`, `would have been empty`,
		`will not run for the selected trigger`, `the pipeline did not run\. review`),
	words(Rejected, "Rename what the route's `inputs` call variables: only letters, digits and underscores, with values that are text.",
		`variables? needs to be`, `variables? is invalid`, `variables?[. _]+(key|value)`, `can contain only letters`),
	words(Rejected, "Set `ref` of the route and its token in GITLAB_TRIGGER_TOKENS. If both are set, the request lost its body: check the proxy in front of {host}.",
		`\b(ref|token) is (missing|empty|invalid)`),

	// The limit of pipelines is a 400, not a 429.
	words(RateLimited, "GitLab limits the number of pipelines per minute for a project and commit: the rest is created later. "+
		"Admin > Settings > Network > Pipelines rate limits raises it.",
		`too many pipelines`, `too many requests`, `requested too many times`, `rate limit (was |is |has been )?(exceeded|reached)`),
	words(Unavailable, maintenanceHint,
		`read-only (gitlab )?instance`, `undergoing maintenance`, `maintenance mode`),
	words(Unavailable, awayHint,
		`failed to persist the pipeline, please retry`),

	words(Capacity, "{project} has as many jobs in active pipelines as GitLab allows: let some end, cancel what hangs, "+
		"or raise the total number of jobs in currently active pipelines in "+limitsHint,
		`jobs in active pipelines`, `active[ _]jobs`, `job[ _]activity[ _]limit`),
	words(Capacity, "{project} has as many active pipelines as GitLab allows: let some end, cancel what hangs, "+
		"or raise the maximum number of active pipelines per project in "+limitsHint,
		`active[ _]pipelines`, `activity[ _]limit`),
	words(Capacity, "The pipeline of {project} has more deployment jobs than GitLab allows: give .gitlab-ci.yml on {ref} fewer with `environment:`, "+
		"or let the administrator of {host} raise ci_pipeline_deployments in the limits of the plan. The push is retried until then.",
		`too many deployments`, `deployments?[ _]limit`),
	words(Capacity, "The pipeline of {project} has more jobs than GitLab allows: give .gitlab-ci.yml on {ref} fewer, "+
		"or raise the maximum number of jobs in a single pipeline in "+limitsHint,
		`too many jobs`, `size[ _]limit`, `number of jobs has exceeded`),
	words(Capacity, "The namespace of {project} has no compute minutes left: buy more in Settings > Usage quotas > Pipelines of its top-level group, "+
		"or give the project its own runners. New minutes come with the next month; the push is retried until then.",
		`(compute|pipelines?|ci|ci/cd|runners?) minutes`, `compute (quota|usage|units?)`, `quota\b.* (exceeded|reached|used)`, `quota_exceeded`, `(exceeded|reached|over|used) .*quota`),
	words(Capacity, "The namespace of {project} is over its limit of storage or users, and read-only: see Settings > Usage quotas of its top-level group. "+
		"The push is retried until then.",
		`storage (limit|size)`, `(exceeded|reached|over) .*storage`, `user limit`, `read-only state`),
	words(Capacity, "{project} has reached a limit of GitLab; GitLab's own words say which one. Limits of pipelines are in "+limitsHint,
		`limit[ _](was |is |has been )?(exceeded|reached)`, `(exceeded|exceeds|reached|over) (the|its|your|a) [a-z ]*(limit|allowed|maximum|capacity)`, `but the limit is`,
		`maximum number of .*(exceeded|reached)`, `\b(try|retry|again|back|wait)\b.* later\b`, `\b(try|retry) (again|in)\b`, `please retry`, `\bin a few (minutes|moments)`,
		`temporarily`, `currently unavailable`),

	words(PipelineInvalid, "Fix the pipeline execution policy that applies to {project} (Secure > Policies): its jobs do not fit .gitlab-ci.yml on {ref}.",
		`execution policy`),
	words(PipelineInvalid, "Fix `workflow: name:` of .gitlab-ci.yml in {project} on {ref}: the resulting name is too long, or not valid.",
		`pipeline metadata`),
}

// byStatusAtLast are for unknown words, or words that are not GitLab's.
var byStatusAtLast = []outcome{
	{from: 400, to: 400, says: like(`http request (was )?(sent )?to (an )?https`), reason: Rejected,
		hint: "Set GITLAB_URL to https://{host}: the server there speaks only TLS."},
	{from: 400, to: 400, whose: noPage, says: like(`undefined error`, `failed to (build|persist|create)`, `could not create`), reason: Rejected, unrecognized: true,
		hint: "Look into the log of {host}, by the ID in GitLab's own words if there is one: it failed to create the pipeline of {project}. " +
			"Build > Pipeline editor shows whether .gitlab-ci.yml on {ref} is valid."},
	{from: 400, to: 400, whose: noPage, says: like(`\binputs?\b`), reason: InputsRefused, hint: inputsHint},
	{from: 400, to: 400, whose: noPage, says: like(`ya?ml`, `\bconfig`, `\bincluded?\b`, `(local|remote|project) file`, `\bcomponent\b`, `\bstages?\b`, `\bjob needs\b`,
		`unknown keys?`, `<unknown>`, `interpolation`, `job names? `), reason: PipelineInvalid,
		hint: "Fix .gitlab-ci.yml of {project} on {ref}, or what it includes: GitLab cannot create a pipeline from it. Build > Pipeline editor shows where."},
	{from: 400, to: 400, whose: page, reason: Rejected, unrecognized: true, hint: proxyHint},
	{from: 400, to: 400, says: like(`^$`), reason: Rejected, unrecognized: true, hint: proxyHint},
	{from: 400, to: 400, reason: Rejected, unrecognized: true, hint: wordsHint},
	{from: 401, to: 401, whose: notAPI, reason: Unauthorized,
		hint: "Let hubrelay through the proxy in front of {host}, which asks it to sign in, or check GITLAB_URL: the answer is not from GitLab's API."},
	{from: 401, to: 401, reason: Unauthorized, hint: jobTokenHint},
	{from: 403, to: 403, says: like(`read-only`, `maintenance`), reason: Unavailable, hint: maintenanceHint},
	{from: 403, to: 403, whose: page, reason: Forbidden,
		hint: "Have the proxy or firewall before {host} let the function's address in, or check GITLAB_URL: the answer is not from GitLab's API."},
	{from: 403, to: 403, reason: Forbidden, hint: addressHint},
	{from: 422, to: 422, whose: page, reason: Rejected, hint: urlHint},
	// The configuration is read after the pipeline is stored.
	{from: 422, to: 422, reason: PipelineInvalid, hint: storedHint},
	{from: 400, to: 499, whose: notAPI, reason: Rejected, hint: proxyHint},
	{from: 400, to: 499, reason: Rejected, hint: wordsHint},
}
