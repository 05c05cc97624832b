package gcptest_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/getto-systems/hubrelay/internal/gcptest"
)

// ending is a test that records how it ended.
type ending struct {
	testing.TB
	skipped, failed string
}

func (e *ending) Skip(args ...any) {
	e.skipped = fmt.Sprint(args...)
	runtime.Goexit()
}

func (e *ending) Fatal(args ...any) {
	e.failed = fmt.Sprint(args...)
	runtime.Goexit()
}

func (e *ending) Fatalf(format string, args ...any) { e.Fatal(fmt.Sprintf(format, args...)) }

func TestAnEmulatorThatIsNotThere(t *testing.T) {
	const install = "install the Google Cloud SDK"
	for _, c := range []struct {
		name, gcloud, ci string
		skipped, failed  string
	}{
		{"no gcloud", "", "", install, ""},
		{"no gcloud, in CI", "", "true", "", install},
		{"gcloud without the emulators", "echo 'Using it requires the installation of components: [pubsub-emulator]' >&2; exit 1", "", install, ""},
		{"gcloud without the emulators, in CI", "echo 'Using it requires the installation of components: [pubsub-emulator]' >&2; exit 1", "true", "", install},
		{"an emulator that breaks", "echo 'no memory' >&2; exit 1", "", "", "no memory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if c.gcloud != "" {
				if err := os.WriteFile(filepath.Join(dir, "gcloud"), []byte("#!/bin/sh\n"+c.gcloud+"\n"), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv("PATH", dir)
			t.Setenv("CI", c.ci)
			e := &ending{TB: t}
			done := make(chan struct{})
			go func() {
				defer close(done)
				gcptest.PubSub(e)
			}()
			<-done
			if !strings.Contains(e.skipped, c.skipped) || (e.skipped == "") != (c.skipped == "") ||
				!strings.Contains(e.failed, c.failed) || (e.failed == "") != (c.failed == "") {
				t.Errorf("skipped: %q, failed: %q", e.skipped, e.failed)
			}
		})
	}
}
