package deadletter_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/getto-systems/hubrelay/internal/deadletter"
	"github.com/getto-systems/hubrelay/internal/pubsub"
)

const (
	subscription = "projects/demo/subscriptions/hub-dead-letters"
	deadTopic    = "projects/demo/topics/hub-dead-letters"
)

var pushes = pubsub.Topic{Project: "demo", ID: "hub-pushes"}

// service is a Pub/Sub with dead letters.
func service(t *testing.T, letters int, options ...pstest.ServerReactorOption) *pstest.Server {
	t.Helper()
	s := pstest.NewServer(options...)
	t.Cleanup(func() { _ = s.Close() })
	for _, name := range []string{deadTopic, pushes.String()} {
		if _, err := s.GServer.CreateTopic(t.Context(), &pubsubpb.Topic{Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	for _, sub := range []*pubsubpb.Subscription{
		{Name: subscription, Topic: deadTopic, AckDeadlineSeconds: 60},
		{Name: "projects/demo/subscriptions/queue", Topic: pushes.String(), AckDeadlineSeconds: 60},
		{Name: "projects/demo/subscriptions/pushing", Topic: deadTopic, PushConfig: &pubsubpb.PushConfig{PushEndpoint: "https://notify.example"}},
	} {
		if _, err := s.GServer.CreateSubscription(t.Context(), sub); err != nil {
			t.Fatal(err)
		}
	}
	for n := range letters {
		s.Publish(deadTopic, fmt.Append(nil, n), map[string]string{"id": fmt.Sprint(n), "reason": "not_found"})
	}
	return s
}

func open(t *testing.T, host string) *deadletter.Letters {
	t.Helper()
	d, err := deadletter.Open(t.Context(), subscription, pushes, host)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// pulled returns what waits in a subscription, by its data.
func pulled(t *testing.T, s *pstest.Server, name string) map[string]*pubsubpb.PubsubMessage {
	t.Helper()
	res, err := s.GServer.Pull(t.Context(), &pubsubpb.PullRequest{Subscription: name, MaxMessages: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]*pubsubpb.PubsubMessage{}
	for _, m := range res.ReceivedMessages {
		if found[string(m.Message.Data)] != nil {
			t.Errorf("%s came twice", m.Message.Data)
		}
		found[string(m.Message.Data)] = m.Message
	}
	return found
}

// reactor answers calls of the service.
type reactor func(request any) (handled bool, answer any, err error)

func (r reactor) React(request any) (bool, any, error) { return r(request) }

func TestLettersAreReplayedAsTheyWere(t *testing.T) {
	t.Parallel()
	s := service(t, 700) // more than are taken at once
	d := open(t, s.Addr)
	before := time.Now()
	seen := map[string]bool{}
	for some, err := range d.Take(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		for _, letter := range some {
			if seen[letter.ID] {
				t.Errorf("%s was taken twice", letter.ID)
			}
			seen[letter.ID] = true
		}
		if n, err := d.Replay(t.Context(), some); n != len(some) || err != nil {
			t.Errorf("%d of %d replayed: %v", n, len(some), err)
		}
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	queued := pulled(t, s, "projects/demo/subscriptions/queue")
	if len(queued) != 700 || len(pulled(t, s, subscription)) != 0 {
		t.Errorf("%d were queued", len(queued))
	}
	for data, m := range queued {
		replayedAt := m.Attributes["replayed_at"]
		if diff := cmp.Diff(map[string]string{"id": data, "reason": "not_found", "replayed_at": replayedAt}, m.Attributes); diff != "" {
			t.Fatal(diff)
		}
		at, err := time.Parse(time.RFC3339Nano, replayedAt)
		if err != nil || at.Before(before) || at.After(time.Now()) || !strings.HasSuffix(replayedAt, "Z") || !strings.Contains(replayedAt, ".") {
			t.Fatalf("%s was replayed at %s, %v", data, replayedAt, err)
		}
	}
}

func TestLettersThatAreNotReplayedGoBack(t *testing.T) {
	t.Parallel()
	s := service(t, 5)
	d := open(t, s.Addr)
	for some, err := range d.Take(t.Context()) {
		if err != nil || len(some) != 5 {
			t.Fatal(some, err)
		}
		if n, err := d.Replay(t.Context(), some[:2]); n != 2 || err != nil {
			t.Error(n, err)
		}
		break
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if left := pulled(t, s, subscription); len(left) != 3 {
		t.Errorf("there wait %v", left)
	}
}

func TestOnlyWhatWasQueuedIsAcknowledged(t *testing.T) {
	t.Parallel()
	s := service(t, 20, pstest.ServerReactorOption{FuncName: "Publish", Reactor: reactor(func(request any) (bool, any, error) {
		r := request.(*pubsubpb.PublishRequest)
		for _, m := range r.Messages {
			if r.Topic == pushes.String() && string(m.Data) == "7" {
				return true, nil, status.Error(codes.InvalidArgument, "too many attributes")
			}
		}
		return false, nil, nil
	})})
	d := open(t, s.Addr)
	replayed := 0
	for some, err := range d.Take(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		n, err := d.Replay(t.Context(), some)
		if err == nil || !strings.Contains(err.Error(), "too many attributes") {
			t.Errorf("got %v", err)
		}
		replayed += n
		break
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	queued, left := pulled(t, s, "projects/demo/subscriptions/queue"), pulled(t, s, subscription)
	if len(queued) != replayed || len(queued)+len(left) != 20 || left["7"] == nil {
		t.Errorf("%d are said to be replayed, %d are queued, %d wait", replayed, len(queued), len(left))
	}
	for data := range queued {
		if left[data] != nil {
			t.Errorf("%s is queued and waits", data)
		}
	}
}

func TestAnInterruptLosesAndDuplicatesNothing(t *testing.T) {
	t.Parallel()
	ctx, interrupt := context.WithCancel(t.Context())
	s := service(t, 1200, pstest.ServerReactorOption{FuncName: "Publish", Reactor: reactor(func(request any) (bool, any, error) {
		if request.(*pubsubpb.PublishRequest).Topic == pushes.String() {
			interrupt() // in the middle of the first letters
		}
		return false, nil, nil
	})})
	d := open(t, s.Addr)
	replayed := 0
	var ended error
	for some, err := range d.Take(ctx) {
		if ended = err; err != nil {
			break
		}
		n, err := d.Replay(ctx, some)
		if err != nil {
			t.Error(err)
		}
		replayed += n
	}
	if !errors.Is(ended, context.Canceled) {
		t.Errorf("it ended with %v", ended)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	queued, left := pulled(t, s, "projects/demo/subscriptions/queue"), pulled(t, s, subscription)
	if len(queued) != replayed || replayed == 0 || len(left) == 0 {
		t.Errorf("%d are said to be replayed, %d are queued, %d wait", replayed, len(queued), len(left))
	}
	all := maps.Clone(queued)
	maps.Copy(all, left)
	if len(all) != 1200 || len(queued)+len(left) != 1200 {
		t.Errorf("%d are queued, %d wait", len(queued), len(left))
	}
}

func TestOtherSubscriptionsAreRefused(t *testing.T) {
	t.Parallel()
	s := service(t, 1)
	for name, want := range map[string]string{
		"projects/demo/subscriptions/queue":                   "gets what is queued in projects/demo/topics/hub-pushes",
		"projects/demo/subscriptions/pushing":                 "pushes its messages",
		"projects/demo/subscriptions/nosuch":                  "there is no subscription projects/demo/subscriptions/nosuch",
		"projects/demo/topics/hub-dead-letters":               "is a topic",
		"projects/demo/subscriptions/hub-dead-letters-notify": "pushes dead letters to Notify",
		"hub-dead-letters":                                    "not the full name of a subscription",
		"":                                                    "not the full name of a subscription",
	} {
		if _, err := deadletter.Open(t.Context(), name, pushes, s.Addr); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The role for taking messages does not allow reading subscriptions.
func TestTheRightToTakeLettersIsEnough(t *testing.T) {
	t.Parallel()
	s := service(t, 3, pstest.WithErrorInjection("GetSubscription", codes.PermissionDenied, "no"))
	d := open(t, s.Addr)
	taken := 0
	for some, err := range d.Take(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		taken += len(some)
	}
	if err := d.Close(); err != nil || taken != 3 {
		t.Errorf("%d taken, %v", taken, err)
	}
}

func TestAPubSubThatDoesNotAnswerIsNotEmpty(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts connections, and never answers
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	for name, host := range map[string]string{"nobody listens": "127.0.0.1:1", "it hangs": silent.Addr().String()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			begun := time.Now()
			_, err := deadletter.Open(t.Context(), subscription, pushes, host)
			if err == nil || !strings.Contains(err.Error(), "does not answer") || !strings.Contains(err.Error(), host) {
				t.Errorf("got %v", err)
			}
			if took := time.Since(begun); took > 20*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
	t.Run("it goes down in between", func(t *testing.T) {
		t.Parallel()
		var away atomic.Bool
		goAway := reactor(func(any) (bool, any, error) {
			if away.Load() {
				return true, nil, status.Error(codes.Unavailable, "gone")
			}
			return false, nil, nil
		})
		var options []pstest.ServerReactorOption
		for _, name := range []string{"Pull", "GetSubscription", "ModifyAckDeadline"} {
			options = append(options, pstest.ServerReactorOption{FuncName: name, Reactor: goAway})
		}
		s := service(t, 3, options...)
		d := open(t, s.Addr)
		var ended error
		for _, err := range d.Take(t.Context()) {
			ended = err
			away.Store(true)
		}
		if ended == nil || !strings.Contains(ended.Error(), "does not answer") {
			t.Errorf("it ended with %v", ended)
		}
		if err := d.Close(); err == nil || !strings.Contains(err.Error(), "give dead letters back") {
			t.Errorf("the letters were given back to nobody: %v", err)
		}
	})
}

// endless is a Pub/Sub with that many letters, which keeps none of them.
func endless(letters int) []pstest.ServerReactorOption {
	var (
		mu   sync.Mutex
		next int
	)
	return []pstest.ServerReactorOption{
		{FuncName: "Pull", Reactor: reactor(func(request any) (bool, any, error) {
			mu.Lock()
			defer mu.Unlock()
			res := &pubsubpb.PullResponse{}
			for ; next < letters && len(res.ReceivedMessages) < int(request.(*pubsubpb.PullRequest).MaxMessages); next++ {
				res.ReceivedMessages = append(res.ReceivedMessages, &pubsubpb.ReceivedMessage{
					AckId:   strings.Repeat("r", 180) + fmt.Sprint(next),
					Message: &pubsubpb.PubsubMessage{MessageId: fmt.Sprint(next), Data: make([]byte, 1000)},
				})
			}
			return true, res, nil
		})},
		{FuncName: "ModifyAckDeadline", Reactor: reactor(func(any) (bool, any, error) { return true, nil, nil })},
		{FuncName: "Acknowledge", Reactor: reactor(func(any) (bool, any, error) { return true, nil, nil })},
		{FuncName: "Publish", Reactor: reactor(func(request any) (bool, any, error) {
			return true, &pubsubpb.PublishResponse{MessageIds: make([]string, len(request.(*pubsubpb.PublishRequest).Messages))}, nil
		})},
	}
}

func TestMemoryStaysBounded(t *testing.T) {
	for _, c := range []struct {
		name    string
		letters int
		apply   bool
		most    uint64 // MiB
	}{{"a dry run, which holds them all", 100_000, false, 64}, {"a replay", 30_000, true, 16}} {
		s := pstest.NewServer(endless(c.letters)...)
		if _, err := s.GServer.CreateTopic(t.Context(), &pubsubpb.Topic{Name: deadTopic}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.GServer.CreateSubscription(t.Context(), &pubsubpb.Subscription{Name: subscription, Topic: deadTopic}); err != nil {
			t.Fatal(err)
		}
		d := open(t, s.Addr)
		before := heap()
		taken, most := 0, uint64(0)
		for some, err := range d.Take(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			taken += len(some)
			if c.apply {
				if _, err := d.Replay(t.Context(), some); err != nil {
					t.Fatal(err)
				}
			}
			if taken%10_000 == 0 {
				most = max(most, heap())
			}
		}
		grown := (max(most, before) - before) >> 20
		if taken != c.letters || grown > c.most {
			t.Errorf("%s: %d taken, with %d MiB", c.name, taken, grown)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		_ = s.Close()
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestMoreThanCanBeHeldIsAnError(t *testing.T) {
	t.Parallel()
	s := service(t, 0, endless(1_000_000)...)
	d := open(t, s.Addr)
	taken := 0
	var ended error
	for some, err := range d.Take(t.Context()) {
		taken += len(some)
		ended = err
	}
	if ended == nil || !strings.Contains(ended.Error(), "over 200000 letters") || taken != 200_000 {
		t.Errorf("%d were taken, then %v", taken, ended)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}
