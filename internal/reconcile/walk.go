package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/getto-systems/hubrelay/internal/dockerhub"
	"github.com/getto-systems/hubrelay/internal/hub"
	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/registry"
	"github.com/getto-systems/hubrelay/internal/route"
)

// errEnough says that a walk has had its share.
var errEnough = errors.New("the next call goes on")

// walk is one way through Docker Hub.
type walk struct {
	*Finder
	pages, heads, troubles int              // that are left
	end                    time.Time        // after which nothing begins
	now                    func() time.Time // by the ledger's time where it is known, as what the ledger remembers
	oldest                 time.Time        // push that counts for any route
	since                  func(route.Route) time.Time
	take                   func(context.Context, Missed) error
	// round has the pushes that were looked at on this way, so that what is read
	// again, because something in it could not be asked, goes on behind them.
	round *Memo
	// dry has nothing be recorded, and everything that is refused be in
	// unanswered.
	dry        bool
	unanswered error
}

// all walks through the namespaces, from where p says, and moves p on. It
// returns why it stopped, nil at the end.
func (w *walk) all(ctx context.Context, p *ledger.Progress) (stopped error) {
	if p.Source == "" { // another instance may have ended the last round
		w.round.forget()
	}
	for _, namespace := range w.Routes.Namespaces() {
		if namespace < p.Source {
			continue
		}
		if namespace != p.Source {
			p.Source, p.Cursor = namespace, ""
		}
		if p.Cursor, stopped = w.namespace(ctx, namespace, p.Cursor); stopped != nil {
			if stopped = w.passes(ctx, namespace, stopped); stopped != nil {
				return stopped
			}
		}
	}
	p.Source, p.Cursor = "", ""
	w.round.forget()
	return nil
}

// passes returns nil for an error that stands in nobody else's way: the next
// round asks again.
func (w *walk) passes(ctx context.Context, what string, err error) error {
	var (
		hubs   *hub.Error
		images *registry.Error
		passes bool // by itself
	)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, errEnough), pause(err) > 0:
		return err
	case errors.As(err, &hubs):
		passes = hubs.Temporary()
	case errors.As(err, &images):
		passes = images.Reason != registry.Denied
	default: // the ledger's, or the queue's
		return err
	}
	if passes {
		w.troubles--
	}
	if passes || w.dry {
		w.unanswered = errors.Join(w.unanswered, fmt.Errorf("%s: %s", what, withHint(err)))
		return nil
	}
	w.refused(ctx, what, err)
	return nil
}

// refused tells, once an hour, what a person must fix.
func (f *Finder) refused(ctx context.Context, what string, err error) {
	text := withHint(err)
	if line := thisHour(what + text); !f.settled.Has(line) {
		f.settled.Add(line)
		f.log.LogAttrs(ctx, slog.LevelWarn, "missed pushes not looked for", slog.String("repository", what), slog.String("error", text))
	}
}

func withHint(err error) string {
	var (
		hubs   *hub.Error
		images *registry.Error
		hint   string
	)
	switch {
	case errors.As(err, &hubs):
		hint = hubs.Hint
	case errors.As(err, &images):
		hint = images.Hint
	}
	if hint == "" {
		return err.Error()
	}
	return err.Error() + ". " + hint
}

// pause is for how long an error asks everybody to wait, 0 where it does not.
func pause(err error) time.Duration {
	var (
		hubs   *hub.Error
		images *registry.Error
	)
	switch {
	case errors.As(err, &hubs) && hubs.Reason == hub.RateLimited:
		return cmp.Or(hubs.RetryAfter, limited)
	case errors.As(err, &images) && images.Reason == registry.RateLimited:
		return min(cmp.Or(images.RetryAfter, limited), time.Hour)
	}
	return 0
}

// over tells whether the walk has had its share of time or trouble.
func (w *walk) over() bool { return w.troubles <= 0 || time.Now().After(w.end) }

// page counts a page that is about to be read.
func (w *walk) page() error {
	if w.pages <= 0 || w.over() {
		return errEnough
	}
	w.pages--
	return nil
}

// The stages of a namespace, with which a cursor begins.
const (
	stageLog  = "log "
	stageTags = "tags "
)

// namespace reads the audit log of a namespace, or where there is none the
// newest tags of each repository. It returns the cursor to go on from. Whoever
// looks further back than a day asks for the tags: a log forgets.
func (w *walk) namespace(ctx context.Context, namespace, cursor string) (string, error) {
	if !w.dry && !strings.HasPrefix(cursor, stageTags) {
		at, err := w.auditLog(ctx, namespace, strings.TrimPrefix(cursor, stageLog))
		if !errors.Is(err, hub.ErrNoAuditLog) {
			return stageLog + at, err
		}
		cursor = ""
	}
	at, err := w.repositories(ctx, namespace, strings.TrimPrefix(cursor, stageTags))
	return stageTags + at, err
}

// pushed is a push as Docker Hub tells of it.
type pushed struct {
	repository, tag string
	at              time.Time
	isImage         func(context.Context) (bool, error)
}

func (w *walk) auditLog(ctx context.Context, namespace, cursor string) (string, error) {
	for {
		if err := w.page(); err != nil {
			return cursor, err
		}
		page, err := w.Hub.Pushes(ctx, namespace, w.oldest, w.now().Add(-grace), cursor)
		if err != nil {
			return cursor, err
		}
		var list []pushed
		for _, p := range page.Items {
			list = append(list, pushed{p.Repository, p.Tag, p.PushedAt, func(ctx context.Context) (bool, error) {
				return w.isImage(ctx, p.Repository, p.Tag)
			}})
		}
		if err := w.consider(ctx, list); err != nil {
			return cursor, err
		}
		if cursor = page.Next; cursor == "" {
			return "", nil
		}
	}
}

// isImage asks what the audit log does not say: whether a tag is an image. What
// is not known may be one.
func (w *walk) isImage(ctx context.Context, repository, tag string) (bool, error) {
	if err := w.page(); err != nil {
		return false, err
	}
	t, err := w.Hub.Tag(ctx, repository, tag)
	var refused *hub.Error
	switch {
	case err == nil:
		return mayBeImage(t), nil
	case errors.As(err, &refused) && !refused.Temporary():
		return true, nil
	}
	return false, err
}

func mayBeImage(t hub.Tag) bool {
	return dockerhub.MayBeImage(t.MediaType) && (t.ContentType == "" || t.ContentType == "image")
}

// repositories reads the newest tags of every repository of the namespace that
// has a route: first those that keys name, then those that Docker Hub lists. The
// cursor is the page of that list, the repository that was read last, and the
// page of tags that comes next of the one after it.
func (w *walk) repositories(ctx context.Context, namespace, cursor string) (string, error) {
	const keys = "keys"
	list, rest, _ := strings.Cut(cursor, " ")
	last, inside, _ := strings.Cut(rest, " ")
	if list == "" {
		list = keys
	}
	at := func() string { return list + " " + last + " " + inside }
	named := w.Routes.Repositories(namespace)
	for {
		names, next := named, ""
		if list != keys {
			if err := w.page(); err != nil {
				return at(), err
			}
			page, err := w.Hub.Repositories(ctx, namespace, strings.TrimPrefix(list, "page:"))
			if err != nil {
				return at(), err
			}
			names = nil
			for _, r := range page.Items {
				if !slices.Contains(named, r.Name) {
					names = append(names, r.Name)
				}
			}
			if page.Next != "" {
				next = "page:" + page.Next
			}
		} else if w.Routes.HasGlobs(namespace) {
			next = "page:"
		}
		slices.Sort(names)
		for _, name := range slices.Compact(names) {
			r, routed := w.Routes.Find(name)
			if !routed || name <= last {
				continue
			}
			var err error
			if inside, err = w.tags(ctx, name, w.since(r), inside); err != nil {
				if err = w.passes(ctx, name, err); err != nil {
					return at(), err
				}
			}
			last, inside = name, ""
		}
		if next == "" {
			return "", nil
		}
		list, last, inside = next, "", ""
	}
}

// tags reads the newest tags of a repository. It returns the cursor to go on
// from; one of another repository begins anew.
func (w *walk) tags(ctx context.Context, repository string, since time.Time, cursor string) (string, error) {
	for {
		if err := w.page(); err != nil {
			return cursor, err
		}
		page, err := w.Hub.Tags(ctx, repository, since, cursor)
		if err != nil {
			return cursor, err
		}
		var list []pushed
		for _, t := range page.Items {
			list = append(list, pushed{repository, t.Name, t.PushedAt, func(context.Context) (bool, error) { return mayBeImage(t), nil }})
		}
		if err := w.consider(ctx, list); err != nil {
			return cursor, err
		}
		if cursor = page.Next; cursor == "" {
			return "", nil
		}
	}
}

// consider takes the pushes that were missed, the oldest first: of two the later
// one is to have the moving tag in the end.
func (w *walk) consider(ctx context.Context, list []pushed) error {
	slices.SortFunc(list, func(a, b pushed) int {
		return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.repository, b.repository), cmp.Compare(a.tag, b.tag))
	})
	for _, p := range list {
		r, reason := w.Routes.Decide(p.repository, p.tag)
		if reason != "" || errors.Join(dockerhub.CheckRepository(p.repository), dockerhub.CheckTag(p.tag)) != nil {
			continue
		}
		now := w.now()
		if p.at.After(now.Add(-grace)) || !p.at.After(w.since(r)) {
			continue
		}
		push := dockerhub.Push{Repository: p.repository, Tag: p.tag, PushedAt: p.at.UTC(), ReceivedAt: now.UTC()}
		push.ID = dockerhub.ID(push.Repository, push.Tag, push.PushedAt.Format(time.RFC3339Nano))
		if w.settled.Has(push.ID) || w.settled.Has(thisHour(push.ID)) || w.round.Has(push.ID) {
			continue
		}
		if err := w.look(ctx, p, push, r); err != nil {
			if err = w.passes(ctx, p.repository+":"+p.tag, err); err != nil {
				return err
			}
		}
		w.round.Add(push.ID)
	}
	return nil
}

// look takes a push if nobody has looked at the tag since, and it begins a
// promotion. The registry is asked what it is: the API's digest may be of one
// platform.
func (w *walk) look(ctx context.Context, p pushed, push dockerhub.Push, r route.Route) error {
	if w.over() {
		return errEnough
	}
	snapshot, err := w.Promotions.Read(ctx, ledger.Key{Repository: p.repository, Tag: p.tag})
	switch {
	case err != nil:
		return err
	case snapshot.Looked(p.at):
		w.settled.Add(push.ID)
		return nil
	case snapshot.Busy(): // a message waits, which looks again
		return nil
	}
	digest, err := w.digest(ctx, push)
	if err != nil || digest == "" {
		return err
	}
	look := ledger.Look{
		Message: ledger.Message{ID: push.ID, PushedAt: push.PushedAt, ReceivedAt: push.ReceivedAt, Reconcile: true},
		Digest:  digest, PerDelivery: r.OncePer == route.OncePerDelivery,
	}
	m := Missed{push, digest, r.Key, snapshot, look}
	if !snapshot.Misses(look) {
		if !w.dry {
			_, err = w.Queue(ctx, m) // nothing, but that somebody has looked
		}
		return err
	}
	switch image, err := p.isImage(ctx); {
	case err != nil:
		return err
	case !image:
		w.settled.Add(push.ID)
		return nil
	}
	return w.take(ctx, m)
}

// digest asks the registry what a tag is, "" where it is none that could be
// promoted now.
func (w *walk) digest(ctx context.Context, p dockerhub.Push) (string, error) {
	if w.heads <= 0 {
		return "", errEnough
	}
	w.heads--
	digest, err := w.Images.Digest(ctx, p.Repository, p.Tag)
	var refused *registry.Error
	if !errors.As(err, &refused) {
		return digest, err
	}
	if refused.Reason != registry.NotInRegistry {
		return "", err
	}
	if w.now().Sub(p.PushedAt) > goneFor { // or so it says: it is asked less often
		w.settled.Add(thisHour(p.ID))
	}
	return "", nil
}

// thisHour is a key that is another one in the next hour.
func thisHour(key string) string { return key + time.Now().Truncate(time.Hour).String() }
