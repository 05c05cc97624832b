package trigger

import (
	"log/slog"
	"net/http"

	"github.com/getto-systems/hubrelay/internal/httpserver"
	"github.com/getto-systems/hubrelay/internal/pubsub"
)

// outcome is the result of an attempt: a row of the table in
// docs/architecture.md.
type outcome struct {
	Outcome     string `json:"outcome"`
	Reason      string `json:"reason,omitempty"`
	Hint        string `json:"hint,omitempty"`
	PromotionID string `json:"promotion_id,omitempty"`
	PipelineURL string `json:"pipeline_url,omitempty"`

	cause error
}

func ignored(reason string) outcome { return outcome{Outcome: "ignored", Reason: reason} }

func retry(reason string, cause error) outcome {
	return outcome{Outcome: "retry", Reason: reason, cause: cause}
}

// answer is the HTTP answer and the one log line of an attempt.
func (a *attempt) answer(o outcome) httpserver.Answer {
	answer := httpserver.Answer{Status: http.StatusOK, Body: o, Traceparent: a.message.Attributes[pubsub.TraceparentAttribute]}
	switch o.Outcome {
	case "triggered":
		answer.Message = "pipeline created"
	case "ignored":
		answer.Message = "push ignored"
	case "retry":
		answer.Status, answer.Message, answer.Level = http.StatusServiceUnavailable, "push put off", slog.LevelWarn
		if o.cause == nil { // another attempt goes first: nothing is wrong
			answer.Level = slog.LevelInfo
		}
	case "dead":
		answer.Message, answer.Level = "push given up", slog.LevelError
	}
	answer.Attrs = append(a.attrs(), slog.String("outcome", o.Outcome))
	for _, s := range []slog.Attr{slog.String("reason", o.Reason), slog.String("pipeline_url", o.PipelineURL)} {
		if s.Value.String() != "" {
			answer.Attrs = append(answer.Attrs, s)
		}
	}
	if o.cause != nil {
		text := o.cause.Error()
		if o.Hint != "" {
			text += ". " + o.Hint
		}
		answer.Attrs = append(answer.Attrs, slog.String("error", text))
	}
	return answer
}

// attrs are what is known of the attempt so far.
func (a *attempt) attrs() []slog.Attr {
	var attrs []slog.Attr
	for _, attr := range []slog.Attr{
		slog.String("id", a.push.ID),
		slog.String("repository", a.push.Repository),
		slog.String("tag", a.push.Tag),
		slog.String("digest", a.promotion.Digest),
		slog.String("promotion_id", a.promotion.ID),
		slog.String("route", a.route.Key),
		slog.String("project", a.route.GitLab.Project),
		slog.String("message_id", a.message.ID),
	} {
		if attr.Value.String() != "" {
			attrs = append(attrs, attr)
		}
	}
	if a.message.Attempt > 0 {
		attrs = append(attrs, slog.Int("delivery_attempt", a.message.Attempt))
	}
	return attrs
}
