// Package pubsub publishes to Google Cloud Pub/Sub, and reads what a push
// subscription delivers.
package pubsub

import (
	"context"
	"fmt"
	"regexp"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// PublishTimeout bounds one Publish, including the client's own retries.
const PublishTimeout = 10 * time.Second

// batchDelay is how long a message waits for others to share a call with. The
// client's default of 10 ms would be most of a webhook's time. With less than
// this, requests that come at the same time no longer share a call.
const batchDelay = time.Millisecond

// Topic names a topic: projects/P/topics/T.
type Topic struct{ Project, ID string }

var topicName = regexp.MustCompile(`^projects/([a-z0-9:.-]+)/topics/([A-Za-z][A-Za-z0-9._~+%-]+)$`)

// What Pub/Sub allows for the ID of a topic, in characters.
const minTopicID, maxTopicID = 3, 255

// ParseTopic reads the full name of a topic.
func ParseTopic(name string) (Topic, error) {
	m := topicName.FindStringSubmatch(name)
	if m == nil || len(m[2]) < minTopicID || len(m[2]) > maxTopicID {
		return Topic{}, fmt.Errorf("%.100q is not the full name of a topic, projects/PROJECT/topics/TOPIC", name)
	}
	return Topic{m[1], m[2]}, nil
}

func (t Topic) String() string { return "projects/" + t.Project + "/topics/" + t.ID }

// Publisher publishes to one topic. It is safe for concurrent use.
type Publisher struct {
	topic  *pubsub.Publisher
	client *pubsub.Client
}

// NewPublisher connects at the first Publish, not before. emulator is the
// value of PUBSUB_EMULATOR_HOST, "" for the real service.
func NewPublisher(ctx context.Context, topic Topic, emulator string) (*Publisher, error) {
	client, err := pubsub.NewClient(ctx, topic.Project, EmulatorOptions(emulator)...)
	if err != nil {
		return nil, fmt.Errorf("pub/sub client: %w", err)
	}
	p := client.Publisher(topic.String())
	p.PublishSettings.DelayThreshold = batchDelay
	p.PublishSettings.Timeout = PublishTimeout
	return &Publisher{p, client}, nil
}

// EmulatorOptions are the options that Google's clients use for an emulator at
// this host. There are none if it is "".
func EmulatorOptions(host string) []option.ClientOption {
	if host == "" {
		return nil
	}
	return []option.ClientOption{
		option.WithEndpoint(host),
		option.WithoutAuthentication(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())),
	}
}

// Publish returns the message's ID once Pub/Sub has acknowledged it. After an
// error the message may still have been published.
func (p *Publisher) Publish(ctx context.Context, data []byte, attributes map[string]string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, PublishTimeout)
	defer cancel()
	id, err := p.topic.Publish(ctx, &pubsub.Message{Data: data, Attributes: attributes}).Get(ctx)
	if err != nil {
		return "", fmt.Errorf("publish: %w", err)
	}
	return id, nil
}

// Close sends what is buffered and disconnects.
func (p *Publisher) Close() error {
	p.topic.Stop()
	return p.client.Close()
}
