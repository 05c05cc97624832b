package simulation

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/getto-systems/hubrelay/functions/notify"
	"github.com/getto-systems/hubrelay/functions/trigger"
	"github.com/getto-systems/hubrelay/functions/webhook"
	"github.com/getto-systems/hubrelay/internal/auth"
	"github.com/getto-systems/hubrelay/internal/dockerhub"
	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/gitlab"
	"github.com/getto-systems/hubrelay/internal/hub"
	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/registry"
	"github.com/getto-systems/hubrelay/internal/route"
	"github.com/getto-systems/hubrelay/internal/slack"
)

// As terraform/ sets them.
const (
	backoffMin  = 10 * time.Second
	backoffMax  = 600 * time.Second
	ackDeadline = 270 * time.Second
	silentAfter = time.Hour
)

const (
	webhookToken = "sim-0123456789abcdefghij"
	pushAccount  = "push@sim.iam.gserviceaccount.com"
)

// outside is everything outside of hubrelay.
type outside struct {
	store    *ledger.Memory
	watched  *watch
	table    route.Table
	tables   int
	attempts int    // of Pub/Sub, before a message is a dead letter
	loops    string // an image whose pipelines push it again

	instances []*instance
	weather   map[string]weather // by kind of call

	// Docker Hub and its registry.
	images   map[string][]view // by repository:tag, what it was since when
	signed   map[string]bool   // repository@digest
	webhooks []*push
	auditLog bool
	renamed  bool           // GitLab's project, which its id tokens then name otherwise
	mayAsk   bool           // reconcile has tokens for GitLab's API
	repushes map[string]int // by image: webhooks of pushes that pipelines made

	// Pub/Sub.
	letters []*message // that a person may replay

	// GitLab.
	pipelines   []*pipeline
	busy        map[string]bool // repositories in which a job runs
	queue       map[string][]func()
	lostAnswers map[string]int // by promotion: answers of GitLab that did not arrive, or were not recorded

	// Slack.
	archived map[string]bool
	messages map[string]*said // by channel and ts
	replies  []said
	gone     map[string]bool // messages that have not taken an update
	lastTS   int
	unknown  int // messages whose ts hubrelay could not learn
}

// weather is the result of a kind of call for some time.
type weather struct {
	fate  fate
	until time.Time
}

// view is what a tag was from a time on; "" is nothing.
type view struct {
	at     time.Time
	digest string
}

// push is one push to Docker Hub, with what the checks need.
type push struct {
	image  string
	digest string
	at     time.Time
}

// message is one in Pub/Sub.
type message struct {
	id         int
	data       []byte
	attributes map[string]string
	queued     time.Time
	attempt    int
	acked      bool
	letter     bool
	pushedAt   time.Time // as Docker Hub said; zero if it did not
}

// pipeline is one in GitLab.
type pipeline struct {
	id                      int64
	project                 string
	projectID               string
	source                  string
	promotion               string
	repository, tag, digest string
	retries                 int
	status                  string // of its job, as GitLab says it
	finished                time.Time
}

// said is a message in Slack.
type said struct {
	channel, thread string
	slack.Message
}

func newOutside() outside {
	return outside{
		store: ledger.NewMemory(), weather: map[string]weather{}, images: map[string][]view{}, signed: map[string]bool{},
		busy: map[string]bool{}, queue: map[string][]func(){}, lostAnswers: map[string]int{},
		repushes: map[string]int{}, archived: map[string]bool{}, messages: map[string]*said{}, gone: map[string]bool{},
	}
}

// fate decides the result of a call: by the weather of its kind, or else by
// chance.
func (w *world) fate(c *call) fate {
	if w.well {
		return fine
	}
	if now, ok := w.weather[c.kind]; ok && time.Now().Before(now.until) {
		return now.fate
	}
	roll := w.rng.Float64()
	switch c.kind {
	case "store read":
		return odds(roll, 0.01, lost)
	case "store write":
		return odds(roll, 0.02, lost, done)
	case "registry":
		return odds(roll, 0.20, "stale", "stale", "stale", "missing", lost)
	case "gitlab":
		return odds(roll, 0.30, lost, done, done, "limited", "capacity", "unrecognized", "never", "no connection", "reference")
	case "slack":
		return odds(roll, 0.10, lost, done, "limited")
	case "publish":
		return odds(roll, 0.05, lost, done)
	case "job":
		return odds(roll, 0.10, lost)
	case "hub":
		return odds(roll, 0.10, lost, "limited")
	}
	return fine
}

// odds returns one of the fates with probability p in all.
func odds(roll, p float64, fates ...fate) fate {
	if roll >= p {
		return fine
	}
	return fates[int(roll/p*float64(len(fates)))]
}

var errLost = errors.New("no answer")

// simStore is the ledger's store. Each call of it is a call to the outside.
type simStore struct{ w *world }

func (s simStore) read(ctx context.Context, format string, args ...any) error {
	if s.w.call(ctx, "store read", format, args...) != fine {
		taskOf(ctx).unrecorded = true
		return errLost
	}
	return nil
}

func (s simStore) Tags(ctx context.Context, ids ...string) ([]*ledger.Tag, time.Time, error) {
	if err := s.read(ctx, "tags %v", ids); err != nil {
		return nil, time.Time{}, err
	}
	return s.w.store.Tags(ctx, ids...)
}

func (s simStore) Promotions(ctx context.Context, ids ...string) ([]*ledger.Promotion, time.Time, error) {
	if err := s.read(ctx, "promotions %s", s.w.nameAll(ids)); err != nil {
		return nil, time.Time{}, err
	}
	return s.w.store.Promotions(ctx, ids...)
}

func (s simStore) Repository(ctx context.Context, name string) (*ledger.Repository, error) {
	if err := s.read(ctx, "repository %s", name); err != nil {
		return nil, err
	}
	return s.w.store.Repository(ctx, name)
}

func (s simStore) Progress(ctx context.Context) (*ledger.Progress, time.Time, error) {
	if err := s.read(ctx, "progress"); err != nil {
		return nil, time.Time{}, err
	}
	return s.w.store.Progress(ctx)
}

func (s simStore) Due(ctx context.Context, t time.Time, limit int) ([]*ledger.Promotion, error) {
	if err := s.read(ctx, "due"); err != nil {
		return nil, err
	}
	return s.w.store.Due(ctx, t, limit)
}

func (s simStore) Unheard(ctx context.Context, t time.Time, limit int) ([]*ledger.Promotion, error) {
	if err := s.read(ctx, "unheard"); err != nil {
		return nil, err
	}
	return s.w.store.Unheard(ctx, t, limit)
}

func (s simStore) Overdue(ctx context.Context, t time.Time, limit int) ([]*ledger.Tag, error) {
	if err := s.read(ctx, "overdue"); err != nil {
		return nil, err
	}
	return s.w.store.Overdue(ctx, t, limit)
}

func (s simStore) OfPipeline(ctx context.Context, pipeline string) (string, error) {
	if err := s.read(ctx, "of pipeline %s", pipeline); err != nil {
		return "", err
	}
	return s.w.store.OfPipeline(ctx, pipeline)
}

func (s simStore) All(ctx context.Context) iter.Seq2[*ledger.Promotion, error] {
	return s.w.store.All(ctx)
}

func (s simStore) Commit(ctx context.Context, b ledger.Batch) error {
	f := s.w.call(ctx, "store write", "writes %s", s.w.batch(b))
	if f != fine {
		taskOf(ctx).unrecorded = true
	}
	if f != fine && f != done {
		return errLost
	}
	err := s.w.store.Commit(ctx, b)
	if err == nil {
		s.w.watched.committed(ctx, b)
		t := taskOf(ctx)
		t.truth = ""
		if f == fine {
			t.answerOf = ""
		}
	} else {
		s.w.tell("    which meets another")
	}
	if f == done {
		return errLost
	}
	return err
}

func (w *world) nameAll(ids []string) string {
	var names []string
	for _, id := range ids {
		names = append(names, w.name(id))
	}
	return strings.Join(names, " ")
}

func (w *world) batch(b ledger.Batch) string {
	var parts []string
	for _, t := range b.Tags {
		part := "tag " + t.Repository + ":" + t.Tag
		if !t.LookBy.IsZero() {
			part += fmt.Sprintf(" (look by %v)", t.LookBy.Sub(w.began).Round(time.Second))
		}
		parts = append(parts, part)
	}
	for _, p := range b.Promotions {
		parts = append(parts, fmt.Sprintf("%s %s:%s %s %s %s revision %d/%d/%d", w.name(p.ID), p.Repository, p.Tag, short(p.Digest), p.State, p.Reason, p.Revision, p.Shown, p.Replied))
	}
	for _, r := range b.Repositories {
		parts = append(parts, "repository "+r.Name)
	}
	return strings.Join(parts, ", ")
}

func short(digest string) string { return strings.TrimLeft(strings.TrimPrefix(digest, "sha256:"), "0") }

// now returns what a tag is.
func (o *outside) now(image string) string {
	views := o.images[image]
	if len(views) == 0 {
		return ""
	}
	return views[len(views)-1].digest
}

// Digest is the registry's.
func (w *world) Digest(ctx context.Context, repository, tag string) (string, error) {
	image := repository + ":" + tag
	f := w.call(ctx, "registry", "asks what %s is", image)
	digest := w.now(image)
	taskOf(ctx).asked, taskOf(ctx).truth = time.Now(), ""
	switch f {
	case fine:
		taskOf(ctx).truth = image
	case "stale": // it lags
		then := time.Now().Add(-w.between(0, ledger.RegistryLag))
		digest = ""
		for _, v := range w.images[image] {
			if !v.at.After(then) {
				digest = v.digest
			}
		}
		w.tell("    and sees what it was: %s", short(digest))
	case "missing":
		digest = ""
	case "denied":
		return "", &registry.Error{Status: 401, Reason: registry.Denied, Hint: "Look at REGISTRY_AUTH."}
	default:
		return "", &registry.Error{Reason: registry.Unavailable, Cause: errLost}
	}
	if digest == "" {
		return "", &registry.Error{Status: 404, Reason: registry.NotInRegistry}
	}
	return digest, nil
}

// hubAPI is Docker Hub's API, of one namespace. A page has two rows.
type hubAPI struct{ w *world }

func (a hubAPI) ask(ctx context.Context, format string, args ...any) error {
	switch a.w.call(ctx, "hub", format, args...) {
	case fine:
		return nil
	case "limited":
		return &hub.Error{Status: 429, Reason: hub.RateLimited, RetryAfter: 2 * time.Minute}
	}
	return &hub.Error{Reason: hub.Unavailable, Cause: errLost}
}

func page[T any](rows []T, cursor string) hub.Page[T] {
	from, _ := strconv.Atoi(cursor)
	to := min(from+2, len(rows))
	p := hub.Page[T]{Items: rows[min(from, to):to]}
	if to < len(rows) {
		p.Next = strconv.Itoa(to)
	}
	return p
}

func (a hubAPI) Pushes(ctx context.Context, _ string, since, until time.Time, cursor string) (hub.Page[hub.Push], error) {
	if !a.w.auditLog {
		return hub.Page[hub.Push]{}, hub.ErrNoAuditLog
	}
	if err := a.ask(ctx, "asks for the audit log %s", cursor); err != nil {
		return hub.Page[hub.Push]{}, err
	}
	var rows []hub.Push
	for _, p := range a.w.webhooks {
		repository, tag, _ := strings.Cut(p.image, ":")
		if !p.at.Before(since) && p.at.Before(until) {
			rows = append(rows, hub.Push{Repository: repository, Tag: tag, PushedAt: p.at})
		}
	}
	return page(rows, cursor), nil
}

func (a hubAPI) Tags(ctx context.Context, repository string, since time.Time, cursor string) (hub.Page[hub.Tag], error) {
	if err := a.ask(ctx, "asks for the tags of %s %s", repository, cursor); err != nil {
		return hub.Page[hub.Tag]{}, err
	}
	newest := map[string]time.Time{}
	for _, p := range a.w.webhooks {
		if r, tag, _ := strings.Cut(p.image, ":"); r == repository && a.w.now(p.image) != "" {
			newest[tag] = p.at
		}
	}
	var rows []hub.Tag
	for _, tag := range slices.Sorted(maps.Keys(newest)) {
		if !newest[tag].Before(since) {
			rows = append(rows, hub.Tag{Name: tag, Digest: "sha256:of-one-platform", PushedAt: newest[tag]})
		}
	}
	return page(rows, cursor), nil
}

func (a hubAPI) Tag(ctx context.Context, repository, tag string) (hub.Tag, error) {
	if err := a.ask(ctx, "asks for the tag %s:%s", repository, tag); err != nil {
		return hub.Tag{}, err
	}
	if a.w.now(repository+":"+tag) == "" {
		return hub.Tag{}, &hub.Error{Status: 404, Reason: hub.NotFound}
	}
	return hub.Tag{Name: tag, Digest: "sha256:of-one-platform"}, nil
}

func (a hubAPI) Repositories(ctx context.Context, namespace, cursor string) (hub.Page[hub.Repository], error) {
	if err := a.ask(ctx, "asks for the repositories of %s %s", namespace, cursor); err != nil {
		return hub.Page[hub.Repository]{}, err
	}
	return page([]hub.Repository{{Name: "acme/api"}, {Name: "acme/each"}, {Name: "acme/web"}}, cursor), nil
}

// CreatePipeline is GitLab's.
func (w *world) CreatePipeline(ctx context.Context, r gitlab.Request) (gitlab.Pipeline, error) {
	id := r.Inputs["promotion_id"]
	t := taskOf(ctx)
	t.answerOf, t.unrecorded = id, false
	f := w.call(ctx, "gitlab", "asks for a pipeline of %s:%s %s", r.Inputs["image_repository"], r.Inputs["image_tag"], short(r.Inputs["image_digest"]))
	refuse := func(e gitlab.Error) (gitlab.Pipeline, error) { return gitlab.Pipeline{}, &e }
	switch f {
	case fine, done:
	case lost:
		w.lostAnswers[id]++
		t.answerOf = ""
		return refuse(gitlab.Error{Status: 502, Reason: gitlab.Unavailable, Lost: true, Hint: "Is GitLab up?"})
	case "limited":
		return refuse(gitlab.Error{Status: 429, Reason: gitlab.RateLimited, RetryAfter: time.Minute})
	case "capacity":
		return refuse(gitlab.Error{Status: 400, Reason: gitlab.Capacity, Hint: "Raise the limit.", Message: "Retry later."})
	case "reference":
		return refuse(gitlab.Error{Status: 400, Reason: gitlab.ReferenceNotFound, Hint: "Check the ref."})
	case "unrecognized":
		return refuse(gitlab.Error{Status: 400, Reason: gitlab.Rejected, Unrecognized: true, Message: "Because."})
	case "no connection":
		return refuse(gitlab.Error{Reason: gitlab.Unavailable, Hint: "Look at GITLAB_URL."})
	default:
		return refuse(gitlab.Error{Status: 404, Reason: gitlab.NotFound, Hint: "Check the token."})
	}
	p := w.newPipeline("trigger", r.Project, r.Inputs)
	if f == done {
		w.lostAnswers[id]++
		t.answerOf = ""
		return refuse(gitlab.Error{Status: 504, Reason: gitlab.Unavailable, Lost: true, Hint: "Is GitLab up?"})
	}
	projectID, _ := strconv.ParseInt(p.projectID, 10, 64)
	return gitlab.Pipeline{ID: p.id, ProjectID: projectID, URL: fmt.Sprintf("https://gitlab.example/%d", p.id)}, nil
}

// FindJob is GitLab's.
func (w *world) FindJob(ctx context.Context, q gitlab.JobQuery) (gitlab.Job, bool, error) {
	if w.call(ctx, "job", "asks for the job of pipeline %s", q.PipelineID) != fine {
		return gitlab.Job{}, false, &gitlab.Error{Reason: gitlab.Unavailable, Cause: errLost}
	}
	id, _ := strconv.Atoi(q.PipelineID)
	if id < 1 || id > len(w.pipelines) {
		return gitlab.Job{}, false, &gitlab.Error{Status: 404, Reason: gitlab.Unauthorized}
	}
	p := w.pipelines[id-1]
	w.tell("    which is %s", p.status)
	return gitlab.Job{Status: p.status, FinishedAt: p.finished}, true, nil
}

func (w *world) newPipeline(source, project string, inputs map[string]string) *pipeline {
	p := &pipeline{
		id: int64(len(w.pipelines) + 1), project: project, projectID: "7", source: source, promotion: inputs["promotion_id"],
		repository: inputs["image_repository"], tag: inputs["image_tag"], digest: inputs["image_digest"], status: "pending",
	}
	w.pipelines = append(w.pipelines, p)
	w.tell("    pipeline %d of %s begins", p.id, p.promotion)
	quiet := w.chance(0.06) // its runner is gone
	w.at(w.between(time.Second, 30*time.Second), func() {
		if quiet {
			w.tell("nobody runs pipeline %d", p.id)
			if p.status = pick(w, "pending", "running", "manual", "canceled"); p.status == "running" {
				w.at(time.Hour, func() { p.status, p.finished = "failed", time.Now() }) // its time is out
			}
			return
		}
		p.status = "waiting_for_resource"
		if !w.chance(0.1) {
			w.report(p, "running", "")
		}
		w.at(w.between(0, 30*time.Second), func() { w.turn(p.repository, func() { w.job(p) }) })
	})
	return p
}

// turn runs the jobs of a repository one at a time.
func (w *world) turn(repository string, job func()) {
	if w.busy[repository] {
		w.queue[repository] = append(w.queue[repository], job)
		return
	}
	w.busy[repository] = true
	w.at(w.between(5*time.Second, 3*time.Minute), func() {
		job()
		w.busy[repository] = false
		if next := w.queue[repository]; len(next) > 0 {
			w.queue[repository] = next[1:]
			w.turn(repository, next[0])
		}
	})
}

// job is the promotion in a pipeline.
func (w *world) job(p *pipeline) {
	image := p.repository + ":" + p.tag
	p.status, p.finished = "success", time.Now()
	switch now := w.now(image); {
	case w.chance(0.12):
		p.status = "failed"
		w.report(p, pick(w, "failure", "failed", "canceled"), "")
		if p.retries++; p.retries < 3 && w.chance(0.5) { // by hand
			w.at(w.between(time.Minute, 2*time.Hour), func() { w.turn(p.repository, func() { w.job(p) }) })
		} else if w.chance(0.2) {
			w.at(w.between(time.Minute, time.Hour), func() {
				w.newPipeline("web", p.project, map[string]string{
					"promotion_id": p.promotion, "image_repository": p.repository, "image_tag": p.tag, "image_digest": p.digest,
				})
			})
		}
	case now != p.digest:
		w.report(p, "superseded", "the tag is another image by now")
	case w.signed[p.repository+"@"+p.digest]:
		w.report(p, "skipped", "signed already")
	default:
		w.signed[p.repository+"@"+p.digest] = true
		if image == w.loops { // a build of the project's own runs in the pipeline
			w.pushImage(image, fmt.Sprintf("sha256:%064x", 1000+p.id))
		}
		if w.chance(0.3) { // the tag is pushed again, and Docker Hub calls
			w.repushes[image]++
			w.webhook(image, time.Now())
		}
		w.report(p, "success", "")
	}
}

// report sends a report until it is accepted, like curl. It may be lost,
// duplicated or late.
func (w *world) report(p *pipeline, status, message string) {
	if w.chance(0.04) {
		w.tell("pipeline %d's report of %s is lost", p.id, status)
		return
	}
	body, _ := json.Marshal(map[string]any{
		"status": status, "repository": p.repository, "tag": p.tag, "digest": p.digest, "promotion_id": p.promotion,
		"pipeline_url": fmt.Sprintf("https://gitlab.example/%d", p.id), "message": message,
	})
	project := p.project
	if w.renamed && p.projectID == "7" {
		project = "acme/renamed"
	}
	token, _ := json.Marshal(map[string]string{
		"project_id": p.projectID, "project_path": project, "pipeline_id": strconv.FormatInt(p.id, 10), "pipeline_source": p.source, "ref_protected": "true",
	})
	send := func(attempts int) {}
	send = func(attempts int) {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(string(body)))
		r.Header.Set("Authorization", "Bearer "+base64.RawURLEncoding.EncodeToString(token))
		w.spawn(w.any("notify"), fmt.Sprintf("report of pipeline %d: %s", p.id, status), nil, r, func(code int, answer string) {
			w.watched.reported(p, code, answer)
			if (code == 0 || code >= 500) && (attempts < 8 || w.well) {
				w.at(w.between(time.Second, time.Minute), func() { send(attempts + 1) })
			}
		})
	}
	times := 1
	if w.chance(0.1) {
		times = 2
	}
	for range times {
		delay := time.Duration(0)
		if w.chance(0.2) {
			delay = w.between(0, 10*time.Minute)
		}
		w.at(delay, func() { send(1) })
	}
}

// Verify is the issuer's of id tokens: a token is its claims.
func (w *world) Verify(ctx context.Context, token string, claims any) error {
	if w.call(ctx, "issuer", "asks the issuer") != fine {
		return errLost
	}
	text, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return auth.ErrInvalid
	}
	return json.Unmarshal(text, claims)
}

// slackError is Slack's answer for a fate.
func slackError(f fate) error {
	switch f {
	case "limited":
		return &slack.Error{Code: "ratelimited", Status: 429, RetryAfter: 30 * time.Second}
	case fine:
		return nil
	}
	return &slack.Error{Cause: errLost}
}

// Post is Slack's.
func (w *world) Post(ctx context.Context, channel string, m slack.Message) (slack.Ref, error) {
	f := w.call(ctx, "slack", "posts to %s: %s %s:%s", channel, m.Status, m.Repository, m.Tag)
	switch {
	case f != fine && f != done:
		return slack.Ref{}, slackError(f)
	case w.archived[channel]:
		return slack.Ref{}, &slack.Error{Code: "is_archived", Status: 200}
	}
	w.lastTS++
	ref := slack.Ref{Channel: channel, TS: fmt.Sprintf("1.%06d", w.lastTS)}
	w.messages[ref.Channel+" "+ref.TS] = &said{channel: channel, Message: m}
	if f == done {
		w.unknown++
		return slack.Ref{}, slackError(f)
	}
	return ref, nil
}

// Update is Slack's.
func (w *world) Update(ctx context.Context, ref slack.Ref, m slack.Message) (slack.Ref, error) {
	f := w.call(ctx, "slack", "updates %s in %s: %s %s:%s", ref.TS, ref.Channel, m.Status, m.Repository, m.Tag)
	there := w.messages[ref.Channel+" "+ref.TS]
	switch {
	case f != fine && f != done:
		return slack.Ref{}, slackError(f)
	case w.archived[ref.Channel]:
		w.gone[ref.Channel+" "+ref.TS] = true
		return slack.Ref{}, &slack.Error{Code: "is_archived", Status: 200}
	case there == nil:
		return slack.Ref{}, &slack.Error{Code: "message_not_found", Status: 200}
	}
	there.Message = m
	return ref, slackError(map[fate]fate{fine: fine, done: lost}[f])
}

// Reply is Slack's.
func (w *world) Reply(ctx context.Context, ref slack.Ref, m slack.Message) error {
	f := w.call(ctx, "slack", "replies to %s in %s: %s %s:%s", ref.TS, ref.Channel, m.Status, m.Repository, m.Tag)
	switch {
	case f != fine && f != done:
		return slackError(f)
	case w.archived[ref.Channel]:
		w.gone[ref.Channel+" "+ref.TS] = true
		return &slack.Error{Code: "is_archived", Status: 200}
	case w.messages[ref.Channel+" "+ref.TS] == nil:
		return &slack.Error{Code: "thread_not_found", Status: 200}
	}
	w.replies = append(w.replies, said{ref.Channel, ref.TS, m})
	return slackError(map[fate]fate{fine: fine, done: lost}[f])
}

// topic is one of Pub/Sub's.
type topic struct {
	w    *world
	dead bool
}

func (t topic) Publish(ctx context.Context, data []byte, attributes map[string]string) (string, error) {
	what := "pushes"
	if t.dead {
		what = "dead letters"
	}
	f := t.w.call(ctx, "publish", "publishes to the %s: %s:%s %s", what, attributes["repository"], attributes["tag"], attributes["reason"])
	if f != fine && f != done {
		return "", errLost
	}
	m := t.w.publish(data, attributes, t.dead)
	if f == done {
		return "", errLost
	}
	return strconv.Itoa(m.id), nil
}

func (w *world) publish(data []byte, attributes map[string]string, letter bool) *message {
	w.serial++
	m := &message{id: w.serial, data: data, attributes: attributes, queued: time.Now(), letter: letter}
	if p, err := dockerhub.Decode(data); err == nil {
		m.pushedAt = p.PushedAt
	}
	if letter {
		kept := *m
		w.letters = append(w.letters, &kept)
		w.watched.buried(m)
	}
	w.at(0, func() { w.deliver(m) })
	return m
}

// deliver pushes a message like Pub/Sub: again after a back-off if the answer
// is not a success, or does not come in time, and sometimes without a reason.
func (w *world) deliver(m *message) {
	if m.acked && !w.chance(0.05) {
		return
	}
	m.attempt++
	attempt := m.attempt
	body, _ := json.Marshal(map[string]any{
		"message": map[string]any{
			"data": m.data, "attributes": m.attributes, "messageId": strconv.Itoa(m.id), "publishTime": m.queued,
		},
		"subscription": "projects/sim/subscriptions/s", "deliveryAttempt": attempt,
	})
	kind, path, name := "trigger", "/", "push"
	if m.letter {
		kind, path, name = "notify", "/dead-letter", "dead letter"
	}
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(string(body)))
	r.Header.Set("Authorization", "Bearer "+googleToken)
	answered := false
	again := func() {
		if answered || m.acked {
			return
		}
		answered = true
		if !m.letter && attempt >= w.attempts {
			m.acked = true
			w.giveUp(m)
			return
		}
		w.at(min(backoffMin<<min(attempt-1, 10), backoffMax), func() { w.deliver(m) })
	}
	w.at(ackDeadline, again)
	w.spawn(w.any(kind), fmt.Sprintf("%s %d of %s:%s, attempt %d", name, m.id, m.attributes["repository"], m.attributes["tag"], attempt), m, r, func(code int, _ string) {
		if code < 200 || code > 299 {
			again()
			return
		}
		m.acked = true
		if w.chance(0.03) {
			w.at(w.between(time.Second, 10*time.Minute), func() { w.deliver(m) })
		}
	})
}

var googleToken = base64.RawURLEncoding.EncodeToString([]byte(`{"email":"` + pushAccount + `","email_verified":true}`))

// giveUp makes a message a dead letter, as Pub/Sub does.
func (w *world) giveUp(m *message) {
	attributes := map[string]string{}
	for name, value := range m.attributes {
		attributes[name] = value
	}
	attributes["CloudPubSubDeadLetterSourceDeliveryCount"] = strconv.Itoa(m.attempt)
	attributes["CloudPubSubDeadLetterSourceTopicPublishTime"] = m.queued.UTC().Format("2006-01-02T15:04:05.000Z07:00")
	w.tell("Pub/Sub gives up push %d of %s:%s", m.id, attributes["repository"], attributes["tag"])
	w.publish(m.data, attributes, true)
}

// replay queues the dead letters again, as a person does.
func (w *world) replay() {
	letters := w.letters
	w.letters = nil
	for _, m := range letters {
		w.watched.replayed(m)
		attributes := map[string]string{"replayed_at": time.Now().UTC().Format(time.RFC3339Nano)}
		for name, value := range m.attributes {
			if name != "replayed_at" {
				attributes[name] = value
			}
		}
		w.tell("a person replays %s:%s", attributes["repository"], attributes["tag"])
		w.publish(m.data, attributes, false)
	}
}

// webhook is one call of Docker Hub. It is not repeated.
func (w *world) webhook(image string, pushedAt time.Time) {
	repository, tag, _ := strings.Cut(image, ":")
	body, err := dockerhub.Webhook(repository, tag, pushedAt)
	if err != nil {
		panic(err)
	}
	w.spawn(w.any("webhook"), "webhook of "+image, nil, httptest.NewRequest(http.MethodPost, "/"+webhookToken, strings.NewReader(string(body))), func(int, string) {})
}

// pushImage points a tag to another image, or deletes it.
func (w *world) pushImage(image, digest string) {
	w.tell("%s is %s", image, short(digest))
	w.images[image] = append(w.images[image], view{time.Now(), digest})
	if digest == "" {
		return
	}
	p := &push{image: image, digest: digest, at: time.Now()}
	w.webhooks = append(w.webhooks, p)
	times, late := 1, w.chance(0.15)
	gone := w.chance(0.05) // Docker Hub calls nobody
	if w.rng.IntN(3) == 0 {
		times = 6
	}
	pushedAt := time.Now()
	for range times {
		if w.rng.IntN(2) == 0 {
			pushedAt = pushedAt.Add(w.between(0, 8*time.Second))
		}
		delay := time.Until(pushedAt) + w.between(0, 5*time.Second)
		if late {
			delay += w.between(0, time.Hour)
		}
		at := pushedAt
		if gone || w.chance(0.05) {
			w.tell("a webhook of %s is lost", image)
			continue
		}
		w.at(delay, func() { w.webhook(image, at) })
	}
}

// any returns an instance of a function.
func (w *world) any(kind string) *instance {
	var alive []*instance
	for _, i := range w.instances {
		if i.kind == kind && !i.dead {
			alive = append(alive, i)
		}
	}
	return alive[w.rng.IntN(len(alive))]
}

// start starts an instance of a function, by the current routes.
func (w *world) start(kind string) {
	w.serial++
	i := &instance{kind: kind, serial: w.serial}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	records := ledger.New(simStore{w})
	switch kind {
	case "webhook":
		tokens, err := auth.ParseTokens(webhookToken)
		if err != nil {
			w.t.Fatal(err)
		}
		i.handler = webhook.New(tokens, topic{w, false}, log)
	case "trigger":
		tokens := trigger.Tokens{}
		if w.mayAsk {
			tokens["*"] = env.NewSecret("t")
		}
		i.handler = trigger.New(trigger.Trigger{
			Routes: w.table, Tokens: trigger.Tokens{"*": env.NewSecret("t")}, APITokens: tokens, Images: w, Promotions: records, Pipelines: w,
			Hub: hubAPI{w}, Queue: topic{w, false}, DeadLetters: topic{w, true},
		}, log)
	case "notify":
		i.handler = notify.New(notify.Notify{
			Routes: w.table, IDTokens: w, Promotions: records, Slack: w, Language: slack.En,
			PushTokens: w, PushAccount: pushAccount, DefaultChannel: "CDEFAULT", SilentAfter: silentAfter,
		}, log)
	}
	w.instances = append(slices.DeleteFunc(w.instances, func(i *instance) bool { return i.dead }), i)
}

// clock calls a function as Cloud Scheduler does.
func (w *world) clock(kind, path string, every time.Duration) {
	w.at(every, func() {
		w.clock(kind, path, every)
		r := httptest.NewRequest(http.MethodPost, path, nil)
		r.Header.Set("Authorization", "Bearer "+googleToken)
		w.spawn(w.any(kind), "clock "+path, nil, r, func(int, string) {})
	})
}
