// Package httpclient is what the adapters share as HTTP clients: answers that
// are bounded, redirects that are not followed, and errors without a URL.
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
// largest that hubrelay needs is a manifest, which registries take up to here.
const MaxAnswer = 4 << 20

// New returns a client for one outside system. timeout spans the whole
// call. An answer of more than MaxAnswer bytes is an error. Redirects are not
// followed: a token must not travel to where an answer points.
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
	t.MaxIdleConnsPerHost = 32 // each function talks to one host, from many requests at once
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

// RetryAfter reads the header of that name, in seconds or as a date. It is 0
// where there is none that makes sense, and an hour at most.
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

// Unanswered returns what can be told of the error of a request that got no
// answer, or not all of one: nothing that could repeat what was sent or
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
