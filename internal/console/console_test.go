package console

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/sandbox"
)

func get(t *testing.T, h http.Handler, path string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, path, nil)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestPages(t *testing.T) {
	t.Parallel()
	f := newFake()
	for n := range 250 {
		r := rowOf(n, ledger.Promoted)
		if n%2 == 0 {
			r.State, r.Reason = ledger.Waiting, "gitlab_unavailable"
		}
		f.put(r)
	}
	f.story[rowOf(7, "").ID] = sample(rowOf(7, ledger.Failed), "words")
	h := serve(f, hints{webhookURL: "http://127.0.0.1:1/webhook/token"})
	one := "/promotions/" + rowOf(7, "").ID
	for _, c := range []struct {
		name, path string
		headers    []string
		status     int
		want       []string
		not        []string
		rows       int
	}{
		{name: "the page", path: "/", status: 200, rows: 100, want: []string{"<!doctype html>", "1–100 of 250", "page 1 of 3", "Older"}, not: []string{"Newer", `id="story"`}},
		{name: "its last part", path: "/?page=3", status: 200, rows: 50, want: []string{"201–250 of 250", "Newer"}, not: []string{"Older"}},
		{name: "a page after the last one", path: "/?page=9", status: 200, rows: 50, want: []string{"201–250 of 250", "page 3 of 3", "page=3&amp;run="}},
		{name: "a filter by state", path: "/?state=waiting", status: 200, rows: 100, want: []string{"1–100 of 125", `<option value="waiting" selected>`, "page=2&amp;state=waiting"}},
		{name: "a filter by text", path: "/?q=1.24.0", status: 200, rows: 1, want: []string{"1–1 of 1"}},
		{name: "a filter that nothing passes", path: "/?q=nothing", status: 200, rows: 0, want: []string{"Nothing matches"}},
		{name: "a state that is none", path: "/?state=x&page=-1", status: 200, rows: 100},
		{name: "a story's address, opened", path: one, status: 200, rows: 100, want: []string{"<!doctype html>", `id="story"`, "<title>acme/api:1.7.0 · hubrelay console</title>"}},
		{name: "a story, opened in the page", path: one, headers: []string{"HX-Request", "true", "HX-Target", "side"}, status: 200, want: []string{`<div id="side"><article`, `next at <time class="time" datetime="2026-03-01T13:00:00Z">`}, not: []string{"<!doctype"}},
		{name: "its news", path: one + "/news?after=1", status: 200, want: []string{`id="event-2"`, `id="story-head" hx-swap-oob="true"`, `hx-swap-oob="beforeend:#story-log"`}, not: []string{`id="event-1"`}},
		{name: "no news", path: one + "/news?after=2", status: 200, not: []string{"story-log"}},
		{name: "a story that is not known", path: "/promotions/none", status: 404, want: []string{"not known", "<!doctype"}},
		{name: "one that is not known, in the page", path: "/promotions/none", headers: []string{"HX-Request", "true", "HX-Target", "side"}, status: 404, want: []string{`<div id="side">`}, not: []string{"<!doctype"}},
		{name: "another path", path: "/nowhere", status: 404, want: []string{"no such page"}},
		{name: "the faults", path: "/faults?stage=gitlab", headers: []string{"HX-Request", "true"}, status: 200, want: []string{"GitLab answers 500.", "<details class=\"choices\" open>"}},
		{name: "a file", path: "/static/console.js", status: 200, want: []string{"use strict"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := get(t, h, c.path, c.headers...)
			body := w.Body.String()
			if w.Code != c.status {
				t.Errorf("%d, not %d", w.Code, c.status)
			}
			if n := strings.Count(body, `<tr id="row-`); n != c.rows {
				t.Errorf("%d rows, not %d", n, c.rows)
			}
			for _, want := range c.want {
				if !strings.Contains(body, want) {
					t.Errorf("no %s", want)
				}
			}
			for _, not := range c.not {
				if strings.Contains(body, not) {
					t.Errorf("%s is there", not)
				}
			}
			if got := w.Header().Get("Content-Security-Policy"); got != policy || strings.Contains(got, "unsafe") {
				t.Errorf("the policy is %q", got)
			}
			if got := w.Header().Get("X-Content-Type-Options"); got != "nosniff" {
				t.Errorf("X-Content-Type-Options is %q", got)
			}
		})
	}
}

// hostile are texts that would have an effect if they were not shown as text.
var hostile = []string{
	`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `' onmouseover='alert(1)`, `javascript:alert(1)`, `{{.}}<b>alert(1)</b>`,
	"alert(1)\r\ndata: <script>\r\n\r\nevent: reload", `--><svg onload=alert(1)>`, `</template></pre><script>alert(1)</script>`,
}

func hostileRow(n int, text string) sandbox.Row {
	r := rowOf(n, ledger.Dead)
	r.Image, r.Digest, r.Route, r.Reason, r.Hint, r.PipelineURL = text, text, text, text, text, text
	return r
}

// Everything from outside is shown as text, in every place.
func TestHostileTextIsText(t *testing.T) {
	t.Parallel()
	for n, text := range hostile {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			f := newFake()
			r := hostileRow(n, text)
			f.put(r)
			f.story[r.ID] = sample(r, text)
			f.say(sandbox.Event{Who: text, Image: text, What: text, Detail: text})
			f.stages = []sandbox.StageNow{{Stage: sandbox.GitLab, Last: text, Faults: []sandbox.Fault{{ID: 1, Answer: text, Stage: sandbox.Stage(text)}}}}
			h := serve(f, hints{webhookURL: text, replayCommand: text})
			for _, path := range []string{"/", "/?q=" + url.QueryEscape(text), "/promotions/" + r.ID, "/promotions/" + r.ID + "/news?after=0", "/faults?stage=" + url.QueryEscape(text)} {
				body := get(t, h, path).Body.String()
				for _, not := range []string{"<script>", "<img", "onerror=alert(1)>", "<svg onload", `href="javascript:`, ` onmouseover='`, "<b>alert"} {
					if strings.Contains(body, not) {
						t.Errorf("%s has %s", path, not)
					}
				}
			}
		})
	}
}

func TestEventsOfAStreamAreNotForged(t *testing.T) {
	t.Parallel()
	got := event(7, "patch", []byte("a\r\n\r\nevent: reload\ndata: x\n\nid: 9\r"))
	want := "id: 7\nevent: patch\ndata: a\ndata: \ndata: event: reload\ndata: data: x\ndata: \ndata: id: 9\n\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestSlackMarkup(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text string
		want []span
	}{
		{":x: Sniff &amp; &lt;b&gt;", []span{{Text: "❌ Sniff & <b>"}}},
		{"\u200b`acme/api:1.0`\u200b failed", []span{{Kind: "code", Text: "acme/api:1.0"}, {Text: " failed"}}},
		{"<https://gitlab.example/p/1|pipeline>", []span{{Kind: "link", Text: "pipeline", URL: "https://gitlab.example/p/1"}}},
		{"<https://gitlab.example/?a=1&amp;b=2>", []span{{Kind: "link", Text: "https://gitlab.example/?a=1&b=2", URL: "https://gitlab.example/?a=1&b=2"}}},
		{"<javascript:alert(1)|run>", []span{{Text: "run"}}},
		{"<!here> <@U123> <!subteam^S1>", []span{{Kind: "at", Text: "@here"}, {Text: " "}, {Kind: "at", Text: "@U123"}, {Text: " "}, {Kind: "at", Text: "@S1"}}},
		{"```hubrelay replay\n-x```", []span{{Kind: "pre", Text: "hubrelay replay\n-x"}}},
		{"*bold* _slanted_ ~gone~ snake_case_name", []span{
			{Kind: "bold", Text: "bold"}, {Text: " "}, {Kind: "italic", Text: "slanted"}, {Text: " "}, {Kind: "strike", Text: "gone"}, {Text: " snake_case_name"},
		}},
		{"`<script>`", []span{{Kind: "code", Text: "<script>"}}},
		{"<|nothing> <!>", []span{{Text: "nothing"}, {Text: " "}, {Kind: "at", Text: "@"}}},
		{"", nil},
	} {
		if diff := cmp.Diff(c.want, spansOf(c.text)); diff != "" {
			t.Errorf("%q: %s", c.text, diff)
		}
	}
}

func FuzzSlackMarkup(f *testing.F) {
	f.Add("<https://a.example|b> `c` ```d``` *e* &lt;")
	f.Fuzz(func(t *testing.T, text string) {
		for _, s := range spansOf(text) {
			if s.URL != "" && !strings.HasPrefix(strings.ToLower(s.URL), "http") {
				t.Errorf("%q links to %q", text, s.URL)
			}
		}
	})
}

func TestWords(t *testing.T) {
	t.Parallel()
	for got, want := range map[string]string{
		took(1_500_000):                "1 ms",
		took(250_000):                  "0.2 ms",
		took(2_340_000_000):            "2.34 s",
		took(75_000_000_000):           "75.0 s",
		took(125_000_000_000):          "2 min 05 s",
		took(3 * 3600 * 1_000_000_000): "3 h 00 min",
		count(1234567):                 "1\u2009234\u2009567",
		count(int64(999)):              "999",
		shortDigest("sha256:" + strings.Repeat("0123456789abcdef", 4)): "0123456789ab",
		shortDigest("<b>"): "<b>",
	} {
		if got != want {
			t.Errorf("%q, not %q", got, want)
		}
	}
}

// The page does not grow with what there is to show.
func BenchmarkPageOfTenThousand(b *testing.B) {
	f := newFake()
	for n := range 10_000 {
		f.rows = append(f.rows, rowOf(n, ledger.Promoted))
	}
	h := serve(f, hints{})
	for b.Loop() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		b.ReportMetric(float64(w.Body.Len())/1024, "KiB/page")
	}
}
