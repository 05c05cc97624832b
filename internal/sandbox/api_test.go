package sandbox_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/sandbox"
)

// call sends a form, or a query, or JSON where the first field is "" and its
// value the body. It returns what came back as JSON.
func (b *box) call(method, path string, form ...string) (status int, answer map[string]any) {
	b.t.Helper()
	var body io.Reader
	contentType := "application/x-www-form-urlencoded"
	switch {
	case len(form) == 2 && form[0] == "":
		body, contentType = strings.NewReader(form[1]), "application/json"
	case len(form) > 0:
		values := url.Values{}
		for i := 0; i < len(form); i += 2 {
			values.Set(form[i], form[i+1])
		}
		if method == http.MethodGet {
			path += "?" + values.Encode()
		} else {
			body = strings.NewReader(values.Encode())
		}
	}
	req, err := http.NewRequestWithContext(b.t.Context(), method, b.URL+path, body)
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Accept", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		b.t.Fatalf("%s %s: %s, and no JSON: %v", method, path, res.Status, err)
	}
	return res.StatusCode, answer
}

// good calls what must succeed.
func (b *box) good(method, path string, form ...string) map[string]any {
	b.t.Helper()
	status, answer := b.call(method, path, form...)
	if status >= 300 {
		b.t.Fatalf("%s %s %v: %d %v", method, path, form, status, answer)
	}
	return answer
}

// bad calls what must be refused, with words that say what to fix.
func (b *box) bad(want int, words, method, path string, form ...string) {
	b.t.Helper()
	status, answer := b.call(method, path, form...)
	if text := fmt.Sprint(answer["error"]); status != want || !strings.Contains(text, words) {
		b.t.Errorf("%s %s %v: %d %v, want %d and %q", method, path, form, status, answer, want, words)
	}
}

// comes waits until a promotion of an image has a state, and returns it.
func (b *box) comes(image string, state ledger.State) sandbox.Row {
	b.t.Helper()
	var last []sandbox.Row
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		last, _, _ = b.Rows(sandbox.Query{Text: image})
		for _, r := range last {
			if r.Image == image && r.State == state {
				return r
			}
		}
	}
	b.t.Fatalf("%s does not become %s: %+v", image, state, last)
	return sandbox.Row{}
}

func TestPushesOfAllKinds(t *testing.T) {
	t.Parallel()
	b := start(t, sandbox.Config{})
	const image = "acme/api:2.0.0"
	first := b.good("POST", "/api/push", "image", image)["digest"]
	b.comes(image, ledger.Promoted)
	b.settle()
	second := b.good("POST", "/api/push", "image", image, "kind", "single")["digest"]
	b.wait(2, "notify", image, "report recorded", "success")
	b.settle()
	if first == second || len(b.GitLab.Pipelines()) != 2 {
		t.Errorf("%s, %s and %d pipelines", first, second, len(b.GitLab.Pipelines()))
	}
	if got := b.good("POST", "/api/push", "", `{"image":"acme/api:2.0.0","kind":"same"}`)["digest"]; got != second {
		t.Errorf("the same is %s, not %s", got, second)
	}
	b.settle()
	if n := len(b.GitLab.Pipelines()); n != 2 {
		t.Errorf("the same has started a pipeline: there are %d", n)
	}
	if got := b.good("POST", "/api/push", "image", image, "kind", "back")["digest"]; got != first {
		t.Errorf("back is %s, not %s", got, first)
	}
	b.wait(1, "notify", image, "report recorded", "skipped") // it is signed
	b.settle()
	if got := b.digest("acme/api", "latest").String(); got != first {
		t.Errorf("latest is %s, not %s", got, first)
	}
	b.good("POST", "/api/push", "image", "acme/api:chart", "kind", "chart")
	b.wait(1, "webhook", "acme/api:chart", "push ignored", "not_an_image")
	attestation := b.good("POST", "/api/push", "image", image, "kind", "artifact")["image"].(string)
	if want := "acme/api:" + strings.Replace(first.(string), ":", "-", 1) + ".att"; attestation != want {
		t.Errorf("the artifact is %s, want %s", attestation, want)
	}
	b.wait(1, "trigger", attestation, "push ignored", "artifact_tag")

	b.bad(400, "image is missing", "POST", "/api/push")
	b.bad(400, "multi-arch, single", "POST", "/api/push", "image", image, "kind", "x")
	b.bad(400, "A", "POST", "/api/push", "image", "A:1")
	b.bad(400, "push one first", "POST", "/api/push", "image", "acme/new:1", "kind", "same")
	b.bad(400, "push it twice", "POST", "/api/push", "image", "acme/new:1", "kind", "back")
	b.bad(400, `no field "imagee"`, "POST", "/api/push", "imagee", image)
	b.bad(404, "/api/ lists", "POST", "/api/nothing")
	b.bad(413, "over 1048576 bytes", "POST", "/api/push", "image", strings.Repeat("a", 2<<20))
}

func TestAnyJSONGoesToWebhook(t *testing.T) {
	t.Parallel()
	b := start(t, sandbox.Config{})
	body := `{"repository":{"repo_name":"acme/api"},"push_data":{"tag":"1.4.0"}}`
	for _, form := range [][]string{{"", body}, {"body", body}} {
		if answer := b.good("POST", "/api/webhook", form...); answer["status"] != 202.0 || answer["answer"].(map[string]any)["message_id"] == "" {
			t.Errorf("%v", answer)
		}
	}
	b.comes("acme/api:1.4.0", ledger.Promoted)
	if answer := b.good("POST", "/api/webhook", "", `{"repository":7}`); answer["status"] != 400.0 {
		t.Errorf("%v", answer)
	}
	if answer := b.good("POST", "/api/webhook", "", `<script>`); answer["status"] != 400.0 {
		t.Errorf("%v", answer)
	}
}

// All that is known of one promotion, in one place.
func TestAStory(t *testing.T) {
	t.Parallel()
	b := start(t, sandbox.Config{StepTime: 50 * time.Millisecond})
	b.goWrong(sandbox.GitLab, "away", 1)
	digest := b.good("POST", "/api/push", "image", "acme/web:1.0.0")["digest"]
	row := b.comes("acme/web:1.0.0", ledger.Promoted)
	b.shows("acme/web:1.0.0", isDone)
	b.settle()
	eventually(t, "nothing is left to do", func() bool {
		return !slices.ContainsFunc(b.Stages(), func(now sandbox.StageNow) bool { return now.InHand+now.Waiting > 0 })
	})
	answer := b.good("GET", "/api/promotions/"+row.ID)
	raw, _ := json.Marshal(answer)
	var story sandbox.Story
	if err := json.Unmarshal(raw, &story); err != nil {
		t.Fatal(err)
	}
	if story.Digest != digest || story.Promotion.Requests != 2 || story.Inputs["image_digest"] != digest || story.Inputs["promotion_id"] != row.ID {
		t.Errorf("%+v, inputs %v", story.Row, story.Inputs)
	}
	outcomes := map[string]int{}
	for _, h := range story.Hints {
		outcomes[h.Outcome]++
		if h.Source != "webhook" || h.Attempts == 0 || !strings.Contains(h.Data, `"repository":"acme/web"`) || h.Attributes["tag"] != "1.0.0" {
			t.Errorf("hint %+v", h)
		}
	}
	// The six of the push, and the six of the push of the signed tag.
	if len(story.Hints) != 12 || outcomes["triggered"] != 1 || outcomes["ignored"] != 11 {
		t.Errorf("%d hints: %v", len(story.Hints), outcomes)
	}
	stages := map[sandbox.Stage]int{}
	logs, faults := 0, 0
	for _, ev := range story.Events {
		stages[ev.Stage]++
		if ev.Log != nil {
			logs++
		}
		if ev.Call != nil && ev.Call.Fault == "away" && ev.Call.Status == 500 {
			faults++
		}
	}
	for _, stage := range []sandbox.Stage{sandbox.Hub, sandbox.Webhook, sandbox.Topic, sandbox.Trigger, sandbox.Registry, sandbox.GitLab, sandbox.Pipeline, sandbox.Notify, sandbox.Slack} {
		if stages[stage] == 0 {
			t.Errorf("the story has nothing of %s", stage)
		}
	}
	if logs == 0 || faults != 1 {
		t.Errorf("%d log lines, %d faults", logs, faults)
	}
	for stage, words := range map[sandbox.Stage]string{
		sandbox.Webhook: "queued as ", sandbox.Trigger: "retry, gitlab_unavailable", sandbox.Registry: fmt.Sprintf("%.19s", digest),
		sandbox.GitLab: "500 Internal Server Error", sandbox.Notify: "promoted", sandbox.Slack: "posted",
	} {
		if !slices.ContainsFunc(story.Events, func(ev sandbox.Event) bool {
			return ev.Stage == stage && ev.Call != nil && strings.HasPrefix(ev.Detail, words)
		}) {
			t.Errorf("nothing says that of %s came %q", stage, words)
		}
	}
	bars := map[sandbox.Stage][]sandbox.Bar{}
	for i, bar := range story.Bars {
		bars[bar.Stage] = append(bars[bar.Stage], bar)
		if bar.Start.IsZero() || bar.End.Before(bar.Start) || i > 0 && bar.Start.Before(story.Bars[i-1].Start) {
			t.Errorf("bar %+v", bar)
		}
	}
	waited := slices.ContainsFunc(bars[sandbox.Topic], func(b sandbox.Bar) bool { return strings.HasPrefix(b.Label, "waits ") })
	tried := slices.ContainsFunc(bars[sandbox.Trigger], func(b sandbox.Bar) bool { return strings.HasSuffix(b.Label, ": retry, gitlab_unavailable") && b.Bad })
	if !waited || !tried || len(bars[sandbox.Pipeline]) != 1 || len(bars[sandbox.GitLab]) != 2 || len(bars[sandbox.Slack]) == 0 {
		t.Errorf("the bars are %+v", story.Bars)
	}
	if len(story.Messages) != 1 || !strings.Contains(string(story.Messages[0].Blocks), "acme/web") {
		t.Errorf("Slack shows %+v", story.Messages)
	}
	for _, now := range b.Stages() {
		switch now.Stage {
		case sandbox.Reconcile: // it may have been called now
		case sandbox.DeadLetters:
			if now.Done != 0 || now.Last != "" {
				t.Errorf("%s did %+v", now.Stage, now)
			}
		default:
			if now.Done == 0 || now.Last == "" && now.Stage != sandbox.Ledger && now.Stage != sandbox.Topic {
				t.Errorf("%s did %+v", now.Stage, now)
			}
		}
	}
	for _, command := range story.Curl {
		if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil || strings.Contains(string(out), "{\n  \"error\"") {
			t.Errorf("%s: %v %s", command, err, out)
		}
	}
	b.bad(404, "no such promotion", "GET", "/api/promotions/none")
}

func TestRowsArePagedFilteredAndFollowed(t *testing.T) {
	t.Parallel()
	b := start(t, sandbox.Config{})
	for i := range 5 {
		b.good("POST", "/api/push", "image", fmt.Sprintf("acme/r%d:1", i), "kind", "single")
		b.comes(fmt.Sprintf("acme/r%d:1", i), ledger.Promoted)
	}
	b.settle()
	page := b.good("GET", "/api/promotions", "limit", "2", "offset", "1")
	rows := page["rows"].([]any)
	if page["total"] != 5.0 || len(rows) != 2 || rows[0].(map[string]any)["image"] != "acme/r3:1" {
		t.Errorf("the page is %v", page)
	}
	if got := b.good("GET", "/api/promotions", "text", "acme/r2"); got["total"] != 1.0 {
		t.Errorf("by text: %v", got)
	}
	if got := b.good("GET", "/api/promotions", "state", "failed,dead"); got["total"] != 0.0 {
		t.Errorf("by state: %v", got)
	}
	time.Sleep(2 * time.Second) // until Slack shows everything
	since := b.good("GET", "/api/promotions")["revision"].(float64)
	b.good("POST", "/api/push", "image", "acme/r9:1", "kind", "single")
	b.comes("acme/r9:1", ledger.Promoted)
	got := b.good("GET", "/api/promotions", "since", fmt.Sprint(int64(since)))
	if rows := got["rows"].([]any); len(rows) == 0 || rows[0].(map[string]any)["image"] != "acme/r9:1" || got["revision"].(float64) <= since {
		t.Errorf("what changed: %v", got)
	}
	b.bad(400, "waiting, starting", "GET", "/api/promotions", "state", "happy")
	b.bad(400, "whole number", "GET", "/api/promotions", "limit", "x")
}

// read reads a stream until an event satisfies the condition, and returns all.
func (b *box) read(path, lastEventID string, until func(sandbox.Event) bool) (events []sandbox.Event, gaps int) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.URL+path, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	if lastEventID != "" {
		req.Header.Set("Last-Event-ID", lastEventID)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	if got := res.Header.Get("Content-Type"); got != "text/event-stream" {
		b.t.Fatalf("%s: %s", res.Status, got)
	}
	var id string
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if line == "event: gap" {
			gaps++
			lines.Scan() // its data
			continue
		}
		if text, ok := strings.CutPrefix(line, "id: "); ok {
			id = text
		}
		if text, ok := strings.CutPrefix(line, "data: "); ok {
			var ev sandbox.Event
			if err := json.Unmarshal([]byte(text), &ev); err != nil || !strings.HasPrefix(id, fmt.Sprint(ev.ID)+"-") {
				b.t.Fatalf("id %s: %v: %s", id, err, text)
			}
			events = append(events, ev)
			if until(ev) {
				return events, gaps
			}
		}
	}
	b.t.Fatalf("the stream ends after %d events: %v", len(events), lines.Err())
	return nil, 0
}

func TestAStreamOfEventsResumes(t *testing.T) {
	t.Parallel()
	b := start(t, sandbox.Config{})
	b.buildOneArch("acme/api:2.0.0")
	first, _ := b.read("/api/events", "", func(ev sandbox.Event) bool { return ev.What == "pipeline created" })
	for i, ev := range first {
		if ev.ID != int64(i+1) {
			t.Fatalf("event %d has the ID %d", i, ev.ID)
		}
	}
	last := first[len(first)-1].ID
	success := func(ev sandbox.Event) bool {
		return ev.What == "report recorded" && strings.HasPrefix(ev.Detail, "success")
	}
	resumed, gaps := b.read("/api/events?after=1", fmt.Sprint(last), success) // as a browser that comes back
	if resumed[0].ID != last+1 || gaps != 0 {
		t.Errorf("it goes on with %d after %d, and %d gaps", resumed[0].ID, last, gaps)
	}
	if again, _ := b.read(fmt.Sprintf("/api/events?after=%d", last), "", success); again[0].ID != last+1 {
		t.Errorf("after %d comes %d", last, again[0].ID)
	}
	// An earlier run of the sandbox had as many events, and this one has more.
	if of, gaps := b.read("/api/events", "1-another", func(sandbox.Event) bool { return true }); of[0].ID != 1 || gaps != 1 {
		t.Errorf("of another life it begins with %d, and %d gaps", of[0].ID, gaps)
	}
	if of := b.good("GET", "/api/events", "after", "1-another", "limit", "1")["events"].([]any); of[0].(map[string]any)["id"] != 1.0 {
		t.Errorf("of another life it begins as JSON with %v", of[0])
	}
	if of, gaps := b.read("/api/events", "999999", func(sandbox.Event) bool { return true }); of[0].ID != 1 || gaps != 1 {
		t.Errorf("of another life it begins with %d, and %d gaps", of[0].ID, gaps)
	}
	got := b.good("GET", "/api/events", "after", "2", "limit", "3")
	if list := got["events"].([]any); len(list) != 3 || list[0].(map[string]any)["id"] != 3.0 || got["oldest"] != 1.0 {
		t.Errorf("as JSON: %v", got)
	}
	b.bad(400, "after is", "GET", "/api/events", "after", "-1")
	b.bad(400, "no field", "GET", "/api/events", "before", "1")
	res, err := http.Get(b.URL + "/api/events?limit=3")
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusBadRequest {
		t.Errorf("a stream takes a limit: %s", res.Status)
	}
}

func TestFaultsAreSetAndRemoved(t *testing.T) {
	t.Parallel()
	b := start(t, sandbox.Config{})
	set := b.good("POST", "/api/faults", "", `{"stage":"gitlab","answer":"away","probability":0.5,"latency":"2s","times":3}`)
	if set["latency"] != "2s" || set["probability"] != 0.5 || set["times"] != 3.0 {
		t.Errorf("set %v", set)
	}
	list := b.good("GET", "/api/faults")
	known := map[string]int{}
	for _, a := range list["answers"].([]any) {
		a := a.(map[string]any)
		known[a["stage"].(string)]++
		if a["what"] == "" {
			t.Errorf("%v says nothing", a)
		}
	}
	if len(list["set"].([]any)) != 1 || len(known) != 10 || known["gitlab"] < 20 {
		t.Errorf("%v, %v", list["set"], known)
	}
	stages := b.good("GET", "/api/stages")["stages"].([]any)
	if len(stages) != len(sandbox.AllStages) {
		t.Errorf("there are %d stages", len(stages))
	}
	b.good("DELETE", fmt.Sprintf("/api/faults/%v", set["id"]))
	b.bad(404, "no such fault", "DELETE", fmt.Sprintf("/api/faults/%v", set["id"]))
	b.good("POST", "/api/faults", "stage", "slack", "answer", "away")
	if got := b.good("POST", "/api/well"); got["removed"] != 1.0 || len(b.Faults()) != 0 {
		t.Errorf("%v", got)
	}
	for form, words := range map[string]string{
		`{"stage":"moon","answer":"x"}`:                         "none of hub, webhook",
		`{"stage":"reconcile","answer":"x"}`:                    "has no faults",
		`{"stage":"slack","answer":"x"}`:                        "none of rate_limited",
		`{"stage":"slack","answer":"away","probability":2}`:     "at most 1",
		`{"stage":"slack","answer":"away","probability":"NaN"}`: "at most 1",
		`{"stage":"slack","answer":"away","probability":0}`:     "at most 1",
		`{"stage":"slack","answer":"away","latency":"soon"}`:    "2s, 10m",
		`{"stage":"slack","answer":"away","latency":"-2s"}`:     "latency must be between",
		`{"stage":"slack","answer":"away","times":-1}`:          "times must be between",
		`{"stage":"slack","answer":"away","probability":[1]}`:   "neither a text nor a number",
		`{"stage":"slack","answer":"away"} {"stage":"x"}`:       "not a JSON object",
		`{"stage":"slack","answer":"away","answer":"lost"}`:     `"answer" occurs more than once`,
		`{"stage":null,"stage":"slack","answer":"away"}`:        `"stage" occurs more than once`,
		`{"\u0073tage":"hub","stage":"slack","answer":"away"}`:  `"stage" occurs more than once`,
		`{"stage":"slack","answer":"away","tiems":null}`:        `no field "tiems"`,
		`null`:                               "not a JSON object",
		`[]`:                                 "not a JSON object",
		`{"stage":"slack","answer":"away"}}`: "not a JSON object",
		`{"stage":"slack","answer":"away"}]`: "not a JSON object",
		`{"stage":"` + strings.Repeat("s", 10_000) + `","answer":"x"}`: "none of hub",
	} {
		b.bad(400, words, "POST", "/api/faults", "", form)
	}
}

// A field that a call does not read is a mistake, wherever it is: otherwise the
// replay of one image would be a replay of all.
func TestFieldsInAnotherPlaceAreMistakes(t *testing.T) {
	t.Parallel()
	b := start(t, sandbox.Config{})
	b.goWrong(sandbox.Slack, "slow", 0)
	for _, c := range []struct {
		method, path, words string
		form                []string
	}{
		{"POST", "/api/replay?match=acme/api", "in the body", nil},
		{"POST", "/api/well?stage=gitlab", "in the body", nil},
		{"POST", "/api/push?kind=single", "in the body", []string{"image", "acme/api:1"}},
		{"POST", "/api/webhook?body=x", "in the body", []string{"", "{}"}},
		{"PUT", "/api/routes?x=1", "in the body", []string{"", "{}"}},
		{"DELETE", "/api/faults/1?stage=slack", `no field "stage"`, nil},
		{"GET", "/api/clock?forward=10m", `no field "forward"`, nil},
		{"GET", "/api/stages?stage=slack", `no field "stage"`, nil},
		{"GET", "/api/faults?stage=slack", `no field "stage"`, nil},
		{"GET", "/api/routes?image=x", `no field "image"`, nil},
		{"GET", "/api/load?pushes=1", `no field "pushes"`, nil},
		{"GET", "/api/promotions/none?x=1", `no field "x"`, nil},
		{"GET", "/api/?x=1", `no field "x"`, nil},
		{"GET", "/api/explain?image=acme/api:1&image=acme/api:2", "more than once", nil},
		{"PUT", "/api/routes", "other fields than one routes", []string{"routes", "{}", "x", "1"}},
		{"POST", "/api/webhook", "other fields than one body", []string{"body", "{}", "x", "1"}},
	} {
		b.bad(400, c.words, c.method, c.path, c.form...)
	}
	if n := len(b.Faults()); n != 1 {
		t.Errorf("%d faults are set", n)
	}
}

// htmx shows the answer of a call as it is.
func TestHTMXGetsASentence(t *testing.T) {
	t.Parallel()
	b := start(t, sandbox.Config{})
	for image, want := range map[string]string{"acme/api:2.0.0": "Pushed acme/api:2.0.0, which is sha256:", "<img src=x>:1": "&lt;img src=x&gt;"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, b.URL+"/api/push", strings.NewReader(url.Values{"image": {image}}.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("HX-Request", "true")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if !strings.Contains(string(body), want) || strings.Contains(string(body), "<img") || !strings.HasPrefix(res.Header.Get("Content-Type"), "text/html") {
			t.Errorf("%s: %s %s", image, res.Status, body)
		}
	}
}

func TestRoutesAreEditedAndExplained(t *testing.T) {
	t.Parallel()
	b := start(t, sandbox.Config{})
	if got := b.good("GET", "/api/explain", "image", "acme/api:1.2.0-rc1"); got["promoted"] != true || got["route"] != "acme/api" {
		t.Errorf("%v", got)
	}
	table := `{"acme/api": {"gitlab": {"project": "acme/other"}, "slack": {"channel": "C0IMAGES"}, "tags": {"exclude": ["*-rc*"]}}}`
	for _, form := range [][]string{{"", table}, {"routes", table}} {
		b.good("PUT", "/api/routes", form...)
	}
	if got := b.good("GET", "/api/routes"); got["acme/api"] == nil || got["*"] != nil {
		t.Errorf("the routes are %v", got)
	}
	got := b.good("GET", "/api/explain", "image", "acme/api:1.2.0-rc1")
	if got["promoted"] != false || got["reason"] != "tag_rules" || got["excluded_by"] != "*-rc*" || !strings.Contains(got["text"].(string), "matches the tag") {
		t.Errorf("%v", got)
	}
	b.buildOneArch("acme/api:1.2.0-rc1")
	b.wait(1, "trigger", "acme/api:1.2.0-rc1", "push ignored", "tag_rules")
	b.buildOneArch("acme/api:1.2.0")
	b.comes("acme/api:1.2.0", ledger.Promoted)
	if p := b.GitLab.Pipelines(); len(p) != 1 || p[0].Project != "acme/other" {
		t.Errorf("there are %+v", p)
	}
	// A mistake changes nothing.
	for bad, words := range map[string]string{
		`{"acme/api": {"gitlab": {"project": "x"}, "tell": "all"}}`: "tell", `[]`: "JSON", ``: "JSON",
	} {
		b.bad(400, words, "PUT", "/api/routes", "", bad)
	}
	b.buildOneArch("acme/api:1.3.0")
	b.comes("acme/api:1.3.0", ledger.Promoted)
	b.bad(400, "image", "GET", "/api/explain", "image", "acme/api")
}

func TestALoad(t *testing.T) {
	t.Parallel()
	b := start(t, sandbox.Config{})
	b.good("POST", "/api/load", "pushes", "40", "per_second", "100")
	b.bad(409, "still pushes", "POST", "/api/load", "pushes", "1", "per_second", "1")
	var l map[string]any
	for end := time.Now().Add(90 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if l = b.good("GET", "/api/load"); l["running"] == false {
			break
		}
	}
	if l["sent"] != 40.0 || l["promoted"] != 40.0 || l["ended"] != 0.0 || l["p50_ms"].(float64) <= 0 || l["p95_ms"].(float64) < l["p50_ms"].(float64) {
		t.Errorf("it came to %v", l)
	}
	series := l["series"].(map[string]any)
	sum := func(name string) (n float64) {
		for _, v := range series[name].([]any) {
			n += v.(float64)
		}
		return n
	}
	if sum("sent") != 40 || sum("promoted") != 40 || len(series["p50_ms"].([]any)) != len(series["second"].([]any)) {
		t.Errorf("the series are %v", series)
	}
	b.bad(400, "pushes is between", "POST", "/api/load", "pushes", "0")
	b.bad(400, "per_second is between", "POST", "/api/load", "per_second", "1000000")
	b.bad(400, "repository", "POST", "/api/load", "repository", "A")
	b.good("PUT", "/api/routes", "", `{"acme/api": {"gitlab": {"project": "acme/other"}, "slack": {"channel": "C0IMAGES"}}}`)
	b.bad(400, "no_route", "POST", "/api/load")
}

func TestReplayReconcileAndTick(t *testing.T) {
	t.Parallel()
	b := start(t, sandbox.Config{})
	b.goWrong(sandbox.GitLab, "not_found", 2)
	for _, image := range []string{"acme/api:2.0.0", "acme/web:2.0.0"} {
		b.buildOneArch(image)
		b.comes(image, ledger.Dead)
	}
	b.settle()
	b.bad(400, "match", "POST", "/api/replay", "match", "acme/[")
	if got := b.good("POST", "/api/replay", "match", "acme/none"); got["replayed"] != 0.0 {
		t.Errorf("%v", got)
	}
	if got := b.good("POST", "/api/replay", "match", "acme/web"); got["replayed"] != 1.0 {
		t.Errorf("%v", got)
	}
	b.replayed++
	row := b.comes("acme/web:2.0.0", ledger.Promoted)
	b.comes("acme/api:2.0.0", ledger.Dead)
	story, _, _ := b.Story(row.ID)
	if len(story.Hints) == 0 || story.Hints[0].Source != "replay" || story.Promotion.Message.ReplayedAt.IsZero() {
		t.Errorf("%+v", story.Hints)
	}
	if got := b.good("POST", "/api/reconcile"); got["queued"] == nil || got["found"] == nil {
		t.Errorf("%v", got)
	}
	if got := b.good("POST", "/api/tick"); got["due"] == nil {
		t.Errorf("%v", got)
	}
	b.bad(400, "no field", "POST", "/api/tick", "now", "yes")
	if got := b.good("GET", "/api/"); len(got["calls"].([]any)) < 15 {
		t.Errorf("%v", got)
	}
}

// curl -d declares every body a form.
func TestJSONDoesNotCountAsAForm(t *testing.T) {
	t.Parallel()
	b := start(t, sandbox.Config{})
	send := func(method, path, body string) map[string]any {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, b.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var answer map[string]any
		if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
			t.Fatal(err)
		}
		return answer
	}
	const push = `{"repository":{"repo_name":"acme/api"},"push_data":{"tag":"1.4.0","pusher":"a&body=b"}}`
	if got := send("POST", "/api/webhook", push); got["status"] != 202.0 {
		t.Errorf("a push of a&body=b: %v", got)
	}
	const table = `{"acme/api":{"gitlab":{"project":"acme/images/api","ref":"a"},"slack":{"channel":"C0&routes=b"}}}`
	if got := send("PUT", "/api/routes", table); got["acme/api"] == nil {
		t.Errorf("a table with &routes=: %v", got)
	}
	if got := send("POST", "/api/webhook", url.Values{"body": {push}}.Encode()); got["status"] != 202.0 {
		t.Errorf("as a form: %v", got)
	}
}

// A start with the default table logs nothing.
func TestTheStartIsQuiet(t *testing.T) {
	t.Parallel()
	b := start(t, sandbox.Config{})
	if events, _, _ := b.Events(0); len(events) > 0 {
		t.Errorf("it begins with %s: %s %s", events[0].Who, events[0].What, events[0].Detail)
	}
	own := start(t, sandbox.Config{Routes: `{"*/web":{"gitlab":{"project":"acme/images/web"},"slack":{"channel":"C0IMAGES"}}}`})
	if events, _, _ := own.Events(0); len(events) == 0 || !strings.Contains(events[0].What, "not looked for") {
		t.Errorf("of a table of one's own it says %v", events)
	}
}
