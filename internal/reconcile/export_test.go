package reconcile

// Bounds of one call, for the tests.
const (
	MaxPages    = maxPages
	MaxHeads    = maxHeads
	MaxTroubles = maxTroubles
)
