package pubsub_test

import (
	"context"
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

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

func TestWhatIsNoPushIsKept(t *testing.T) {
	t.Parallel()
	for _, body := range []string{"", "x", "{}", `{"message":null}`, `{"message":{"data":"%"}}`, `{"message":{"data":7}}`} {
		m, err := pubsub.ParsePush([]byte(body))
		if err == nil || string(m.Data) != body {
			t.Errorf("%q: got %q, %v", body, m.Data, err)
		}
	}
}

func TestDeadLetterKeepsTheAttributes(t *testing.T) {
	t.Parallel()
	m := pubsub.Message{Attributes: map[string]string{"id": "1"}}
	want := map[string]string{"id": "1", "reason": "not_found", "hint": "Check the token."}
	if diff := cmp.Diff(want, m.DeadLetter("not_found", "Check the token.")); diff != "" {
		t.Error(diff)
	}
	if len(m.Attributes) != 1 {
		t.Error("the message itself was changed")
	}
	for _, hint := range []string{"", strings.Repeat("x", 1025)} {
		if diff := cmp.Diff(map[string]string{"reason": "malformed"}, pubsub.Message{}.DeadLetter("malformed", hint)); diff != "" {
			t.Error(diff)
		}
	}
}

func TestWhyALetterIsDead(t *testing.T) {
	t.Parallel()
	live := pubsub.Message{Attributes: map[string]string{"id": "1"}}
	dead := pubsub.Message{Attributes: live.DeadLetter("not_found", "Check it.")}
	replayed := pubsub.Message{Attributes: maps.Clone(dead.Attributes)}
	replayed.Attributes["replayed_at"] = "2026-11-22T10:00:00Z"
	gaveUp := pubsub.Message{Attributes: maps.Clone(replayed.Attributes)}
	gaveUp.Attributes["CloudPubSubDeadLetterSourceDeliveryCount"] = "20"
	again := pubsub.Message{Attributes: gaveUp.DeadLetter("unauthorized", "")}
	for name, c := range map[string]struct {
		message      pubsub.Message
		reason, hint string
		attempts     int
	}{
		"Trigger gave it up":               {dead, "not_found", "Check it.", 0},
		"Pub/Sub gave it up":               {gaveUp, "", "", 20},
		"Pub/Sub gave it up, says nothing": {live, "", "", 0},
		"an emulator, after a replay":      {replayed, "", "", 0},
		"Trigger gave up a replay":         {again, "unauthorized", "", 0},
	} {
		if reason, hint, attempts := c.message.Death(); reason != c.reason || hint != c.hint || attempts != c.attempts {
			t.Errorf("%s: got %q, %q, %d", name, reason, hint, attempts)
		}
	}
}

func FuzzParsePush(f *testing.F) {
	f.Add([]byte(documentedPush))
	f.Add([]byte(`{"message":{"attributes":{"a":"b"}},"deliveryAttempt":-1}`))
	f.Add([]byte(`{"message":{"data":"` + strings.Repeat("QUJD", 100) + `","message_id":"2"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		m, err := pubsub.ParsePush(body)
		if err != nil {
			if string(m.Data) != string(body) {
				t.Error("a body that is no push was not kept")
			}
			return
		}
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
