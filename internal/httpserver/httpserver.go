// Package httpserver is what the three functions share as HTTP servers: one
// place that answers and logs, a bound on what is read, and a shutdown that
// finishes what is in hand.
package httpserver

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/getto-systems/hubrelay/internal/gcplog"
	"github.com/getto-systems/hubrelay/internal/version"
)

// Handler decides about a request. Where it returns an error, that is what the
// caller is told; what it put into the Answer's Attrs is logged all the same.
type Handler func(*http.Request) (Answer, error)

// Answer is what a request came to: for the caller, and for the log.
type Answer struct {
	Status  int        // 200 where it is 0
	Body    any        // marshalled as JSON
	Message string     // the log line: constant, in the past tense
	Level   slog.Level // of the log line
	Attrs   []slog.Attr
	// Traceparent is the trace to log under, where that is not the request's own.
	Traceparent string
}

// Error is a refusal. The caller reads Public and nothing else; Cause is for
// the log.
type Error struct {
	Status     int
	Public     string
	RetryAfter time.Duration // for the header of that name, in whole seconds
	Cause      error
}

func (e *Error) Error() string {
	if e.Cause == nil {
		return e.Public
	}
	return e.Public + ": " + e.Cause.Error()
}

func (e *Error) Unwrap() error { return e.Cause }

// Serve answers GET /ready with 200, methods other than POST with 405, and all
// else with what h says. It logs one line for each request that h saw.
func Serve(log *slog.Logger, h Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		read := r.Method == http.MethodGet || r.Method == http.MethodHead
		switch {
		case read && r.URL.Path == "/ready":
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			w.Header().Set(version.Header, version.Number)
			_, _ = io.WriteString(w, "ok")
		case r.Method != http.MethodPost:
			w.Header().Set("Allow", http.MethodPost)
			write(w, http.StatusMethodNotAllowed, publicError{"only POST is answered here"})
		default:
			serve(log, h, w, r)
		}
	})
}

type publicError struct {
	Error string `json:"error"`
}

func serve(log *slog.Logger, h Handler, w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	ctx := gcplog.WithTrace(r.Context(), r.Header)
	r = r.WithContext(ctx)

	answer, err := h(r)
	if err != nil {
		answer = refuse(w.Header(), answer, err)
	}
	if answer.Status == 0 {
		answer.Status = http.StatusOK
	}
	write(w, answer.Status, answer.Body)

	attrs := append(answer.Attrs,
		slog.Int("status", answer.Status),
		slog.Float64("duration_ms", float64(time.Since(start).Microseconds())/1000))
	log.LogAttrs(gcplog.WithTraceparent(ctx, answer.Traceparent), answer.Level, answer.Message, attrs...)
}

// refuse makes the answer that err asks for.
func refuse(header http.Header, answer Answer, err error) Answer {
	refusal := &Error{Status: http.StatusInternalServerError, Public: "internal error", Cause: err}
	errors.As(err, &refusal)
	if refusal.RetryAfter > 0 {
		header.Set("Retry-After", strconv.Itoa(int(math.Ceil(refusal.RetryAfter.Seconds()))))
	}
	answer.Status = refusal.Status
	answer.Body = publicError{refusal.Public}
	answer.Message = "request refused"
	answer.Level = slog.LevelWarn
	if refusal.Status >= http.StatusInternalServerError {
		answer.Message, answer.Level = "request failed", slog.LevelError
	}
	answer.Attrs = append(answer.Attrs, slog.Any("error", err))
	return answer
}

// write sends a JSON body, with its length: so the answer is complete once it
// is flushed.
func write(w http.ResponseWriter, status int, body any) {
	data, err := json.Marshal(body)
	if err != nil {
		panic(fmt.Sprintf("answer cannot be marshalled: %v", err)) // a mistake of ours, not of the caller
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(data)+1))
	w.WriteHeader(status)
	_, _ = w.Write(append(data, '\n'))
}

// ReadBody returns the body of a request. One of more than limit bytes is an
// Error with status 413, never a shorter body.
func ReadBody(r *http.Request, limit int64) ([]byte, error) {
	tooLarge := &Error{Status: http.StatusRequestEntityTooLarge, Public: fmt.Sprintf("the body is over %d bytes", limit)}
	if r.ContentLength > limit {
		return nil, tooLarge
	}
	var body bytes.Buffer
	if r.ContentLength > 0 { // what is known in advance needs no growing
		body.Grow(int(r.ContentLength) + bytes.MinRead)
	}
	if _, err := body.ReadFrom(io.LimitReader(r.Body, limit+1)); err != nil {
		return nil, &Error{Status: http.StatusBadRequest, Public: "the body could not be read", Cause: err}
	}
	if int64(body.Len()) > limit {
		return nil, tooLarge
	}
	return body.Bytes(), nil
}
