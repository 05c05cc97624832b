package e2e

import (
	"context"
	"sync"
	"testing"
	"time"

	pubsubapi "cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/getto-systems/hubrelay/internal/gcptest"
	"github.com/getto-systems/hubrelay/internal/pubsub"
	"github.com/getto-systems/hubrelay/internal/sandbox"
)

const (
	topic           = "projects/demo/topics/pushes"
	deadLetterTopic = "projects/demo/topics/dead-letters"
	maxAttempts     = 5 // the least that Pub/Sub allows
)

// pubSub is a Pub/Sub that pushes from topic to an endpoint, and what came to
// the dead-letter topic.
type pubSub struct {
	host string

	mu   sync.Mutex
	dead []*pubsubapi.Message
}

func (p *pubSub) deadLetters() []*pubsubapi.Message {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]*pubsubapi.Message(nil), p.dead...)
}

// embedded starts the sandbox's queue with the embedded Pub/Sub.
func embedded(t *testing.T, endpoint string) *pubSub {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &pubSub{}
	q, err := sandbox.StartQueue(ctx, sandbox.QueueConfig{
		Topic: topic, DeadLetterTopic: deadLetterTopic, Endpoint: endpoint, MaxDeliveryAttempts: maxAttempts,
		Backoff: sandbox.Backoff{Min: 50 * time.Millisecond, Max: 200 * time.Millisecond},
		Dead:    p.sawDead,
	})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	p.host = q.Addr
	var running sync.WaitGroup
	running.Go(func() { q.Deliver(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
		q.Close()
	})
	return p
}

func (p *pubSub) sawDead(m *pubsubapi.Message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dead = append(p.dead, m)
}

// emulator starts Google's emulator of Pub/Sub.
func emulator(t *testing.T, endpoint string) *pubSub {
	t.Helper()
	host := gcptest.PubSub(t)
	ctx, cancel := context.WithCancel(context.Background())
	client, err := pubsubapi.NewClient(ctx, "demo", pubsub.EmulatorOptions(host)...)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	p := &pubSub{host: host}
	var running sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		running.Wait()
		_ = client.Close()
	})
	for _, name := range []string{topic, deadLetterTopic} {
		eventually(t, "the topic is there", func() error {
			_, err := client.TopicAdminClient.CreateTopic(ctx, &pubsubpb.Topic{Name: name})
			return err
		})
	}
	const dead = "projects/demo/subscriptions/dead-letters"
	for _, s := range []*pubsubpb.Subscription{
		{
			Name: "projects/demo/subscriptions/trigger", Topic: topic, AckDeadlineSeconds: 60,
			PushConfig:       &pubsubpb.PushConfig{PushEndpoint: endpoint},
			RetryPolicy:      &pubsubpb.RetryPolicy{MinimumBackoff: durationpb.New(100 * time.Millisecond), MaximumBackoff: durationpb.New(time.Second)},
			DeadLetterPolicy: &pubsubpb.DeadLetterPolicy{DeadLetterTopic: deadLetterTopic, MaxDeliveryAttempts: maxAttempts},
		},
		{Name: dead, Topic: deadLetterTopic},
	} {
		if _, err := client.SubscriptionAdminClient.CreateSubscription(ctx, s); err != nil {
			t.Fatal(err)
		}
	}
	running.Go(func() {
		_ = client.Subscriber(dead).Receive(ctx, func(_ context.Context, m *pubsubapi.Message) {
			p.sawDead(m)
			m.Ack()
		})
	})
	return p
}
