// Package deadletter takes dead letters from the subscription that keeps them,
// and queues them again. It is for the command: the functions only publish them.
package deadletter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	api "cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/getto-systems/hubrelay/internal/pubsub"
)

const (
	// batch is how many letters are taken at once. Their receipts must fit into
	// one request of 512 KiB.
	batch = 500
	// keepTime is how long nobody else receives a letter, in seconds: the most
	// that Pub/Sub allows. Replaying one takes a few.
	keepTime = 600
	// quiet is how long no new letter must arrive before there are no more,
	// because an empty answer of Pub/Sub does not mean that.
	quiet = 5 * time.Second
	// pullTime bounds one pull. If there are none, Pub/Sub may take longer to
	// say so.
	pullTime = 5 * time.Second
	// answerTime is how long Pub/Sub may take for an answer that it can give
	// immediately.
	answerTime = 10 * time.Second
	// mostHeld bounds the letters that are taken and not replayed, and with
	// them the memory: about a hundred bytes each.
	mostHeld = 200_000
	// endTime is the time to finish cleanly after an interrupt.
	endTime = 10 * time.Second
)

// Letters are the dead letters that wait in a subscription.
type Letters struct {
	client       *api.Client
	subscription string
	emulator     string
	queue        *pubsub.Publisher
	held         map[string]string // ID of a letter → the receipt to give it back with
}

var subscriptionName = regexp.MustCompile(`^projects/([a-z0-9:.-]+)/subscriptions/[A-Za-z][A-Za-z0-9._~+%-]+$`)

// notifySuffix ends the name of the subscription that terraform/ makes for
// Notify, beside the one that keeps dead letters.
const notifySuffix = "-dead-letters-notify"

// CheckName says what is wrong with the full name of a subscription for dead
// letters, as far as a name shows it.
func CheckName(subscription string) error {
	switch {
	case strings.HasPrefix(subscription, "projects/") && strings.Contains(subscription, "/topics/"):
		return fmt.Errorf("%.200q is a topic, and dead letters wait in a subscription: projects/PROJECT/subscriptions/NAME-dead-letters", subscription)
	case !subscriptionName.MatchString(subscription):
		return fmt.Errorf("%.200q is not the full name of a subscription, projects/PROJECT/subscriptions/NAME-dead-letters", subscription)
	case strings.HasSuffix(subscription, notifySuffix):
		return fmt.Errorf("%.200q pushes dead letters to Notify; they wait in %.200q", subscription, strings.TrimSuffix(subscription, "-notify"))
	}
	return nil
}

// Open connects to the subscription that keeps dead letters, by its full name,
// and to the topic to which they are replayed. It fails if Pub/Sub does not
// answer within ten seconds, or if letters cannot be taken from the
// subscription. emulator is the value of PUBSUB_EMULATOR_HOST, "" for the real
// service.
func Open(ctx context.Context, subscription string, topic pubsub.Topic, emulator string) (_ *Letters, err error) {
	if err := CheckName(subscription); err != nil {
		return nil, err
	}
	queue, err := pubsub.NewPublisher(ctx, topic, emulator)
	if err != nil {
		return nil, err
	}
	client, err := api.NewClient(ctx, subscriptionName.FindStringSubmatch(subscription)[1], pubsub.EmulatorOptions(emulator)...)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("pub/sub client: %w", err), queue.Close())
	}
	// The client's own retries would hide why there is no answer.
	client.SubscriptionAdminClient.CallOptions.GetSubscription = nil
	d := &Letters{client, subscription, emulator, queue, map[string]string{}}
	defer func() {
		if err != nil {
			_ = d.Close()
		}
	}()
	found, err := d.look(ctx)
	switch {
	case err != nil:
		return nil, err
	case found.GetPushConfig().GetPushEndpoint() != "":
		return nil, fmt.Errorf("%s pushes its messages, and none can be taken from it: name the subscription that keeps dead letters", subscription)
	case found.GetTopic() == topic.String():
		return nil, fmt.Errorf("%s gets what is queued in %s: name the subscription that keeps dead letters", subscription, topic)
	}
	return d, nil
}

// look asks for the subscription, to find out whether Pub/Sub answers. It
// returns nil if the caller may take messages from the subscription, but may
// not read it.
func (d *Letters) look(ctx context.Context) (*pubsubpb.Subscription, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	var unavailable error
	for {
		found, err := d.client.SubscriptionAdminClient.GetSubscription(ctx, &pubsubpb.GetSubscriptionRequest{Subscription: d.subscription})
		switch code := status.Code(err); {
		case err == nil:
			return found, nil
		case code == codes.PermissionDenied:
			return nil, nil
		case code == codes.NotFound:
			return nil, fmt.Errorf("there is no subscription %s%s", d.subscription, d.where())
		case ctx.Err() == nil && code != codes.Unavailable:
			return nil, fmt.Errorf("look at %s: %w", d.subscription, err)
		case ctx.Err() == nil:
			unavailable = err
		case errors.Is(ctx.Err(), context.Canceled):
			return nil, context.Canceled
		default:
			return nil, fmt.Errorf("pub/sub%s does not answer: %w", d.where(), cmp.Or(unavailable, err))
		}
		select {
		case <-ctx.Done():
		case <-time.After(answerTime / 20):
		}
	}
}

// where names the emulator, if one is used.
func (d *Letters) where() string {
	if d.emulator == "" {
		return ""
	}
	return fmt.Sprintf(" at PUBSUB_EMULATOR_HOST, %.100s,", d.emulator)
}

// Take yields the waiting letters in batches, each letter once. It ends when no
// new one has arrived for five seconds and Pub/Sub answers. The caller holds
// the letters until Replay or Close, 200,000 at most.
func (d *Letters) Take(ctx context.Context) iter.Seq2[[]pubsub.Message, error] {
	return func(yield func([]pubsub.Message, error) bool) {
		for last := time.Now(); time.Since(last) < quiet; {
			letters, err := d.pull(ctx)
			if err == nil && len(d.held) > mostHeld {
				err = fmt.Errorf("over %d letters were taken and not replayed", mostHeld)
			}
			if err != nil {
				yield(nil, fmt.Errorf("take dead letters of %s: %w", d.subscription, err))
				return
			}
			if len(letters) == 0 {
				select {
				case <-ctx.Done():
				case <-time.After(quiet / 20):
				}
				continue
			}
			if !yield(letters, nil) {
				return
			}
			last = time.Now()
		}
		// No letter arrived. Check that Pub/Sub answers at all.
		if _, err := d.look(ctx); err != nil {
			yield(nil, fmt.Errorf("take dead letters of %s: %w", d.subscription, err))
		}
	}
}

// pull returns letters that were not seen before.
func (d *Letters) pull(ctx context.Context) ([]pubsub.Message, error) {
	pulling, cancel := context.WithTimeout(ctx, pullTime)
	defer cancel()
	res, err := d.client.SubscriptionAdminClient.Pull(pulling, &pubsubpb.PullRequest{Subscription: d.subscription, MaxMessages: batch})
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case status.Code(err) == codes.DeadlineExceeded, errors.Is(err, context.DeadlineExceeded):
		return nil, nil // none has come
	case err != nil:
		return nil, err
	}
	var letters []pubsub.Message
	var receipts []string
	for _, m := range res.ReceivedMessages {
		if _, seen := d.held[m.Message.MessageId]; !seen {
			letters = append(letters, pubsub.Message{
				ID: m.Message.MessageId, Data: m.Message.Data, Attributes: m.Message.Attributes,
				PublishedAt: m.Message.PublishTime.AsTime(), Subscription: d.subscription,
			})
		}
		d.held[m.Message.MessageId] = m.AckId
		receipts = append(receipts, m.AckId)
	}
	if err := d.keep(ctx, receipts, keepTime); err != nil {
		return nil, fmt.Errorf("keep them from others: %w", err)
	}
	return letters, nil
}

// keep makes sure that nobody else receives the letters for so many seconds; 0
// gives them back.
func (d *Letters) keep(ctx context.Context, receipts []string, seconds int32) error {
	for some := range slices.Chunk(receipts, batch) {
		err := d.client.SubscriptionAdminClient.ModifyAckDeadline(ctx, &pubsubpb.ModifyAckDeadlineRequest{
			Subscription: d.subscription, AckIds: some, AckDeadlineSeconds: seconds,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Replay queues letters that were taken again, with their attributes and the
// time. It acknowledges only those that it has queued, and returns their
// number. Once it has begun it does not end with ctx, but within about twenty
// seconds. If a letter was queued and could not be acknowledged, it still
// waits. Replayed again, it is a duplicate, and Trigger ignores it.
func (d *Letters) Replay(ctx context.Context, letters []pubsub.Message) (replayed int, err error) {
	if len(letters) == 0 {
		return 0, nil
	}
	ctx = context.WithoutCancel(ctx)
	var (
		running  sync.WaitGroup
		mu       sync.Mutex
		failed   error // the first
		receipts []string
	)
	for _, letter := range letters {
		running.Go(func() {
			attributes := map[string]string{}
			maps.Copy(attributes, letter.Attributes)
			attributes[pubsub.ReplayedAttribute] = time.Now().UTC().Format(time.RFC3339Nano)
			_, err := d.queue.Publish(ctx, letter.Data, attributes)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = cmp.Or(failed, fmt.Errorf("queue a dead letter again: %w", err))
				return
			}
			receipts = append(receipts, d.held[letter.ID])
			delete(d.held, letter.ID)
		})
	}
	running.Wait()
	if len(receipts) > 0 {
		ctx, cancel := context.WithTimeout(ctx, endTime)
		defer cancel()
		err := d.client.SubscriptionAdminClient.Acknowledge(ctx, &pubsubpb.AcknowledgeRequest{Subscription: d.subscription, AckIds: receipts})
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("acknowledge what was replayed: %w", err))
		}
	}
	return len(receipts), failed
}

// Close gives back the letters that were taken and not replayed, and
// disconnects.
func (d *Letters) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), endTime)
	defer cancel()
	err := d.keep(ctx, slices.Collect(maps.Values(d.held)), 0)
	if err != nil {
		err = fmt.Errorf("give dead letters back, which come back by themselves in ten minutes: %w", err)
	}
	return errors.Join(err, d.queue.Close(), d.client.Close())
}
