package sandbox

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/getto-systems/hubrelay/internal/ledger"
)

// StageNow is the present state of a stage.
type StageNow struct {
	Stage   Stage     `json:"stage"`
	InHand  int       `json:"in_hand"` // in progress
	Waiting int       `json:"waiting"`
	Done    int64     `json:"done"`
	Bad     int64     `json:"bad"` // of those done: that failed, or had no answer
	Faults  []Fault   `json:"faults,omitempty"`
	Last    string    `json:"last,omitempty"` // its last statement
	LastAt  time.Time `json:"last_at,omitzero"`
	Real    bool      `json:"real,omitempty"` // it is a real service, and takes no faults
}

// stages counts what the stages do.
type stages struct {
	mu  sync.Mutex
	all map[Stage]*StageNow
}

func newStages() *stages {
	s := &stages{all: map[Stage]*StageNow{}}
	for _, stage := range AllStages {
		s.all[stage] = &StageNow{Stage: stage}
	}
	return s
}

func (s *stages) begin(stage Stage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all[stage].InHand++
}

func (s *stages) end(stage Stage, bad bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.all[stage]
	now.InHand--
	now.Done++
	if bad {
		now.Bad++
	}
}

// said records the last statement of a stage.
func (s *stages) said(ev Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Most stages make a statement themselves. The registry and GitLab are only
	// called.
	if now, ok := s.all[ev.Stage]; ok && (ev.Call == nil || ev.Stage == Registry || ev.Stage == GitLab) {
		now.Last, now.LastAt = ev.What, ev.At
		if ev.Call != nil {
			now.Last = cmp.Or(ev.Detail, ev.What)
		}
		if ev.Image != "" {
			now.Last = ev.Image + " " + now.Last
		}
	}
}

// Stages returns all stages, in their order.
func (s *Sandbox) Stages() []StageNow {
	var all []StageNow
	s.stages.mu.Lock()
	for _, stage := range AllStages {
		all = append(all, *s.stages.all[stage])
	}
	s.stages.mu.Unlock()
	at := func(stage Stage) *StageNow { return &all[slices.Index(AllStages, stage)] }
	for i := range all {
		all[i].Faults, all[i].Real = s.faults.of(all[i].Stage), s.faults.real[all[i].Stage]
	}
	at(Topic).Waiting = s.hints.waiting()
	at(Topic).InHand = max(0, at(Topic).InHand-at(Topic).Waiting)
	at(DeadLetters).Waiting = s.queue.letters()
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	at(Trigger).Waiting = s.index.states[ledger.Waiting] + s.index.states[ledger.Starting]
	at(Slack).Waiting = s.index.behind
	return all
}
