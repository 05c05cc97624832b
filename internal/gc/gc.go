// Package gc makes the garbage collector run less often. Importing it is
// enough.
//
// Most of the live heap of a function was allocated by libraries when they were
// initialised: about 4 MB. With Go's default the collector runs during that,
// and after every further 4 MB of garbage. Go initialises packages in the order
// of their import paths, each after its own imports. So this package, which
// imports almost nothing, comes before most of those libraries.
package gc

import (
	"os"
	"runtime/debug"
)

// percent lets the heap grow to three times the live heap, instead of twice.
const percent = 200

func init() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}
