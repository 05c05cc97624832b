package ledger

// OpenFirestore opens a ledger by a client with options of its own.
var OpenFirestore = openFirestore
