package httpserver_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/getto-systems/hubrelay/internal/gcplog"
	"github.com/getto-systems/hubrelay/internal/httpserver"
	"github.com/getto-systems/hubrelay/internal/version"
)

// serve answers one request, and returns the log line that it left.
func serve(t *testing.T, h httpserver.Handler, r *http.Request) (*httptest.ResponseRecorder, map[string]any) {
	t.Helper()
	var log bytes.Buffer
	w := httptest.NewRecorder()
	httpserver.Serve(gcplog.New(&log, "p"), h).ServeHTTP(w, r)
	if log.Len() == 0 {
		return w, nil
	}
	line := map[string]any{}
	if err := json.Unmarshal(log.Bytes(), &line); err != nil {
		t.Fatalf("the log is not one JSON line: %s", log.String())
	}
	return w, line
}

func unreachable(*http.Request) (httpserver.Answer, error) { panic("the handler was asked") }

func TestReadyAndMethods(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		method, path string
		status       int
		body, allow  string
	}{
		{"GET", "/ready", 200, "ok", ""},
		{"HEAD", "/ready", 200, "ok", ""},
		{"GET", "/", 405, `"error"`, "POST"},
		{"PUT", "/ready", 405, `"error"`, "POST"},
		{"DELETE", "/x", 405, `"error"`, "POST"},
	} {
		w, line := serve(t, unreachable, httptest.NewRequest(c.method, c.path, nil))
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.body) || w.Header().Get("Allow") != c.allow || line != nil {
			t.Errorf("%s %s: got %d %s, Allow %q, log %v", c.method, c.path, w.Code, w.Body, w.Header().Get("Allow"), line)
		}
		says := ""
		if c.status == 200 {
			says = version.Number
		}
		if got := w.Header().Get("Hubrelay-Version"); got != says {
			t.Errorf("%s %s: version %q, want %q", c.method, c.path, got, says)
		}
	}
}

func TestOneAnswerAndOneLine(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequest("POST", "/", nil)
	r.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	w, line := serve(t, func(*http.Request) (httpserver.Answer, error) {
		return httpserver.Answer{Status: 202, Body: map[string]string{"id": "1"}, Message: "push queued", Attrs: []slog.Attr{slog.String("id", "1")}}, nil
	}, r)
	if w.Code != 202 || w.Body.String() != "{\"id\":\"1\"}\n" || w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	for key, want := range map[string]any{
		"severity": "INFO", "message": "push queued", "id": "1", "status": 202.0,
		"logging.googleapis.com/trace": "projects/p/traces/0af7651916cd43dd8448eb211c80319c",
	} {
		if line[key] != want {
			t.Errorf("%s is %v, want %v", key, line[key], want)
		}
	}
	if _, ok := line["duration_ms"].(float64); !ok {
		t.Errorf("no duration in %v", line)
	}
}

func TestRefusalsKeepTheirCause(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name              string
		err               error
		status            int
		public, retry     string
		severity, message string
	}{
		{"a refusal", &httpserver.Error{Status: 400, Public: "no tag", Cause: errors.New("private")}, 400, "no tag", "", "WARNING", "request refused"},
		{"a failure", &httpserver.Error{Status: 503, Public: "away", RetryAfter: 1500 * time.Millisecond, Cause: errors.New("private")}, 503, "away", "2", "ERROR", "request failed"},
		{"a mistake of ours", errors.New("private"), 500, "internal error", "", "ERROR", "request failed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w, line := serve(t, func(*http.Request) (httpserver.Answer, error) {
				return httpserver.Answer{Attrs: []slog.Attr{slog.String("id", "1")}}, c.err
			}, httptest.NewRequest("POST", "/", nil))
			if want := `{"error":"` + c.public + "\"}\n"; w.Code != c.status || w.Body.String() != want || w.Header().Get("Retry-After") != c.retry {
				t.Errorf("got %d %s, Retry-After %q", w.Code, w.Body, w.Header().Get("Retry-After"))
			}
			if line["severity"] != c.severity || line["message"] != c.message || line["id"] != "1" || !strings.Contains(line["error"].(string), "private") {
				t.Errorf("logged %v", line)
			}
		})
	}
}

func TestReadBodyIsBounded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		size    int
		chunked bool
		status  int
	}{
		{"at the limit", 100, false, 0},
		{"over the limit, by its length", 101, false, 413},
		{"over the limit, without a length", 101, true, 413},
	} {
		r := httptest.NewRequest("POST", "/", strings.NewReader(strings.Repeat("x", c.size)))
		if c.chunked {
			r.ContentLength = -1
		}
		body, err := httpserver.ReadBody(r, 100)
		var refusal *httpserver.Error
		if c.status == 0 && (err != nil || len(body) != c.size) || c.status != 0 && (!errors.As(err, &refusal) || refusal.Status != c.status) {
			t.Errorf("%s: %d bytes, %v", c.name, len(body), err)
		}
	}
}

func TestDrainWaitsForWhatIsInHand(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		drain := httpserver.NewDrain(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(3 * time.Second) }))
		start := time.Now()
		go drain.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/", nil))
		synctest.Wait()
		drain.Wait(time.Minute)
		if took := time.Since(start); took < 3*time.Second || took > 4*time.Second {
			t.Errorf("waited %v", took)
		}
		go drain.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/", nil))
		synctest.Wait()
		start = time.Now()
		drain.Wait(time.Second)
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("waited %v for what does not end", took)
		}
		time.Sleep(3 * time.Second)
	})
}

// No error may repeat a URL: its path may be a token.
