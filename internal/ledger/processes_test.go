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
	contentions = 30 // pushes that every process claims
)

// TestMain is also the process that claimInProcesses starts.
func TestMain(m *testing.M) {
	if name := os.Getenv("CLAIMANT"); name != "" {
		claimAll(name)
		return
	}
	os.Exit(m.Run())
}

// claimAll claims every push, and says which it got.
func claimAll(name string) {
	l, err := ledger.Open(database)
	if err != nil {
		fmt.Println(err)
		return
	}
	for i := range contentions {
		p := push(fmt.Sprintf("%s-%d", name, i), digestA)
		p.Tag = fmt.Sprint(i)
		for {
			_, err := l.Claim(context.Background(), p)
			if err == nil {
				fmt.Println("won", i)
			} else if !errors.Is(err, ledger.ErrInProgress) {
				fmt.Println(err)
				continue // as Pub/Sub would deliver it again
			}
			break
		}
	}
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
			t.Errorf("push %d was won by %d processes", i, n)
		}
	}
}

// A ledger that cannot be reached is no reason not to start, and an error when
// it is used.
func TestAnUnreachableLedger(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	t.Setenv("FIRESTORE_EMULATOR_HOST", silent.Addr().String())
	l, err := ledger.Open("firestore:projects/demo/databases/(default)")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	for what, use := range map[string]func() error{
		"claim":  func() error { return second(l.Claim(t.Context(), push("1", digestA))) },
		"get":    func() error { return second(l.Get(t.Context(), "1")) },
		"silent": func() error { return second(l.Silent(t.Context(), time.Hour, 1)) },
	} {
		running.Go(func() {
			if err := use(); err == nil || errors.Is(err, ledger.ErrUnknown) || errors.Is(err, ledger.ErrDuplicate) {
				t.Errorf("%s: %v", what, err)
			}
		})
	}
	running.Wait()
}

func second[T any](_ T, err error) error { return err }
