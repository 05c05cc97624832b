package trigger

import "sync"

// maxHeard bounds the repositories that an instance remembers; it then forgets
// all.
const maxHeard = 20_000

// heard are the repositories of which Docker Hub is known to tell.
type heard struct {
	mu    sync.Mutex
	names map[string]bool
}

func newHeard() *heard { return &heard{names: map[string]bool{}} }

func (h *heard) has(repository string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.names[repository]
}

func (h *heard) add(repository string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.names) >= maxHeard {
		clear(h.names)
	}
	h.names[repository] = true
}
