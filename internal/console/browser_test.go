package console

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/sandbox"
	"github.com/getto-systems/hubrelay/internal/skip"
)

// The walks are scripts for playwright-core, each in a file of browser/. In
// JavaScript they read like what a person does, and they wait by themselves.
// They add nothing to go.mod, from which the functions are built.
//
// SCREENSHOTS names a directory for screenshots of the walks.
func TestInABrowser(t *testing.T) {
	t.Parallel()
	tools := browserTools(t)
	walks, err := filepath.Glob("browser/*.mjs")
	if err != nil || len(walks) < 2 {
		t.Fatal("there are no walks", err)
	}
	turns := make(chan struct{}, 2) // browsers are large
	for _, file := range walks {
		name := strings.TrimSuffix(filepath.Base(file), ".mjs")
		if name == "harness" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			turns <- struct{}{}
			defer func() { <-turns }()
			d := &door{}
			var address string
			switch name {
			case "many":
				address = d.showMany(t)
			case "record":
				address = d.showHostile(t)
			case "looks":
				address = d.showSandbox(t, time.Minute) // what waits keeps waiting
			default:
				address = d.showSandbox(t, 2*time.Second)
			}
			control := httptest.NewServer(http.HandlerFunc(d.control))
			defer control.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, tools.node, file)
			cmd.Env = append(os.Environ(), "CONSOLE="+address, "CONTROL="+control.URL, "CHROMIUM="+tools.chromium, "TOOLS="+tools.modules)
			cmd.WaitDelay = 10 * time.Second
			out, err := cmd.CombinedOutput()
			if text := strings.TrimSpace(string(out)); text != "" {
				t.Log(text)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
}

type tools struct{ node, chromium, modules string }

// browserTools finds what the walks need.
func browserTools(t *testing.T) tools {
	t.Helper()
	var found tools
	var err error
	if found.node, err = exec.LookPath("node"); err != nil {
		skip.UnlessCI(t, "node is not installed: the console is not tried in a browser")
	}
	for _, name := range []string{os.Getenv("CHROMIUM"), "chromium", "chromium-browser", "google-chrome"} {
		if found.chromium, err = exec.LookPath(cmp.Or(name, "chromium")); err == nil {
			break
		}
	}
	if found.chromium == "" {
		skip.UnlessCI(t, "there is no Chromium: make tools installs it, on Debian as root; CHROMIUM names another one")
	}
	if found.modules, err = filepath.Abs("../../.tools/browser"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"playwright-core", "axe-core"} {
		if _, err := os.Stat(filepath.Join(found.modules, "node_modules", name)); err != nil {
			skip.UnlessCI(t, name+" is not in .tools: make tools gets it")
		}
	}
	return found
}

// door is in front of a console, and can be closed.
type door struct {
	mu      sync.Mutex
	console http.Handler
	again   func() http.Handler // another run of it
	away    bool
	down    bool // no answer comes at all
	streams map[int]context.CancelFunc
	next    int
	fake    *fake // of showMany
}

func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	d.mu.Lock()
	console, away, down := d.console, d.away, d.down
	if r.URL.Path == "/live" && !away {
		id := d.next
		d.next++
		if d.streams == nil {
			d.streams = map[int]context.CancelFunc{}
		}
		d.streams[id] = cancel
		defer func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			delete(d.streams, id)
		}()
	}
	d.mu.Unlock()
	if down {
		panic(http.ErrAbortHandler)
	}
	if away {
		http.Error(w, "away", http.StatusServiceUnavailable)
		return
	}
	console.ServeHTTP(w, r.WithContext(ctx))
}

// control does what a walk asks for.
func (d *door) control(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	cut := func() {
		for _, cancel := range d.streams {
			cancel()
		}
	}
	switch r.URL.Path {
	case "/cut":
		cut()
	case "/away":
		d.away = true
		cut()
	case "/down":
		d.down = true
		cut()
	case "/back":
		d.away, d.down = false, false
	case "/restart":
		d.console = d.again()
		cut()
	case "/change":
		row := rowOf(9990, ledger.Failed)
		d.fake.put(row)
		d.fake.say(sandbox.Event{Who: "notify", What: "failed", Image: row.Image, PromotionID: row.ID})
	case "/hostile":
		for n, text := range hostile {
			row := hostileRow(n, text)
			row.Hint, row.State = text+text, ledger.Failed
			d.fake.put(row)
			d.fake.say(sandbox.Event{Who: text, Image: text, What: text, Detail: text + " a second time", PromotionID: row.ID})
		}
	case "/burst":
		go func() {
			for n := range 2000 {
				row := rowOf(10_000+n, ledger.Promoted)
				d.fake.put(row)
				d.fake.say(sandbox.Event{Who: "notify", What: "promoted", Image: row.Image, PromotionID: row.ID})
				time.Sleep(time.Millisecond)
			}
		}()
	default:
		http.NotFound(w, r)
	}
}

// showHostile shows promotions whose every text is hostile.
func (d *door) showHostile(t *testing.T) (address string) {
	t.Helper()
	d.fake = newFake()
	for n, text := range hostile {
		row := hostileRow(n, text)
		d.fake.put(row)
		d.fake.story[row.ID] = sample(row, text)
		d.fake.say(sandbox.Event{Who: text, Image: text, What: text, Detail: text})
		d.fake.stages = append(d.fake.stages, sandbox.StageNow{
			Stage: sandbox.AllStages[n], Last: text, Faults: []sandbox.Fault{{ID: 1, Answer: text, Stage: sandbox.Stage(text)}},
		})
	}
	for _, s := range sandbox.AllStages[len(hostile):] {
		d.fake.stages = append(d.fake.stages, sandbox.StageNow{Stage: s})
	}
	d.console = serve(d.fake, hints{webhookURL: hostile[0], replayCommand: hostile[1]})
	server := httptest.NewServer(d)
	t.Cleanup(server.Close)
	return server.URL
}

// showMany shows ten thousand promotions.
func (d *door) showMany(t *testing.T) (address string) {
	t.Helper()
	d.fake = newFake()
	for n := range 10_000 {
		d.fake.rows = append(d.fake.rows, rowOf(9999-n, ledger.Promoted))
	}
	for n := range 500 {
		d.fake.say(sandbox.Event{Who: "trigger", What: "pipeline created", Image: fmt.Sprintf("acme/api:1.%d.0", n)})
	}
	for _, s := range sandbox.AllStages {
		d.fake.stages = append(d.fake.stages, sandbox.StageNow{Stage: s, Done: 10_000})
	}
	d.console = serve(d.fake, hints{})
	server := httptest.NewServer(d)
	t.Cleanup(server.Close)
	return server.URL
}

// showSandbox shows a new sandbox, with a maximum back-off.
func (d *door) showSandbox(t *testing.T, wait time.Duration) (address string) {
	t.Helper()
	s, err := sandbox.Start(t.Context(), sandbox.Config{
		Backoff: sandbox.Backoff{Min: 100 * time.Millisecond, Max: wait}, StepTime: 100 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	d.again = func() http.Handler { return New(s) }
	d.console = New(s)
	s.Handle("/", d)
	return s.URL
}
