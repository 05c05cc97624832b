package skip_test

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/getto-systems/hubrelay/internal/skip"
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

func TestWhatIsMissingFailsInCIAndIsSkippedElsewhere(t *testing.T) {
	const why = "crane is not in .tools: run make tools"
	for _, c := range []struct{ ci, skipped, failed string }{
		{"", "*** NOT RUN *** " + why, ""},
		{"true", "", why},
	} {
		t.Setenv("CI", c.ci)
		e := &ending{TB: t}
		done := make(chan struct{})
		go func() {
			defer close(done)
			skip.UnlessCI(e, why)
		}()
		<-done
		if e.skipped != c.skipped || e.failed != c.failed {
			t.Errorf("CI=%q: skipped %q, failed %q", c.ci, e.skipped, e.failed)
		}
	}
}
