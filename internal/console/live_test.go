package console

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/sandbox"
)

// message is one of a stream.
type message struct{ ID, Event, Data string }

// listener is a browser's end of a stream.
type listener struct {
	http.ResponseWriter
	header http.Header
	stop   context.CancelFunc
	done   chan struct{}

	mu    sync.Mutex
	text  strings.Builder
	count int // writes
}

func (l *listener) Header() http.Header { return l.header }
func (l *listener) WriteHeader(int)     {}
func (l *listener) Flush()              {}
func (l *listener) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count++
	return l.text.Write(p)
}

// take returns the messages since the last call.
func (l *listener) take() (list []message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for part := range strings.SplitSeq(l.text.String(), "\n\n") {
		var m message
		for line := range strings.Lines(part + "\n") {
			name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
			switch name {
			case "id":
				m.ID = value
			case "event":
				m.Event = value
			case "data":
				m.Data += value + "\n"
			}
		}
		if m.Event != "" {
			list = append(list, m)
		}
	}
	l.text.Reset()
	return list
}

var connects = regexp.MustCompile(`sse-connect="([^"]*)"`)

// open loads the page, and returns the address of its stream.
func open(t *testing.T, h http.Handler, path string) string {
	t.Helper()
	answer := httptest.NewRecorder()
	h.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, path, nil))
	found := connects.FindStringSubmatch(answer.Body.String())
	if found == nil {
		t.Fatalf("%s has no stream:\n%s", path, answer.Body)
	}
	return strings.ReplaceAll(found[1], "&amp;", "&")
}

// listen opens a stream; lastID is the last ID of a browser that reconnects.
func listen(t *testing.T, h http.Handler, stream, lastID string) *listener {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	l := &listener{header: http.Header{}, stop: stop, done: make(chan struct{})}
	r := httptest.NewRequest(http.MethodGet, stream, nil).WithContext(ctx)
	if lastID != "" {
		r.Header.Set("Last-Event-ID", lastID)
	}
	go func() {
		defer close(l.done)
		h.ServeHTTP(l, r)
	}()
	return l
}

// writes returns how many there were since the last call.
func (l *listener) writes() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.count
	l.count = 0
	return n
}

func (l *listener) close() { l.stop(); <-l.done }

func all(list []message) string {
	var text strings.Builder
	for _, m := range list {
		text.WriteString(m.Event + " " + m.Data)
	}
	return text.String()
}

func count1(t *testing.T, text, part string, want int) {
	t.Helper()
	if n := strings.Count(text, part); n != want {
		t.Errorf("%q is there %d times, not %d, in\n%s", part, n, want, text)
	}
}

func TestStreamPatchesWhatHasChanged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.put(rowOf(1, ledger.Running))
		f.put(rowOf(2, ledger.Running))
		f.say(sandbox.Event{Who: "trigger", What: "one"})
		f.stages = []sandbox.StageNow{{Stage: sandbox.Hub}}
		h := serve(f, hints{})
		l := listen(t, h, open(t, h, "/"), "")
		defer l.close()
		time.Sleep(2 * time.Second)
		got := all(l.take())
		count1(t, got, "<tr", 0)
		count1(t, got, "happened-", 0)

		// A row changes.
		f.put(rowOf(1, ledger.Promoted))
		f.say(sandbox.Event{Who: "notify", What: "two", PromotionID: rowOf(1, "").ID})
		time.Sleep(2 * time.Second)
		got = all(l.take())
		count1(t, got, "<tr", 1)
		count1(t, got, `id="row-`+rowOf(1, "").ID+`" hx-swap-oob="true"`, 1)
		count1(t, got, "promotion-"+rowOf(1, "").ID+" ", 1)
		count1(t, got, `id="happened-2"`, 1)
		count1(t, got, `id="happened-1"`, 0)
		count1(t, got, "acme/api:1.1.0 promoted.", 1)

		// Two are new: above all, in their order.
		f.put(rowOf(3, ledger.Waiting))
		f.put(rowOf(4, ledger.Waiting))
		f.say(sandbox.Event{Who: "trigger", What: "three"})
		time.Sleep(2 * time.Second)
		got = all(l.take())
		count1(t, got, "<tr", 2)
		count1(t, got, `hx-swap-oob="afterbegin:#rows"`, 1)
		count1(t, got, `hx-swap-oob="afterend:#row-`+rowOf(4, "").ID+`"`, 1)
		count1(t, got, "of 4", 1)

		// A fault is no event.
		f.mu.Lock()
		f.stages[0].Faults = []sandbox.Fault{{ID: 1, Stage: sandbox.Hub, Answer: "lost"}}
		f.mu.Unlock()
		time.Sleep(time.Second)
		got = all(l.take())
		count1(t, got, "is-broken", 1)
		count1(t, got, "All well again", 1)
		count1(t, got, "<tr", 0)

		// Nor is the clock sent while it moves forward.
		f.mu.Lock()
		f.ahead = 10*time.Minute - 300*time.Millisecond
		f.mu.Unlock()
		time.Sleep(time.Second)
		count1(t, all(l.take()), "Clock 10 min 00 s ahead", 1)
		count1(t, get(t, h, "/").Body.String(), "Clock 10 min 00 s ahead", 1)
		time.Sleep(time.Second)
		count1(t, all(l.take()), "ahead", 0)

		// A change that is recorded after its event is still shown.
		f.say(sandbox.Event{Who: "trigger", What: "four"})
		time.Sleep(300 * time.Millisecond)
		f.put(rowOf(4, ledger.Dead))
		time.Sleep(2 * time.Second)
		count1(t, all(l.take()), "dead.", 1)
	})
}

func TestStreamOfAFilterShowsWhatMatches(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.put(rowOf(1, ledger.Failed))
		f.put(rowOf(2, ledger.Promoted))
		h := serve(f, hints{})
		l := listen(t, h, open(t, h, "/?state=failed"), "")
		defer l.close()
		time.Sleep(time.Second)
		l.take()
		f.put(rowOf(1, ledger.Promoted))
		f.put(rowOf(2, ledger.Failed))
		f.say(sandbox.Event{What: "changed"})
		time.Sleep(2 * time.Second)
		got := all(l.take())
		count1(t, got, `id="row-`+rowOf(1, "").ID+`" hx-swap-oob="delete"`, 1)
		count1(t, got, `hx-swap-oob="afterbegin:#rows"`, 1)
	})
}

// The one story that is open may be any of those of a burst.
func TestStreamOfABurstLeavesNoStoryOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		h := serve(f, hints{})
		l := listen(t, h, open(t, h, "/"), "")
		defer l.close()
		time.Sleep(time.Second)
		l.take()
		for _, c := range []struct{ pushed, named, all int }{{maxPatched, maxPatched, 0}, {maxPatched + 1, 0, 1}} {
			for n := range c.pushed {
				f.say(sandbox.Event{What: "promoted", PromotionID: rowOf(n, "").ID})
			}
			time.Sleep(time.Second)
			got := all(l.take())
			count1(t, got, "promotion-0", c.named)
			count1(t, got, "promotions news", c.all)
		}
	})
}

// Whoever looks at a later page of what passes is not left with an empty one.
func TestStreamOfAPageThatIsNoMoreShowsTheLast(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		for n := range perPage + 1 {
			f.put(rowOf(n, ledger.Waiting))
		}
		h := serve(f, hints{})
		l := listen(t, h, open(t, h, "/?state=waiting&page=2"), "")
		defer l.close()
		time.Sleep(time.Second)
		count1(t, all(l.take()), "<tr", 0)
		for n := range 99 {
			f.put(rowOf(n, ledger.Promoted))
		}
		f.say(sandbox.Event{What: "changed"})
		time.Sleep(2 * time.Second)
		got := all(l.take())
		count1(t, got, `class="is-new"`, 2)
		count1(t, got, "1–2 of 2", 1)
	})
}

func TestStreamComesBack(t *testing.T) {
	t.Parallel()
	at := func(stream, name, value string) string {
		u, _ := url.Parse(stream)
		q := u.Query()
		q.Set(name, value)
		return u.Path + "?" + q.Encode()
	}
	for _, c := range []struct {
		name   string
		stream func(string) string
		lastID string
		forget int64
		reload bool
		feed   []int64 // the events that are added to the feed
		anew   bool    // the feed is replaced
	}{
		{name: "with what it has seen, and gets what it missed", lastID: "3", feed: []int64{4, 5}},
		{name: "having missed nothing", lastID: "5"},
		{name: "as a new one, which gets the feed anew", feed: []int64{1, 2, 3, 4, 5}, anew: true},
		{name: "after what it missed was forgotten", lastID: "2", forget: 4, reload: true},
		{name: "at the edge of what is remembered", lastID: "4", forget: 4, feed: []int64{5}, anew: true},
		{name: "to another run", lastID: "3", stream: func(s string) string { return at(s, "run", "other") }, reload: true},
		{name: "from the future", lastID: "99", reload: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				f.put(rowOf(1, ledger.Running))
				f.say(sandbox.Event{What: "one"})
				h := serve(f, hints{})
				stream := open(t, h, "/")
				for range 4 {
					f.say(sandbox.Event{What: "more", PromotionID: rowOf(1, "").ID})
				}
				f.put(rowOf(1, ledger.Promoted))
				f.put(rowOf(2, ledger.Waiting))
				f.forget(c.forget)
				if c.stream != nil {
					stream = c.stream(stream)
				}
				l := listen(t, h, stream, c.lastID)
				defer l.close()
				time.Sleep(3 * time.Second)
				list := l.take()
				got := all(list)
				if c.reload {
					count1(t, got, "reload", 2)
					count1(t, got, "<tr", 0)
					return
				}
				// The table is brought up to date, whatever it was.
				count1(t, got, `hx-swap-oob="innerHTML:#rows"`, 1)
				count1(t, got, "<tr", 2)
				for id := int64(1); id <= 5; id++ {
					want := 0
					for _, n := range c.feed {
						if n == id {
							want = 1
						}
					}
					count1(t, got, `id="happened-`+strconv.FormatInt(id, 10)+`"`, want)
				}
				replaced := 0
				if c.anew {
					replaced = 1
				}
				count1(t, got, `hx-swap-oob="innerHTML:#feed"`, replaced)
				if last := list[len(list)-1]; last.ID != "5" {
					t.Errorf("the last message has the number %q, not that of the newest event", last.ID)
				}
			})
		})
	}
}

func TestStreamIsPaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		h := serve(f, hints{})
		l := listen(t, h, open(t, h, "/"), "")
		defer l.close()
		time.Sleep(3 * time.Second)
		l.take()
		l.writes()
		for n := range 1000 { // a hundred events a second, for ten seconds
			f.put(rowOf(n, ledger.Waiting))
			f.say(sandbox.Event{What: "busy"})
			time.Sleep(10 * time.Millisecond)
		}
		synctest.Wait()
		if n := l.writes(); n < 30 || n > 41 {
			t.Errorf("%d patches in ten seconds, not four a second", n)
		}
		// Without changes there is only a heartbeat.
		time.Sleep(5 * time.Second)
		l.take()
		l.writes()
		time.Sleep(time.Minute)
		if n := l.writes(); n < 3 || n > 5 || len(l.take()) != 0 {
			t.Errorf("%d writes in a minute of rest", n)
		}
	})
}

func TestFeedIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		for range 2 * maxFeed {
			f.say(sandbox.Event{What: "before"})
		}
		h := serve(f, hints{})
		l := listen(t, h, open(t, h, "/"), "")
		defer l.close()
		time.Sleep(time.Second)
		l.take()
		for range 3 {
			f.say(sandbox.Event{What: "after"})
		}
		f.say(sandbox.Event{What: "a call", Call: &sandbox.Call{}})
		time.Sleep(2 * time.Second)
		got := all(l.take())
		count1(t, got, "<li", 6)
		count1(t, got, `hx-swap-oob="delete"`, 3)
		count1(t, got, `id="happened-`+strconv.Itoa(maxFeed+1)+`" hx-swap-oob="delete"`, 1)

		// A browser that comes back has the same feed, and loses the same.
		l.close()
		l = listen(t, h, open(t, h, "/"), strconv.Itoa(2*maxFeed+4))
		f.say(sandbox.Event{What: "later"})
		time.Sleep(2 * time.Second)
		count1(t, all(l.take()), `id="happened-`+strconv.Itoa(maxFeed+4)+`" hx-swap-oob="delete"`, 1)

		// If nearly everything is new, everything is replaced.
		f.say(slices.Repeat([]sandbox.Event{{What: "burst"}}, 200)...) // together, or there are two patches
		time.Sleep(2 * time.Second)
		got = all(l.take())
		count1(t, got, `hx-swap-oob="innerHTML:#feed"`, 1)
		count1(t, got, `id="happened-`, maxFeed)
		l.close()
	})
}

// The number of streams is limited, and a stream that closes makes room for
// another.
func TestStreamsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := serve(newFake(), hints{})
		stream := open(t, h, "/")
		var all []*listener
		for range maxStreams {
			all = append(all, listen(t, h, stream, ""))
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		refused := httptest.NewRecorder()
		h.ServeHTTP(refused, httptest.NewRequest(http.MethodGet, stream, nil).WithContext(ctx))
		if refused.Code != http.StatusServiceUnavailable {
			t.Errorf("one more is answered %d", refused.Code)
		}
		for _, l := range all {
			l.close()
		}
		again := listen(t, h, stream, "")
		synctest.Wait()
		if again.writes() == 0 {
			t.Error("where all have closed, none opens")
		}
		again.close()
	})
}
