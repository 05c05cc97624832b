package trigger

import (
	"log/slog"
	"net/http"

	"github.com/getto-systems/hubrelay/internal/httpserver"
)

// outcome is what became of a delivery: a row of the table in
// docs/architecture.md.
type outcome struct {
	Outcome     string `json:"outcome"`
	Reason      string `json:"reason,omitempty"`
	Hint        string `json:"hint,omitempty"`
	PipelineURL string `json:"pipeline_url,omitempty"`

	cause error
}

func ignored(reason string) outcome { return outcome{Outcome: "ignored", Reason: reason} }

func retry(reason string, cause error) outcome {
	return outcome{Outcome: "retry", Reason: reason, cause: cause}
}

// answer is the HTTP answer and the one log line of a delivery.
func (d *delivery) answer(o outcome) httpserver.Answer {
	a := httpserver.Answer{Status: http.StatusOK, Body: o, Traceparent: d.message.Attributes["traceparent"]}
	switch o.Outcome {
	case "triggered":
		a.Message = "pipeline created"
	case "ignored":
		a.Message = "push ignored"
	case "retry":
		a.Status, a.Message, a.Level = http.StatusServiceUnavailable, "push put off", slog.LevelWarn
		if o.cause == nil { // it is another's turn: all is well
			a.Level = slog.LevelInfo
		}
	case "dead":
		a.Message, a.Level = "push given up", slog.LevelError
	}
	a.Attrs = append(d.attrs(), slog.String("outcome", o.Outcome))
	for _, s := range []slog.Attr{slog.String("reason", o.Reason), slog.String("pipeline_url", o.PipelineURL)} {
		if s.Value.String() != "" {
			a.Attrs = append(a.Attrs, s)
		}
	}
	if o.cause != nil {
		text := o.cause.Error()
		if o.Hint != "" {
			text += ". " + o.Hint
		}
		a.Attrs = append(a.Attrs, slog.String("error", text))
	}
	return a
}

// attrs are what is known of the delivery so far.
func (d *delivery) attrs() []slog.Attr {
	var attrs []slog.Attr
	for _, a := range []slog.Attr{
		slog.String("id", d.push.ID),
		slog.String("repository", d.push.Repository),
		slog.String("tag", d.push.Tag),
		slog.String("route", d.route.Key),
		slog.String("project", d.route.GitLab.Project),
		slog.String("message_id", d.message.ID),
	} {
		if a.Value.String() != "" {
			attrs = append(attrs, a)
		}
	}
	if d.message.Attempt > 0 {
		attrs = append(attrs, slog.Int("delivery_attempt", d.message.Attempt))
	}
	return attrs
}
