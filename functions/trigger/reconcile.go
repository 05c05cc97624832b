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
	// maxOverdue is how many tags are queued in one call; the next call
	// continues.
	maxOverdue = 500
	// partTime is the time after which a part of a call begins nothing new.
	partTime = 50 * time.Second
)

type reconciled struct {
	Queued int `json:"queued"` // tags that were not looked at in time
	Asked  int `json:"asked"`  // pipelines that GitLab was asked about
	Found  int `json:"found"`  // pushes whose webhook was lost
}

// reconcile queues tags that must be looked at, and starts no promotion itself.
// The clock calls it.
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

// overdue queues the tags that were not looked at in time, each with the
// message that its record remembers. If one is queued twice, the second look
// ends as a duplicate.
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
