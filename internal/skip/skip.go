// Package skip ends a test that lacks something of this machine, such as a
// program. In CI nothing may be lacking.
package skip

import (
	"os"
	"testing"
)

// UnlessCI skips the test, and fails it where CI is set. Why says what is
// missing, and how to get it. The mark is what a reader of go test's output
// searches for; internal/gotest lists what was skipped without it.
func UnlessCI(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(why)
	}
	t.Skip("*** NOT RUN *** " + why)
}
