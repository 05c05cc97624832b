package sandbox

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/getto-systems/hubrelay/functions/notify"
	"github.com/getto-systems/hubrelay/functions/trigger"
	"github.com/getto-systems/hubrelay/functions/webhook"
	"github.com/getto-systems/hubrelay/internal/gcplog"
)

// builders build the functions from their settings.
var builders = map[Stage]func(context.Context, func(string) string) (http.Handler, error){
	Webhook: webhook.FromEnv, Trigger: trigger.FromEnv, Notify: notify.FromEnv,
}

// function is one of the functions, in its newest instance.
type function struct {
	mu  sync.RWMutex
	now *instance
}

// instance is what Cloud Run would call one: a process that serves.
type instance struct {
	handler  http.Handler
	inHand   sync.WaitGroup
	requests context.Context // ends when running requests must finish
	hurry    context.CancelFunc
	close    context.CancelFunc // closes its connections
	killed   atomic.Bool
}

// start makes an instance of a function.
func (s *Sandbox) start(ctx context.Context, stage Stage, settings map[string]string, quiet bool) (*instance, error) {
	i := &instance{}
	i.requests, i.hurry = context.WithCancel(ctx)
	ctx, i.close = context.WithCancel(ctx)
	starts := &atomic.Bool{} // what it logs then was logged before
	starts.Store(quiet)
	log := slog.New(eventHandler{function: stage, events: s.events, hide: s.secrets, logs: s.logs, starts: starts})
	h, err := builders[stage](gcplog.NewContext(ctx, log), func(name string) string { return settings[name] })
	if err != nil {
		i.close()
		return nil, fmt.Errorf("%s: %w", stage, err)
	}
	starts.Store(false)
	i.handler = h
	return i, nil
}

// restart restarts all functions with other settings, or none of them if one
// refuses its settings.
func (s *Sandbox) restart(change map[string]string) error {
	s.starting.Lock()
	defer s.starting.Unlock()
	settings := map[string]string{}
	maps.Copy(settings, s.settings)
	maps.Copy(settings, change)
	instances := map[Stage]*instance{}
	for stage := range s.functions {
		// Nobody chose the default table, so what the functions log about it is
		// not shown.
		quiet := len(s.settings) > 0 && len(change) == 0 || settings["ROUTES"] == Routes
		i, err := s.start(s.ctx, stage, settings, quiet)
		if err != nil {
			for _, made := range instances {
				made.close()
			}
			return err
		}
		instances[stage] = i
	}
	s.settings = settings
	for stage, i := range instances {
		s.functions[stage].replace(i)
	}
	return nil
}

// renew restarts all functions.
func (s *Sandbox) renew() {
	if err := s.restart(nil); err != nil {
		s.events.add(Event{Who: "sandbox", What: "cannot restart the functions: " + err.Error(), Bad: true})
	}
}

// kill ends the instance of a function with all its running requests, if it is
// still the newest, and starts another.
func (s *Sandbox) kill(stage Stage, i *instance) {
	s.starting.Lock()
	defer s.starting.Unlock()
	f := s.functions[stage]
	if f.newest() != i {
		return
	}
	next, err := s.start(s.ctx, stage, s.settings, true)
	if err != nil {
		return // the settings were accepted before
	}
	i.killed.Store(true)
	f.replace(next)
	s.events.add(Event{Stage: stage, Who: string(stage), What: "was killed, and restarts", Bad: true})
}

func (f *function) newest() *instance {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.now
}

// replace makes i the newest instance. The previous one closes once it has no
// running request.
func (f *function) replace(i *instance) {
	f.mu.Lock()
	old := f.now
	f.now = i
	f.mu.Unlock()
	if old == nil {
		return
	}
	old.hurry()
	go func() {
		old.inHand.Wait()
		old.close()
	}()
}

// ServeHTTP serves a request with the newest instance. If that is killed in the
// meantime, there is no answer.
func (f *function) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.RLock()
	i := f.now
	i.inHand.Add(1)
	f.mu.RUnlock()
	defer i.inHand.Done()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(i.requests, cancel)()
	var answer memoryWriter
	i.handler.ServeHTTP(&answer, r.WithContext(ctx))
	if i.killed.Load() {
		panic(http.ErrAbortHandler)
	}
	answer.send(w)
}

// memoryWriter keeps an answer until it is sent. Its zero value is ready for
// use.
type memoryWriter struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *memoryWriter) Header() http.Header {
	if w.header == nil {
		w.header = http.Header{}
	}
	return w.header
}

func (w *memoryWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

func (w *memoryWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(p)
}

func (w *memoryWriter) send(to http.ResponseWriter) {
	maps.Copy(to.Header(), w.header)
	if w.status != 0 {
		to.WriteHeader(w.status)
	}
	_, _ = to.Write(w.body.Bytes())
}
