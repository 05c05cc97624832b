// Package gitlabtest is a fake GitLab for tests and for the sandbox. It creates
// pipelines by trigger token, shows them and their one job, retries and cancels
// them, and signs id tokens. It runs nothing.
package gitlabtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"html/template"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	keep    = 1000      // pipelines, and requests, that are kept
	maxBody = 128 << 10 // bytes of a request
	window  = time.Minute
)

// Project is a project with a trigger token.
type Project struct {
	ID    int // chosen if it is 0
	Path  string
	Token string
	Refs  []string // main if there is none

	// ForbidVariables allows nobody to set pipeline variables, like new
	// projects in new namespaces of GitLab.com.
	ForbidVariables bool
	// ForbidPayload refuses calls without variables, too, like the affected
	// versions, which count the TRIGGER_PAYLOAD that GitLab adds as a variable.
	ForbidPayload bool
	// NoRight takes the right to run pipelines from the owner of the trigger
	// token.
	NoRight     bool
	NoJobs      bool     // the rules exclude every job
	InvalidYAML bool     // a pipeline is stored, and fails to be created
	Inputs      []string // that are declared; nil accepts any
	// MovedFrom is a former path of the project, at which it can be read but
	// not written.
	MovedFrom string
	// Refuse is the answer to every call with a right token, if it is set.
	Refuse *Failure

	Archived, EmptyRepo, CIDisabled bool
	Tags                            []string          // of the repository
	Unprotected                     []string          // branches and tags; all others are protected
	CIConfigPath                    string            // .gitlab-ci.yml if it is ""
	VariablesRole                   string            // that may set pipeline variables: a Role, RoleDeveloper if it is ""
	Files                           map[string]string // of the repository, the same on every ref; nil: they are not looked at
	Jobs                            []string          // of the configuration; the template's if it is nil
	Includes                        []Include         // of the configuration
	Merged                          string            // the configuration with what it includes

	anyRef bool
}

// Pipeline is a pipeline that was stored. The TRIGGER_PAYLOAD that GitLab adds
// is not among its variables.
type Pipeline struct {
	ID        int
	IID       int
	Project   string // path
	ProjectID int
	Ref       string
	SHA       string
	Status    string
	Source    string
	WebURL    string
	JobID     int // of its one job: a job that is retried is another one
	Inputs    map[string]any
	Variables map[string]string
	CreatedAt time.Time
}

// Request is what the server was asked.
type Request struct {
	Method      string
	Path        string // escaped, below the base URL
	ContentType string
	Body        string
}

// Failure is how a call fails. The first of Hang, Reset and ResetAfter that is
// set counts, or Status if none is.
type Failure struct {
	Status int
	Header http.Header
	Body   string
	After  bool // the request is processed before the Status, as behind a proxy that loses the answer

	Hang       time.Duration // no answer until the client disconnects, and at most that long; then the connection breaks
	Reset      bool          // the connection breaks and nothing is created
	ResetAfter bool          // the connection breaks after the request was processed
}

// Server is a fake GitLab. It is safe for concurrent use, and keeps the last
// 1,000 pipelines and requests.
type Server struct {
	baseURL string
	mux     *http.ServeMux
	oidc    issuer

	mu         sync.Mutex
	projects   []Project
	anyToken   string
	onPipeline func(Pipeline)
	pipelines  []Pipeline
	jobs       []job
	lastID     int
	lastJobID  int
	lastIID    map[string]int
	requests   []Request
	failures   []Failure
	rateLimit  int

	accessTokens []AccessToken
	version      string
	questions    *Failure  // the answer to every GET request
	attempts     []attempt // of the last minute, while there is a limit
}

type attempt struct {
	project int
	ref     string
	at      time.Time
}

// New returns a server without projects. baseURL is where it can be reached,
// without a trailing slash; it is the issuer of its id tokens.
func New(baseURL string) *Server {
	s := &Server{baseURL: baseURL, mux: http.NewServeMux(), lastIID: map[string]int{}}
	s.mux.HandleFunc("POST /api/v4/projects/{id}/trigger/pipeline", s.trigger)
	s.mux.HandleFunc("GET /api/v4/projects/{id}/pipelines/{pipeline}", s.api(s.show))
	s.mux.HandleFunc(jobsPattern, s.api(s.listJobs))
	s.mux.HandleFunc("POST /api/v4/projects/{id}/pipelines/{pipeline}/retry", s.api(s.retry))
	s.mux.HandleFunc("POST /api/v4/projects/{id}/pipelines/{pipeline}/cancel", s.api(s.cancel))
	s.mux.HandleFunc("GET /api/v4/version", s.asked(s.showVersion))
	s.mux.HandleFunc("GET /api/v4/personal_access_tokens/self", s.asked(s.showToken))
	s.mux.HandleFunc("GET /api/v4/projects/{id}", s.ofProject(s.showProject))
	s.mux.HandleFunc("GET /api/v4/projects/{id}/repository/branches/{ref}", s.ofProject(s.showBranch))
	s.mux.HandleFunc("GET /api/v4/projects/{id}/repository/tags/{ref}", s.ofProject(s.showTag))
	s.mux.HandleFunc("GET /api/v4/projects/{id}/ci/lint", s.ofProject(s.lint))
	s.mux.HandleFunc("GET /api/v4/projects/{id}/repository/files/{file}/raw", s.ofProject(s.showFile))
	s.mux.HandleFunc("GET /.well-known/openid-configuration", s.discovery)
	s.mux.HandleFunc("GET /oauth/discovery/keys", s.keys)
	s.mux.HandleFunc("GET /{path...}", s.page)
	return s
}

// ServeHTTP answers paths below the base URL: a prefix must be stripped.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		writeJSON(w, http.StatusRequestEntityTooLarge, map[string]any{"error": "413 Request Entity Too Large"})
		return
	}
	s.mu.Lock()
	s.requests = appendBounded(s.requests, Request{r.Method, r.URL.EscapedPath(), r.Header.Get("Content-Type"), string(body)})
	s.mu.Unlock()
	again := *r
	again.Body = io.NopCloser(bytes.NewReader(body))
	s.mux.ServeHTTP(w, &again)
}

// AddProject adds a project, or replaces the one with the same path.
func (s *Server) AddProject(p Project) {
	if p.ID == 0 {
		p.ID = projectID(p.Path)
	}
	if len(p.Refs) == 0 {
		p.Refs = []string{"main"}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.projects = slices.DeleteFunc(s.projects, func(old Project) bool { return old.Path == p.Path })
	s.projects = append(s.projects, p)
}

// AnyProject makes every path (NAMESPACE/NAME) a project with this token and
// every ref, in addition to the projects that were added. Once such a project
// has a pipeline, it is found by its number, too.
func (s *Server) AnyProject(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.anyToken = token
}

// APIToken adds a token that may read every project, and retry and cancel its
// pipelines.
func (s *Server) APIToken(token string) {
	s.AddAccessToken(AccessToken{Token: token, Maintainer: true})
}

// OnPipeline calls f, in a separate goroutine, for every pipeline that is
// created, and again with another JobID when it is retried. It is not called
// for a pipeline that is stored as failed.
func (s *Server) OnPipeline(f func(Pipeline)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onPipeline = f
}

// SetStatus changes the status of a pipeline and of its job. It does nothing if
// there is no such pipeline any more, or it was canceled.
func (s *Server) SetStatus(projectPath string, id int, status string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.pipeline(projectPath, strconv.Itoa(id)); p != nil && p.Status != "canceled" {
		s.setStatus(p, status)
	}
}

// Age makes everything that has happened older, as if that time had passed.
func (s *Server) Age(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.pipelines {
		s.pipelines[i].CreatedAt = s.pipelines[i].CreatedAt.Add(-d)
	}
	for i := range s.jobs {
		if at := &s.jobs[i].finished; !at.IsZero() {
			*at = at.Add(-d)
		}
	}
	for i := range s.attempts {
		s.attempts[i].at = s.attempts[i].at.Add(-d)
	}
}

// RateLimit allows n pipelines a minute for each project and ref. 0 is no
// limit.
func (s *Server) RateLimit(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rateLimit, s.attempts = n, nil
}

// Fail makes the next calls to create a pipeline fail, one call for each
// failure, before anything else is checked.
func (s *Server) Fail(f ...Failure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures = append(s.failures, f...)
}

// Pipelines returns the pipelines, oldest first.
func (s *Server) Pipelines() []Pipeline {
	s.mu.Lock()
	defer s.mu.Unlock()
	pipelines := slices.Clone(s.pipelines)
	for i, p := range pipelines {
		pipelines[i] = p.clone()
	}
	return pipelines
}

func (p Pipeline) clone() Pipeline {
	p.Inputs, p.Variables = maps.Clone(p.Inputs), maps.Clone(p.Variables)
	return p
}

// Requests returns the requests to the server, oldest first.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

func (s *Server) trigger(w http.ResponseWriter, r *http.Request) {
	failure, ok := s.nextFailure()
	if ok && !failure.After && !failure.ResetAfter {
		failure.answer(w, r)
		return
	}
	status, answer := s.create(r)
	switch refusal, refused := answer.(*Failure); {
	case ok:
		failure.answer(w, r)
	case refused:
		refusal.answer(w, r)
	default:
		writeJSON(w, status, answer)
	}
}

func (s *Server) nextFailure() (Failure, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.failures) == 0 {
		return Failure{}, false
	}
	next := s.failures[0]
	s.failures = s.failures[1:]
	return next, true
}

func (f Failure) answer(w http.ResponseWriter, r *http.Request) {
	if f.Hang > 0 {
		limit := time.NewTimer(f.Hang)
		defer limit.Stop()
		select {
		case <-r.Context().Done():
		case <-limit.C:
		}
	}
	if f.Hang > 0 || f.Reset || f.ResetAfter {
		panic(http.ErrAbortHandler)
	}
	maps.Copy(w.Header(), f.Header)
	if f.Status != 0 {
		w.WriteHeader(f.Status)
	}
	_, _ = io.WriteString(w, f.Body)
}

// create checks a request in GitLab's order.
func (s *Server) create(r *http.Request) (status int, answer any) {
	p, refusal := readParams(r)
	if refusal != nil {
		return http.StatusBadRequest, refusal
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	project, ok := s.find(r.PathValue("id"))
	switch {
	case !ok || p.token != project.Token:
		return http.StatusNotFound, map[string]any{"message": "404 Not Found"}
	case project.MovedFrom != "" && project.MovedFrom == r.PathValue("id"):
		return http.StatusMethodNotAllowed, map[string]any{"message": "Non GET methods are not allowed for moved projects"}
	case project.Refuse != nil:
		return 0, project.Refuse
	case project.CIDisabled:
		return refuse(http.StatusBadRequest, "Pipelines are disabled!")
	case project.NoRight, project.Archived:
		return refuse(http.StatusBadRequest, "Insufficient permissions to create a new pipeline")
	case project.ForbidPayload, project.ForbidVariables && len(p.variables) > 0:
		return refuse(http.StatusBadRequest, "Insufficient permissions to set pipeline variables")
	case !project.hasRef(p.ref), project.EmptyRepo:
		return refuse(http.StatusBadRequest, "Reference not found")
	case s.limited(project.ID, p.ref):
		return refuse(http.StatusBadRequest, "Too many pipelines created in the last minute. Try again later.")
	}
	if mistake := project.configError(p); mistake != "" {
		s.store(project, p, "failed")
		return refuse(http.StatusUnprocessableEntity, mistake)
	}
	if project.NoJobs {
		return refuse(http.StatusBadRequest, "Pipeline will not run for the selected trigger. "+
			"The rules configuration prevented any jobs from being added to the pipeline.")
	}
	created := s.store(project, p, "created")
	s.run(created)
	return http.StatusCreated, created.json()
}

func refuse(status int, message string) (int, any) {
	return status, map[string]any{"message": map[string]any{"base": []string{message}}}
}

// find returns the project that has this id or path.
func (s *Server) find(id string) (Project, bool) {
	for _, p := range s.projects {
		if p.Path == id || strconv.Itoa(p.ID) == id || p.MovedFrom != "" && p.MovedFrom == id {
			return p, true
		}
	}
	if s.anyToken == "" {
		return Project{}, false
	}
	if !strings.Contains(id, "/") { // by its number, which a pipeline has
		for _, p := range slices.Backward(s.pipelines) {
			if strconv.Itoa(p.ProjectID) == id {
				return Project{ID: p.ProjectID, Path: p.Project, Token: s.anyToken, anyRef: true}, true
			}
		}
		return Project{}, false
	}
	return Project{ID: projectID(id), Path: id, Token: s.anyToken, anyRef: true}, true
}

// projectID derives an ID from a path, always the same.
func projectID(path string) int {
	h := fnv.New32a()
	_, _ = io.WriteString(h, path)
	return int(h.Sum32()%90_000_000) + 10_000_000
}

func (s *Server) limited(project int, ref string) bool {
	if s.rateLimit == 0 {
		return false
	}
	now := time.Now()
	s.attempts = slices.DeleteFunc(s.attempts, func(a attempt) bool { return now.Sub(a.at) >= window })
	n := 0
	for _, a := range s.attempts {
		if a.project == project && a.ref == ref {
			n++
		}
	}
	s.attempts = appendBounded(s.attempts, attempt{project, ref, now})
	return n >= s.rateLimit
}

// configError returns what is wrong with .gitlab-ci.yml for these inputs.
func (p Project) configError(asked params) string {
	if p.InvalidYAML {
		return "jobs config should contain at least one visible job"
	}
	if p.Inputs == nil || len(asked.inputs) == 0 {
		return ""
	}
	if len(p.Inputs) == 0 {
		return "Given inputs not defined in the `spec` section of the included configuration file"
	}
	var unknown []string
	for _, name := range slices.Sorted(maps.Keys(asked.inputs)) {
		if !slices.Contains(p.Inputs, name) {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) == 0 {
		return ""
	}
	return "unknown input arguments: " + strings.Join(unknown, ", ")
}

// store stores a new pipeline.
func (s *Server) store(project Project, asked params, status string) Pipeline {
	s.lastID++
	s.lastIID[project.Path]++
	p := Pipeline{
		ID:        s.lastID,
		IID:       s.lastIID[project.Path],
		Project:   project.Path,
		ProjectID: project.ID,
		Ref:       asked.ref,
		SHA:       commit(project.Path, asked.ref),
		Status:    status,
		Source:    "trigger",
		WebURL:    fmt.Sprintf("%s/%s/-/pipelines/%d", s.baseURL, project.Path, s.lastID),
		Inputs:    asked.inputs,
		Variables: asked.variables,
		CreatedAt: time.Now().UTC(),
	}
	if status == "created" {
		p.JobID = s.addJob(p)
	}
	s.pipelines = appendBounded(s.pipelines, p)
	return p
}

func (p Pipeline) json() map[string]any {
	at := p.CreatedAt.Format("2006-01-02T15:04:05.000Z")
	return map[string]any{
		"id": p.ID, "iid": p.IID, "project_id": p.ProjectID, "sha": p.SHA, "ref": p.Ref, "status": p.Status,
		"source": p.Source, "created_at": at, "updated_at": at, "web_url": p.WebURL,
		"before_sha": strings.Repeat("0", 40), "tag": false, "yaml_errors": nil,
		"user":       map[string]any{"id": userID, "username": userLogin, "name": userLogin, "state": "active"},
		"started_at": nil, "finished_at": nil, "committed_at": nil, "duration": nil, "queued_duration": nil, "coverage": nil,
	}
}

// params are the parameters of a request.
type params struct {
	token, ref string
	variables  map[string]string
	inputs     map[string]any
}

// readParams reads a request, or returns GitLab's refusal.
func readParams(r *http.Request) (p params, refusal any) {
	raw := map[string]any{}
	for name, values := range r.URL.Query() {
		setParam(raw, name, values[0])
	}
	media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if media == "application/json" {
		var sent map[string]any
		if err := json.NewDecoder(r.Body).Decode(&sent); err != nil {
			return p, map[string]any{"error": "The request body is not valid JSON"}
		}
		maps.Copy(raw, sent)
	} else {
		data, _ := io.ReadAll(r.Body)
		form, err := url.ParseQuery(string(data))
		if err != nil {
			return p, map[string]any{"error": "Bad Request"}
		}
		for name, values := range form {
			setParam(raw, name, values[0])
		}
	}

	p.token, _ = raw["token"].(string)
	p.ref, _ = raw["ref"].(string)
	variables, variablesOK := hash(raw["variables"])
	inputs, inputsOK := hash(raw["inputs"])
	var missing []string
	for _, m := range []struct {
		wrong bool
		what  string
	}{
		{raw["ref"] == nil, "ref is missing"}, {raw["ref"] != nil && p.ref == "", "ref is empty"},
		{raw["token"] == nil, "token is missing"},
		{!variablesOK, "variables is invalid"}, {!inputsOK, "inputs is invalid"},
	} {
		if m.wrong {
			missing = append(missing, m.what)
		}
	}
	if len(missing) > 0 {
		return p, map[string]any{"error": strings.Join(missing, ", ")}
	}
	p.inputs = inputs
	p.variables = map[string]string{}
	for name, value := range variables {
		text, ok := value.(string)
		if !ok {
			return p, map[string]any{"message": "variables needs to be a map of key-valued strings"}
		}
		p.variables[name] = text
	}
	return p, nil
}

// setParam sets name, or K in a name like variables[K].
func setParam(raw map[string]any, name, value string) {
	outer, rest, nested := strings.Cut(name, "[")
	if !nested || !strings.HasSuffix(rest, "]") {
		raw[name] = value
		return
	}
	inner, ok := raw[outer].(map[string]any)
	if !ok {
		inner = map[string]any{}
		raw[outer] = inner
	}
	inner[strings.TrimSuffix(rest, "]")] = value
}

func hash(v any) (map[string]any, bool) {
	if v == nil {
		return map[string]any{}, true
	}
	m, ok := v.(map[string]any)
	return m, ok
}

var page = template.Must(template.New("pipeline").Parse(`<!doctype html>
<meta charset="utf-8">
<title>Pipeline {{.ID}} · {{.Project}}</title>
<style>body{font-family:sans-serif;margin:2em}td{padding:.2em 1em .2em 0;vertical-align:top}</style>
<h1>Pipeline {{.ID}}: {{.Status}}</h1>
<p>This GitLab is a fake: nothing runs here.</p>
<table>
<tr><td>Project<td>{{.Project}}
<tr><td>Ref<td>{{.Ref}}
<tr><td>Commit<td>{{.SHA}}
<tr><td>Source<td>{{.Source}}
<tr><td>Created<td>{{.CreatedAt.Format "2006-01-02 15:04:05 MST"}}
{{range $name, $value := .Inputs}}<tr><td>Input {{$name}}<td>{{$value}}
{{end}}{{range $name, $value := .Variables}}<tr><td>Variable {{$name}}<td>{{$value}}
{{end}}</table>
`))

// page shows the pipeline at /PROJECT/-/pipelines/ID.
func (s *Server) page(w http.ResponseWriter, r *http.Request) {
	project, id, _ := strings.Cut(r.PathValue("path"), "/-/pipelines/")
	for _, p := range s.Pipelines() {
		if p.Project == project && strconv.Itoa(p.ID) == id {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			w.Header().Set("Cache-Control", "no-store")
			_ = page.Execute(w, p)
			return
		}
	}
	http.NotFound(w, r)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// appendBounded appends, and drops the oldest.
func appendBounded[T any](list []T, item T) []T {
	if len(list) >= keep {
		list = slices.Delete(list, 0, len(list)-keep+1)
	}
	return append(list, item)
}
