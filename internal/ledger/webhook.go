package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// foundUntilTold is how many pushes of a repository must be found by reconcile,
// without any webhook, before Slack says that Docker Hub does not call.
const foundUntilTold = 2

// HeardOf records that Docker Hub has sent a webhook for the repository.
func (l *Ledger) HeardOf(ctx context.Context, repository string) error {
	return l.repository(ctx, repository, func(r *Repository, _ *Batch) bool {
		known := r.Webhook
		r.Webhook = true
		return !known
	})
}

// Found records that a push of the repository was found without a webhook. If
// there has never been a webhook, Slack says so once, with a hint.
func (l *Ledger) Found(ctx context.Context, repository, route, hint string) error {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	_, now, err := l.store.Tags(ctx)
	if err != nil {
		return err
	}
	return l.repository(ctx, repository, func(r *Repository, b *Batch) bool {
		if r.Found++; !r.Webhook && !r.Told && r.Found >= foundUntilTold {
			r.Told = true
			sum := sha256.Sum256([]byte("registration\n" + repository))
			note := &Promotion{
				ID: hex.EncodeToString(sum[:16]), Event: Registration, Note: true, Key: Key{Repository: repository}, Route: route,
				State: Waiting, By: ByReconcile, Hint: hint, CreatedAt: now, UpdatedAt: now,
				Outbox: Outbox{Revision: 1, ToldWaiting: true, WaitsSince: now},
			}
			note.schedule(now, now, 0)
			b.Promotions = append(b.Promotions, note)
		}
		return true
	})
}

// Webhooks reports whether Docker Hub has ever sent a webhook for the
// repository, and how many pushes reconcile has found without one.
func (l *Ledger) Webhooks(ctx context.Context, repository string) (heard bool, found int, err error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	r, err := l.store.Repository(ctx, repository)
	if err != nil {
		return false, 0, fmt.Errorf("read what is known of %s: %w", repository, err)
	}
	if r == nil {
		return false, 0, nil
	}
	return r.Webhook, r.Found, nil
}

// repository lets f change the record of a repository. f returns whether it has
// changed anything.
func (l *Ledger) repository(ctx context.Context, name string, f func(*Repository, *Batch) bool) error {
	return l.again(ctx, func(ctx context.Context) error {
		r, err := l.store.Repository(ctx, name)
		if err != nil {
			return err
		}
		if r == nil {
			r = &Repository{Name: name}
		}
		b := Batch{Repositories: []*Repository{r}}
		if !f(r, &b) {
			return nil
		}
		return l.store.Commit(ctx, b)
	})
}
