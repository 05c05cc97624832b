package sandbox_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pubsubapi "cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/google/go-cmp/cmp"

	"github.com/getto-systems/hubrelay/internal/pubsub"
	"github.com/getto-systems/hubrelay/internal/sandbox"
)

// endpoint receives the pushes of a queue, and records them.
type endpoint struct {
	*httptest.Server
	mu     sync.Mutex
	pushes map[string][]pubsub.Message // by data
	tokens []string
}

// newEndpoint answers each push with the status that status returns.
func newEndpoint(t *testing.T, status func(pubsub.Message) int) *endpoint {
	t.Helper()
	e := &endpoint{pushes: map[string][]pubsub.Message{}}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body json.RawMessage
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		m, err := pubsub.ParsePush(body)
		if err != nil {
			t.Error(err)
		}
		e.mu.Lock()
		e.pushes[string(m.Data)] = append(e.pushes[string(m.Data)], m)
		e.tokens = append(e.tokens, r.Header.Get("Authorization"))
		e.mu.Unlock()
		w.WriteHeader(status(m))
	}))
	t.Cleanup(e.Close)
	return e
}

func (e *endpoint) came(data string) []pubsub.Message {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.pushes[data])
}

// startQueue runs a queue, and returns a client of it.
func startQueue(t *testing.T, c sandbox.QueueConfig) (*sandbox.Queue, *pubsubapi.Client) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c.Topic, c.DeadLetterTopic = "projects/demo/topics/hub-pushes", "projects/demo/topics/hub-dead-letters"
	c.Backoff = sandbox.Backoff{Min: 2 * time.Millisecond, Max: 10 * time.Millisecond}
	c.Token = func() (string, error) { return "token", nil }
	q, err := sandbox.StartQueue(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() { q.Deliver(ctx) })
	client, err := pubsubapi.NewClient(ctx, "demo", pubsub.EmulatorOptions(q.Addr)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = client.Close()
		cancel()
		running.Wait()
		q.Close()
	})
	return q, client
}

func publish(t *testing.T, client *pubsubapi.Client, topic, data string) {
	t.Helper()
	_, err := client.TopicAdminClient.Publish(t.Context(), &pubsubpb.PublishRequest{
		Topic: topic, Messages: []*pubsubpb.PubsubMessage{{Data: []byte(data), Attributes: map[string]string{"id": data}}},
	})
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what + ": that does not come")
		}
	}
}

func TestAMessageThatIsNeverAcknowledgedBecomesOneDeadLetter(t *testing.T) {
	t.Parallel()
	const attempts = 5
	trigger := newEndpoint(t, func(pubsub.Message) int { return http.StatusServiceUnavailable })
	notify := newEndpoint(t, func(pubsub.Message) int { return http.StatusOK })
	var (
		mu   sync.Mutex
		dead = map[string]int{}
	)
	q, client := startQueue(t, sandbox.QueueConfig{
		Endpoint: trigger.URL, DeadLetterEndpoint: notify.URL, MaxDeliveryAttempts: attempts,
		Dead: func(m *pubsubapi.Message) {
			mu.Lock()
			defer mu.Unlock()
			dead[string(m.Data)]++
		},
	})
	messages := []string{"a", "b", "c"}
	for _, data := range messages {
		publish(t, client, q.Topic, data)
	}
	for _, data := range messages {
		eventually(t, "the letter of "+data, func() bool { return len(notify.came(data)) > 0 })
	}
	time.Sleep(2 * time.Second) // 200 of the longest waits

	mu.Lock()
	defer mu.Unlock()
	if want := map[string]int{"a": 1, "b": 1, "c": 1}; !maps.Equal(dead, want) {
		t.Errorf("heard of the dead letters %v", dead)
	}
	for _, data := range messages {
		pushed, letters := trigger.came(data), notify.came(data)
		if len(pushed) != attempts || len(letters) != 1 {
			t.Fatalf("%s was pushed %d times, and its letter %d times", data, len(pushed), len(letters))
		}
		first := pushed[0].PublishedAt
		for i, m := range pushed {
			if m.Attempt != i+1 || !m.PublishedAt.Equal(first) || time.Since(first) > time.Minute {
				t.Errorf("push %d of %s says %+v", i+1, data, m)
			}
		}
		letter := letters[0]
		if letter.Attempt != 0 || letter.PublishedAt.IsZero() {
			t.Errorf("the letter of %s says %+v", data, letter)
		}
		if diff := cmp.Diff(map[string]string{
			"id": data,
			"CloudPubSubDeadLetterSourceDeliveryCount":       "5",
			"CloudPubSubDeadLetterSourceSubscription":        "trigger",
			"CloudPubSubDeadLetterSourceSubscriptionProject": "demo",
			"CloudPubSubDeadLetterSourceTopicPublishTime":    letter.Attributes["CloudPubSubDeadLetterSourceTopicPublishTime"],
		}, letter.Attributes); diff != "" {
			t.Error(diff)
		}
		at, err := time.Parse(time.RFC3339, letter.Attributes["CloudPubSubDeadLetterSourceTopicPublishTime"])
		if err != nil || !at.Equal(first) {
			t.Errorf("the letter of %s says that it was queued at %s, and the pushes at %s: %v", data, at, first, err)
		}
	}
	for _, token := range notify.tokens {
		if token != "Bearer token" {
			t.Errorf("a letter was pushed with %q", token)
		}
	}
	pulled, err := client.SubscriptionAdminClient.Pull(t.Context(), &pubsubpb.PullRequest{Subscription: q.DeadLetterSubscription, MaxMessages: 10})
	if err != nil || len(pulled.ReceivedMessages) != len(messages) {
		t.Errorf("there wait %v, %v", pulled, err)
	}
}

func TestAMessageThatIsAcknowledgedInTheEndIsNoDeadLetter(t *testing.T) {
	t.Parallel()
	trigger := newEndpoint(t, func(m pubsub.Message) int {
		if m.Attempt < 5 {
			return http.StatusTooManyRequests
		}
		return http.StatusNoContent
	})
	notify := newEndpoint(t, func(pubsub.Message) int { return http.StatusOK })
	q, client := startQueue(t, sandbox.QueueConfig{Endpoint: trigger.URL, DeadLetterEndpoint: notify.URL, MaxDeliveryAttempts: 5})
	publish(t, client, q.Topic, "a")
	eventually(t, "the fifth push", func() bool { return len(trigger.came("a")) == 5 })
	time.Sleep(500 * time.Millisecond)
	if pushed, letters := trigger.came("a"), notify.came("a"); len(pushed) != 5 || len(letters) != 0 {
		t.Errorf("%d pushes, %d letters", len(pushed), len(letters))
	}
}

// As deployed: Notify's subscription has no limit of attempts.
func TestADeadLetterIsPushedUntilItIsAcknowledged(t *testing.T) {
	t.Parallel()
	trigger := newEndpoint(t, func(pubsub.Message) int { return http.StatusOK })
	var (
		mu    sync.Mutex
		tries int
	)
	notify := newEndpoint(t, func(pubsub.Message) int {
		mu.Lock()
		defer mu.Unlock()
		if tries++; tries < 60 {
			return http.StatusServiceUnavailable
		}
		return http.StatusOK
	})
	q, client := startQueue(t, sandbox.QueueConfig{Endpoint: trigger.URL, DeadLetterEndpoint: notify.URL, MaxDeliveryAttempts: 5})
	publish(t, client, q.DeadLetterTopic, "a")
	eventually(t, "the push that is taken", func() bool { return len(notify.came("a")) == 60 })
	time.Sleep(200 * time.Millisecond)
	if n := len(notify.came("a")); n != 60 {
		t.Errorf("it was pushed %d times", n)
	}
}

// More messages wait than a client of Pub/Sub takes by default.
func TestMessagesThatWaitDoNotBlockOthers(t *testing.T) {
	t.Parallel()
	trigger := newEndpoint(t, func(m pubsub.Message) int {
		if string(m.Data) == "new" {
			return http.StatusOK
		}
		return http.StatusServiceUnavailable
	})
	const old = 1050
	var waiting atomic.Int64
	end := make(chan struct{})
	q, client := startQueue(t, sandbox.QueueConfig{
		Endpoint: trigger.URL,
		Again: func(*pubsubapi.Message, time.Duration) {
			waiting.Add(1)
			<-end
		},
	})
	t.Cleanup(func() { close(end) })
	for n := range old {
		publish(t, client, q.Topic, fmt.Sprint(n))
	}
	eventually(t, "all of the old ones wait", func() bool { return waiting.Load() == old })
	publish(t, client, q.Topic, "new")
	eventually(t, "the push of the new one", func() bool { return len(trigger.came("new")) == 1 })
}
