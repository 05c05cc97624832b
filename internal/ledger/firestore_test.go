package ledger_test

import (
	"context"
	"fmt"
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

// intercept makes what Firestore reads read at the time of the clock.
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
			c.test(t, fixture{open(t, host, name, clock), clock.now, clock.pass})
		})
	}
	t.Run("claimants in several processes", func(t *testing.T) { claimInProcesses(t, host) })
}
