package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Fault makes a stage go wrong in one way.
type Fault struct {
	ID          int64         `json:"id"`
	Stage       Stage         `json:"stage"`
	Answer      string        `json:"answer"`      // the name of one of the stage's Answers
	Probability float64       `json:"probability"` // that it affects a request; 1 if it is 0
	Latency     time.Duration `json:"latency"`     // before it; the answer's default if it is 0. In JSON "2s"
	Times       int           `json:"times"`       // how often; 0: until it is removed
	Used        int           `json:"used"`        // how often it was applied
}

// MarshalJSON writes the latency as in "2s".
func (f Fault) MarshalJSON() ([]byte, error) {
	type plain Fault
	return json.Marshal(struct {
		plain
		Latency string `json:"latency"`
	}{plain(f), f.Latency.String()})
}

// Answer is one way in which a stage can go wrong.
type Answer struct {
	Stage  Stage  `json:"stage"`
	Answer string `json:"answer"`
	What   string `json:"what"` // what happens, in a sentence
}

// Bounds of faults.
const (
	maxFaults  = 100
	maxLatency = time.Hour
	maxTimes   = 100_000
)

// Names of answers that the code refers to.
const (
	away       = "away"
	lost       = "lost"
	slow       = "slow"
	fails      = "fails"
	silent     = "silent"
	canceled   = "canceled"
	stuck      = "stuck"
	unreported = "unreported"
	late       = "late"
	twice      = "twice"
	unordered  = "out_of_order"
)

// answer is an Answer, and how it is applied to a request over HTTP.
type answer struct {
	name, what string
	latency    time.Duration // if the fault has none

	passes bool // the request is processed as usual, only later
	done   bool // the request is processed, and its answer lost
	none   bool // there is no answer
	kills  bool // the function, which restarts
	status int
	header map[string]string
	body   string
}

func gitlabSays(status int, words string) answer {
	body, _ := json.Marshal(map[string]any{"message": map[string]any{"base": []string{words}}})
	return answer{status: status, header: map[string]string{"Content-Type": "application/json"}, body: string(body)}
}

func (a answer) called(name, what string) answer {
	a.name, a.what = name, what
	return a
}

func jsonSays(status int, body string) answer {
	return answer{status: status, header: map[string]string{"Content-Type": "application/json"}, body: body}
}

func pageSays(status int, text string) answer {
	return answer{
		status: status, header: map[string]string{"Content-Type": "text/html; charset=utf-8"},
		body: "<!DOCTYPE html><html><head><title>" + text + "</title></head><body><h1>" + text + "</h1></body></html>",
	}
}

func (a answer) retryAfter(seconds string) answer {
	a.header["Retry-After"] = seconds
	return a
}

func slackSays(code string) answer { return jsonSays(http.StatusOK, `{"ok":false,"error":"`+code+`"}`) }

const slowTime = 5 * time.Second

// answers are the answers of each stage.
var answers = map[Stage][]answer{
	Hub: {
		{name: lost, what: "Docker Hub calls no webhook for a push. Reconcile finds it ten minutes later."},
		pageSays(502, "Bad Gateway").called(away, "Docker Hub's API, which reconcile asks, answers with an error page of its CDN."),
	},
	Webhook: {
		jsonSays(503, `{"error":"the push could not be queued; send it again"}`).retryAfter("30").called("503", "Webhook answers 503, and the push is not queued. Docker Hub does not call again."),
		{name: slow, what: "Webhook is slow.", latency: slowTime, passes: true},
		{name: "killed_before_publish", what: "Webhook is killed before it has queued the push.", none: true, kills: true},
		{name: "killed_after_publish", what: "Webhook is killed after it has queued the push, and before it has answered.", done: true, kills: true},
	},
	Topic: {
		{name: late, what: "Pub/Sub delivers a message a minute late, by the sandbox's clock.", latency: time.Minute},
		{name: twice, what: "Pub/Sub delivers a message again after it was acknowledged."},
		{name: unordered, what: "Pub/Sub delivers a message after one that was queued later. It waits ten seconds for the later one.", latency: 10 * time.Second},
	},
	Trigger: {
		{name: "killed", what: "Trigger is killed after it has done its work, and before it has answered. Pub/Sub delivers again.", done: true, kills: true},
		{name: "killed_before", what: "Trigger is killed before it has done anything.", none: true, kills: true},
		{name: slow, what: "Trigger is slow.", latency: slowTime, passes: true},
	},
	Registry: {
		jsonSays(404, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`).called("not_found", "The registry lags, and does not have the image yet: not_in_registry, retried."),
		jsonSays(401, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`).called("unauthorized", "The registry refuses the credentials: registry_denied, retried."),
		jsonSays(429, `{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}`).retryAfter("30").called("rate_limited", "The registry limits the rate of requests: registry_rate_limited, retried."),
		jsonSays(500, `{"errors":[{"code":"UNKNOWN","message":"unknown error"}]}`).called(away, "The registry fails: registry_unavailable, retried."),
		{name: slow, what: "The registry is slow.", latency: slowTime, passes: true},
	},
	GitLab: {
		gitlabSays(400, "Too many pipelines created in the last minute. Try again later.").called("too_many_pipelines", "The project's limit of pipelines per minute: gitlab_rate_limited, retried after a minute."),
		{name: "rate_limited", what: "GitLab limits the rate of requests for half a minute: gitlab_rate_limited, retried.",
			status: 429, header: map[string]string{"Content-Type": "text/plain", "Retry-After": "30"}, body: "Retry later\n"},
		gitlabSays(422, "Project exceeded the allowed number of jobs in active pipelines. Retry later.").called("capacity", "A limit of jobs in active pipelines: gitlab_capacity, retried."),
		gitlabSays(400, "Reference not found").called("reference_not_found", "GitLab says that the branch does not exist: reference_not_found, retried."),
		pageSays(403, "Access denied").called("forbidden", "A firewall blocks the function's address: forbidden, retried."),
		jsonSays(503, `{"message":"GitLab is undergoing maintenance"}`).called("maintenance", "GitLab is in maintenance: gitlab_unavailable, retried."),
		jsonSays(500, `{"message":"500 Internal Server Error"}`).called(away, "GitLab fails, and creates no pipeline: gitlab_unavailable, retried. Trigger cannot know that there is no pipeline."),
		gitlabSays(409, "409 Conflict: Resource lock").called("conflict", "GitLab has an internal conflict: gitlab_unavailable, retried."),
		{name: "hangs", what: "GitLab creates nothing, and does not answer until Trigger gives up after 30 seconds: gitlab_unavailable, retried.", latency: time.Minute, none: true},
		{name: lost, what: "GitLab creates the pipeline, and the answer is lost: gitlab_unavailable, retried. The second pipeline finds the image signed.", done: true},
		gitlabSays(400, "Insufficient permissions to set pipeline variables").called("variables_forbidden", "The project allows nobody to set pipeline variables: dead."),
		gitlabSays(400, "Pipeline filtered out by workflow rules.").called("no_jobs", "The project's rules exclude every job: dead."),
		gitlabSays(422, "unknown input arguments: image_tag").called("inputs_refused", "The project declares different inputs: dead."),
		gitlabSays(400, "jobs:hubrelay-promote config contains unknown keys: scirpt").called("pipeline_invalid", "The project's .gitlab-ci.yml is invalid: dead."),
		gitlabSays(400, "Insufficient permissions to create a new pipeline").called("rejected", "The token's owner may not create pipelines: dead."),
		jsonSays(400, `{"error":"the moon is in the wrong phase"}`).called("unknown", "GitLab refuses in unknown words: rejected, retried three times, then dead."),
		jsonSays(401, `{"message":"401 Unauthorized"}`).called("unauthorized", "GitLab does not accept the token: dead."),
		jsonSays(404, `{"message":"404 Not Found"}`).called("not_found", "The project does not exist, or has another token: dead."),
		pageSays(404, "404 Not Found").called("not_gitlab", "Something other than GitLab answers: not_found, dead."),
		{name: "redirected", what: "GitLab redirects to another address: dead.", status: 301, header: map[string]string{"Location": "https://gitlab.example/elsewhere"}},
		jsonSays(405, `{"message":"Non GET methods are not allowed for moved projects"}`).called("moved", "The project was moved to another path: rejected, dead."),
	},
	Pipeline: {
		{name: fails, what: "The pipeline fails, and reports it."},
		{name: silent, what: "The pipeline does nothing and reports nothing, until its job is canceled and retried in GitLab. GitLab cannot be asked about it: silent after an hour."},
		{name: stuck, what: "No runner takes the pipeline's job, until it is canceled and retried in GitLab. Reconcile asks, and Slack says so after an hour."},
		{name: unreported, what: "The pipeline succeeds, and reports nothing. Reconcile asks: unreported."},
		{name: slow, what: "The pipeline takes ten minutes longer, by the sandbox's clock.", latency: 10 * time.Minute},
		{name: canceled, what: "Somebody cancels the pipeline in GitLab, and it reports nothing. Reconcile asks."},
	},
	Notify: {
		{name: "killed", what: "Notify is killed after it has done its work, and before it has answered.", done: true, kills: true},
		{name: "killed_before", what: "Notify is killed before it has done anything.", none: true, kills: true},
		{name: slow, what: "Notify is slow.", latency: slowTime, passes: true},
	},
	Slack: {
		jsonSays(429, `{"ok":false,"error":"ratelimited"}`).retryAfter("30").called("rate_limited", "Slack limits the rate of requests for half a minute."),
		pageSays(500, "Server Error").called(away, "Slack fails."),
		slackSays("is_archived").called("archived", "The channel was archived."),
		slackSays("not_in_channel").called("not_in_channel", "The bot was removed from the channel."),
		slackSays("invalid_auth").called("invalid_auth", "Slack does not accept the bot's token."),
		{name: lost, what: "Slack shows the message, and the answer is lost.", done: true},
		{name: slow, what: "Slack is slow.", latency: slowTime, passes: true},
	},
	Ledger: {
		{name: away, what: "Firestore is down: everything that needs the record answers 503."},
		{name: lost, what: "Firestore writes, and the answer is lost."},
		{name: slow, what: "Firestore is slow.", latency: time.Second},
	},
}

// faults are those that are set.
type faults struct {
	mu   sync.Mutex
	list []*Fault
	last int64
	real map[Stage]bool // that are real services
}

// take returns the first fault of a stage that applies to a request now. Only
// faults with one of these answers are considered, or all if none is given.
func (f *faults) take(stage Stage, among ...string) (Fault, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, fault := range f.list {
		if fault.Stage != stage || len(among) > 0 && !slices.Contains(among, fault.Answer) || rand.Float64() >= fault.Probability {
			continue
		}
		if fault.Used++; fault.Times > 0 && fault.Used >= fault.Times {
			f.list = slices.Delete(f.list, i, i+1)
		}
		return *fault, true
	}
	return Fault{}, false
}

func (f *faults) of(stage Stage) (found []Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, fault := range f.list {
		if fault.Stage == stage {
			found = append(found, *fault)
		}
	}
	return found
}

func find(stage Stage, name string) (answer, bool) {
	for _, a := range answers[stage] {
		if a.name == name {
			return a, true
		}
	}
	return answer{}, false
}

// Answers are all ways in which a stage can go wrong, in the order of the
// stages. Stages that are real services have none.
func (s *Sandbox) Answers() (all []Answer) {
	for _, stage := range AllStages {
		if s.faults.real[stage] {
			continue
		}
		for _, a := range answers[stage] {
			all = append(all, Answer{stage, a.name, a.what})
		}
	}
	return all
}

// Faults are the faults that are set, in the order in which they were set.
func (s *Sandbox) Faults() []Fault {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	list := make([]Fault, 0, len(s.faults.list))
	for _, f := range s.faults.list {
		list = append(list, *f)
	}
	return list
}

// SetFault sets a fault, and returns it with its ID. Its error says what to
// fix.
func (s *Sandbox) SetFault(f Fault) (Fault, error) {
	if f.Probability == 0 {
		f.Probability = 1
	}
	a, known := find(f.Stage, f.Answer)
	var mistakes []error
	switch {
	case !slices.Contains(AllStages, f.Stage):
		mistakes = append(mistakes, fmt.Errorf("stage %.50q is none of %s", f.Stage, join(AllStages)))
	case len(answers[f.Stage]) == 0:
		mistakes = append(mistakes, fmt.Errorf("stage %s has no faults", f.Stage))
	case s.faults.real[f.Stage]:
		mistakes = append(mistakes, fmt.Errorf("stage %s is a real service here, and takes no faults", f.Stage))
	case !known:
		var names []string
		for _, each := range answers[f.Stage] {
			names = append(names, each.name)
		}
		mistakes = append(mistakes, fmt.Errorf("answer %.50q is none of %s", f.Answer, join(names)))
	}
	if !(f.Probability > 0 && f.Probability <= 1) {
		mistakes = append(mistakes, errors.New("probability must be over 0, and at most 1"))
	}
	if f.Latency < 0 || f.Latency > maxLatency {
		mistakes = append(mistakes, fmt.Errorf("latency must be between 0s and %s", maxLatency))
	}
	if f.Times < 0 || f.Times > maxTimes {
		mistakes = append(mistakes, fmt.Errorf("times must be between 0, which means until all faults are removed, and %d", maxTimes))
	}
	if err := errors.Join(mistakes...); err != nil {
		return Fault{}, err
	}
	if f.Latency == 0 {
		f.Latency = a.latency
	}
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	if len(s.faults.list) >= maxFaults {
		return Fault{}, fmt.Errorf("%d faults are set already: remove some", maxFaults)
	}
	s.faults.last++
	f.ID, f.Used = s.faults.last, 0
	s.faults.list = append(s.faults.list, &f)
	return f, nil
}

func join[T ~string](names []T) string {
	var all []string
	for _, n := range names {
		all = append(all, string(n))
	}
	return strings.Join(all, ", ")
}

// RemoveFault removes a fault, and reports whether there was one.
func (s *Sandbox) RemoveFault(id int64) bool {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	before := len(s.faults.list)
	s.faults.list = slices.DeleteFunc(s.faults.list, func(f *Fault) bool { return f.ID == id })
	return len(s.faults.list) < before
}

// Well removes all faults.
func (s *Sandbox) Well() {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	s.faults.list = nil
}

// faulty applies the faults of a stage before its handler, to the requests for
// which may is true.
func (s *Sandbox) faulty(stage Stage, may func(*http.Request) bool, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := exchangeOf(r.Context())
		if x == nil || !may(r) {
			next.ServeHTTP(w, r)
			return
		}
		fault, found := s.faults.take(stage, overHTTP(stage)...)
		if !found {
			next.ServeHTTP(w, r)
			return
		}
		x.mu.Lock()
		x.fault = fault.Answer
		x.mu.Unlock()
		a, _ := find(stage, fault.Answer)
		var serving *instance
		if a.kills {
			serving = s.functions[stage].newest()
		}
		pause(r.Context(), fault.Latency)
		if a.passes {
			next.ServeHTTP(w, r)
			return
		}
		if a.done {
			next.ServeHTTP(&memoryWriter{}, r)
		}
		if a.kills {
			s.kill(stage, serving)
		}
		if a.none || a.done {
			panic(http.ErrAbortHandler)
		}
		for name, value := range a.header {
			w.Header().Set(name, value)
		}
		w.WriteHeader(a.status)
		if r.Method != http.MethodHead {
			_, _ = w.Write([]byte(a.body))
		}
	})
}

// overHTTP names the answers of a stage that apply to requests over HTTP.
func overHTTP(stage Stage) []string {
	if stage == Hub {
		return []string{away} // the others are Docker Hub's own calls
	}
	return nil
}

// pause waits by this machine's clock.
func pause(ctx context.Context, wait time.Duration) {
	if wait <= 0 {
		return
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
