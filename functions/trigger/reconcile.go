package trigger

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/getto-systems/hubrelay/internal/dockerhub"
	"github.com/getto-systems/hubrelay/internal/httpserver"
	"github.com/getto-systems/hubrelay/internal/reconcile"
)

const (
	// maxOverdue is how many tags are queued in one call; the next call goes on.
	maxOverdue = 500
	// partTime bounds each part of a call, which begins nothing more after it.
	partTime = 50 * time.Second
)

type reconciled struct {
	Queued int `json:"queued"` // tags that nobody had looked at in time
	Asked  int `json:"asked"`  // pipelines that GitLab was asked about
	Found  int `json:"found"`  // pushes that Docker Hub had not told of
}

// reconcile queues what somebody must look at, and starts nothing itself. It is
// called by the clock.
func (h handler) reconcile(r *http.Request) (httpserver.Answer, error) {
	ctx := r.Context()
	done, failed := h.overdue(ctx, time.Now().Add(partTime))
	asked, err := h.unheard(ctx, time.Now().Add(partTime))
	done.Asked, failed = asked, errors.Join(failed, err)
	if h.Hub != nil {
		found, err := h.missed.Some(ctx)
		done.Found, failed = found, errors.Join(failed, err)
	}
	answer := httpserver.Answer{Message: "tags reconciled", Body: done, Attrs: []slog.Attr{slog.Int("queued", done.Queued), slog.Int("asked", done.Asked), slog.Int("found", done.Found)}}
	if failed != nil {
		return answer, &httpserver.Error{Status: http.StatusServiceUnavailable, Public: "not everything could be looked after; call again", RetryAfter: time.Minute, Cause: failed}
	}
	return answer, nil
}

// overdue queues the tags that nobody has looked at in time, each by the message
// that its record remembers. Should one be queued twice, the second look is that
// of a duplicate.
func (h handler) overdue(ctx context.Context, end time.Time) (done reconciled, failed error) {
	tags, err := h.Promotions.Overdue(ctx, maxOverdue)
	if err != nil {
		return done, err
	}
	for _, t := range tags {
		if time.Now().After(end) {
			break
		}
		err := reconcile.Publish(ctx, h.Queue, dockerhub.Push{
			ID: t.Look.ID, Repository: t.Repository, Tag: t.Tag, PushedAt: t.Look.PushedAt, ReceivedAt: t.Look.ReceivedAt,
		})
		if err == nil {
			err = h.Promotions.Requeued(ctx, t)
		}
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		done.Queued++
	}
	return done, failed
}
