package notify_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/getto-systems/hubrelay/functions/notify"
	"github.com/getto-systems/hubrelay/internal/auth"
	"github.com/getto-systems/hubrelay/internal/gcplog"
	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/route"
	"github.com/getto-systems/hubrelay/internal/slack"
)

// brokenLedger knows one promotion, and fails where it is told to.
type brokenLedger struct{ get, report, told error }

var known = ledger.Promotion{
	Push:  ledger.Push{ID: "d1", Route: "acme/api", Repository: "acme/api", Tag: "1.4.0"},
	State: ledger.Running,
}

func (l brokenLedger) Get(context.Context, string) (ledger.Promotion, error) { return known, l.get }

func (l brokenLedger) Report(context.Context, ledger.Report) (ledger.Telling, error) {
	return ledger.Telling{Promotion: known, Tell: known.State, Needed: true}, l.report
}

func (l brokenLedger) Bury(context.Context, ledger.Letter) (ledger.Telling, error) {
	return ledger.Telling{Promotion: known, Tell: ledger.Failed, Needed: true}, l.report
}

func (l brokenLedger) Silent(context.Context, time.Duration, int) ([]string, error) {
	return []string{"d1", "d2"}, l.get
}

func (l brokenLedger) ReportSilence(context.Context, string, time.Duration) (ledger.Telling, error) {
	return ledger.Telling{Promotion: known, Tell: ledger.Silent, Needed: true}, l.report
}

func (l brokenLedger) Told(context.Context, ledger.Telling, ledger.Message) error { return l.told }

// poster is a Slack that takes everything, unless it is told to fail.
type poster struct {
	posts, updates, replies int
	err, replyErr           error
}

func (p *poster) Post(context.Context, string, slack.Message) (slack.Ref, error) {
	if p.err != nil {
		return slack.Ref{}, p.err
	}
	p.posts++
	return slack.Ref{Channel: "C1", TS: "1.1"}, nil
}

func (p *poster) Update(_ context.Context, r slack.Ref, _ slack.Message) (slack.Ref, error) {
	p.updates++
	return r, p.err
}

func (p *poster) Reply(context.Context, slack.Ref, slack.Message) error {
	p.replies++
	return cmp.Or(p.replyErr, p.err)
}

func TestALedgerThatIsAway(t *testing.T) {
	t.Parallel()
	away := errors.New("away")
	for _, c := range []struct {
		name   string
		ledger brokenLedger
		status int
		posts  int
		logged string
	}{
		{"when a promotion is looked up", brokenLedger{get: away}, 503, 0, "request failed"},
		{"when a report is recorded", brokenLedger{report: away}, 503, 0, "request failed"},
		{"while another report is being told, without end", brokenLedger{report: ledger.ErrInProgress}, 503, 0, "request failed"},
		{"when Slack was told: that stands", brokenLedger{told: away}, 200, 1, "ledger not updated"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				table, err := route.Parse(routes)
				if err != nil {
					t.Fatal(err)
				}
				tokens, err := auth.ParseTokens(staticToken)
				if err != nil {
					t.Fatal(err)
				}
				var (
					log bytes.Buffer
					say poster
				)
				h := notify.New(notify.Notify{Routes: table, Tokens: tokens, Promotions: c.ledger, Slack: &say}, gcplog.New(&log, "p"))
				r := httptest.NewRequest("POST", "/", strings.NewReader(form("status", "running", "repository", "acme/api", "delivery_id", "d1")))
				r.Header.Set("Authorization", "Bearer "+staticToken)
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				if w.Code != c.status || say.posts != c.posts || !strings.Contains(log.String(), c.logged) {
					t.Errorf("got %d %s, %d posts, log %s", w.Code, w.Body, say.posts, log.String())
				}
				if c.status == 503 && w.Header().Get("Retry-After") == "" {
					t.Error("no Retry-After")
				}
				if strings.Contains(w.Body.String(), "away\"") {
					t.Errorf("the cause shows in %s", w.Body)
				}
			})
		})
	}
}

// An error would have the caller report again, and so post again.
func TestAReplyThatFailsDoesNotPostAgain(t *testing.T) {
	t.Parallel()
	table, err := route.Parse(routes)
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := auth.ParseTokens(staticToken)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	say := &poster{replyErr: &slack.Error{Status: 503}}
	h := notify.New(notify.Notify{Routes: table, Tokens: tokens, Slack: say}, gcplog.New(&log, "p"))
	r := httptest.NewRequest("POST", "/", strings.NewReader(form("status", "failure", "repository", "acme/api")))
	r.Header.Set("Authorization", "Bearer "+staticToken)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != 200 || !strings.Contains(w.Body.String(), "1.1") || !strings.Contains(log.String(), "reply not sent") {
		t.Errorf("got %d %s, log %s", w.Code, w.Body, log.String())
	}
}
