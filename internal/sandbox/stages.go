package sandbox

import "time"

// StageNow is how a stage is now.
type StageNow struct {
	Stage   Stage     `json:"stage"`
	InHand  int       `json:"in_hand"` // being dealt with at the moment
	Waiting int       `json:"waiting"`
	Done    int64     `json:"done"`
	Bad     int64     `json:"bad"`
	Faults  []Fault   `json:"faults,omitempty"` // that are set
	Last    string    `json:"last,omitempty"`   // what it said last
	LastAt  time.Time `json:"last_at,omitzero"`
	Real    bool      `json:"real,omitempty"` // it is no fake, and takes no faults
}

// Stages returns all stages, in their order.
func (s *Sandbox) Stages() []StageNow { return nil }
