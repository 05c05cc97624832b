package httpx

import (
	"fmt"
	"io"
	"net/http"
	"time"
)

// MaxAnswer bounds what is read of any answer from outside, in bytes. The
// largest that hubrelay needs, a list of signing keys, is a few kilobytes.
const MaxAnswer = 1 << 20

// NewClient returns a client for one outside system. timeout spans the whole
// call. An answer of more than MaxAnswer bytes is an error. Redirects are not
// followed: a token must not travel to where an answer points.
func NewClient(timeout time.Duration) *http.Client {
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
