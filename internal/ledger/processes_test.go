package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getto-systems/hubrelay/internal/ledger"
)

const (
	database    = "firestore:projects/demo/databases/processes"
	contentions = 30 // tags that every process claims
)

// TestMain is also the process that claimInProcesses starts.
func TestMain(m *testing.M) {
	if name := os.Getenv("CLAIMANT"); name != "" {
		claimAll(name)
		return
	}
	os.Exit(m.Run())
}

// claimAll looks at every tag until it is settled, and prints those that it
// claimed.
func claimAll(name string) {
	l, err := ledger.Open(database)
	if err != nil {
		fmt.Println(err)
		return
	}
	for i := range contentions {
		now := time.Now()
		m := ledger.Message{ID: name, QueuedAt: now, PushedAt: now, ReceivedAt: now}
		for {
			d, err := look(context.Background(), l, ledger.Key{Repository: "acme/api", Tag: fmt.Sprint(i)}, m)
			if err != nil {
				if !errors.Is(err, ledger.ErrConflict) {
					fmt.Println(err)
				}
				continue // as Trigger and Pub/Sub would
			}
			switch d.Verdict {
			case ledger.Start:
				fmt.Println("won", i)
			case ledger.InProgress, ledger.Ignore:
			default:
				fmt.Println("verdict", d.Verdict)
			}
			break
		}
	}
}

func look(ctx context.Context, l *ledger.Ledger, key ledger.Key, m ledger.Message) (ledger.Decision, error) {
	s, err := l.Read(ctx, key)
	if err != nil {
		return ledger.Decision{}, err
	}
	return s.Settle(ctx, ledger.Look{Message: m, NewID: ledger.NewID(), Lease: time.Hour, Digest: digestA})
}

func claimInProcesses(t *testing.T, host string) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const processes = 4
	outputs := make(chan string, processes)
	for i := range processes {
		cmd := exec.CommandContext(t.Context(), program)
		cmd.Env = append(os.Environ(), fmt.Sprintf("CLAIMANT=process-%d", i), "FIRESTORE_EMULATOR_HOST="+host)
		go func() {
			out, err := cmd.CombinedOutput()
			if err != nil {
				out = append(out, err.Error()...)
			}
			outputs <- string(out)
		}()
	}
	won := map[string]int{}
	for range processes {
		for line := range strings.Lines(<-outputs) {
			if strings.HasPrefix(line, "won") {
				won[line]++
			} else {
				t.Logf("a claimant says %s", line)
			}
		}
	}
	for i := range contentions {
		if n := won[fmt.Sprintf("won %d\n", i)]; n != 1 {
			t.Errorf("tag %d was won by %d processes", i, n)
		}
	}
}

// A ledger that cannot be reached does not prevent the start, and is an error
// when it is used.
func TestAnUnreachableLedger(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts connections, and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	t.Setenv("FIRESTORE_EMULATOR_HOST", silent.Addr().String())
	l, err := ledger.Open("firestore:projects/demo/databases/(default)")
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	var running sync.WaitGroup
	for what, use := range map[string]func() error{
		"read": func() error { return second(l.Read(t.Context(), tagKey)) },
		"get":  func() error { return second(l.Get(t.Context(), "1")) },
		"find": func() error { return second(l.OfPipeline(t.Context(), "42", "7")) },
		"report": func() error {
			return second(l.Report(t.Context(), "1", ledger.Report{State: ledger.Running}, outboxes))
		},
		"bury":    func() error { return second(l.Bury(t.Context(), ledger.Letter{Key: tagKey}, outboxes)) },
		"note":    func() error { return second(l.Note(t.Context(), ledger.Promotion{ID: "1"}, outboxes)) },
		"due":     func() error { return second(l.Due(t.Context(), 1)) },
		"tick":    func() error { return second(l.Tick(t.Context(), "1", outboxes)) },
		"overdue": func() error { return second(l.Overdue(t.Context(), 1)) },
		"answer": func() error {
			return l.Answered(t.Context(), ledger.Claim{Promotion: ledger.Promotion{ID: "1"}}, created(7))
		},
	} {
		running.Go(func() {
			if err := use(); err == nil || errors.Is(err, ledger.ErrUnknown) || errors.Is(err, ledger.ErrConflict) {
				t.Errorf("%s: %v", what, err)
			}
		})
	}
	running.Wait()
	if took := time.Since(began); took > ledger.Timeout+5*time.Second {
		t.Errorf("it took %v", took)
	}
}

func second[T any](_ T, err error) error { return err }
