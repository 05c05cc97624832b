// Package gc has the garbage collector run less often. To import it is enough.
//
// Most of what lives in the heap of a function was made by libraries when they
// were initialised: some 4 MB. At Go's default the collector runs while they
// are, and every 4 MB of garbage after that. Go initialises packages in the
// order of their import paths, each after what it imports itself: so this one,
// which imports next to nothing, comes before most of those libraries.
package gc

import (
	"os"
	"runtime/debug"
)

// percent lets the heap grow to three times what lives, not to twice.
const percent = 200

func init() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}
