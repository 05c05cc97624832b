package gitlab

import (
	"encoding/json"
	"fmt"
	"html"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/httpclient"
)

// Reasons of an Error. The first four pass, the others do not.
const (
	Unavailable       = "gitlab_unavailable"  // no answer, or none that can be read
	RateLimited       = "gitlab_rate_limited" // too many requests, or too many pipelines
	ReferenceNotFound = "reference_not_found" // no such ref; some GitLabs say so of refs that exist
	Forbidden         = "forbidden"           // the caller's address is blocked

	VariablesForbidden = "variables_forbidden" // the project lets nobody set pipeline variables
	NoJobs             = "no_jobs"             // the project's rules leave nothing to run
	InputsRefused      = "inputs_refused"      // the project declares other inputs
	Rejected           = "rejected"            // refused in words of GitLab's own
	Unauthorized       = "unauthorized"        // a job token that is not valid
	NotFound           = "not_found"           // no such project, or another token
	PipelineInvalid    = "pipeline_invalid"    // stored, but it failed to be created
	Redirected         = "redirected"          // the API is somewhere else
	SearchRefused      = "search_refused"      // the API token may not list pipelines
)

const (
	maxMessage = 500 // runes of GitLab's own words that are kept
	maxDepth   = 10  // of lists and maps in GitLab's message; it nests them two deep

	// maxReset bounds what RateLimit-Reset may ask for.
	maxReset = time.Hour
	// pipelineWindow is what the limit of pipelines counts over. GitLab does
	// not say when it ends.
	pipelineWindow = time.Minute
)

// Error says why there is no pipeline, or why that is not known. It never
// holds the token.
type Error struct {
	Status     int           // of GitLab's answer, 0 where there is none
	Reason     string        // one of the above
	Hint       string        // for people: what to mend, "" where nothing is
	Message    string        // GitLab's own words, of 500 runes at most
	RetryAfter time.Duration // 0 where GitLab did not say
	Ambiguous  bool          // the pipeline may exist all the same
	Cause      error         // why there is no answer, nil where there is one
}

// Temporary tells whether the same request may succeed later.
func (e *Error) Temporary() bool {
	switch e.Reason {
	case Unavailable, RateLimited, ReferenceNotFound, Forbidden:
		return true
	}
	return false
}

func (e *Error) Error() string {
	text := e.Reason
	if e.Status != 0 {
		text += ": GitLab answered " + strconv.Itoa(e.Status)
	}
	if e.Message != "" {
		text += ": " + e.Message
	}
	if e.Cause != nil {
		text += ": " + e.Cause.Error()
	}
	return text
}

func (e *Error) Unwrap() error { return e.Cause }

// outcome is what an answer means. The first that fits it counts.
type outcome struct {
	from, to int      // the status is one of these
	says     []string // the message has one of these, in lower case; none asks for nothing
	reason   string
	hint     string // {project} and {ref} stand for the request's
}

const (
	inputsHint = "Declare the inputs that the route sends in `spec: inputs:` of the root .gitlab-ci.yml of {project} on {ref}, " +
		"or use `pass: variables` in the route."
	wordsHint = "Mend what GitLab says: its own words are in the log line of this delivery."
	urlHint   = "Set GITLAB_URL to the base URL of GitLab: what answers there is not its API."
)

// outcomes is the contract with GitLab: how it says no, and what follows.
var outcomes = []outcome{
	{200, 299, nil, Rejected, urlHint}, // 201 does not come here
	{300, 399, nil, Redirected, "Set GITLAB_URL to the right base URL of GitLab: the one that is set redirects, and a token does not follow."},

	// The limit of pipelines is a 400, not a 429.
	{400, 400, []string{"too many pipelines"}, RateLimited, ""},
	{400, 400, []string{"reference not found"}, ReferenceNotFound,
		"Check that the branch or tag {ref} exists in {project}, or set `ref` in the route."},
	{400, 400, []string{"insufficient permissions to set pipeline variables"}, VariablesForbidden,
		"Use `pass: inputs` in the route, or raise Settings > CI/CD > Variables > Minimum role to use pipeline variables in {project}; " +
			"some versions of GitLab need the latter even where no variable is sent."},
	{400, 400, []string{
		"prevented any jobs from being added", "filtered out by workflow rules", "no stages / jobs",
		"pipeline would have been empty", "will not run for the selected trigger", "missing ci config file",
	}, NoJobs, "Let a job of .gitlab-ci.yml in {project} on {ref} run for triggers: its `rules:` and `workflow:` see CI_PIPELINE_SOURCE as trigger."},
	{400, 400, []string{"input"}, InputsRefused, inputsHint},
	{400, 400, nil, Rejected, wordsHint},

	{401, 401, nil, Unauthorized, "Use a pipeline trigger token in GITLAB_TRIGGER_TOKENS: GitLab takes the one that is set for a job's."},
	{403, 403, nil, Forbidden, "Check that the group of {project} and GitLab let the function's address in."},
	{404, 404, nil, NotFound, "Check the project path {project} and its token in GITLAB_TRIGGER_TOKENS: a wrong or revoked token looks the same as a wrong project."},
	{408, 409, nil, Unavailable, ""},
	// The configuration is read after the pipeline is stored.
	{422, 422, []string{"input arguments", "inputs not defined", "` input:"}, InputsRefused, inputsHint},
	{422, 422, nil, PipelineInvalid,
		"Mend .gitlab-ci.yml of {project} on {ref}: the pipeline was stored but failed to be created, and the project's pipelines page says why."},
	{429, 429, nil, RateLimited, ""},
	{405, 405, nil, Rejected, urlHint},
	{400, 499, nil, Rejected, wordsHint},
}

// refusal makes an Error of an answer other than 201.
func (a answer) refusal(r Request) *Error {
	if a.err != nil {
		return &Error{
			Status: a.status, Reason: Unavailable, RetryAfter: a.retryAfter(), Ambiguous: true,
			Cause: fmt.Errorf("read the answer: %w", httpclient.Unanswered(a.err)),
		}
	}
	words := a.words()
	e := &Error{
		Status: a.status, Reason: Unavailable, Message: shorten(redact(words, r.Token)),
		RetryAfter: a.retryAfter(), Ambiguous: a.status == http.StatusRequestTimeout || a.status >= http.StatusInternalServerError,
	}
	for _, o := range outcomes {
		if o.fits(a.status, strings.ToLower(words)) {
			e.Reason = o.reason
			e.Hint = strings.NewReplacer("{project}", r.Project, "{ref}", r.Ref).Replace(o.hint)
			break
		}
	}
	if e.Status == http.StatusBadRequest && e.Reason == RateLimited {
		e.RetryAfter = max(e.RetryAfter, pipelineWindow)
	}
	return e
}

// notFound makes an Error of an answer to a search other than 200.
func (a answer) notFound(s Search) *Error {
	e := &Error{Status: a.status, Reason: Unavailable, Message: shorten(redact(a.words(), s.Token)), RetryAfter: a.retryAfter()}
	switch {
	case a.status == http.StatusTooManyRequests:
		e.Reason = RateLimited
	case a.status < http.StatusInternalServerError && a.status != http.StatusRequestTimeout:
		e.Reason = SearchRefused
		e.Hint = "Set an access token of " + s.Project + " with the scope read_api in GITLAB_API_TOKENS, or none; " +
			"and look whether a pipeline of this push is there before you replay it."
	}
	return e
}

func (o outcome) fits(status int, words string) bool {
	return o.from <= status && status <= o.to &&
		(len(o.says) == 0 || slices.ContainsFunc(o.says, func(s string) bool { return strings.Contains(words, s) }))
}

// words returns what the answer says to people, on one line: of JSON the
// values of message and error, which may be strings, lists or maps; of plain
// text all; of a page nothing.
func (a answer) words() string {
	var said []string
	var top any
	if json.Unmarshal(a.body, &top) == nil {
		if fields, ok := top.(map[string]any); ok {
			for _, key := range []string{"message", "error", "error_description"} {
				said = flatten(said, fields[key], 0)
			}
		} else {
			said = flatten(said, top, 0)
		}
	} else if media, _, err := mime.ParseMediaType(a.header.Get("Content-Type")); err == nil && media == "text/plain" {
		said = append(said, string(a.body))
	}
	printable := strings.Map(func(c rune) rune {
		if c == utf8.RuneError || !unicode.IsPrint(c) {
			return ' '
		}
		return c
	}, strings.Join(said, ", "))
	return strings.Join(strings.Fields(printable), " ")
}

// flatten appends what is said in v, a key before what belongs to it. GitLab's
// key for what belongs to no field is base.
func flatten(said []string, v any, depth int) []string {
	if depth > maxDepth {
		return said
	}
	switch v := v.(type) {
	case nil:
	case []any:
		for _, item := range v {
			said = flatten(said, item, depth+1)
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			first := len(said)
			said = flatten(said, v[key], depth+1)
			if key != "base" && len(said) > first {
				said[first] = key + ": " + said[first]
			}
		}
	default:
		said = append(said, fmt.Sprint(v))
	}
	return said
}

// redact takes the token out of text, also as it looks in a URL or a page.
func redact(text string, token env.Secret) string {
	if token.IsZero() {
		return text
	}
	secret := token.Reveal()
	for _, form := range []string{secret, url.QueryEscape(secret), url.PathEscape(secret), html.EscapeString(secret)} {
		text = strings.ReplaceAll(text, form, fmt.Sprint(token))
	}
	return text
}

func shorten(text string) string {
	if utf8.RuneCountInString(text) <= maxMessage {
		return text
	}
	return string([]rune(text)[:maxMessage-1]) + "…"
}

// retryAfter reads Retry-After. RateLimit-Reset, which GitLab.com sends with
// every answer, counts only where the limit is reached.
func (a answer) retryAfter() time.Duration {
	if a.header.Get("Retry-After") != "" || a.status != http.StatusTooManyRequests {
		return httpclient.RetryAfter(a.header)
	}
	unix, err := strconv.ParseInt(a.header.Get("RateLimit-Reset"), 10, 64)
	if err != nil {
		return 0
	}
	return min(max(0, time.Until(time.Unix(unix, 0)).Round(time.Second)), maxReset)
}

// unanswered makes an Error of a request that got no answer. Where there was
// no connection, there is no pipeline.
func unanswered(err error, connected bool) *Error {
	return &Error{Reason: Unavailable, Ambiguous: connected, Cause: httpclient.Unanswered(err)}
}
