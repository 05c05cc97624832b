package sandbox

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/getto-systems/hubrelay/internal/ledger"
)

const (
	// maxKept is how much of a body is stored, in bytes.
	maxKept = 16 << 10
	// maxRead is how much of a body is read. The rest is passed on unread.
	maxRead = 1 << 20
	// maxDepth bounds how deep JSON is searched.
	maxDepth = 8
)

// The paths that Cloud Scheduler calls.
const (
	tickPath      = "/notify/tick"
	reconcilePath = "/trigger/reconcile"
)

// exchange is one request and its answer, with what is found out about them
// while it is in progress.
type exchange struct {
	stage Stage
	clock bool // Cloud Scheduler calls

	mu        sync.Mutex
	image     string
	promotion string // that a body or a log line names
	message   string
	wrote     []ledger.Promotion
	read      []string // IDs of promotions
	news      bool     // something happened that is worth showing
	fault     string
	attempt   int
	outcome   outcome
	state     string // of the promotion, as Notify's log has it
}

// outcome is what Trigger answers.
type outcome struct {
	Outcome string `json:"outcome"`
	Reason  string `json:"reason"`
}

type exchangeKey struct{}

// exchangeOf returns the exchange that a context belongs to, or nil.
func exchangeOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	return x
}

// names records what the exchange is about. What is already known stays.
func (x *exchange) names(image, promotion, message string) {
	if x == nil {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.image == "" {
		x.image = image
	}
	if x.promotion == "" {
		x.promotion = promotion
	}
	if x.message == "" {
		x.message = message
	}
}

// became notes the state of the promotion after the exchange: the last one that
// is logged.
func (x *exchange) became(state string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.state = cmp.Or(state, x.state)
}

func (x *exchange) happened() {
	if x == nil {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.news = true
}

// about returns the promotion that the exchange is about, if that is known: the
// one that is named, or else the newest that was written, or else the one that
// was read last.
func (x *exchange) about() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	var newest ledger.Promotion
	for _, p := range x.wrote {
		if newest.ID == "" || p.CreatedAt.After(newest.CreatedAt) {
			newest = p
		}
	}
	switch {
	case x.promotion != "":
		return x.promotion
	case newest.ID != "":
		return newest.ID
	case len(x.read) > 0:
		return x.read[len(x.read)-1]
	}
	return ""
}

// recorded makes an event of every request of a stage, with its answer. The
// stage may depend on the request. A request with the stage "" is not recorded.
func (s *Sandbox) recorded(stageOf func(*http.Request) Stage, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		stage := stageOf(r)
		if stage == "" {
			next.ServeHTTP(w, r)
			return
		}
		x := &exchange{stage: stage, clock: r.URL.Path == tickPath || r.URL.Path == reconcilePath}
		body, err := io.ReadAll(io.LimitReader(r.Body, maxRead))
		rest := io.Reader(r.Body)
		if err != nil {
			rest = failing{err}
		}
		r = r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x))
		r.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body), rest))
		s.identify(x, r, body)

		began := time.Now()
		s.stages.begin(stage)
		seen := &seenWriter{ResponseWriter: w}
		defer func() {
			panicked := recover()
			if panicked != nil {
				seen.status = 0
			}
			s.took(x, r, body, seen, time.Since(began))
			if panicked != nil {
				panic(panicked)
			}
		}()
		next.ServeHTTP(seen, r)
		if seen.status == 0 {
			seen.status = http.StatusOK
		}
	})
}

// failing is a body that could not be read.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// took records an exchange that has ended.
func (s *Sandbox) took(x *exchange, r *http.Request, body []byte, seen *seenWriter, took time.Duration) {
	answer := seen.kept.String()
	if x.stage == Trigger {
		_ = json.Unmarshal(seen.kept.Bytes(), &x.outcome) // without an outcome it stays empty
	}
	promotion := x.about()
	bad := seen.status == 0 || seen.status >= http.StatusBadRequest
	if x.stage == Slack && strings.Contains(answer, `"ok":false`) {
		bad = true
	}
	s.stages.end(x.stage, bad)
	if x.clock || x.stage == Hub {
		if !bad && !x.news && x.fault == "" { // it is called every few seconds
			return
		}
		if len(x.wrote) != 1 {
			promotion = ""
		}
	}
	ev := Event{
		Stage: x.stage, Who: string(x.stage), Image: x.image, PromotionID: promotion, MessageID: x.message, Bad: bad,
		Call: &Call{
			Took: took, Attempt: x.attempt, Method: r.Method, URL: s.secrets.hide(r.URL.RequestURI()),
			Request: s.keep(readable(body), maxRead), Answer: s.keep(answer, maxAnswer), Status: seen.status, Fault: x.fault,
		},
	}
	ev.What = fmt.Sprintf("answered %d", seen.status)
	if seen.status == 0 {
		ev.What = "gave no answer"
	}
	ev.Detail = cutWords(s.secrets.hide(x.came(r, seen)))
	if x.stage == Trigger && x.attempt > 0 {
		acknowledged := seen.status >= 200 && seen.status < 300
		ev.Call.Wait = s.queue.waitAfter(x.attempt, acknowledged)
		s.hints.attempt(x.message, x.image, promotion, x.attempt, x.outcome, s.clock.now().Add(ev.Call.Wait), ev.Call.Wait > 0)
		s.index.link(promotion, x.message)
	}
	s.events.add(ev)
}

// came describes the result of an exchange, as far as the answer and the log tell.
func (x *exchange) came(r *http.Request, seen *seenWriter) string {
	if x.outcome.Outcome != "" {
		return strings.TrimSuffix(x.outcome.Outcome+", "+x.outcome.Reason, ", ")
	}
	var answer map[string]any
	_ = json.Unmarshal(seen.kept.Bytes(), &answer) // a page, or what is cut, tells nothing
	text := func(name string) string {
		value, _ := answer[name].(string)
		return value
	}
	var parts []string
	add := func(format, value string) {
		if value != "" {
			parts = append(parts, fmt.Sprintf(format, value))
		}
	}
	switch x.stage {
	case Webhook:
		add("ignored, %s", text("ignored"))
		add("queued as %s", text("message_id"))
	case Registry:
		add("%.19s", seen.Header().Get("Docker-Content-Digest"))
	case GitLab:
		if id, ok := answer["id"].(float64); ok {
			add("%s", strings.TrimSuffix(fmt.Sprintf("pipeline %.0f, %s", id, text("status")), ", "))
		}
		leaves(answer["message"], func(words string) { add("%s", words) })
	case Notify:
		x.mu.Lock()
		add("%s", x.state)
		x.mu.Unlock()
		switch {
		case text("slack") != "": // why stands in the log line
			add("%s", "Slack shows it later")
		case text("ts") != "":
			add("%s", "Slack shows it")
		}
		add("%s", text("warning"))
	case Slack:
		if answer["ok"] == true {
			add("%s", map[string]string{"chat.postMessage": "posted", "chat.update": "changed"}[path.Base(r.URL.Path)])
		}
	}
	add("%s", text("error"))
	if len(parts) == 0 && seen.status >= http.StatusBadRequest {
		return http.StatusText(seen.status)
	}
	return strings.Join(parts, "; ")
}

// maxWords bounds what is said of an exchange, in characters.
const maxWords = 200

// cutWords makes one line of a text, and not a long one.
func cutWords(text string) string {
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, string(utf8.RuneError))), " ")
	if runes := []rune(text); len(runes) > maxWords {
		return string(runes[:maxWords]) + "…"
	}
	return text
}

// readable shows the data of a message that Pub/Sub delivers as it was
// published, not in base64. Any other body stays as it is.
func readable(body []byte) string {
	var push, message map[string]json.RawMessage
	var data []byte
	if json.Unmarshal(body, &push) != nil || json.Unmarshal(push["message"], &message) != nil || json.Unmarshal(message["data"], &data) != nil {
		return string(body)
	}
	if !json.Valid(data) {
		data, _ = json.Marshal(string(data)) // a text can always be encoded
	}
	message["data"] = data
	inner, err := json.Marshal(message)
	if err != nil {
		return string(body)
	}
	push["message"] = inner
	whole, err := json.Marshal(push)
	if err != nil {
		return string(body)
	}
	return string(whole)
}

// keep returns what is stored of a body: without secrets, and not too long. If
// only the first limit bytes of a body were read, it may end within a secret.
func (s *Sandbox) keep(body string, limit int) string {
	if body == "" {
		return ""
	}
	text, cut := s.secrets.hide(body), len(body) >= limit
	if cut {
		text = text[:max(0, len(text)-maxSecret)]
	}
	if len(text) > maxKept {
		text, cut = text[:maxKept], true
	}
	if text = strings.ToValidUTF8(text, string(utf8.RuneError)); cut {
		text += "… (cut)"
	}
	return text
}

const (
	// maxSecret is longer than any secret.
	maxSecret = 4 << 10
	// maxAnswer is how much of an answer is read.
	maxAnswer = maxKept + 2*maxSecret
)

// seenWriter records what is written to it.
type seenWriter struct {
	http.ResponseWriter
	status int
	kept   bytes.Buffer
}

func (w *seenWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *seenWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	w.kept.Write(p[:min(len(p), maxAnswer-w.kept.Len())])
	return w.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (w *seenWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

var (
	wholeID = regexp.MustCompile(`^[0-9a-f]{32}$`)
	// The part of an ID that Slack shows.
	shortID = regexp.MustCompile(`\b[0-9a-f]{8}\b`)
	inNames = regexp.MustCompile(`^(?:inputs|variables)\[(.+)\]$`)
)

// identify finds out what a request is about, from the request itself.
func (s *Sandbox) identify(x *exchange, r *http.Request, body []byte) {
	if x.stage == Registry {
		if m := tagPath.FindStringSubmatch(r.URL.Path); m != nil {
			x.image = m[1] + ":" + m[2]
			x.message = s.hints.inHand(x.image)
		}
		return
	}
	var repository, tag string
	note := func(name, value string) {
		switch strings.ToLower(name) {
		case "repository", "repo_name", "image_repository":
			repository = value
		case "tag", "image_tag":
			tag = value
		case "promotion_id":
			// In a message the ID belongs to a dead letter: to the promotion
			// that died before the replay.
			if wholeID.MatchString(value) && x.stage != Trigger {
				x.promotion = value
			}
		case "messageid":
			x.message = value
		case "deliveryattempt":
			if x.stage == Trigger {
				_, _ = fmt.Sscan(value, &x.attempt)
			}
		}
	}
	media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	var tree any
	switch form, err := url.ParseQuery(string(body)); {
	case json.Unmarshal(body, &tree) == nil:
		named(tree, note, 0)
	case err == nil && media == "application/x-www-form-urlencoded":
		for name, values := range form {
			if m := inNames.FindStringSubmatch(name); m != nil {
				name = m[1]
			}
			note(name, values[0])
		}
		body = []byte(form.Get("blocks"))
	}
	if repository != "" && tag != "" {
		x.image = repository + ":" + tag
	}
	if x.stage == Slack {
		x.promotion, x.image = s.index.mentioned(string(body))
	}
	if x.attempt > 0 {
		s.hints.begin(x.message, x.image)
	}
}

// named calls f for every name in JSON whose value is neither a list nor an
// object.
func named(v any, f func(name, value string), depth int) {
	if depth > maxDepth {
		return
	}
	switch v := v.(type) {
	case []any:
		for _, each := range v {
			named(each, f, depth+1)
		}
	case map[string]any:
		for name, each := range v {
			switch each := each.(type) {
			case string:
				f(name, each)
			case float64:
				f(name, fmt.Sprint(each))
			default:
				named(each, f, depth+1)
			}
		}
	}
}
