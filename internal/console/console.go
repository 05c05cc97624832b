// Package console is the page of a sandbox. It shows the progress of each push,
// has controls for actions and faults, and keeps itself up to date. It changes
// nothing itself: all actions go through the sandbox's API.
package console

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io/fs"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/sandbox"
)

//go:embed static
var static embed.FS

//go:embed templates
var templateFiles embed.FS

// policy lets the page load its own files and call its own server, and nothing
// else: no inline script or style, no other host, no frame around it.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; " +
	"base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

// perPage is the maximum number of rows in the table. It bounds the size of the
// page.
const perPage = 100

// system is what the page shows: a sandbox.
type system interface {
	Events(after int64) (list []sandbox.Event, oldest, newest int64)
	Changed(after int64) <-chan struct{}
	Rows(sandbox.Query) (rows []sandbox.Row, total int, err error)
	Revision() int64
	Story(id string) (sandbox.Story, bool, error)
	Stages() []sandbox.StageNow
	Answers() []sandbox.Answer
	Routes() string
	Ahead() time.Duration
}

// hints say how to reach the system from a terminal.
type hints struct{ webhookURL, replayCommand string }

// console serves the page.
type console struct {
	sandbox  system
	hints    hints
	template *template.Template
	streams  atomic.Int64
	run      string // differs for each run, because numbers of events start again
}

// New returns the page of a sandbox, to be mounted at its root.
func New(s *sandbox.Sandbox) http.Handler {
	return serve(s, hints{webhookURL: s.WebhookURL, replayCommand: s.ReplayCommand})
}

func newConsole(s system, h hints) *console {
	return &console{
		sandbox: s, hints: h, run: strconv.FormatInt(time.Now().UnixNano(), 36),
		template: template.Must(template.New("").Funcs(functions).ParseFS(templateFiles, "templates/*.html")),
	}
}

func serve(s system, h hints) http.Handler {
	c := newConsole(s, h)
	files, err := fs.Sub(static, "static")
	if err != nil {
		panic(err) // the name is a constant
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", c.page)
	mux.HandleFunc("GET /promotions/{id}", c.story)
	mux.HandleFunc("GET /promotions/{id}/news", c.storyNews)
	mux.HandleFunc("GET /live", c.live)
	mux.HandleFunc("GET /reload", c.reload)
	mux.HandleFunc("GET /faults", c.faults)
	mux.HandleFunc("GET /routes", c.routes)
	mux.Handle("GET /static/", http.StripPrefix("/static/", http.FileServerFS(files)))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		c.broken(w, r, http.StatusNotFound, "There is no such page", "The address may be mistyped.")
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		mux.ServeHTTP(w, r)
	})
}

// list says which rows are requested.
type list struct {
	Text   string
	State  string // one of those of stateFilters, "" for every state
	Page   int    // from 1
	States []ledger.State
}

// stateFilters are the choices of the table's filter.
var stateFilters = []struct {
	Name, Label string
	states      []ledger.State
}{
	{"", "Every state", nil},
	{"open", "In progress", []ledger.State{ledger.Waiting, ledger.Starting, ledger.Triggered, ledger.Running}},
	{"bad", "Needs attention", []ledger.State{ledger.Waiting, ledger.Failed, ledger.Dead}},
	{"waiting", "Waiting", []ledger.State{ledger.Waiting}},
	{"promoted", "Promoted", []ledger.State{ledger.Promoted}},
	{"skipped", "Skipped, superseded", []ledger.State{ledger.Skipped, ledger.Superseded}},
	{"failed", "Failed", []ledger.State{ledger.Failed}},
	{"dead", "Dead", []ledger.State{ledger.Dead}},
}

// maxText bounds the search text, in bytes.
const maxText = 300

func listOf(values url.Values) list {
	l := list{Text: strings.TrimSpace(values.Get("q")), State: values.Get("state"), Page: 1}
	if len(l.Text) > maxText {
		l.Text = strings.ToValidUTF8(l.Text[:maxText], "")
	}
	if n, err := strconv.Atoi(values.Get("page")); err == nil && n > 1 && n < 1_000_000 {
		l.Page = n
	}
	known := slices.IndexFunc(stateFilters, func(f struct {
		Name, Label string
		states      []ledger.State
	}) bool {
		return f.Name == l.State
	})
	if known < 0 {
		l.State = ""
	} else {
		l.States = stateFilters[known].states
	}
	return l
}

// Values are the parameters of the list in a URL.
func (l list) Values() url.Values {
	v := url.Values{}
	if l.Text != "" {
		v.Set("q", l.Text)
	}
	if l.State != "" {
		v.Set("state", l.State)
	}
	if l.Page > 1 {
		v.Set("page", strconv.Itoa(l.Page))
	}
	return v
}

// At is the address of the list's page n.
func (l list) At(n int) string {
	l.Page = n
	if q := l.Values().Encode(); q != "" {
		return "/?" + q
	}
	return "/"
}

// Filtered reports whether the list leaves anything out.
func (l list) Filtered() bool { return l.Text != "" || l.State != "" }

// page answers with the whole page.
func (c *console) page(w http.ResponseWriter, r *http.Request) {
	c.whole(w, r, r.URL.Query().Get("story"))
}

// story answers with the story of one promotion: for the page that is open, or
// as a whole page if its address was opened.
func (c *console) story(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	if r.Header.Get("HX-Target") != "side" || r.Header.Get("HX-History-Restore-Request") != "" {
		c.whole(w, r, id)
		return
	}
	st, ok, err := c.storyOf(id)
	switch {
	case err != nil:
		c.broken(w, r, http.StatusInternalServerError, "The story cannot be read", err.Error())
	case !ok:
		c.broken(w, r, http.StatusNotFound, "This promotion is not known", forgotten)
	default:
		if here, err := url.Parse(r.Header.Get("HX-Current-URL")); err == nil { // which rows are shown beside it
			st.List = listOf(here.Query())
		}
		w.Header().Set("HX-Push-Url", st.Address())
		c.render(w, http.StatusOK, "side-story", st)
	}
}

const forgotten = "A sandbox keeps its records in memory: they are gone after a restart."

func (c *console) whole(w http.ResponseWriter, r *http.Request, storyID string) {
	v := &pageView{
		Run: c.run, List: listOf(r.URL.Query()), Filters: stateFilters,
		WebhookURL: c.hints.webhookURL, Documented: documented, ReplayCommand: c.hints.replayCommand,
	}
	// The events are read first: what happens meanwhile comes by the stream.
	v.Feed, v.After = c.feed(math.MaxInt64 - 1)
	table, err := c.table(v.List)
	if err != nil {
		c.broken(w, r, http.StatusInternalServerError, "The ledger cannot be read", err.Error())
		return
	}
	v.List = table.List
	if storyID != "" {
		st, ok, err := c.storyOf(storyID)
		switch {
		case err != nil:
			c.broken(w, r, http.StatusInternalServerError, "The story cannot be read", err.Error())
			return
		case !ok:
			c.broken(w, r, http.StatusNotFound, "This promotion is not known", forgotten)
			return
		}
		v.Story, st.List = st, v.List
	}
	v.Table, v.Stages, v.Ahead = table, c.stages(), c.ahead()
	if r.Header.Get("HX-Target") == "console" { // the address says what is shown, so that it can be kept
		w.Header().Set("HX-Push-Url", v.Here())
	}
	c.render(w, http.StatusOK, "page", v)
}

// reload makes the browser load the page again.
func (c *console) reload(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("HX-Refresh", "true")
	w.WriteHeader(http.StatusNoContent)
}

// broken shows an error, as a page or within the open page.
func (c *console) broken(w http.ResponseWriter, r *http.Request, status int, what, why string) {
	v := struct{ What, Why string }{what, why}
	if r.Header.Get("HX-Request") != "" {
		c.render(w, status, "broken-side", v)
		return
	}
	c.render(w, status, "broken", v)
}

// render answers with a complete template, or with an error: never with half a
// page.
func (c *console) render(w http.ResponseWriter, status int, name string, v any) {
	out, err := c.html(name, v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(out)
}

func (c *console) html(name string, v any) ([]byte, error) {
	var out bytes.Buffer
	if err := c.template.ExecuteTemplate(&out, name, v); err != nil {
		return nil, fmt.Errorf("render %s: %w", name, err)
	}
	return out.Bytes(), nil
}

// documented is the webhook of Docker Hub's documentation, with the fields that
// are read.
const documented = `{
  "push_data": {
    "pushed_at": 1417566161,
    "pusher": "trustedbuilder",
    "tag": "1.4.0"
  },
  "repository": {
    "repo_name": "acme/api",
    "namespace": "acme",
    "name": "api"
  }
}`

// pretty indents JSON, and leaves any other text as it is.
func pretty(text string) string {
	var out bytes.Buffer
	if err := json.Indent(&out, []byte(strings.TrimSpace(text)), "", "  "); err != nil {
		return text
	}
	return out.String()
}
