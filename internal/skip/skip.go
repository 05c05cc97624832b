// Package skip skips a test if something is missing on this machine, such as a
// program. In CI nothing may be missing.
package skip

import (
	"os"
	"testing"
)

// UnlessCI skips the test, and fails it if CI is set. Why says what is missing,
// and how to get it. The mark is what a reader of go test's output searches
// for; internal/gotest lists what was skipped without it.
func UnlessCI(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(why)
	}
	t.Skip("*** NOT RUN *** " + why)
}
