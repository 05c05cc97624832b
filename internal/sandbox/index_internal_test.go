package sandbox

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	pubsubapi "cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/getto-systems/hubrelay/internal/ledger"
)

func TestTheHistoryIsBounded(t *testing.T) {
	t.Parallel()
	heard := 0
	e := &events{
		hear: func(Event) { heard++ }, now: time.Now, hide: newSecrets(), said: func(Event) {}, wake: make(chan struct{}),
	}
	for range maxEvents + 10 {
		e.add(Event{What: "x"})
	}
	list, oldest, newest := e.after(0)
	if len(list) != maxEvents || oldest != 11 || newest != maxEvents+10 || list[0].ID != oldest {
		t.Errorf("%d events, from %d to %d, and the first is %d", len(list), oldest, newest, list[0].ID)
	}
	if list, _, _ := e.after(newest - 2); len(list) != 2 || list[1].ID != newest {
		t.Errorf("after the third last there are %+v", list)
	}
	if list, _, _ := e.after(newest + 5); len(list) != 0 {
		t.Errorf("after what is to come there are %d", len(list))
	}
	body := strings.Repeat("b", 1<<20)
	for range 100 {
		e.add(Event{What: "call", Call: &Call{Answer: body}})
	}
	list, oldest, _ = e.after(0)
	if len(list) > maxEventBytes>>20 || list[0].ID != oldest || e.bytes > maxEventBytes {
		t.Errorf("there are %d large events, of %d bytes", len(list), e.bytes)
	}
	if heard != maxEvents+10 {
		t.Errorf("the terminal heard %d events: calls are not for it", heard)
	}
	select {
	case <-e.changed(newest):
	default:
		t.Error("what has come already is waited for")
	}
	waits := e.changed(newest + 100)
	select {
	case <-waits:
		t.Error("what is to come is there")
	default:
	}
	e.add(Event{})
	<-waits
}

// pieces remembers the sizes of what is written to it, and calls full once all
// that is wanted was.
type pieces struct {
	*httptest.ResponseRecorder
	most, want int
	full       func()
}

func (p *pieces) Write(b []byte) (int, error) {
	p.most = max(p.most, len(b))
	n, err := p.ResponseRecorder.Write(b)
	if strings.Count(p.Body.String(), "\ndata: ") == p.want {
		p.full()
	}
	return n, err
}

func TestAStreamIsSentInPieces(t *testing.T) {
	t.Parallel()
	const sent, body = 40, maxSent / 4
	s := &Sandbox{ctx: t.Context(), life: "l", events: &events{now: time.Now, hide: newSecrets(), said: func(Event) {}, wake: make(chan struct{})}}
	for range sent {
		s.events.add(Event{What: "call", Call: &Call{Answer: strings.Repeat("b", body)}})
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w := &pieces{ResponseRecorder: httptest.NewRecorder(), want: sent, full: cancel}
	s.stream(w, httptest.NewRequest(http.MethodGet, "/api/events", nil).WithContext(ctx), 0, true)
	if w.most > 2*maxSent {
		t.Errorf("%d bytes are written at once", w.most)
	}
	if text := w.Body.String(); strings.Count(text, "\ndata: ") != sent || !strings.Contains(text, "id: 40-l\n") {
		t.Error("not all events came")
	}
}

func promotion(n int) ledger.Promotion {
	id := fmt.Sprintf("%08x%024d", n, n)
	return ledger.Promotion{ID: id, Key: ledger.Key{Repository: fmt.Sprintf("acme/r%d", n), Tag: "1"}, State: ledger.Waiting, CreatedAt: time.Unix(int64(n), 0)}
}

func TestTenThousandRowsAreBoundedAndCheap(t *testing.T) {
	t.Parallel()
	const extra = 500
	s := &Sandbox{index: newIndex()}
	for n := range maxRows + extra {
		s.index.put(promotion(n))
	}
	for n := range 100 {
		p := promotion(maxRows + n)
		p.State, p.Outbox = ledger.Promoted, ledger.Outbox{Revision: 1}
		s.index.put(p)
	}
	s.index.put(ledger.Promotion{ID: "note", Note: true})
	rows, total, err := s.Rows(Query{Offset: 400, Limit: 100})
	if err != nil || total != maxRows || len(rows) != 100 || rows[0].Image != fmt.Sprintf("acme/r%d:1", maxRows+extra-1-400) || rows[0].Shown {
		t.Errorf("%d rows of %d, the first is %+v", len(rows), total, rows[0])
	}
	if rows, total, _ := s.Rows(Query{States: []ledger.State{ledger.Promoted}}); total != 100 || len(rows) != defaultRows {
		t.Errorf("%d of %d are promoted", len(rows), total)
	}
	if n := s.index.states; n[ledger.Promoted] != 100 || n[ledger.Waiting] != maxRows-100 || s.index.behind != 100 {
		t.Errorf("counted %v, %d behind", n, s.index.behind)
	}
	if rows, total, _ := s.Rows(Query{Text: "ACME/r777:"}); total != 1 || rows[0].Image != "acme/r777:1" {
		t.Errorf("by text there are %d", total)
	}
	since := s.Revision()
	s.index.link(promotion(5000).ID, "m1")
	s.index.link(promotion(5000).ID, "m1")
	s.index.put(promotion(6000))
	rows, total, _ = s.Rows(Query{Since: since})
	if total != 2 || rows[0].Image != "acme/r6000:1" || rows[1].Deliveries != 2 || rows[1].Revision <= since {
		t.Errorf("what changed is %+v", rows)
	}
	if len(s.index.rows) != maxRows || len(s.index.short) != maxRows || s.index.changed.Len() != maxRows {
		t.Errorf("it holds %d, %d, %d", len(s.index.rows), len(s.index.short), s.index.changed.Len())
	}
	if id, image := s.index.mentioned("`" + promotion(6000).ID[:8] + "`"); id != promotion(6000).ID || image != "acme/r6000:1" {
		t.Errorf("Slack speaks of %s %s", id, image)
	}
	// What a page requests each time that something changes.
	took := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			_, _, _ = s.Rows(Query{Since: since})
		}
	})
	if took.NsPerOp() > int64(time.Millisecond) { // hundreds of times what it takes
		t.Errorf("it takes %d ns to ask what has changed", took.NsPerOp())
	}
}

func TestHintsAreBounded(t *testing.T) {
	t.Parallel()
	h := newHints()
	for n := range maxHints + 5 {
		id := fmt.Sprint("m", n)
		h.taken(&pubsubapi.Message{ID: id, Attributes: map[string]string{"id": id, "source": "webhook"}, PublishTime: time.Unix(int64(n), 0)}, "acme/api:1", "{}", nil)
		h.begin(id, "acme/api:1")
		if h.inHand("acme/api:1") != id {
			t.Fatalf("%s is in hand, not %s", h.inHand("acme/api:1"), id)
		}
		h.attempt(id, "acme/api:1", "p", 1, outcome{Outcome: "retry"}, time.Unix(1, 0), true)
	}
	if len(h.all) != maxHints || len(h.dead) != maxHints || len(h.order) != maxHints || h.waiting() != maxHints || len(h.open) != 0 {
		t.Errorf("it holds %d, %d, %d, %d wait, %d open", len(h.all), len(h.dead), len(h.order), h.waiting(), len(h.open))
	}
}

func TestSecretsAreHidden(t *testing.T) {
	t.Parallel()
	const token = "glptt-0123456789+/abc"
	auth := base64.StdEncoding.EncodeToString([]byte("user:dckr_pat_secret"))
	s := newSecrets(token, `{"*":"glpat-abcdefghijk"}`, `{"auths":{"docker.io":{"auth":"`+auth+`"}}}`, "", "short")
	for text, want := range map[string]string{
		"":                                     "",
		"nothing to hide: eyJ, Bearer of news": "nothing to hide: eyJ, Bearer of news",
		"a " + token + " b":                    "a ••• b",
		"?t=" + url.QueryEscape(token):         "?t=•••",
		"x glpat-abcdefghijk":                  "x •••",
		"dckr_pat_secret":                      "•••",
		auth:                                   "•••",
		"Authorization: Bearer abcdefgh.ijkl-mno":            "Authorization: •••",
		"id token eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln": "id token •••",
		"short": "short",
	} {
		if got := s.hide(text); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
}

func TestBodiesAreCutAndSaySo(t *testing.T) {
	t.Parallel()
	const token = "sandbox-0123456789abcdef"
	s := &Sandbox{secrets: newSecrets(token)}
	for name, body := range map[string]string{
		"long":                          strings.Repeat("x", maxKept+1),
		"a secret where it is cut":      strings.Repeat("x", maxKept-5) + token,
		"a secret where it was read to": strings.Repeat("x", maxAnswer-5) + token[:5],
		"runes where it is cut":         strings.Repeat("é", maxKept),
	} {
		got := s.keep(body, maxAnswer)
		if len(got) > maxKept+20 || !strings.HasSuffix(got, "… (cut)") || strings.Contains(got, token[:5]) {
			t.Errorf("%s: %d bytes, which end in %q", name, len(got), got[len(got)-30:])
		}
	}
	if got := s.keep("short", maxAnswer); got != "short" {
		t.Errorf("it becomes %q", got)
	}
}

func TestAMessageIsReadable(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`{"message":{"data":"eyJ0YWciOiIxIn0=","messageId":"m1"}}`: `{"message":{"data":{"tag":"1"},"messageId":"m1"}}`,
		`{"message":{"data":"aGVsbG8="}}`:                          `{"message":{"data":"hello"}}`,
		`{"message":{"data":7}}`:                                   `{"message":{"data":7}}`,
		`{"message":[]}`:                                           `{"message":[]}`,
		`hello`:                                                    `hello`,
		``:                                                         ``,
	} {
		if got := readable([]byte(body)); got != want {
			t.Errorf("%s becomes %s", body, got)
		}
	}
}

// A status alone says little: what came of it is in the answer, in other words
// for each stage.
func TestAnAnswerSaysWhatCameOfIt(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		stage              Stage
		path, answer, want string
		status             int
	}{
		{Webhook, "/", `{"id":"a","message_id":"m1"}`, "queued as m1", 202},
		{Webhook, "/", `{"ignored":"no_tag"}`, "ignored, no_tag", 202},
		{Webhook, "/", `{"error":"no token"}`, "no token", 401},
		{Registry, "/v2/", ``, "sha256:0123456789ab", 200},
		{GitLab, "/", `{"id":7,"status":"created"}`, "pipeline 7, created", 201},
		{GitLab, "/", `[{"id":7}]`, "", 200},
		{GitLab, "/", `{"message":{"base":["Reference not found"]}}`, "Reference not found", 400},
		{GitLab, "/", `{"message":"401 Unauthorized"}`, "401 Unauthorized", 401},
		{GitLab, "/", `{"error":"no"}`, "no", 400},
		{GitLab, "/", `Retry later`, "Too Many Requests", 429},
		{Notify, "/", `{"channel":"C1","ts":"1.2"}`, "promoted; Slack shows it", 200},
		{Notify, "/", `{}`, "promoted", 200},
		{Notify, "/", `{"channel":"C1","ts":"1.2","slack":"is_archived","warning":"the digest is another"}`, "promoted; Slack shows it later; the digest is another", 202},
		{Slack, "/slack/api/chat.postMessage", `{"ok":true,"ts":"1.2"}`, "posted", 200},
		{Slack, "/slack/api/chat.update", `{"ok":true,"ts":"1.2"}`, "changed", 200},
		{Slack, "/slack/api/chat.postMessage", `{"ok":false,"error":"not_in_channel"}`, "not_in_channel", 200},
		{Hub, "/", `<h1>Bad Gateway</h1>`, "Bad Gateway", 502},
		{Slack, "/", `{"ok":7,"error":["x"]}`, "", 200},
		{Notify, "/", `"text"`, "promoted", 200},
		{Trigger, "/", ``, "", 0},
	} {
		w := httptest.NewRecorder()
		if c.stage == Registry {
			w.Header().Set("Docker-Content-Digest", "sha256:"+strings.Repeat("0123456789abcdef", 4))
		}
		seen := &seenWriter{ResponseWriter: w, status: c.status}
		seen.kept.WriteString(c.answer)
		x := &exchange{stage: c.stage, state: "promoted"}
		if got := x.came(httptest.NewRequest(http.MethodPost, c.path, nil), seen); got != c.want {
			t.Errorf("%s, %d %s: %q, want %q", c.stage, c.status, c.answer, got, c.want)
		}
	}
	if got := cutWords("a\n\tb" + strings.Repeat("é", maxWords)); !strings.HasPrefix(got, "a bé") || len([]rune(got)) != maxWords+1 {
		t.Errorf("it becomes %q", got)
	}
}

func TestSleepersWakeUpInTheirOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newClock()
		began := time.Now()
		var woke []time.Duration
		for _, d := range []time.Duration{time.Hour, time.Minute, 10 * time.Minute} {
			go c.work(func() {
				c.sleep(t.Context(), d)
				woke = append(woke, c.now().Sub(began))
			})
		}
		synctest.Wait()
		if c.busy() {
			t.Error("sleepers count as busy")
		}
		for range 2 {
			due, ok := c.next()
			if !ok {
				t.Fatal("nobody sleeps")
			}
			c.forward(due.Sub(c.now()))
			if !c.busy() {
				t.Error("whoever wakes up is not busy")
			}
			synctest.Wait()
		}
		c.forward(20 * time.Minute)
		time.Sleep(30 * time.Minute) // an hour in all, and half of that really passed
		synctest.Wait()
		if want := []time.Duration{time.Minute, 10 * time.Minute, time.Hour}; fmt.Sprint(woke) != fmt.Sprint(want) {
			t.Errorf("they woke up after %v, want %v", woke, want)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		c.work(func() { c.sleep(ctx, time.Hour) })
		if _, ok := c.next(); ok || c.busy() {
			t.Error("somebody sleeps still")
		}
	})
}

func TestMatchingLettersAreTaken(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	b := newLetterBox("s", func() time.Time { return now })
	for _, id := range []string{"m1", "m2", "m3"} {
		b.put(&pubsubapi.Message{ID: id, PublishTime: now})
	}
	first := b.take(func(m *pubsubpb.PubsubMessage) bool { return m.MessageId != "m2" })
	all := func(*pubsubpb.PubsubMessage) bool { return true }
	if second := b.take(all); len(first) != 2 || len(second) != 1 || second[0].Message.MessageId != "m2" {
		t.Errorf("took %v, then %v", first, second)
	}
	b.drop(first[0].AckId)
	if b.count() != 2 {
		t.Errorf("%d are left", b.count())
	}
	now = now.Add(2 * lease)
	if got := b.take(all); len(got) != 2 {
		t.Errorf("after the lease there are %v", got)
	}
}

func FuzzDecode(f *testing.F) {
	for _, body := range []string{
		"", "image=acme/api:1&kind=single", `{"image":"acme/api:1","times":3,"probability":0.5,"x":true,"y":null}`,
		`{"image":["a"]}`, `{"image":"a"}{"image":"b"}`, "image=1&image=2", "%zz", "[1]", "{", `{"image":1e999}`, `{"image":"a","image":"b"}`,
	} {
		f.Add("application/json", []byte(body))
		f.Add("application/x-www-form-urlencoded", []byte(body))
		f.Add("", []byte(body))
	}
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		found, err := decode(contentType, body, "image", "times")
		if err != nil && (found != nil || err.Error() == "" || strings.Contains(err.Error(), "\n")) {
			t.Fatalf("%v and %q", found, err)
		}
		for name := range found {
			if name != "image" && name != "times" {
				t.Fatalf("it takes %q", name)
			}
		}
		if err == nil {
			for _, read := range []func() error{
				func() error { _, err := number(found, "times", 1); return err }, func() error { _, err := duration(found, "times"); return err },
			} {
				if err := read(); err != nil && !strings.Contains(err.Error(), "times") {
					t.Fatal(err)
				}
			}
		}
	})
}

// The recorder can read any body.
func FuzzIdentify(f *testing.F) {
	f.Add([]byte(`{"message":{"attributes":{"repository":"acme/api","tag":"1"},"messageId":"m1"},"deliveryAttempt":3}`))
	f.Add([]byte(`{"repository":{"repo_name":"acme/api"},"push_data":{"tag":"1"}}`))
	f.Add([]byte(`token=x&variables[IMAGE_REPOSITORY]=acme/api&variables[IMAGE_TAG]=1&promotion_id=0123456789abcdef0123456789abcdef`))
	f.Add([]byte(strings.Repeat(`[`, 100) + strings.Repeat(`]`, 100)))
	s := &Sandbox{index: newIndex(), hints: newHints(), secrets: newSecrets("sandbox-0123456789abcdef")}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, stage := range []Stage{Webhook, Trigger, GitLab, Notify, Slack} {
			for _, contentType := range []string{"application/json", "application/x-www-form-urlencoded"} {
				x := &exchange{stage: stage}
				s.identify(x, request(contentType), body)
				if x.promotion != "" && !wholeID.MatchString(x.promotion) {
					t.Fatalf("it is about %q", x.promotion)
				}
				if x.attempt > 0 {
					s.hints.attempt(x.message, x.image, "", x.attempt, outcome{}, time.Time{}, false)
				}
			}
		}
		if got := s.keep(readable(body), maxAnswer); len(got) > maxKept+20 {
			t.Fatalf("%d bytes are kept", len(got))
		}
	})
}

func request(contentType string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/x", nil)
	r.Header.Set("Content-Type", contentType)
	return r
}
