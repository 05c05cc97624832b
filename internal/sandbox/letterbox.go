package sandbox

import (
	"fmt"
	"sync"
	"time"

	pubsubapi "cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// letterBox keeps the dead letters of the embedded Pub/Sub until they are
// replayed, because the embedded Pub/Sub drops messages after ten minutes. It
// answers the calls of one subscription instead.
type letterBox struct {
	subscription string
	now          func() time.Time

	mu      sync.Mutex
	letters []*keptLetter // oldest first
	pulls   int
}

type keptLetter struct {
	message *pubsubpb.PubsubMessage
	receipt string // of the last pull
	until   time.Time
}

// lease is how long nobody else receives a letter after it was pulled.
const lease = time.Minute

func newLetterBox(subscription string, now func() time.Time) *letterBox {
	return &letterBox{subscription: subscription, now: now}
}

// reactors make the embedded Pub/Sub ask the box first.
func (b *letterBox) reactors() []pstest.ServerReactorOption {
	return []pstest.ServerReactorOption{
		{FuncName: "Pull", Reactor: b}, {FuncName: "Acknowledge", Reactor: b}, {FuncName: "ModifyAckDeadline", Reactor: b},
	}
}

func (b *letterBox) put(m *pubsubapi.Message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.letters = append(b.letters, &keptLetter{message: &pubsubpb.PubsubMessage{
		MessageId: m.ID, Data: m.Data, Attributes: m.Attributes, PublishTime: timestamppb.New(m.PublishTime),
	}})
}

// React answers a call, if it is for the box.
func (b *letterBox) React(request any) (handled bool, answer any, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch r := request.(type) {
	case *pubsubpb.PullRequest:
		if r.Subscription == b.subscription {
			return true, &pubsubpb.PullResponse{ReceivedMessages: b.pull(int(r.MaxMessages), nil)}, nil
		}
	case *pubsubpb.AcknowledgeRequest:
		if r.Subscription == b.subscription {
			b.change(r.AckIds, func(*keptLetter) (keep bool) { return false })
			return true, nil, nil
		}
	case *pubsubpb.ModifyAckDeadlineRequest:
		if r.Subscription == b.subscription {
			until := b.now().Add(time.Duration(r.AckDeadlineSeconds) * time.Second)
			b.change(r.AckIds, func(l *keptLetter) (keep bool) {
				l.until = until
				return true
			})
			return true, nil, nil
		}
	}
	return false, nil, nil
}

func (b *letterBox) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.letters)
}

// take pulls all letters that match, and that nobody else has pulled.
func (b *letterBox) take(match func(*pubsubpb.PubsubMessage) bool) []*pubsubpb.ReceivedMessage {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.pull(len(b.letters), match)
}

// drop deletes a letter.
func (b *letterBox) drop(receipt string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.change([]string{receipt}, func(*keptLetter) (keep bool) { return false })
}

// pull takes letters, all where match is nil.
func (b *letterBox) pull(most int, match func(*pubsubpb.PubsubMessage) bool) (pulled []*pubsubpb.ReceivedMessage) {
	b.pulls++
	now := b.now()
	for _, l := range b.letters {
		if len(pulled) == most {
			break
		}
		if l.until.After(now) || match != nil && !match(l.message) {
			continue
		}
		l.receipt, l.until = fmt.Sprintf("%s:%d", l.message.MessageId, b.pulls), now.Add(lease)
		pulled = append(pulled, &pubsubpb.ReceivedMessage{AckId: l.receipt, Message: l.message})
	}
	return pulled
}

// change calls f for the letters with these receipts, and drops those that it
// does not keep. A receipt that is no longer the last one is ignored.
func (b *letterBox) change(receipts []string, f func(*keptLetter) (keep bool)) {
	named := map[string]bool{}
	for _, receipt := range receipts {
		named[receipt] = receipt != ""
	}
	var kept []*keptLetter
	for _, l := range b.letters {
		if !named[l.receipt] || f(l) {
			kept = append(kept, l)
		}
	}
	b.letters = kept
}
