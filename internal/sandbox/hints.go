package sandbox

import (
	"cmp"
	"strconv"
	"sync"
	"time"

	pubsubapi "cloud.google.com/go/pubsub/v2"

	"github.com/getto-systems/hubrelay/internal/pubsub"
)

// maxHints is how many messages are stored.
const maxHints = 20_000

// hints are the messages of Pub/Sub, by their IDs.
type hints struct {
	mu    sync.Mutex
	all   map[string]*Hint
	order []string            // oldest first
	open  map[string][]string // by image: IDs of those that are being delivered
	dead  map[string]string   // the identity of a push's message → its ID
	waits int                 // those that wait for another delivery
}

func newHints() *hints {
	return &hints{all: map[string]*Hint{}, open: map[string][]string{}, dead: map[string]string{}}
}

// taken records a message that was queued.
func (h *hints) taken(m *pubsubapi.Message, image, data string, attributes map[string]string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	source := m.Attributes[pubsub.SourceAttribute]
	if m.Attributes[pubsub.ReplayedAttribute] != "" {
		source = "replay"
	}
	h.all[m.ID] = &Hint{
		MessageID: m.ID, ID: m.Attributes[pubsub.IDAttribute], Image: image, Source: source,
		Data: data, Attributes: attributes, QueuedAt: m.PublishTime,
	}
	h.dead[identity(m.Attributes[pubsub.IDAttribute], m.PublishTime)] = m.ID
	if h.order = append(h.order, m.ID); len(h.order) > maxHints {
		if gone := h.all[h.order[0]]; gone != nil {
			delete(h.dead, identity(gone.ID, gone.QueuedAt))
		}
		if gone := h.all[h.order[0]]; gone != nil && !gone.NextAt.IsZero() {
			h.waits--
		}
		delete(h.all, h.order[0])
		h.order = h.order[1:]
	}
}

// identity is that of a message, as the ledger compares it.
func identity(id string, queued time.Time) string {
	return id + "@" + strconv.FormatInt(queued.UnixMilli(), 10)
}

// of returns the message that became a dead letter, and the promotion that it
// was about.
func (h *hints) of(letter pubsub.Message) (message, promotion string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	message = h.dead[identity(letter.Attributes[pubsub.IDAttribute], letter.DeadLetterQueuedAt())]
	if m, ok := h.all[message]; ok {
		promotion = m.promotion
	}
	return message, promotion
}

// begin records that a delivery begins.
func (h *hints) begin(id, image string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open[image] = append(h.open[image], id)
}

// inHand returns a message about an image that is being delivered, or "".
func (h *hints) inHand(image string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if ids := h.open[image]; len(ids) > 0 {
		return ids[len(ids)-1]
	}
	return ""
}

// attempt records the result of a delivery.
func (h *hints) attempt(id, image, promotion string, n int, o outcome, next time.Time, again bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, open := range h.open[image] {
		if open == id {
			h.open[image] = append(h.open[image][:i], h.open[image][i+1:]...)
			break
		}
	}
	if len(h.open[image]) == 0 {
		delete(h.open, image)
	}
	m, ok := h.all[id]
	if !ok {
		return
	}
	if !m.NextAt.IsZero() {
		h.waits--
		m.NextAt = time.Time{}
	}
	m.promotion = cmp.Or(promotion, m.promotion)
	m.Attempts, m.Outcome, m.Reason = max(m.Attempts, n), o.Outcome, o.Reason
	if again {
		m.NextAt = next
		h.waits++
	}
}

func (h *hints) get(id string) (Hint, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m, ok := h.all[id]
	if !ok {
		return Hint{}, false
	}
	return *m, true
}

func (h *hints) waiting() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.waits
}
