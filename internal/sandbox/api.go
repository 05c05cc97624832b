package sandbox

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/getto-systems/hubrelay/internal/dockerhub"
	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/route"
)

// maxAsked bounds the body of a call, in bytes.
const maxAsked = 1 << 20

// done is the result of a call.
type done struct {
	status   int    // 200 if it is 0
	value    any    // as JSON
	sentence string // for people
}

// mistake is a refusal of a call. Its text says what to fix.
type mistake struct {
	status int
	text   string
}

func (m *mistake) Error() string { return m.text }

// wrong says what is wrong with a call.
func wrong(status int, err error) error { return &mistake{status, err.Error()} }

// routeAPI serves /api/, as docs/sandbox.md describes it.
func (s *Sandbox) routeAPI() {
	for pattern, f := range map[string]func(*http.Request) (done, error){
		"GET /api/{$}":             plain(s.apiList),
		"POST /api/push":           s.apiPush,
		"POST /api/webhook":        s.apiWebhook,
		"GET /api/promotions":      s.apiRows,
		"GET /api/promotions/{id}": plain(s.apiStory),
		"GET /api/stages":          plain(s.apiStages),
		"GET /api/faults":          plain(s.apiFaults),
		"POST /api/faults":         s.apiSetFault,
		"DELETE /api/faults/{id}":  plain(s.apiRemoveFault),
		"POST /api/well":           s.apiWell,
		"POST /api/replay":         s.apiReplay,
		"POST /api/retry":          s.apiRetry,
		"POST /api/reconcile":      s.apiRing(reconcilePath, "reconcile"),
		"POST /api/tick":           s.apiRing(tickPath, "the clock"),
		"GET /api/clock":           plain(s.apiNow),
		"POST /api/clock":          s.apiForward,
		"GET /api/routes":          plain(s.apiRoutes),
		"PUT /api/routes":          s.apiSetRoutes,
		"GET /api/explain":         s.apiExplain,
		"GET /api/load":            plain(s.apiLoad),
		"POST /api/load":           s.apiStartLoad,
	} {
		s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			r.Body = http.MaxBytesReader(w, r.Body, maxAsked)
			d, err := f(r)
			if err != nil {
				var m *mistake
				if !errors.As(err, &m) {
					m = &mistake{http.StatusInternalServerError, err.Error()}
				}
				refuse(w, r, m.status, s.secrets.hide(m.text))
				return
			}
			answerCall(w, r, d)
		})
	}
	s.mux.HandleFunc("GET /api/events", s.apiEvents)
	s.mux.HandleFunc("/api/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, r, http.StatusNotFound, "there is no such call; "+s.URL+"/api/ lists all calls")
	})
}

// answerCall answers with JSON, or htmx with a sentence.
func answerCall(w http.ResponseWriter, r *http.Request, d done) {
	status := cmp.Or(d.status, http.StatusOK)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.Header.Get("HX-Request") == "true" {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, html.EscapeString(d.sentence))
		return
	}
	body, err := json.MarshalIndent(d.value, "", "  ")
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be written as JSON"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}

func refuse(w http.ResponseWriter, r *http.Request, status int, text string) {
	answerCall(w, r, done{status, map[string]string{"error": text}, text})
}

// fields reads the fields of a call. A field without a value counts as missing.
func fields(r *http.Request, names ...string) (map[string]string, error) {
	body, err := bodyOf(r)
	if err != nil {
		return nil, err
	}
	f, err := decode(r.Header.Get("Content-Type"), body, names...)
	if err != nil {
		return nil, wrong(http.StatusBadRequest, err)
	}
	return f, nil
}

// plain has a call without a field refuse any.
func plain(f func(*http.Request) (done, error)) func(*http.Request) (done, error) {
	return func(r *http.Request) (done, error) {
		if _, err := queryOf(r); err != nil {
			return done{}, err
		}
		return f(r)
	}
}

// bodyOf reads the body. Whoever writes fields into the query beside it would
// have another thing done than was asked for.
func bodyOf(r *http.Request) ([]byte, error) {
	if r.URL.RawQuery != "" {
		return nil, wrong(http.StatusBadRequest, errors.New("the fields of this call belong in the body, not in the query"))
	}
	body, err := io.ReadAll(r.Body)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, wrong(http.StatusRequestEntityTooLarge, fmt.Errorf("the body is over %d bytes", maxAsked))
	case err != nil:
		return nil, wrong(http.StatusBadRequest, errors.New("the body could not be read"))
	}
	return body, nil
}

// textOf returns the body, or the field of that name if the body is a form.
// curl -d declares every body a form, so JSON never counts as one.
func textOf(r *http.Request, field string) (string, error) {
	body, err := bodyOf(r)
	if err != nil {
		return "", err
	}
	media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if media != "application/x-www-form-urlencoded" || strings.HasPrefix(strings.TrimSpace(string(body)), "{") || json.Valid(body) {
		return string(body), nil
	}
	form, err := url.ParseQuery(string(body))
	switch {
	case err != nil || !form.Has(field):
		return string(body), nil
	case len(form) > 1 || len(form[field]) > 1:
		return "", wrong(http.StatusBadRequest, fmt.Errorf("the form has other fields than one %s", field))
	}
	return form.Get(field), nil
}

// decode reads a JSON object of texts, numbers and booleans, or a form. A name
// that is not among names is a mistake, and so is a duplicate name.
func decode(contentType string, body []byte, names ...string) (map[string]string, error) {
	found := map[string]string{}
	media, _, _ := mime.ParseMediaType(contentType)
	var mistakes []error
	add := func(name, value string) {
		if !slices.Contains(names, name) {
			mistakes = append(mistakes, fmt.Errorf("there is no field %.50q; the fields are %s", name, cmp.Or(strings.Join(names, ", "), "none")))
			return
		}
		found[name] = value
	}
	text := strings.TrimSpace(string(body))
	switch {
	case text == "":
	case media == "application/json", media != "application/x-www-form-urlencoded" && strings.HasPrefix(text, "{"), strings.HasPrefix(text, "{") && json.Valid(body):
		if !strings.HasPrefix(text, "{") || !json.Valid([]byte(text)) {
			return nil, errors.New("the body is not a JSON object")
		}
		decoder := json.NewDecoder(strings.NewReader(text))
		decoder.UseNumber()
		_, _ = decoder.Token() // the brace
		seen := map[string]bool{}
		for decoder.More() {
			token, _ := decoder.Token()
			name, _ := token.(string)
			var value any
			if err := decoder.Decode(&value); err != nil {
				return nil, errors.New("the body is not a JSON object")
			}
			if seen[name] {
				mistakes = append(mistakes, fmt.Errorf("%.50q occurs more than once", name))
			}
			seen[name] = true
			switch value := value.(type) {
			case nil:
				add(name, "")
			case string:
				add(name, value)
			case json.Number:
				add(name, value.String())
			case bool:
				add(name, strconv.FormatBool(value))
			default:
				mistakes = append(mistakes, fmt.Errorf("%.50q is neither a text nor a number", name))
			}
		}
	default:
		form, err := url.ParseQuery(text)
		if err != nil {
			return nil, errors.New("the body is neither a JSON object nor a form")
		}
		for _, name := range sorted(form) {
			if len(form[name]) > 1 {
				mistakes = append(mistakes, fmt.Errorf("%.50q occurs more than once", name))
			}
			add(name, form[name][0])
		}
	}
	if err := errors.Join(mistakes...); err != nil {
		return nil, errors.New(strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return found, nil
}

func sorted[T any](m map[string]T) []string {
	var names []string
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// number reads a field that is a whole number.
func number(f map[string]string, name string, otherwise int) (int, error) {
	if f[name] == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(f[name])
	if err != nil {
		return 0, wrong(http.StatusBadRequest, fmt.Errorf("%s is %.50q, and must be a whole number", name, f[name]))
	}
	return n, nil
}

// duration reads a field such as 90s or 10m.
func duration(f map[string]string, name string) (time.Duration, error) {
	if f[name] == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(f[name])
	if err != nil {
		return 0, wrong(http.StatusBadRequest, fmt.Errorf("%s is %.50q, and must be a duration such as 2s, 10m or 1h30m", name, f[name]))
	}
	return d, nil
}

// queryOf reads the query of a GET, as the fields of a form.
func queryOf(r *http.Request, names ...string) (map[string]string, error) {
	f, err := decode("application/x-www-form-urlencoded", []byte(r.URL.RawQuery), names...)
	if err != nil {
		return nil, wrong(http.StatusBadRequest, err)
	}
	return f, nil
}

func (s *Sandbox) apiList(*http.Request) (done, error) {
	calls := []string{
		"POST /api/push image= kind=" + strings.Join(Kinds, "|"),
		"POST /api/webhook (JSON)",
		"GET /api/promotions?text=&state=&since=&offset=&limit=", "GET /api/promotions/{id}",
		"GET /api/stages", "GET /api/events?after=",
		"GET /api/faults", "POST /api/faults stage= answer= probability= latency= times=", "DELETE /api/faults/{id}", "POST /api/well",
		"POST /api/replay match=", "POST /api/retry pipeline=", "POST /api/reconcile", "POST /api/tick", "GET /api/clock", "POST /api/clock forward=10m",
		"GET /api/routes", "PUT /api/routes (JSON)", "GET /api/explain?image=",
		"GET /api/load", "POST /api/load pushes= per_second= repository=",
	}
	return done{value: map[string]any{"calls": calls}, sentence: fmt.Sprintf("There are %d calls.", len(calls))}, nil
}

func (s *Sandbox) apiPush(r *http.Request) (done, error) {
	f, err := fields(r, "image", "kind")
	if err != nil {
		return done{}, err
	}
	if f["image"] == "" {
		return done{}, wrong(http.StatusBadRequest, errors.New("image is missing, such as acme/api:1.5.0"))
	}
	kind := cmp.Or(f["kind"], MultiArch)
	image, digest, err := s.Push(f["image"], kind)
	switch {
	case errors.Is(err, errElsewhere):
		return done{}, wrong(http.StatusConflict, err)
	case err != nil:
		return done{}, wrong(http.StatusBadRequest, err)
	}
	return done{
		value:    map[string]string{"image": image, "kind": kind, "digest": digest},
		sentence: fmt.Sprintf("Pushed %s, which is %.19s.", image, digest),
	}, nil
}

// apiWebhook sends any JSON to Webhook. A form has it as body.
func (s *Sandbox) apiWebhook(r *http.Request) (done, error) {
	body, err := textOf(r, "body")
	if err != nil {
		return done{}, err
	}
	req, err := http.NewRequestWithContext(r.Context(), http.MethodPost, s.hub.webhookURL, strings.NewReader(body))
	if err != nil {
		return done{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	status, answer, err := s.ask(req)
	if err != nil {
		return done{}, wrong(http.StatusBadGateway, err)
	}
	return done{
		value:    map[string]any{"status": status, "answer": answer},
		sentence: fmt.Sprintf("Webhook answered %d: %s", status, answer),
	}, nil
}

func (s *Sandbox) apiRows(r *http.Request) (done, error) {
	f, err := queryOf(r, "text", "state", "since", "offset", "limit")
	if err != nil {
		return done{}, err
	}
	q := Query{Text: f["text"]}
	for name, to := range map[string]*int{"offset": &q.Offset, "limit": &q.Limit} {
		if *to, err = number(f, name, 0); err != nil {
			return done{}, err
		}
	}
	since, err := number(f, "since", 0)
	if err != nil {
		return done{}, err
	}
	q.Since = int64(since)
	for state := range strings.SplitSeq(f["state"], ",") {
		if state = strings.TrimSpace(state); state == "" {
			continue
		}
		if !slices.Contains(ledger.States, ledger.State(state)) {
			return done{}, wrong(http.StatusBadRequest, fmt.Errorf("state %.50q is none of %s", state, join(ledger.States)))
		}
		q.States = append(q.States, ledger.State(state))
	}
	revision := s.Revision() // what changes in the meantime is returned again
	rows, total, err := s.Rows(q)
	if err != nil {
		return done{}, err
	}
	return done{
		value:    map[string]any{"rows": append([]Row{}, rows...), "total": total, "revision": revision},
		sentence: fmt.Sprintf("There are %d promotions.", total),
	}, nil
}

func (s *Sandbox) apiStory(r *http.Request) (done, error) {
	story, ok, err := s.Story(r.PathValue("id"))
	switch {
	case err != nil:
		return done{}, err
	case !ok:
		return done{}, wrong(http.StatusNotFound, errors.New("there is no such promotion, or it was dropped"))
	}
	return done{value: story, sentence: fmt.Sprintf("%s is %s.", story.Image, story.State)}, nil
}

func (s *Sandbox) apiStages(*http.Request) (done, error) {
	return done{value: map[string]any{"stages": s.Stages()}, sentence: "These are the stages."}, nil
}

func (s *Sandbox) apiFaults(*http.Request) (done, error) {
	set := s.Faults()
	return done{value: map[string]any{"set": set, "answers": s.Answers()}, sentence: fmt.Sprintf("%d faults are set.", len(set))}, nil
}

func (s *Sandbox) apiSetFault(r *http.Request) (done, error) {
	f, err := fields(r, "stage", "answer", "probability", "latency", "times")
	if err != nil {
		return done{}, err
	}
	fault := Fault{Stage: Stage(f["stage"]), Answer: f["answer"], Probability: 1}
	if f["probability"] != "" {
		if fault.Probability, err = strconv.ParseFloat(f["probability"], 64); err != nil || fault.Probability == 0 {
			return done{}, wrong(http.StatusBadRequest, errors.New("probability must be over 0, and at most 1"))
		}
	}
	if fault.Latency, err = duration(f, "latency"); err != nil {
		return done{}, err
	}
	if fault.Times, err = number(f, "times", 0); err != nil {
		return done{}, err
	}
	if fault, err = s.SetFault(fault); err != nil {
		return done{}, wrong(http.StatusBadRequest, errors.New(strings.ReplaceAll(err.Error(), "\n", "; ")))
	}
	a, _ := find(fault.Stage, fault.Answer)
	return done{status: http.StatusCreated, value: fault, sentence: "Set: " + a.what}, nil
}

func (s *Sandbox) apiRemoveFault(r *http.Request) (done, error) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil || !s.RemoveFault(id) {
		return done{}, wrong(http.StatusNotFound, errors.New("there is no such fault; it may have been used up"))
	}
	return done{value: map[string]int64{"removed": id}, sentence: "The fault is removed."}, nil
}

func (s *Sandbox) apiWell(r *http.Request) (done, error) {
	if _, err := fields(r); err != nil {
		return done{}, err
	}
	n := len(s.Faults())
	s.Well()
	return done{value: map[string]int{"removed": n}, sentence: "All faults are removed."}, nil
}

// Replay queues the dead letters again whose images match REPOSITORY[:TAG],
// where both may be globs. It returns their number.
func (s *Sandbox) Replay(ctx context.Context, match string) (int, error) {
	pattern, err := dockerhub.ParsePattern(match)
	if err != nil {
		return 0, wrong(http.StatusBadRequest, fmt.Errorf("match: %w", err))
	}
	return s.queue.replay(ctx, func(m *pubsubpb.PubsubMessage) bool {
		push, err := dockerhub.Decode(m.Data)
		return err == nil && pattern.Matches(push.Repository, push.Tag)
	})
}

func (s *Sandbox) apiReplay(r *http.Request) (done, error) {
	f, err := fields(r, "match")
	if err != nil {
		return done{}, err
	}
	n, err := s.Replay(r.Context(), cmp.Or(f["match"], "*"))
	if err != nil {
		return done{}, err
	}
	return done{value: map[string]int{"replayed": n}, sentence: fmt.Sprintf("%d dead letters are queued again.", n)}, nil
}

// Retry runs the job of a pipeline of the fake GitLab again, as the button
// there does. One that has not ended is canceled first. It reports whether
// there was anything to run.
func (s *Sandbox) Retry(pipeline int) bool {
	for _, p := range s.GitLab.Pipelines() {
		if p.ID == pipeline {
			s.GitLab.Cancel(p.Project, p.ID)
			return s.GitLab.Retry(p.Project, p.ID)
		}
	}
	return false
}

func (s *Sandbox) apiRetry(r *http.Request) (done, error) {
	f, err := fields(r, "pipeline")
	if err != nil {
		return done{}, err
	}
	id, err := number(f, "pipeline", 0)
	switch {
	case err != nil:
		return done{}, err
	case !s.Retry(id):
		return done{}, wrong(http.StatusConflict, errors.New("there is no such pipeline, or it has succeeded"))
	}
	return done{value: map[string]int{"pipeline": id}, sentence: fmt.Sprintf("The job of pipeline %d runs again.", id)}, nil
}

func (s *Sandbox) apiRing(path, who string) func(*http.Request) (done, error) {
	return func(r *http.Request) (done, error) {
		if _, err := fields(r); err != nil {
			return done{}, err
		}
		answer, err := s.ring(r.Context(), path)
		if err != nil {
			return done{}, wrong(http.StatusBadGateway, err)
		}
		return done{value: answer, sentence: fmt.Sprintf("Called %s: %s", who, answer)}, nil
	}
}

func (s *Sandbox) apiNow(*http.Request) (done, error) {
	now := s.clock.now()
	ahead := s.Ahead().Round(time.Second)
	return done{value: map[string]any{"now": now, "ahead": ahead.String()}, sentence: fmt.Sprintf("It is %s.", now.Format(time.DateTime))}, nil
}

func (s *Sandbox) apiForward(r *http.Request) (done, error) {
	f, err := fields(r, "forward")
	if err != nil {
		return done{}, err
	}
	d, err := duration(f, "forward")
	if err != nil {
		return done{}, err
	}
	if d <= 0 || d > maxForward {
		return done{}, wrong(http.StatusBadRequest, fmt.Errorf("forward must be a duration such as 10m, and at most %s", maxForward))
	}
	if err := s.Forward(r.Context(), d); err != nil {
		return done{}, wrong(http.StatusBadGateway, err)
	}
	return s.apiNow(r)
}

// Routes is the current table, as JSON.
func (s *Sandbox) Routes() string {
	s.starting.Lock()
	defer s.starting.Unlock()
	return s.settings["ROUTES"]
}

// SetRoutes restarts the functions with another table. If the table has a
// mistake, nothing changes, and the error names it.
func (s *Sandbox) SetRoutes(table string) error {
	if _, err := route.Parse(table); err != nil {
		return wrong(http.StatusBadRequest, errors.New(strings.ReplaceAll(err.Error(), "\n", "; ")))
	}
	if err := s.restart(map[string]string{"ROUTES": table}); err != nil {
		return wrong(http.StatusBadRequest, errors.New(strings.ReplaceAll(err.Error(), "\n", "; ")))
	}
	s.events.add(Event{Who: "sandbox", What: "restarts the functions with new routes"})
	return nil
}

func (s *Sandbox) apiRoutes(*http.Request) (done, error) {
	return done{value: json.RawMessage(s.Routes()), sentence: "These are the routes."}, nil
}

// apiSetRoutes takes a table as JSON. A form has it as routes.
func (s *Sandbox) apiSetRoutes(r *http.Request) (done, error) {
	body, err := textOf(r, "routes")
	if err != nil {
		return done{}, err
	}
	if err := s.SetRoutes(body); err != nil {
		return done{}, err
	}
	return done{value: json.RawMessage(s.Routes()), sentence: "The routes are in use now."}, nil
}

func (s *Sandbox) apiExplain(r *http.Request) (done, error) {
	f, err := queryOf(r, "image")
	if err != nil {
		return done{}, err
	}
	repository, tag, err := dockerhub.SplitImage(f["image"])
	if err != nil {
		return done{}, wrong(http.StatusBadRequest, fmt.Errorf("image: %w", err))
	}
	table, err := route.Parse(s.Routes())
	if err != nil {
		return done{}, err
	}
	e := table.Explain(repository, tag)
	return done{
		value: struct {
			route.Explanation
			Text string `json:"text"` // in sentences, one per line
		}{e, e.String()},
		sentence: strings.ReplaceAll(strings.TrimSpace(e.String()), "\n", " "),
	}, nil
}

func (s *Sandbox) apiLoad(*http.Request) (done, error) {
	l := s.Load()
	return done{value: l, sentence: fmt.Sprintf("%d of %d images are pushed, and %d promoted.", l.Sent, l.Pushes, l.Promoted)}, nil
}

func (s *Sandbox) apiStartLoad(r *http.Request) (done, error) {
	f, err := fields(r, "pushes", "per_second", "repository")
	if err != nil {
		return done{}, err
	}
	pushes, err := number(f, "pushes", 100)
	if err != nil {
		return done{}, err
	}
	perSecond, err := number(f, "per_second", 20)
	if err != nil {
		return done{}, err
	}
	if err := s.StartLoad(f["repository"], pushes, perSecond); err != nil {
		status := http.StatusBadRequest
		if errors.Is(err, errElsewhere) || errors.Is(err, errSending) {
			status = http.StatusConflict
		}
		return done{}, wrong(status, err)
	}
	return done{status: http.StatusAccepted, value: s.Load(), sentence: fmt.Sprintf("Pushing %d images, %d a second.", pushes, perSecond)}, nil
}
