package pubsub_test

import (
	"context"
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"github.com/google/go-cmp/cmp"

	"github.com/getto-systems/hubrelay/internal/pubsub"
)

func TestPublish(t *testing.T) {
	t.Parallel()
	server := pstest.NewServer()
	t.Cleanup(func() { _ = server.Close() })
	topic, err := pubsub.ParseTopic("projects/demo/topics/pushes")
	if err != nil {
		t.Fatal(err)
	}
	p, err := pubsub.NewPublisher(t.Context(), topic, server.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })

	if _, err := p.Publish(t.Context(), []byte("x"), nil); err == nil {
		t.Error("a topic that is not there took a message")
	}
	if _, err := server.GServer.CreateTopic(t.Context(), &pubsubpb.Topic{Name: topic.String()}); err != nil {
		t.Fatal(err)
	}
	id, err := p.Publish(t.Context(), []byte("x"), map[string]string{"id": "1"})
	if err != nil {
		t.Fatal(err)
	}
	m := server.Message(id)
	if m == nil || string(m.Data) != "x" || m.Attributes["id"] != "1" {
		t.Errorf("published %+v", m)
	}
}

func TestPublishEndsWithItsContext(t *testing.T) {
	t.Parallel()
	topic, _ := pubsub.ParseTopic("projects/demo/topics/pushes")
	p, err := pubsub.NewPublisher(t.Context(), topic, "127.0.0.1:1") // nobody is there
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := p.Publish(ctx, []byte("x"), nil); err == nil {
		t.Error("published to nobody")
	}
}

func TestParseTopic(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"projects/p-1/topics/abc", "projects/example.com:p/topics/a_b-c.d~e+f%g"} {
		if topic, err := pubsub.ParseTopic(name); err != nil || topic.String() != name {
			t.Errorf("%s: %v %v", name, topic, err)
		}
	}
	for _, name := range []string{"", "pushes", "projects/p/topics/", "projects/p/topics/ab", "projects/p/topics/1ab", "projects/p/subscriptions/abc", "projects/p/topics/abc/x"} {
		if _, err := pubsub.ParseTopic(name); err == nil {
			t.Errorf("%q was taken for a topic", name)
		}
	}
}

const documentedPush = `{"message":{"data":"aGVsbG8=","attributes":{"id":"1"},"messageId":"m1","publishTime":"2026-11-22T10:00:00Z"},
	"subscription":"projects/p/subscriptions/s","deliveryAttempt":3}`

func TestParsePush(t *testing.T) {
	t.Parallel()
	got, err := pubsub.ParsePush([]byte(documentedPush))
	if err != nil {
		t.Fatal(err)
	}
	want := pubsub.Message{
		ID: "m1", Data: []byte("hello"), Attributes: map[string]string{"id": "1"}, Attempt: 3,
		PublishedAt: time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC), Subscription: "projects/p/subscriptions/s",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestLettersThatAreNotPushesAreKept(t *testing.T) {
	t.Parallel()
	for _, body := range []string{"", "x", "{}", `{"message":null}`, `{"message":{"data":"%"}}`, `{"message":{"data":7}}`} {
		m, err := pubsub.ParsePush([]byte(body))
		if err == nil || string(m.Data) != body {
			t.Errorf("%q: got %q, %v", body, m.Data, err)
		}
	}
}

var published = time.Date(2026, 11, 22, 10, 0, 0, 123456789, time.UTC)

func TestADeadLetterHasWhatTheMessageHad(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 1021)
	for name, c := range map[string]struct {
		message pubsub.Message
		death   pubsub.Death
		want    map[string]string
	}{
		"all that there is to tell": {
			pubsub.Message{Attributes: map[string]string{"id": "1", "source": "webhook"}, PublishedAt: published},
			pubsub.Death{Reason: "not_found", Hint: "Check the token.", Words: "404 Not Found", PromotionID: "p1"},
			map[string]string{
				"id": "1", "source": "webhook", "reason": "not_found", "hint": "Check the token.", "words": "404 Not Found",
				"promotion_id": "p1", "queued_at": "2026-11-22T10:00:00.123456789Z",
			},
		},
		"nothing but a reason": {pubsub.Message{}, pubsub.Death{Reason: "malformed"}, map[string]string{"reason": "malformed"}},
		"another life": {
			pubsub.Message{PublishedAt: published, Attributes: map[string]string{
				"id": "1", "reason": "old", "hint": "old", "words": "old", "promotion_id": "old", "queued_at": "old",
				"replayed_at": "2026-11-22T09:00:00Z", "CloudPubSubDeadLetterSourceDeliveryCount": "50", "CloudPubSubDeadLetterSourceX": "y",
			}},
			pubsub.Death{Reason: "not_found"},
			map[string]string{"id": "1", "reason": "not_found", "queued_at": "2026-11-22T10:00:00.123456789Z", "replayed_at": "2026-11-22T09:00:00Z"},
		},
		"replayed, and it is unknown when it was queued": {
			pubsub.Message{Attributes: map[string]string{"queued_at": "old"}}, pubsub.Death{Reason: "not_found"},
			map[string]string{"reason": "not_found"},
		},
		"more than Pub/Sub takes": {
			pubsub.Message{},
			pubsub.Death{Reason: "rejected", Hint: long + "xxxx", Words: long + "xé"},
			map[string]string{"reason": "rejected", "hint": long + "…", "words": long + "xé"},
		},
		"more than Pub/Sub takes, and a rune where it is cut": {
			pubsub.Message{}, pubsub.Death{Reason: "rejected", Words: long[1:] + "ééé"},
			map[string]string{"reason": "rejected", "words": long[1:] + "…"},
		},
		"invalid UTF-8": {
			pubsub.Message{}, pubsub.Death{Reason: "rejected", Words: "a\xffb"},
			map[string]string{"reason": "rejected", "words": "a\ufffdb"},
		},
	} {
		before := maps.Clone(c.message.Attributes)
		if diff := cmp.Diff(c.want, c.message.DeadLetter(c.death)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if !cmp.Equal(before, c.message.Attributes) {
			t.Errorf("%s: the message itself was changed", name)
		}
	}
}

// The history of a letter: Trigger gives it up, it is replayed, Pub/Sub gives
// it up, it is replayed again, and Trigger gives it up again.
func TestWhyALetterIsDeadAndWhenItWasQueued(t *testing.T) {
	t.Parallel()
	at := func(hour int) time.Time { return time.Date(2026, 11, 22, hour, 0, 0, 0, time.UTC) }
	with := func(m pubsub.Message, attributes map[string]string, published time.Time) pubsub.Message {
		all := maps.Clone(m.Attributes)
		maps.Copy(all, attributes)
		return pubsub.Message{Attributes: all, PublishedAt: published}
	}
	first := pubsub.Death{Reason: "not_found", Hint: "Check it.", Words: "404", PromotionID: "p1"}
	live := pubsub.Message{Attributes: map[string]string{"id": "1"}, PublishedAt: at(1)}
	dead := pubsub.Message{Attributes: live.DeadLetter(first), PublishedAt: at(2)}
	replayed := with(dead, map[string]string{"replayed_at": "2026-11-22T03:00:00Z"}, at(3))
	gaveUp := with(replayed, map[string]string{
		"CloudPubSubDeadLetterSourceDeliveryCount": "50", "CloudPubSubDeadLetterSourceTopicPublishTime": "2026-11-22T03:00:00.000+00:00",
	}, at(10))
	replayedAgain := with(gaveUp, map[string]string{"replayed_at": "2026-11-22T11:00:00Z"}, at(11))
	deadAgain := pubsub.Message{Attributes: replayedAgain.DeadLetter(pubsub.Death{Reason: "unauthorized"}), PublishedAt: at(12)}
	for name, c := range map[string]struct {
		message pubsub.Message
		death   pubsub.Death
		queued  time.Time
	}{
		"Trigger gave it up":                             {dead, first, at(1)},
		"Pub/Sub gave it up after a replay":              {gaveUp, pubsub.Death{Attempts: 50}, at(3)},
		"Trigger gave it up after two replays":           {deadAgain, pubsub.Death{Reason: "unauthorized"}, at(11)},
		"Pub/Sub says less than it should":               {with(live, map[string]string{"CloudPubSubDeadLetterSourceDeliveryCount": "x"}, at(9)), pubsub.Death{}, time.Time{}},
		"Pub/Sub says less than it should of a replay":   {with(replayed, map[string]string{"CloudPubSubDeadLetterSourceSubscription": "s"}, at(9)), pubsub.Death{}, at(3)},
		"an emulator gave it up, and says nothing":       {live, pubsub.Death{}, time.Time{}},
		"an old letter, without queued_at, was replayed": {with(live, map[string]string{"reason": "x", "replayed_at": "2026-11-22T03:00:00+00:00"}, at(9)), pubsub.Death{Reason: "x"}, at(3)},
		"an invalid queued_at":                           {with(live, map[string]string{"reason": "x", "queued_at": "yesterday"}, at(9)), pubsub.Death{Reason: "x"}, time.Time{}},
	} {
		if got := c.message.Death(); got != c.death {
			t.Errorf("%s: died of %+v, want %+v", name, got, c.death)
		}
		if got := c.message.DeadLetterQueuedAt(); !got.Equal(c.queued) {
			t.Errorf("%s: queued at %v, want %v", name, got, c.queued)
		}
	}
	if got := replayedAgain.QueuedAt(); !got.Equal(at(11)) {
		t.Errorf("a message that was replayed was queued at %v", got)
	}
	if got := (pubsub.Message{Attributes: replayedAgain.Attributes}).QueuedAt(); !got.Equal(at(11)) {
		t.Errorf("without a time of Pub/Sub's it was queued at %v", got)
	}
	if got := live.ReplayedAt(); !got.IsZero() {
		t.Errorf("what was never replayed was replayed at %v", got)
	}
}

func FuzzParsePush(f *testing.F) {
	f.Add([]byte(documentedPush))
	f.Add([]byte(`{"message":{"attributes":{"a":"b"}},"deliveryAttempt":-1}`))
	f.Add([]byte(`{"message":{"attributes":{"replayed_at":"2026-11-22T10:00:00Z","CloudPubSubDeadLetterSourceTopicPublishTime":"x"},"publishTime":"2026-11-22T10:00:00.5+01:00"}}`))
	f.Add([]byte(`{"message":{"data":"` + strings.Repeat("QUJD", 100) + `","message_id":"2"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		m, err := pubsub.ParsePush(body)
		if err != nil {
			if string(m.Data) != string(body) {
				t.Error("a body that is no push was not kept")
			}
			return
		}
		death := pubsub.Death{Reason: "r", Hint: m.ID, Words: string(body), PromotionID: m.Subscription}
		letter := pubsub.Message{Attributes: m.DeadLetter(death)}
		for name, value := range letter.Attributes {
			if _, own := m.Attributes[name]; (!own || name == "words") && (len(value) > 1024 || value == "" || !utf8.ValidString(value)) {
				t.Errorf("attribute %s is %q, which Pub/Sub does not take", name, value)
			}
		}
		if got := letter.Death(); got.Reason != "r" || got.Attempts != 0 || len(body) <= 1024 && utf8.Valid(body) && got.Words != string(body) {
			t.Errorf("the letter died of %+v", got)
		}
		if got := letter.DeadLetterQueuedAt(); m.PublishedAt.UTC().Year() > 1 && !got.Equal(m.PublishedAt) {
			t.Errorf("queued at %v, the letter says %v", m.PublishedAt, got)
		}
		_, _, _ = m.Death(), m.QueuedAt(), m.DeadLetterQueuedAt()
		again, err := json.Marshal(map[string]any{"message": map[string]any{"data": m.Data, "attributes": m.Attributes}})
		if err != nil {
			t.Fatal(err)
		}
		back, err := pubsub.ParsePush(again)
		if err != nil || string(back.Data) != string(m.Data) || !cmp.Equal(back.Attributes, m.Attributes) {
			t.Errorf("%s came back as %+v, %v", again, back, err)
		}
	})
}
