package sandbox

import "time"

// Fault has a stage answer otherwise than it would.
type Fault struct {
	ID          int64         `json:"id"`
	Stage       Stage         `json:"stage"`
	Answer      string        `json:"answer"`
	Probability float64       `json:"probability"` // 1 where it is 0
	Latency     time.Duration `json:"-"`           // before the answer
	Times       int           `json:"times"`       // 0: until all is well
	Used        int           `json:"used"`
}

// Answer is one way in which a stage can go wrong.
type Answer struct {
	Stage  Stage  `json:"stage"`
	Answer string `json:"answer"`
	What   string `json:"what"` // in a sentence
}

// Answers are all that the stages know.
func (s *Sandbox) Answers() []Answer { return nil }

// Faults are those that are set.
func (s *Sandbox) Faults() []Fault { return nil }

// SetFault sets a fault, and returns it with its ID.
func (s *Sandbox) SetFault(f Fault) (Fault, error) { return f, nil }

// RemoveFault takes a fault back, and tells whether there was one.
func (s *Sandbox) RemoveFault(id int64) bool { return false }

// Well takes every fault back.
func (s *Sandbox) Well() {}
