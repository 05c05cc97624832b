package httpserver

import (
	"net/http"
	"sync/atomic"
	"time"
)

// Drain counts the requests that a handler has in hand, so that a process can
// finish them before it exits. The functions framework does not.
type Drain struct {
	handler http.Handler
	inHand  atomic.Int64
}

// NewDrain counts the requests of h.
func NewDrain(h http.Handler) *Drain {
	return &Drain{handler: h}
}

func (d *Drain) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.inHand.Add(1)
	defer d.inHand.Add(-1)
	d.handler.ServeHTTP(w, r)
	// What is still in the server's buffer would be lost with the process.
	_ = http.NewResponseController(w).Flush()
}

// Wait returns when no request is in hand, or after limit.
func (d *Drain) Wait(limit time.Duration) {
	for end := time.Now().Add(limit); d.inHand.Load() > 0 && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
}
