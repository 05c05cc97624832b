// Package gcplog writes logs as Google Cloud Logging reads them: one JSON
// object a line, with a severity and the trace of the request.
//
// The keys in use are: id promotion_id repository tag digest route project
// outcome reason state pipeline_url message_id delivery_attempt status
// duration_ms version error, and of what a clock has called for: due shown queued
// asked found.
package gcplog

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
)

// New returns a logger that writes to w. Traces are named within the Google
// Cloud project, or by their bare ID where it is "".
func New(w io.Writer, project string) *slog.Logger {
	h := slog.NewJSONHandler(w, &slog.HandlerOptions{ReplaceAttr: rename})
	return slog.New(handler{h, project})
}

func rename(groups []string, a slog.Attr) slog.Attr {
	if len(groups) > 0 {
		return a
	}
	switch a.Key {
	case slog.LevelKey:
		a.Key = "severity"
		if a.Value.Any() == slog.LevelWarn {
			a.Value = slog.StringValue("WARNING")
		}
	case slog.MessageKey:
		a.Key = "message"
	}
	return a
}

type handler struct {
	slog.Handler
	project string
}

func (h handler) Handle(ctx context.Context, r slog.Record) error {
	if id, ok := ctx.Value(traceKey{}).(string); ok {
		if h.project != "" {
			id = "projects/" + h.project + "/traces/" + id
		}
		r = r.Clone()
		r.AddAttrs(slog.String("logging.googleapis.com/trace", id))
	}
	return h.Handler.Handle(ctx, r)
}

func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return handler{h.Handler.WithAttrs(attrs), h.project}
}

func (h handler) WithGroup(name string) slog.Handler {
	return handler{h.Handler.WithGroup(name), h.project}
}

type (
	loggerKey struct{}
	traceKey  struct{}
)

// NewContext returns a context from which FromContext takes log.
func NewContext(ctx context.Context, log *slog.Logger) context.Context {
	return context.WithValue(ctx, loggerKey{}, log)
}

// FromContext returns the logger that NewContext put into ctx, or slog's
// default one.
func FromContext(ctx context.Context) *slog.Logger {
	if log, ok := ctx.Value(loggerKey{}).(*slog.Logger); ok {
		return log
	}
	return slog.Default()
}

// Traceparent returns the request's W3C trace context, or "" if it has none
// or one that is malformed.
func Traceparent(h http.Header) string {
	if v := h.Get("Traceparent"); traceID(v) != "" {
		return v
	}
	return ""
}

// WithTrace returns a context whose log lines carry the trace of the request.
func WithTrace(ctx context.Context, h http.Header) context.Context {
	if id := cloudTraceID(h.Get("X-Cloud-Trace-Context")); id != "" {
		return context.WithValue(ctx, traceKey{}, id)
	}
	return WithTraceparent(ctx, h.Get("Traceparent"))
}

// WithTraceparent returns a context whose log lines carry the trace that a W3C
// trace context names. A malformed one is left out.
func WithTraceparent(ctx context.Context, value string) context.Context {
	if id := traceID(value); id != "" {
		return context.WithValue(ctx, traceKey{}, id)
	}
	return ctx
}

// idLength is that of a trace's ID, in hex digits.
const idLength = 32

// traceID returns the ID in the header of W3C Trace Context, VERSION-ID-SPAN-FLAGS
// in lower-case hex, or "" if that is malformed.
// https://www.w3.org/TR/trace-context/#traceparent-header
func traceID(traceparent string) string {
	version, rest, _ := strings.Cut(traceparent, "-")
	id, rest, _ := strings.Cut(rest, "-")
	span, flags, _ := strings.Cut(rest, "-")
	if isHex(version, 2) && isHex(id, idLength) && isHex(span, 16) && isHex(flags, 2) {
		return id
	}
	return ""
}

// cloudTraceID returns the ID in the older header of Google Cloud,
// TRACE_ID/SPAN_ID;o=OPTIONS, or "" if that is malformed.
func cloudTraceID(header string) string {
	id, _, _ := strings.Cut(header, "/")
	if id = strings.ToLower(id); isHex(id, idLength) {
		return id
	}
	return ""
}

func isHex(s string, length int) bool {
	return len(s) == length && strings.Trim(s, "0123456789abcdef") == ""
}
