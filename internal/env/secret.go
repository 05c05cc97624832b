package env

import (
	"fmt"
	"io"
	"log/slog"
)

const hidden = "[secret]"

// Secret is a value that does not print, log or marshal. Reveal is the only
// way to it, so that a search for Reveal finds every use.
//
// It points to the value, for fmt calls no methods of what stands in an
// unexported field: there it prints an address. Two secrets must not be
// compared, but for whether one is zero.
type Secret struct{ value *string }

// NewSecret hides value.
func NewSecret(value string) Secret {
	if value == "" {
		return Secret{}
	}
	return Secret{&value}
}

// Reveal returns the value.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// IsZero tells whether there is no value.
func (s Secret) IsZero() bool { return s.value == nil }

// Format prints a placeholder, whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// LogValue logs a placeholder.
func (s Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText marshals a placeholder.
func (s Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }
