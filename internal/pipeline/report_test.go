package pipeline

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getto-systems/hubrelay/internal/coordinator"
)

const (
	idToken  = "canary.id.token"
	someHash = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
)

// notify accepts reports like Notify, and gives the answers that are set.
type notify struct {
	t   *testing.T
	url string

	mu      sync.Mutex
	asked   int
	reports []url.Values
	answers []int  // to the next requests; 200 after them
	after   string // Retry-After of a 503
}

func newNotify(t *testing.T) *notify {
	t.Helper()
	n := &notify{t: t, after: "1"}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.asked++
		if r.Header.Get("Authorization") != "Bearer "+idToken {
			http.Error(w, `{"error":"no valid token"}`, http.StatusUnauthorized)
			return
		}
		status := http.StatusOK
		if len(n.answers) > 0 {
			status, n.answers = n.answers[0], n.answers[1:]
		}
		if status == http.StatusServiceUnavailable {
			w.Header().Set("Retry-After", n.after)
		}
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, `{"status":%d}`, status)
		if err := r.ParseForm(); err == nil && status < 300 {
			n.reports = append(n.reports, r.PostForm)
		}
	}))
	t.Cleanup(server.Close)
	n.url = server.URL
	return n
}

// report runs one of the jobs that report, with the variables of the promotion
// job.
func (n *notify) report(name string, handed map[string]string, with ...string) coordinator.Attempt {
	n.t.Helper()
	with = append([]string{
		"notify_url", n.url, "image_repository", "acme/api", "image_tag", "1.4.0", "image_digest", someHash, "promotion_id", somePromotion,
	}, with...)
	p, runner := pipelineWith(n.t, []string{"sh", "-l"}, "", with...)
	if name == "hubrelay-failed" {
		failed := *p.Job("hubrelay-failed")
		failed.When = "on_success"
		p.Jobs = []*coordinator.Job{&failed}
	}
	runner.Token = func(*coordinator.Pipeline, string) (string, error) { return idToken, nil }
	a, err := runner.RunJob(n.t.Context(), p, name, handed)
	if err != nil {
		n.t.Fatal(err)
	}
	return a
}

// want compares the last report with pairs of a field and its value.
func (n *notify) want(pairs ...string) {
	n.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.reports) == 0 {
		n.t.Error("nothing was reported")
		return
	}
	last := n.reports[len(n.reports)-1]
	for pair := range slices.Chunk(pairs, 2) {
		if got := last.Get(pair[0]); got != pair[1] && !(pair[1] != "" && strings.HasSuffix(pair[1], "…") && strings.HasPrefix(got, strings.TrimSuffix(pair[1], "…"))) {
			n.t.Errorf("%s is %q, want %q: %v", pair[0], got, pair[1], last)
		}
	}
}

func TestReportsSayWhatHappened(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ job, status, message, reported, says string }{
		"running":                           {"hubrelay-running", "", "", "running", ""},
		"success":                           {"hubrelay-done", "success", "signed; latest moved to it", "success", "signed; latest moved to it"},
		"skipped":                           {"hubrelay-done", "skipped", "signed already", "skipped", "signed already"},
		"superseded":                        {"hubrelay-done", "superseded", "1.4.0 is another image now", "superseded", "1.4.0 is another image now"},
		"failure":                           {"hubrelay-failed", "failure", "it is not known whether it is signed", "failure", "it is not known whether it is signed"},
		"failure of which nothing was left": {"hubrelay-failed", "", "", "failure", "the promotion did not start…"},
		"failure of another job, after it":  {"hubrelay-failed", "success", "signed", "success", "signed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNotify(t)
			handed := map[string]string{"HUBRELAY_PIPELINE": "1", "HUBRELAY_STATUS": c.status, "HUBRELAY_MESSAGE": c.message, "HUBRELAY_DIGEST": someHash}
			if a := n.report(c.job, handed); a.Code != 0 || !strings.Contains(a.Log, saysVersion) {
				t.Errorf("exit code %d\n%s", a.Code, a.Log)
			}
			n.want("status", c.reported, "message", c.says, "promotion_id", somePromotion, "repository", "acme/api", "tag", "1.4.0",
				"digest", someHash, "pipeline_url", url1, "ts", "", "delivery_id", "")
		})
	}
}

// If build folders stay, a job that was killed before it began leaves the file
// of an earlier job.
func TestWhatAnotherPipelineLeftIsNotReported(t *testing.T) {
	t.Parallel()
	h := newHub(t, true)
	n := newNotify(t)
	var runner *coordinator.Runner
	for i, tag := range []string{"1.0.0", "1.0.1", "1.0.2"} {
		p, fresh := pipelineWith(t, h.shell, "", "notify_url", n.url, "registry", h.host, "image_repository", "acme/api", "image_tag", tag,
			"image_digest", h.push(tag), "promotion_id", somePromotion, "CI_PIPELINE_URL", fmt.Sprintf("https://gitlab.example/p/%d", i+1))
		if runner == nil {
			runner = fresh // and with it, its build folder
			runner.Token = func(*coordinator.Pipeline, string) (string, error) { return idToken, nil }
		}
		runner.Sabotage = func(name string, _ int) coordinator.Sabotage {
			return coordinator.Sabotage{Before: tag == "1.0.1" && name == "hubrelay-promote"}
		}
		result, err := runner.Run(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		status, message := "success", "signed; latest moved to it"
		if tag == "1.0.1" {
			status, message = "failure", "the promotion did not start…"
			// The file is there, and is handed on.
			if left := result.Jobs["hubrelay-promote"].Dotenv; left["HUBRELAY_STATUS"] != "success" {
				t.Errorf("nothing was left: %v", left)
			}
		}
		n.want("status", status, "message", message, "tag", tag)
	}
	if len(n.reports) != 6 {
		t.Errorf("there were %d reports: %v", len(n.reports), n.reports)
	}
}

func TestACancellationIsReportedByThePromotionItself(t *testing.T) {
	t.Parallel()
	h := newHub(t, true)
	n := newNotify(t)
	digest := h.push("1.0.0")
	entered := make(chan struct{})
	h.once(`^GET .*/referrers/`, func() { close(entered); time.Sleep(4 * time.Second) })
	p, runner := pipelineWith(t, h.shell, "", "notify_url", n.url, "registry", h.host, "image_repository", "acme/api", "image_tag", "1.0.0", "image_digest", digest, "promotion_id", somePromotion)
	runner.Token = func(*coordinator.Pipeline, string) (string, error) { return idToken, nil }
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-entered
		cancel()
	}()
	a, err := runner.RunJob(ctx, p, "hubrelay-promote", nil)
	if err != nil {
		t.Fatal(err)
	}
	if a.Status != "canceled" {
		t.Errorf("the job is %s\n%s", a.Status, a.Log)
	}
	n.want("status", "failure", "message", "the job was canceled", "promotion_id", somePromotion)

	// Any other end is the report of a later job.
	for _, tag := range []string{"1.0.0", "1.0.9"} {
		h.promote(tag, "", "notify_url", n.url)
	}
	if len(n.reports) != 1 {
		t.Errorf("it reported %v", n.reports)
	}
}

func TestASuccessWithoutAResultIsNotReported(t *testing.T) {
	t.Parallel()
	n := newNotify(t)
	for _, handed := range []map[string]string{
		{}, {"HUBRELAY_PIPELINE": "1", "HUBRELAY_STATUS": "failure"}, {"HUBRELAY_PIPELINE": "1", "HUBRELAY_STATUS": "running"},
		{"HUBRELAY_STATUS": "success"}, {"HUBRELAY_PIPELINE": "2", "HUBRELAY_STATUS": "success"},
	} {
		if a := n.report("hubrelay-done", handed); a.Code == 0 || n.asked != 0 {
			t.Errorf("%v: exit code %d, %d reports\n%s", handed, a.Code, n.asked, a.Log)
		}
	}
}

func TestAReportComesBackWhenNotifyAsksForIt(t *testing.T) {
	t.Parallel()
	n := newNotify(t)
	n.answers = []int{503, 502, 429}
	done := map[string]string{"HUBRELAY_PIPELINE": "1", "HUBRELAY_STATUS": "success"}
	if a := n.report("hubrelay-done", done); a.Code != 0 || n.asked != 4 {
		t.Errorf("exit code %d after %d requests\n%s", a.Code, n.asked, a.Log)
	}
	// A report that Notify has recorded while Slack is down is not sent again.
	n.answers = []int{202}
	for _, job := range []string{"hubrelay-done", "hubrelay-running"} {
		before := n.asked
		if a := n.report(job, done); a.Code != 0 || n.asked != before+1 {
			t.Errorf("%s: exit code %d after %d requests\n%s", job, a.Code, n.asked-before, a.Log)
		}
	}
}

// The promotion waits for the first report.
func TestNotifyBeingDownDelaysNoPromotion(t *testing.T) {
	t.Parallel()
	n := newNotify(t)
	n.answers, n.after = slices.Repeat([]int{503}, 100), "600"
	p, runner := pipelineWith(t, []string{"sh", "-l"}, "", "notify_url", n.url, "image_repository", "acme/api", "image_tag", "1.4.0")
	runner.Token = func(*coordinator.Pipeline, string) (string, error) { return idToken, nil }
	p.Jobs = slices.DeleteFunc(p.Jobs, func(j *job) bool { return j.Name != "hubrelay-running" })
	began := time.Now()
	result, err := runner.Run(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	if result.Status != "success" || len(result.Order) != 1 || time.Since(began) > 40*time.Second {
		t.Errorf("the pipeline is %s after %v in %v", result.Status, result.Order, time.Since(began))
	}
}

func TestARefusedReportFailsAndSaysWhy(t *testing.T) {
	t.Parallel()
	n := newNotify(t)
	n.answers = []int{403}
	a := n.report("hubrelay-running", nil)
	if a.Code == 0 || n.asked != 1 || !strings.Contains(a.Log, `"status":403`) {
		t.Errorf("exit code %d after %d requests\n%s", a.Code, n.asked, a.Log)
	}
}

func TestNamesThatNotifyWouldRefuseAreLeftOut(t *testing.T) {
	t.Parallel()
	n := newNotify(t)
	hostile := "$(touch owned)\n'\"&status=success"
	a := n.report("hubrelay-failed", nil, "image_repository", "", "image_tag", "", "image_digest", "", "promotion_id", "",
		"PROMOTION_ID", somePromotion, "IMAGE_REPOSITORY", hostile, "IMAGE_TAG", hostile, "IMAGE_DIGEST", hostile)
	if a.Code != 0 {
		t.Errorf("exit code %d\n%s", a.Code, a.Log)
	}
	n.want("status", "failure", "promotion_id", somePromotion, "repository", "", "tag", "", "digest", "")
}

func TestNamesOfVariablesAreReported(t *testing.T) {
	t.Parallel()
	n := newNotify(t)
	n.report("hubrelay-running", nil, "image_repository", "", "image_tag", "", "image_digest", "", "promotion_id", "",
		"IMAGE_REPOSITORY", "acme/api", "IMAGE_TAG", "1.4.0", "IMAGE_DIGEST", someHash, "PROMOTION_ID", somePromotion)
	n.want("status", "running", "promotion_id", somePromotion, "repository", "acme/api", "tag", "1.4.0", "digest", someHash)
}

func TestTheTokenIsOnNoCommandLine(t *testing.T) {
	t.Parallel()
	n := newNotify(t)
	dir := t.TempDir()
	spy := "#!/bin/sh\nprintf '%s\\n' \"$@\" > " + dir + "/arguments\nPATH=" + os.Getenv("PATH") + " exec curl \"$@\"\n"
	if err := os.WriteFile(filepath.Join(dir, "curl"), []byte(spy), 0o700); err != nil {
		t.Fatal(err)
	}
	a := n.report("hubrelay-running", nil, "PATH", dir+":"+os.Getenv("PATH"))
	n.want("status", "running")
	arguments := read(t, filepath.Join(dir, "arguments"))
	if strings.Contains(arguments, idToken) || !strings.Contains(arguments, "status=running") {
		t.Errorf("curl was called with %s", arguments)
	}
	if strings.Contains(a.Log, idToken) {
		t.Error("the log holds the token")
	}
}
