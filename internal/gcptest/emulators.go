// Package gcptest starts Google's own emulators for tests. They come with the
// Google Cloud SDK.
package gcptest

import (
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/getto-systems/hubrelay/internal/skip"
)

// startTime bounds how long an emulator may take to listen. They are Java
// programs, and the machine may be busy.
const startTime = 2 * time.Minute

// PubSub starts an emulator of Pub/Sub and returns its host, for
// PUBSUB_EMULATOR_HOST. If there is none the test is skipped, and fails if CI
// is set.
func PubSub(t testing.TB) (host string) {
	t.Helper()
	return start(t, "beta", "emulators", "pubsub", "start", "--project=demo", "--data-dir="+t.TempDir())
}

// Firestore starts an emulator of Firestore and returns its host, for
// FIRESTORE_EMULATOR_HOST. If there is none the test is skipped, and fails if
// CI is set.
func Firestore(t testing.TB) (host string) {
	t.Helper()
	host = start(t, "emulators", "firestore", "start")
	// Its first write takes long, longer on a busy machine than a client waits.
	write := `{"writes":[{"update":{"name":"projects/demo/databases/first/documents/first/write","fields":{}}}]}`
	for end := time.Now().Add(startTime); ; time.Sleep(100 * time.Millisecond) {
		res, err := http.Post("http://"+host+"/v1/projects/demo/databases/first/documents:commit", "application/json", strings.NewReader(write))
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return host
			}
			err = errors.New(res.Status)
		}
		if time.Now().After(end) {
			t.Fatalf("the emulator of Firestore takes no write: %v", err)
		}
	}
}

func start(t testing.TB, args ...string) string {
	t.Helper()
	gcloud, err := exec.LookPath("gcloud")
	if err != nil {
		missing(t)
	}
	host := freeAddress(t)
	log, err := os.CreateTemp(t.TempDir(), "emulator")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(gcloud, append(args, "--host-port="+host)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // gcloud leaves its Java process behind
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended
	})
	for end := time.Now().Add(startTime); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if conn, err := net.Dial("tcp", host); err == nil {
			_ = conn.Close()
			return host
		}
		select {
		case <-ended:
			said, _ := os.ReadFile(log.Name())
			if strings.Contains(string(said), "requires the installation of components") {
				missing(t)
			}
			t.Fatalf("gcloud %s ended:\n%s", strings.Join(args, " "), said)
		default:
		}
	}
	t.Fatalf("gcloud %s does not listen", strings.Join(args, " "))
	return ""
}

// missing skips or fails a test that cannot run here.
func missing(t testing.TB) {
	t.Helper()
	const why = "Google's emulators are not there: install the Google Cloud SDK with its components beta, pubsub-emulator and cloud-firestore-emulator"
	skip.UnlessCI(t, why)
}

// freeAddress returns an address at which nothing listens.
func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
