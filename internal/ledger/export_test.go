package ledger

// What tests of both stores use.
var OpenFirestore = openFirestore

// StoreOf returns what a ledger keeps its documents in.
func StoreOf(l *Ledger) Store { return l.store }

const (
	SiblingWindow = siblingWindow
	LoopWindow    = loopWindow
	MaxRow        = maxRow
	SilenceMax    = silenceMax
	SilenceFails  = silenceFails
)
