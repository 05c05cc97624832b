package notify_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/getto-systems/hubrelay/functions/notify"
	"github.com/getto-systems/hubrelay/internal/auth"
	"github.com/getto-systems/hubrelay/internal/gcplog"
	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/route"
	"github.com/getto-systems/hubrelay/internal/slack"
)

// BenchmarkReport is the time that Notify itself takes for a report. Each is
// about another release, and not shown in the channel, where an instance posts
// only once a second.
func BenchmarkReport(b *testing.B) {
	tokens, err := auth.ParseTokens(staticToken)
	if err != nil {
		b.Fatal(err)
	}
	table, err := route.Parse(routes)
	if err != nil {
		b.Fatal(err)
	}
	h := notify.New(notify.Notify{
		Routes: table, Tokens: tokens, Promotions: ledger.New(ledger.NewMemory()), Slack: &poster{}, Language: slack.En,
		DefaultChannel: "C0DEFAULT", SilentAfter: time.Hour,
	}, gcplog.New(io.Discard, "p"))
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		r := httptest.NewRequest("POST", "/", strings.NewReader(fmt.Sprintf("status=success&event=release&repository=acme/quiet&key=%d&version=%d", n, n)))
		r.Header.Set("Authorization", "Bearer "+staticToken)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			b.Fatalf("got %d %s", w.Code, w.Body)
		}
	}
}
