package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	pubsubapi "cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"

	"github.com/getto-systems/hubrelay/internal/pubsub"
)

// MaxDeliveryAttempts is how often Trigger gets a message before it becomes a
// dead letter. With the waits of Deployed that takes about seven hours.
// terraform/ sets the same numbers.
const MaxDeliveryAttempts = 50

// Backoff is the wait between two deliveries of a message. It doubles from
// Min to Max.
type Backoff struct{ Min, Max time.Duration }

// Deployed is the back-off that terraform/ sets.
var Deployed = Backoff{Min: 10 * time.Second, Max: 600 * time.Second}

// after returns the wait after a number of deliveries.
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
	// Host is the address of a Pub/Sub emulator; an embedded one is started if
	// it is "".
	Host                   string
	Topic, DeadLetterTopic string
	Endpoint               string  // where messages are pushed to
	DeadLetterEndpoint     string  // where dead letters are pushed to; "" for nowhere
	Backoff                Backoff // as deployed if it is zero
	MaxDeliveryAttempts    int     // as deployed if it is 0

	// Token makes the token that a dead letter is pushed with.
	Token func() (string, error)

	Again func(m *pubsubapi.Message, wait time.Duration) // called when a message will be delivered again; may be nil
	Dead  func(m *pubsubapi.Message)                     // called with every dead letter; may be nil

	// For a sandbox:
	clock   *clock                                   // this machine's if it is nil
	taken   func(m *pubsubapi.Message)               // called with every message before it is delivered; may be nil
	settled func()                                   // called when a message was acknowledged, or became a dead letter; may be nil
	faults  func(among ...string) (f Fault, ok bool) // that apply to a message; may be nil
}

// pushesAtOnce bounds the pushes that wait for an answer.
const pushesAtOnce = 200

// Queue is a Pub/Sub on this machine, with the parts that the embedded one and
// Google's emulator lack. The embedded Pub/Sub does not push, has no back-off,
// and never stops making dead letters. Google's emulator stops pushing after
// about a hundred pushes have failed. So Queue takes every message from either,
// and does the rest itself: it pushes each message until it is acknowledged or
// has become one dead letter.
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
	kept    *letterBox    // of the embedded Pub/Sub
	pushing chan struct{} // has room for pushesAtOnce
	known   sync.Map      // IDs of the messages that were taken, because Pub/Sub may deliver one again

	published atomic.Int64 // messages to the embedded Pub/Sub
	received  atomic.Int64 // of these, those that were taken
	latest    atomic.Int64 // when the newest of the delivered messages was queued, in nanoseconds since 1970
}

// StartQueue creates the topics and their subscriptions. Nothing is delivered
// before Deliver.
func StartQueue(ctx context.Context, c QueueConfig) (_ *Queue, err error) {
	if c.Backoff == (Backoff{}) {
		c.Backoff = Deployed
	}
	if c.MaxDeliveryAttempts == 0 {
		c.MaxDeliveryAttempts = MaxDeliveryAttempts
	}
	if c.clock == nil {
		c.clock = newClock()
	}
	topic, err := pubsub.ParseTopic(c.Topic)
	if err != nil {
		return nil, err
	}
	dead := strings.Replace(c.DeadLetterTopic, "/topics/", "/subscriptions/", 1)
	q := &Queue{
		QueueConfig: c, Addr: c.Host, DeadLetterSubscription: dead,
		trigger: "projects/" + topic.Project + "/subscriptions/trigger", notify: dead + "-notify",
		http: &http.Client{Timeout: time.Minute}, kept: newLetterBox(dead, c.clock.now), pushing: make(chan struct{}, pushesAtOnce),
	}
	defer func() {
		if err != nil {
			q.Close()
			err = fmt.Errorf("embedded pub/sub: %w", err)
		}
	}()
	notifies := &pubsubpb.PushConfig{} // the emulator would push by itself
	if c.Host == "" {
		q.server = pstest.NewServer(append(q.kept.reactors(), pstest.ServerReactorOption{FuncName: "Publish", Reactor: counter{&q.published}})...)
		q.server.SetTimeNowFunc(c.clock.now)
		q.Addr = q.server.Addr
		notifies.PushEndpoint = c.DeadLetterEndpoint
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
		{Name: q.trigger, Topic: c.Topic, AckDeadlineSeconds: 60},
		{Name: q.notify, Topic: c.DeadLetterTopic, AckDeadlineSeconds: 60, PushConfig: notifies},
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

// Deliver pushes messages to the endpoints until ctx ends. Messages that were
// taken and not settled by then are lost.
func (q *Queue) Deliver(ctx context.Context) {
	var running sync.WaitGroup
	for subscription, deliver := range map[string]func(context.Context, *pubsubapi.Message){q.trigger: q.deliver, q.notify: q.bury} {
		running.Go(func() {
			_ = q.client.Subscriber(subscription).Receive(ctx, func(_ context.Context, m *pubsubapi.Message) {
				m.Ack()
				if _, again := q.known.LoadOrStore(m.ID, true); again {
					return
				}
				q.clock.count(1)
				if subscription == q.notify && q.server != nil {
					q.kept.put(m)
				}
				q.received.Add(1)
				running.Go(func() {
					defer q.clock.count(-1)
					deliver(ctx, m)
				})
			})
		})
	}
	running.Wait()
}

// deliver pushes a message until the answer acknowledges it, with waits in
// between, and turns it into a dead letter after the last attempt.
func (q *Queue) deliver(ctx context.Context, m *pubsubapi.Message) {
	if q.taken != nil {
		q.taken(m)
	}
	if q.settled != nil {
		defer q.settled()
	}
	q.hold(ctx, m)
	for attempt := 1; !q.push(ctx, m, attempt); attempt++ {
		if attempt == q.MaxDeliveryAttempts {
			q.giveUp(ctx, m)
			return
		}
		wait := q.Backoff.after(attempt)
		if q.Again != nil {
			q.Again(m, wait)
		}
		if q.clock.sleep(ctx, wait); ctx.Err() != nil {
			return
		}
	}
	if _, again := q.meets(twice); again {
		q.push(ctx, m, 1)
	}
}

func (q *Queue) push(ctx context.Context, m *pubsubapi.Message, attempt int) (acknowledged bool) {
	acknowledged = q.post(ctx, q.Endpoint, "", q.trigger, m, attempt)
	for queued := m.PublishTime.UnixNano(); ; {
		if latest := q.latest.Load(); latest >= queued || q.latest.CompareAndSwap(latest, queued) {
			return acknowledged
		}
	}
}

// hold delays a message, if a fault makes it late or out of order.
func (q *Queue) hold(ctx context.Context, m *pubsubapi.Message) {
	const step = 50 * time.Millisecond
	fault, held := q.meets(late, unordered)
	switch {
	case !held:
	case fault.Answer == late:
		q.clock.sleep(ctx, fault.Latency)
	default:
		for end := q.clock.now().Add(fault.Latency); ctx.Err() == nil && q.clock.now().Before(end) && q.latest.Load() <= m.PublishTime.UnixNano(); {
			q.clock.sleep(ctx, step)
		}
	}
}

func (q *Queue) meets(among ...string) (Fault, bool) {
	if q.faults == nil {
		return Fault{}, false
	}
	return q.faults(among...)
}

// waitAfter is how long a message waits for its next delivery, 0 if there is
// none.
func (q *Queue) waitAfter(attempt int, acknowledged bool) time.Duration {
	if acknowledged || attempt >= q.MaxDeliveryAttempts {
		return 0
	}
	return q.Backoff.after(attempt)
}

// letters is how many dead letters wait to be replayed.
func (q *Queue) letters() int { return q.kept.count() }

// replay queues matching dead letters again, like the command, and returns
// their number. It leaves out letters that others have taken, and waits for
// letters that were published just now.
func (q *Queue) replay(ctx context.Context, match func(*pubsubpb.PubsubMessage) bool) (n int, err error) {
	for end := time.Now().Add(settleTime); q.untaken() > 0 && time.Now().Before(end); {
		pause(ctx, time.Millisecond)
	}
	for _, letter := range q.kept.take(match) {
		attributes := maps.Clone(letter.Message.Attributes)
		attributes[pubsub.ReplayedAttribute] = q.clock.now().UTC().Format(time.RFC3339Nano)
		_, err := q.client.TopicAdminClient.Publish(ctx, &pubsubpb.PublishRequest{
			Topic: q.Topic, Messages: []*pubsubpb.PubsubMessage{{Data: letter.Message.Data, Attributes: attributes}},
		})
		if err != nil {
			return n, fmt.Errorf("queue a dead letter again: %w", err) // the rest come back after their lease
		}
		q.kept.drop(letter.AckId)
		n++
	}
	return n, nil
}

// untaken is how many published messages were not taken yet.
func (q *Queue) untaken() int64 { return q.published.Load() - q.received.Load() }

// counter counts the messages that are published.
type counter struct{ n *atomic.Int64 }

// React implements pstest.Reactor.
func (c counter) React(request any) (handled bool, answer any, err error) {
	if r, ok := request.(*pubsubpb.PublishRequest); ok {
		c.n.Add(int64(len(r.Messages)))
	}
	return false, nil, nil
}

// giveUp publishes a dead letter with the attributes that Google adds to one:
// the subscription by its short name, and the time in milliseconds.
// https://cloud.google.com/pubsub/docs/dead-letter-topics
func (q *Queue) giveUp(ctx context.Context, m *pubsubapi.Message) {
	parts := strings.Split(q.trigger, "/") // projects/P/subscriptions/S
	attributes := map[string]string{}
	maps.Copy(attributes, m.Attributes)
	maps.Copy(attributes, map[string]string{
		"CloudPubSubDeadLetterSourceDeliveryCount":       strconv.Itoa(q.MaxDeliveryAttempts),
		"CloudPubSubDeadLetterSourceSubscription":        parts[3],
		"CloudPubSubDeadLetterSourceSubscriptionProject": parts[1],
		"CloudPubSubDeadLetterSourceTopicPublishTime":    publishTime(m).Format("2006-01-02T15:04:05.000-07:00"),
	})
	letter := &pubsubpb.PublishRequest{
		Topic: q.DeadLetterTopic, Messages: []*pubsubpb.PubsubMessage{{Data: m.Data, Attributes: attributes}},
	}
	for attempt := 1; ctx.Err() == nil; attempt++ {
		if _, err := q.client.TopicAdminClient.Publish(ctx, letter); err == nil {
			return
		}
		q.clock.sleep(ctx, q.Backoff.after(attempt))
	}
}

// publishTime is when a message was published in Google's form, with
// milliseconds.
func publishTime(m *pubsubapi.Message) time.Time {
	return m.PublishTime.UTC().Truncate(time.Millisecond)
}

// bury pushes a dead letter until the answer acknowledges it. The number of
// attempts is not limited.
func (q *Queue) bury(ctx context.Context, m *pubsubapi.Message) {
	if q.Dead != nil {
		q.Dead(m)
	}
	for attempt := 1; q.DeadLetterEndpoint != "" && ctx.Err() == nil; attempt++ {
		token, err := q.Token()
		if err == nil && q.post(ctx, q.DeadLetterEndpoint, token, q.notify, m, 0) {
			return
		}
		q.clock.sleep(ctx, q.Backoff.after(attempt))
	}
}

// post pushes a message, wrapped in JSON, and reports whether the answer
// acknowledges it.
func (q *Queue) post(ctx context.Context, endpoint, token, subscription string, m *pubsubapi.Message, attempt int) bool {
	wrapped := map[string]any{
		"message": map[string]any{
			"data": m.Data, "attributes": m.Attributes, "messageId": m.ID, "publishTime": publishTime(m),
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
	select {
	case q.pushing <- struct{}{}:
		defer func() { <-q.pushing }()
	case <-ctx.Done():
		return false
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
