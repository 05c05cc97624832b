package ledger_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/getto-systems/hubrelay/internal/gcptest"
	"github.com/getto-systems/hubrelay/internal/ledger"
)

// clock is a Firestore's, ahead of the emulator's.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time       { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) pass(d time.Duration) { c.ahead.Add(int64(d)) }
func (c *clock) read(t *timestamppb.Timestamp) *timestamppb.Timestamp {
	return timestamppb.New(t.AsTime().Add(time.Duration(c.ahead.Load())))
}

// intercept sets the read time of Firestore's answers to the time of the clock.
func (c *clock) intercept(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	stream, err := streamer(ctx, desc, cc, method, opts...)
	return &clockedStream{stream, c}, err
}

type clockedStream struct {
	grpc.ClientStream
	clock *clock
}

func (s *clockedStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if r, ok := m.(*firestorepb.BatchGetDocumentsResponse); ok && err == nil {
		r.ReadTime = s.clock.read(r.ReadTime)
	}
	return err
}

func open(t *testing.T, host, name string, c *clock) *ledger.Ledger {
	t.Helper()
	conn, err := grpc.NewClient(host, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithStreamInterceptor(c.intercept))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	l, err := ledger.OpenFirestore(name, option.WithGRPCConn(conn))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestFirestore(t *testing.T) {
	t.Parallel()
	host := gcptest.Firestore(t)
	for i, c := range conformance {
		t.Run(c.name, func(t *testing.T) {
			clock := &clock{}
			name := fmt.Sprintf("projects/demo/databases/ledger-%d", i)
			c.test(fixture{open(t, host, name, clock), t, tagKey, clock.now, clock.pass})
		})
	}
	for i, c := range stores {
		t.Run(c.name, func(t *testing.T) {
			name := fmt.Sprintf("projects/demo/databases/store-%d", i)
			c.test(t, ledger.StoreOf(open(t, host, name, &clock{})))
		})
	}
	t.Run("times that are never are no fields", func(t *testing.T) { fields(t, host) })
	t.Run("claimants in several processes", func(t *testing.T) { claimInProcesses(t, host) })
}

// A TTL policy would delete a document with an expires_at in the year 1, and a
// query would return it as due.
func fields(t *testing.T, host string) {
	s := ledger.StoreOf(open(t, host, "projects/demo/databases/fields", &clock{}))
	has := func(collection, id string, want map[string]bool) {
		t.Helper()
		res, err := http.Get("http://" + host + "/v1/projects/demo/databases/fields/documents/" + collection + "/" + id)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var document struct {
			Fields map[string]any `json:"fields"`
		}
		if err := json.NewDecoder(res.Body).Decode(&document); err != nil || document.Fields["record"] == nil {
			t.Fatalf("the document is %v, %v", document, err)
		}
		for field, want := range want {
			if _, has := document.Fields[field]; has != want {
				t.Errorf("%s of %s %s is there: %t", field, collection, id, has)
			}
		}
	}
	now := time.Now()
	commit(t, s, nil, ledger.Batch{
		Tags:       []*ledger.Tag{{Key: tagKey}},
		Promotions: []*ledger.Promotion{{ID: "p", CreatedAt: now}},
	})
	has("promotions", "p", map[string]bool{"created_at": true, "due_at": false, "expires_at": false, "pipelines": false})
	has("tags", tagKey.ID(), map[string]bool{"look_by": false, "expires_at": false})
	tag, p := readTag(t, s), readPromotion(t, s, "p")
	tag.LookBy, tag.ExpiresAt = now, now
	p.DueAt, p.ExpiresAt, p.Pipelines = now, now, []string{"42/7"}
	commit(t, s, nil, ledger.Batch{Tags: []*ledger.Tag{tag}, Promotions: []*ledger.Promotion{p}})
	has("promotions", "p", map[string]bool{"created_at": true, "due_at": true, "expires_at": true, "pipelines": true})
	has("tags", tagKey.ID(), map[string]bool{"look_by": true, "expires_at": true})
	tag, p = readTag(t, s), readPromotion(t, s, "p")
	tag.LookBy, tag.ExpiresAt = time.Time{}, time.Time{}
	p.DueAt, p.ExpiresAt = time.Time{}, time.Time{}
	commit(t, s, nil, ledger.Batch{Tags: []*ledger.Tag{tag}, Promotions: []*ledger.Promotion{p}})
	has("promotions", "p", map[string]bool{"created_at": true, "due_at": false, "expires_at": false})
	has("tags", tagKey.ID(), map[string]bool{"look_by": false, "expires_at": false})
}
