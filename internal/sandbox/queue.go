package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	pubsubapi "cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"

	"github.com/getto-systems/hubrelay/internal/pubsub"
)

// MaxDeliveryAttempts is how often Trigger gets a message before it becomes a
// dead letter. terraform/ sets the same number, and the same back-off.
const MaxDeliveryAttempts = 20

// Backoff is the wait between two deliveries of a message. It doubles from
// Min to Max.
type Backoff struct{ Min, Max time.Duration }

// Deployed is the back-off that terraform/ sets.
var Deployed = Backoff{Min: 10 * time.Second, Max: 600 * time.Second}

// after returns the wait after so many deliveries.
func (b Backoff) after(attempt int) time.Duration {
	wait := b.Min
	for range attempt - 1 {
		if wait *= 2; wait >= b.Max {
			return b.Max
		}
	}
	return wait
}

// QueueConfig is what Terraform would set up.
type QueueConfig struct {
	// Host is the address of a Pub/Sub emulator; an embedded one is started
	// where it is "".
	Host                   string
	Topic, DeadLetterTopic string
	Endpoint               string  // where messages are pushed to
	DeadLetterEndpoint     string  // where dead letters are pushed to; "" for nowhere
	Backoff                Backoff // as deployed where it is zero
	MaxDeliveryAttempts    int     // as deployed where it is 0

	// Token makes the token that a dead letter is pushed with.
	Token func() (string, error)

	Again func(m *pubsubapi.Message, wait time.Duration) // hears that a message will be delivered again; may be nil
	Dead  func(m *pubsubapi.Message)                     // hears of every dead letter; may be nil
}

// Queue is a Pub/Sub on this machine with what it lacks. The embedded one does
// not push, and has no back-off; Google's emulator does both, until some hundred
// pushes have failed, and then no more. So Queue pulls, and pushes itself.
type Queue struct {
	Addr string // for PUBSUB_EMULATOR_HOST
	// DeadLetterSubscription is where dead letters wait to be replayed.
	DeadLetterSubscription string

	QueueConfig
	server  *pstest.Server
	client  *pubsubapi.Client
	trigger string // the subscription of Endpoint
	notify  string // of DeadLetterEndpoint
	http    *http.Client
}

// StartQueue makes the topics and their subscriptions. Nothing is delivered
// before Deliver.
func StartQueue(ctx context.Context, c QueueConfig) (_ *Queue, err error) {
	if c.Backoff == (Backoff{}) {
		c.Backoff = Deployed
	}
	if c.MaxDeliveryAttempts == 0 {
		c.MaxDeliveryAttempts = MaxDeliveryAttempts
	}
	topic, err := pubsub.ParseTopic(c.Topic)
	if err != nil {
		return nil, err
	}
	dead := strings.Replace(c.DeadLetterTopic, "/topics/", "/subscriptions/", 1)
	q := &Queue{
		QueueConfig: c, Addr: c.Host, DeadLetterSubscription: dead,
		trigger: "projects/" + topic.Project + "/subscriptions/trigger", notify: dead + "-notify",
		http: &http.Client{Timeout: time.Minute},
	}
	defer func() {
		if err != nil {
			q.Close()
			err = fmt.Errorf("embedded pub/sub: %w", err)
		}
	}()
	if c.Host == "" {
		q.server = pstest.NewServer()
		q.Addr = q.server.Addr
	}
	q.client, err = pubsubapi.NewClient(ctx, topic.Project, pubsub.EmulatorOptions(q.Addr)...)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{c.Topic, c.DeadLetterTopic} {
		if _, err := q.client.TopicAdminClient.CreateTopic(ctx, &pubsubpb.Topic{Name: name}); err != nil {
			return nil, err
		}
	}
	for _, s := range []*pubsubpb.Subscription{
		{Name: q.trigger, Topic: c.Topic, AckDeadlineSeconds: 60, DeadLetterPolicy: &pubsubpb.DeadLetterPolicy{
			DeadLetterTopic: c.DeadLetterTopic, MaxDeliveryAttempts: int32(c.MaxDeliveryAttempts),
		}},
		{Name: q.notify, Topic: c.DeadLetterTopic, AckDeadlineSeconds: 60},
		{Name: q.DeadLetterSubscription, Topic: c.DeadLetterTopic, AckDeadlineSeconds: 60},
	} {
		if _, err := q.client.SubscriptionAdminClient.CreateSubscription(ctx, s); err != nil {
			return nil, err
		}
	}
	return q, nil
}

// Close ends the service. Deliver must have returned.
func (q *Queue) Close() {
	if q.client != nil {
		_ = q.client.Close()
	}
	if q.server != nil {
		_ = q.server.Close()
	}
}

// Deliver pushes messages to the endpoints until ctx ends.
func (q *Queue) Deliver(ctx context.Context) {
	var running sync.WaitGroup
	running.Go(func() { _ = q.client.Subscriber(q.trigger).Receive(ctx, q.deliver) })
	running.Go(func() { _ = q.client.Subscriber(q.notify).Receive(ctx, q.bury) })
	running.Wait()
}

// deliver delivers a push as Google does: with its attempt, and again after a
// wait unless the answer acknowledges it.
func (q *Queue) deliver(ctx context.Context, m *pubsubapi.Message) {
	attempt := 1
	if m.DeliveryAttempt != nil {
		attempt = *m.DeliveryAttempt
	}
	if q.post(ctx, q.Endpoint, "", q.trigger, m, attempt) {
		m.Ack()
		return
	}
	if attempt < q.MaxDeliveryAttempts {
		wait := q.Backoff.after(attempt)
		if q.Again != nil {
			q.Again(m, wait)
		}
		pause(ctx, wait)
	}
	m.Nack()
}

// bury delivers a dead letter. It has no policy that counts attempts.
func (q *Queue) bury(ctx context.Context, m *pubsubapi.Message) {
	if q.Dead != nil {
		q.Dead(m)
	}
	for attempt := 1; q.DeadLetterEndpoint != "" && ctx.Err() == nil; attempt++ {
		token, err := q.Token()
		if err == nil && q.post(ctx, q.DeadLetterEndpoint, token, q.notify, m, 0) {
			break
		}
		pause(ctx, q.Backoff.after(attempt))
	}
	m.Ack()
}

func pause(ctx context.Context, wait time.Duration) {
	select {
	case <-time.After(wait):
	case <-ctx.Done():
	}
}

// post pushes a message, wrapped in JSON, and tells whether the answer
// acknowledges it.
func (q *Queue) post(ctx context.Context, endpoint, token, subscription string, m *pubsubapi.Message, attempt int) bool {
	wrapped := map[string]any{
		"message": map[string]any{
			"data": m.Data, "attributes": m.Attributes, "messageId": m.ID, "publishTime": m.PublishTime,
		},
		"subscription": subscription,
	}
	if attempt > 0 {
		wrapped["deliveryAttempt"] = attempt
	}
	body, err := json.Marshal(wrapped)
	if err != nil {
		return false
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, bytes.NewReader(body))
	if err != nil {
		return false
	}
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := q.http.Do(req)
	if err != nil {
		return false
	}
	_ = res.Body.Close()
	switch res.StatusCode {
	case 102, 200, 201, 202, 204:
		return true
	}
	return false
}
