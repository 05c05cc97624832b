// Package httpclient is the HTTP client that the adapters share: answers are
// bounded, redirects are not followed, and errors contain no URL.
package httpclient

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// MaxAnswer bounds what is read of any answer from outside, in bytes. The
// largest answer that hubrelay needs is a manifest, and registries accept
// manifests up to this size.
const MaxAnswer = 4 << 20

// New returns a client for one outside system. timeout bounds the whole call.
// An answer of more than MaxAnswer bytes is an error. Redirects are not
// followed, because a token must not be sent to another address.
func New(timeout time.Duration) *http.Client {
	return &http.Client{
		Transport:     NewTransport(),
		Timeout:       timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// NewTransport returns a transport whose answers are bounded by MaxAnswer.
func NewTransport() http.RoundTripper {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = 32 // each function sends many concurrent requests to one host
	return bounded{t}
}

type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := b.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	res.Body = &boundedBody{res.Body, MaxAnswer}
	return res, nil
}

// boundedBody fails where io.LimitReader would cut.
type boundedBody struct {
	io.ReadCloser
	left int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.left -= int64(n)
	if b.left < 0 {
		return n, fmt.Errorf("answer is over %d bytes", MaxAnswer)
	}
	return n, err
}

// maxRetryAfter bounds what an answer may ask for. The longest window of any
// limit that hubrelay meets is an hour.
const maxRetryAfter = time.Hour

// RetryAfter reads the header of that name, in seconds or as a date. It is 0 if
// there is no valid one, and an hour at most.
func RetryAfter(h http.Header) time.Duration {
	value := h.Get("Retry-After")
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return min(time.Duration(seconds)*time.Second, maxRetryAfter)
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(0, time.Until(at).Round(time.Second)), maxRetryAfter)
}

// Unanswered returns the part of an error that can be shown, for a request that
// got no answer or an incomplete one. It contains nothing that was sent or
// received, such as a URL.
func Unanswered(err error) error {
	var (
		network     *net.OpError
		certificate *tls.CertificateVerificationError
		record      tls.RecordHeaderError
	)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer in time: %w", context.DeadlineExceeded)
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.As(err, &network):
		return network
	case errors.As(err, &certificate):
		return certificate
	case errors.As(err, &record):
		return errors.New(record.Msg)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("the connection was closed: %w", io.ErrUnexpectedEOF)
	}
	return errors.New("no answer that can be read")
}

// OneLine returns an answer's words without line breaks and control characters.
func OneLine(text string) string {
	printable := strings.Map(func(c rune) rune {
		if c == utf8.RuneError || !unicode.IsPrint(c) {
			return ' '
		}
		return c
	}, text)
	return strings.Join(strings.Fields(printable), " ")
}
