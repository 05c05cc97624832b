// Package deadletter takes dead letters from the subscription that keeps them,
// and queues them again. It is for the command: the functions only publish them.
package deadletter

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"regexp"
	"slices"
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
	// keepTime is how long a letter is kept from others, in seconds: the most
	// that Pub/Sub allows.
	keepTime = 600
	// quiet is how long no new letter must come until there are no more: an
	// empty answer of Pub/Sub does not say so.
	quiet = 5 * time.Second
	// pullTime bounds one question for letters.
	pullTime = 5 * time.Second
	// endTime is what is left to end in good order once it is interrupted.
	endTime = 10 * time.Second
)

// Letters are the dead letters that wait in a subscription.
type Letters struct {
	client       *api.Client
	subscription string
	queue        *pubsub.Publisher
	held         map[string]string // ID of a letter → the receipt to give it back with
}

var subscriptionName = regexp.MustCompile(`^projects/([a-z0-9:.-]+)/subscriptions/[A-Za-z][A-Za-z0-9._~+%-]+$`)

// Open connects to the subscription that keeps dead letters, by its
// full name, and to the topic to which they are replayed. emulator is the value
// of PUBSUB_EMULATOR_HOST, "" for the real service.
func Open(ctx context.Context, subscription string, topic pubsub.Topic, emulator string) (*Letters, error) {
	m := subscriptionName.FindStringSubmatch(subscription)
	if m == nil {
		return nil, fmt.Errorf("%.100q is not the full name of a subscription, projects/PROJECT/subscriptions/SUBSCRIPTION", subscription)
	}
	queue, err := pubsub.NewPublisher(ctx, topic, emulator)
	if err != nil {
		return nil, err
	}
	client, err := api.NewClient(ctx, m[1], pubsub.EmulatorOptions(emulator)...)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("pub/sub client: %w", err), queue.Close())
	}
	return &Letters{client, subscription, queue, map[string]string{}}, nil
}

// Take yields the letters that wait, some at a time, each once. It ends when no
// new one has come for five seconds. What is taken stays with the caller until
// Replay or Close.
func (d *Letters) Take(ctx context.Context) iter.Seq2[[]pubsub.Message, error] {
	return func(yield func([]pubsub.Message, error) bool) {
		for last := time.Now(); time.Since(last) < quiet; {
			letters, err := d.pull(ctx)
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
	return letters, d.keep(ctx, receipts, keepTime)
}

// keep keeps letters from others for so many seconds; 0 gives them back.
func (d *Letters) keep(ctx context.Context, receipts []string, seconds int32) error {
	for some := range slices.Chunk(receipts, batch) {
		err := d.client.SubscriptionAdminClient.ModifyAckDeadline(ctx, &pubsubpb.ModifyAckDeadlineRequest{
			Subscription: d.subscription, AckIds: some, AckDeadlineSeconds: seconds,
		})
		if err != nil {
			return fmt.Errorf("keep dead letters: %w", err)
		}
	}
	return nil
}

// Replay queues letters that were taken again, with their attributes and the
// time, and acknowledges those that it has queued, and no others. It returns
// how many those are. A letter that was queued and could not be acknowledged
// still waits: replayed again, it is a duplicate, and Trigger knows it.
func (d *Letters) Replay(ctx context.Context, letters []pubsub.Message) (replayed int, err error) {
	var (
		running  sync.WaitGroup
		mu       sync.Mutex
		failed   error
		receipts []string
	)
	now := time.Now().UTC().Format(time.RFC3339)
	for _, letter := range letters {
		running.Go(func() {
			attributes := map[string]string{}
			maps.Copy(attributes, letter.Attributes)
			attributes[pubsub.ReplayedAttribute] = now
			_, err := d.queue.Publish(ctx, letter.Data, attributes)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = err
				return
			}
			receipts = append(receipts, d.held[letter.ID])
			delete(d.held, letter.ID)
		})
	}
	running.Wait()
	if len(receipts) > 0 {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
		defer cancel()
		err := d.client.SubscriptionAdminClient.Acknowledge(ctx, &pubsubpb.AcknowledgeRequest{Subscription: d.subscription, AckIds: receipts})
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("acknowledge what was replayed: %w", err))
		}
	}
	return len(receipts), failed
}

// Close gives back what was taken and not replayed, and disconnects.
func (d *Letters) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), endTime)
	defer cancel()
	err := d.keep(ctx, slices.Collect(maps.Values(d.held)), 0)
	return errors.Join(err, d.queue.Close(), d.client.Close())
}
