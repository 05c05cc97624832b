package gcplog_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/getto-systems/hubrelay/internal/gcplog"
)

const trace = "0af7651916cd43dd8448eb211c80319c"

func TestLineIsWhatCloudLoggingReads(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, project, header, value string
		want                         any
	}{
		{"W3C trace context", "p", "Traceparent", "00-" + trace + "-b7ad6b7169203331-01", "projects/p/traces/" + trace},
		{"the header of Google Cloud", "p", "X-Cloud-Trace-Context", trace + "/123;o=1", "projects/p/traces/" + trace},
		{"no project", "", "Traceparent", "00-" + trace + "-b7ad6b7169203331-01", trace},
		{"a malformed header", "p", "Traceparent", "00-" + trace + "\n", nil},
		{"a header of Google Cloud in upper case, without a span", "p", "X-Cloud-Trace-Context", strings.ToUpper(trace), "projects/p/traces/" + trace},
		{"upper case, which W3C forbids", "p", "Traceparent", "00-" + strings.ToUpper(trace) + "-b7ad6b7169203331-01", nil},
		{"no flags", "p", "Traceparent", "00-" + trace + "-b7ad6b7169203331", nil},
		{"a field too many", "p", "Traceparent", "00-" + trace + "-b7ad6b7169203331-01-x", nil},
		{"an ID that is no hex", "p", "Traceparent", "00-" + trace[1:] + "g-b7ad6b7169203331-01", nil},
		{"an ID that is too short", "p", "X-Cloud-Trace-Context", trace[1:] + "/123;o=1", nil},
		{"no header", "p", "X", "y", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			ctx := gcplog.WithTrace(context.Background(), http.Header{c.header: {c.value}})
			gcplog.New(&out, c.project).With("route", "r").WarnContext(ctx, "push put off", "reason", "x")
			line := map[string]any{}
			if err := json.Unmarshal(out.Bytes(), &line); err != nil {
				t.Fatal(err)
			}
			if line["severity"] != "WARNING" || line["message"] != "push put off" || line["reason"] != "x" || line["route"] != "r" {
				t.Errorf("got %v", line)
			}
			if line["logging.googleapis.com/trace"] != c.want {
				t.Errorf("trace is %v, want %v", line["logging.googleapis.com/trace"], c.want)
			}
		})
	}
}

func TestLoggerTravelsInTheContext(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	if gcplog.FromContext(gcplog.NewContext(context.Background(), log)) != log {
		t.Error("the logger is lost")
	}
	if gcplog.FromContext(context.Background()) == nil {
		t.Error("there is no logger")
	}
}
