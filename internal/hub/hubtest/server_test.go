package hubtest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/getto-systems/hubrelay/internal/hub/hubtest"
)

// answer is what is read of any answer.
type answer struct {
	status  int
	header  http.Header
	Token   string `json:"access_token"`
	Message string
	Detail  string
	Count   int
	Next    string
	Results []map[string]any
	Logs    []map[string]any
}

func send(t *testing.T, s http.Handler, method, target, bearer, body string) answer {
	t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	if bearer != "" {
		r.Header.Set("Authorization", "Bearer "+bearer)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	a := answer{status: w.Code, header: w.Header()}
	if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
		t.Fatalf("%s %s: %v: %s", method, target, err, w.Body)
	}
	return a
}

func get(t *testing.T, s http.Handler, target, bearer string) answer {
	t.Helper()
	return send(t, s, "GET", target, bearer, "")
}

func login(t *testing.T, s http.Handler, identifier, secret string) string {
	t.Helper()
	body, err := json.Marshal(map[string]string{"identifier": identifier, "secret": secret})
	if err != nil {
		t.Fatal(err)
	}
	return send(t, s, "POST", "/v2/auth/token", "", string(body)).Token
}

const (
	tags  = "/v2/namespaces/acme/repositories/api/tags"
	repos = "/v2/namespaces/acme/repositories"
	audit = "/v2/auditlogs/acme"
)

func newHub() *hubtest.Server {
	s := hubtest.New()
	s.AddAccount(hubtest.Account{Name: "acme", Secrets: []string{"token"}, AuditLogs: []string{"acme"}})
	s.AddAccount(hubtest.Account{Name: "alice", Secrets: []string{"password", "pat"}, Namespaces: []string{"acme"}})
	s.AddAccount(hubtest.Account{Name: "bob", Secrets: []string{"pat"}})
	s.AddRepository("acme/api", false)
	s.AddRepository("acme/secret", true)
	s.AuditLog("acme", 0)
	return s
}

func TestWhoSeesWhat(t *testing.T) {
	t.Parallel()
	s := newHub()
	tokens := map[string]string{
		"nobody": "", "acme": login(t, s, "acme", "token"), "alice": login(t, s, "alice", "pat"), "bob": login(t, s, "bob", "pat"),
		"a bad bearer": "bad", "a personal access token": "pat",
	}
	secret := strings.Replace(tags, "api", "secret", 1)
	s.Push(hubtest.Push{Repository: "acme/secret", Tag: "v1"})
	for who, want := range map[string][4]int{ // public tags, private tags, the audit log, repositories
		"nobody":                  {200, 404, 401, 1},
		"acme":                    {200, 200, 200, 2},
		"alice":                   {200, 200, 403, 2},
		"bob":                     {200, 404, 403, 1},
		"a bad bearer":            {401, 401, 401, 0},
		"a personal access token": {401, 401, 401, 0},
	} {
		got := [4]int{get(t, s, tags, tokens[who]).status, get(t, s, secret, tokens[who]).status, get(t, s, audit, tokens[who]).status, len(get(t, s, repos, tokens[who]).Results)}
		if got != want {
			t.Errorf("%s: got %v, want %v", who, got, want)
		}
	}
	for who, want := range map[string]int{"nobody": 404, "alice": 200, "bob": 404, "a bad bearer": 401} {
		if got := get(t, s, secret+"/v1", tokens[who]).status; got != want {
			t.Errorf("%s: got %d for a private tag, want %d", who, got, want)
		}
	}
	for _, wrong := range []string{`{"identifier":"alice","secret":"bad"}`, `{"identifier":"nobody","secret":"pat"}`} {
		if got := send(t, s, "POST", "/v2/auth/token", "", wrong); got.status != 401 || got.Token != "" {
			t.Errorf("%s: got %+v", wrong, got)
		}
	}
	s.ExpireTokens()
	if got := get(t, s, tags, tokens["acme"]); got.status != 401 {
		t.Errorf("an expired token: %d", got.status)
	}
	s.NoAuditLog("acme")
	if got := get(t, s, audit, login(t, s, "acme", "token")); got.status != 403 {
		t.Errorf("another plan: %d", got.status)
	}
}

func TestPages(t *testing.T) {
	t.Parallel()
	s := newHub()
	begin := time.Now().Add(-24 * time.Hour)
	for i := range 1200 {
		s.Push(hubtest.Push{Repository: "acme/api", Tag: fmt.Sprint("v", i), At: begin.Add(time.Duration(i) * time.Minute)})
		s.AddRepository(fmt.Sprintf("acme/r%04d", i), false)
	}
	acme := login(t, s, "acme", "token")
	for _, c := range []struct {
		name, target, bearer string
		rows                 int
		next                 string
	}{
		{"tags by default", tags, "", 10, "page=2"},
		{"a hundred tags at most", tags + "?page_size=1000", "", 100, "page=2"},
		{"the last page for nobody", tags + "?page_size=100&page=10", "", 100, "page=11"},
		{"a page that nobody sees", tags + "?page_size=100&page=11", "", 0, ""},
		{"a page after that, signed in", tags + "?page_size=100&page=11", acme, 100, "page=12"},
		{"the last page", tags + "?page_size=100&page=12", acme, 100, ""},
		{"beyond the last page", tags + "?page_size=100&page=13", acme, 0, ""},
		{"a hundred repositories for nobody", repos + "?page_size=100&page=2", "", 0, ""},
		{"more of them, signed in", repos + "?page_size=100&page=2", acme, 100, "page=3"},
		{"pushes by default", audit, acme, 25, ""},
		{"a hundred pushes at most", audit + "?page_size=200", acme, 100, ""},
		{"the last pushes", audit + "?page=48", acme, 25, ""},
		{"no more pushes", audit + "?page=49", acme, 0, ""},
		{"of another action", audit + "?action=repo.create", acme, 0, ""},
	} {
		got := get(t, s, c.target, c.bearer)
		if n := len(got.Results) + len(got.Logs); n != c.rows || !strings.Contains(got.Next, c.next) || (got.Next == "") != (c.next == "") {
			t.Errorf("%s: got %d rows, next %q", c.name, n, got.Next)
		}
		if (got.status == 403) != strings.Contains(got.Message, "pagination offset") {
			t.Errorf("%s: %d %s", c.name, got.status, got.Message)
		}
	}
}

func TestTheOrderOfTags(t *testing.T) {
	t.Parallel()
	s := newHub()
	begin := time.Now().Add(-time.Hour)
	for i, tag := range []string{"b", "c", "a"} {
		s.Push(hubtest.Push{Repository: "acme/api", Tag: tag, Digest: "sha256:1", At: begin.Add(time.Duration(i) * time.Minute)})
	}
	s.Push(hubtest.Push{Repository: "acme/api", Tag: "c", Digest: "sha256:0", At: begin.Add(-time.Minute)}) // told late
	s.Push(hubtest.Push{Repository: "acme/api", Tag: "d"})
	s.DeleteTag("acme/api", "d")
	for order, want := range map[hubtest.Order]string{hubtest.NewestFirst: "a c b", hubtest.OldestFirst: "b c a", hubtest.ByName: "a b c"} {
		s.List(order)
		var names []string
		for _, row := range get(t, s, tags, "").Results {
			names = append(names, fmt.Sprint(row["name"]))
			if row["digest"] != "sha256:1" || row["tag_status"] != "active" || row["last_updated"] != row["tag_last_pushed"] {
				t.Errorf("got %v", row)
			}
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("order %d: got %s, want %s", order, got, want)
		}
	}
}

func TestTheAuditLogIsLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newHub()
		s.AuditLog("acme", 5*time.Minute)
		begin := time.Now()
		s.Push(hubtest.Push{Repository: "acme/api", Tag: "v1", Digest: "sha256:1"})
		acme := login(t, s, "acme", "token")
		window := func(from, to time.Duration) string {
			return audit + "?action=repo.tag.push&from=" + begin.Add(from).UTC().Format(time.RFC3339) + "&to=" + begin.Add(to).UTC().Format(time.RFC3339)
		}
		if got := get(t, s, audit, acme).Logs; len(got) != 0 {
			t.Errorf("at once: got %v", got)
		}
		time.Sleep(5 * time.Minute)
		for target, want := range map[string]int{audit: 1, window(-time.Minute, time.Minute): 1, window(time.Second, time.Minute): 0, window(-time.Hour, -time.Second): 0} {
			if got := get(t, s, target, acme).Logs; len(got) != want {
				t.Errorf("%s: got %v", target, got)
			}
		}
		if got := get(t, s, audit+"?from=yesterday", acme); got.status != 400 {
			t.Errorf("a time that is none: %d", got.status)
		}
		time.Sleep(5 * time.Minute)
		if got := get(t, s, audit, acme); got.status != 401 {
			t.Errorf("after ten minutes the token gets %d", got.status)
		}
	})
}

func TestCallsAreLimited(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newHub()
		acme := login(t, s, "acme", "token")
		s.RateLimit(2)
		reset := fmt.Sprint(time.Now().Add(time.Minute).Unix())
		for i, want := range []string{"1", "0"} {
			if h := get(t, s, tags, "").header; h.Get("X-RateLimit-Remaining") != want || h.Get("X-RateLimit-Reset") != reset || h.Get("X-RateLimit-Limit") != "2" {
				t.Errorf("call %d: got %v", i, h)
			}
		}
		time.Sleep(10 * time.Second)
		if got := get(t, s, tags, ""); got.status != 429 || got.header.Get("X-Retry-After") != reset || got.Detail != "Rate limit exceeded" {
			t.Errorf("over the limit: got %+v", got)
		}
		if got := get(t, s, tags, acme); got.status != 200 {
			t.Errorf("an account of its own: %d", got.status)
		}
		time.Sleep(50 * time.Second)
		if got := get(t, s, tags, ""); got.status != 200 {
			t.Errorf("a minute later: %d", got.status)
		}
	})
}

func TestFailures(t *testing.T) {
	t.Parallel()
	s := newHub()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	ask := func(ctx context.Context) (status int, body string, err error) {
		r, err := http.NewRequestWithContext(ctx, "GET", server.URL+tags, nil)
		if err != nil {
			return 0, "", err
		}
		r.Close = true
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			return 0, "", err
		}
		defer res.Body.Close()
		raw, err := io.ReadAll(res.Body)
		return res.StatusCode, string(raw), err
	}
	s.Away(hubtest.Failure{Status: 500, Body: "away"})
	s.Fail(hubtest.Page(403), hubtest.Failure{Reset: true})
	if status, body, err := ask(t.Context()); status != 403 || !strings.Contains(body, "<html>") || err != nil {
		t.Errorf("a page: got %d %s, %v", status, body, err)
	}
	if _, _, err := ask(t.Context()); !errors.Is(err, io.EOF) {
		t.Errorf("a reset: got %v", err)
	}
	if status, body, err := ask(t.Context()); status != 500 || body != "away" || err != nil {
		t.Errorf("away: got %d %s, %v", status, body, err)
	}
	s.Back()
	if status, _, err := ask(t.Context()); status != 200 || err != nil {
		t.Errorf("back: got %d, %v", status, err)
	}
	s.Fail(hubtest.Failure{Hang: true})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, _, err := ask(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a hang: got %v", err)
	}
	if calls := s.Calls(); len(calls) != 5 || calls[0].Path != tags || calls[0].Method != "GET" || calls[0].Account != "" {
		t.Errorf("got %+v", calls)
	}
}
