package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"

	"github.com/getto-systems/hubrelay/internal/gitlab/gitlabtest"
	"github.com/getto-systems/hubrelay/internal/sandbox"
)

// These benchmarks measure processes. They compare Webhook with handlers that
// do less. All take turns, in rounds, so that other load on the machine affects
// each of them. One operation is one turn: run them with `make bench`, which
// sets -benchtime 1x.

const rounds = 7

// Of one turn.
const (
	turn       = time.Second // of pushes over one number of connections
	starts     = 5           // of a process
	endToEnd   = 200         // pushes, one after another
	manyPushes = 100_000
)

// bareMain is a minimal handler: it reads the body and publishes it, with
// Webhook's batching. It is served by the functions framework, or by net/http
// alone.
const bareMain = `package main

import (
	"context"
	"io"
	"log"
	"net/http"
	"os"
	"time"

	"cloud.google.com/go/pubsub/v2"
%s)

func main() {
	client, err := pubsub.NewClient(context.Background(), "demo")
	if err != nil {
		log.Fatal(err)
	}
	topic := client.Publisher("pushes")
	topic.PublishSettings.DelayThreshold = time.Millisecond
	handler := func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil && len(body) > 0 {
			_, err = topic.Publish(r.Context(), &pubsub.Message{Data: body}).Get(r.Context())
		}
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}
	log.Fatal(%s)
}
`

const (
	frameworkImports = `
	"github.com/GoogleCloudPlatform/functions-framework-go/funcframework"
	"github.com/GoogleCloudPlatform/functions-framework-go/functions"
`
	serveByFramework = `func() error {
		functions.HTTP("Webhook", handler)
		return funcframework.Start(os.Getenv("PORT"))
	}()`
	serveByNetHTTP = `http.ListenAndServe(":"+os.Getenv("PORT"), http.HandlerFunc(handler))`
)

type handler struct{ name, program string }

// handlers are Webhook and the handlers that it is compared with. The first is
// the base of the comparison.
func handlers(b *testing.B) []handler {
	b.Helper()
	list := []handler{{name: "bare-framework"}, {name: "bare-net/http"}, {name: "webhook"}}
	for i, build := range []func() (string, error){bareFramework, bareNetHTTP, program} {
		var err error
		if list[i].program, err = build(); err != nil {
			b.Fatal(err)
		}
	}
	return list
}

var (
	bareFramework = sync.OnceValues(func() (string, error) { return build(fmt.Sprintf(bareMain, frameworkImports, serveByFramework)) })
	bareNetHTTP   = sync.OnceValues(func() (string, error) { return build(fmt.Sprintf(bareMain, "", serveByNetHTTP)) })
)

// inTurns runs a benchmark of each handler in turn, in several rounds.
func inTurns(b *testing.B, run func(*testing.B, handler)) {
	list := handlers(b)
	for round := range rounds {
		for _, h := range list {
			b.Run(fmt.Sprintf("round=%d/handler=%s", round, strings.ReplaceAll(h.name, "/", "-")), func(b *testing.B) {
				b.ReportMetric(0, "ns/op") // is that of a turn
				run(b, h)
			})
		}
	}
}

// BenchmarkStart is the time from the start of a process to its first answer.
func BenchmarkStart(b *testing.B) {
	inTurns(b, func(b *testing.B, h handler) {
		var took []time.Duration
		for range starts {
			began := time.Now()
			s := serve(b, h.program, webhookSettings("127.0.0.1:1"))
			took = append(took, time.Since(began))
			s.stop()
		}
		slices.Sort(took)
		b.ReportMetric(took[len(took)/2].Seconds(), "start-sec")
	})
}

// BenchmarkPush sends pushes over HTTP, each connection one after another. The
// embedded Pub/Sub and the senders share a process, and the machine.
func BenchmarkPush(b *testing.B) {
	host, clear := pubSubWithoutSubscriptions(b)
	for _, connections := range []int{1, 8, 64, 256} {
		b.Run(fmt.Sprintf("connections=%d", connections), func(b *testing.B) {
			inTurns(b, func(b *testing.B, h handler) {
				s := serve(b, h.program, webhookSettings(host))
				defer s.stop()
				body := documented(b)
				post(b, s.url+"/"+webhookToken, body, connections, until(turn/5))
				clear()
				cpu, began := s.cpu(b), time.Now()
				took := post(b, s.url+"/"+webhookToken, body, connections, until(turn))
				b.ReportMetric(float64(len(took))/time.Since(began).Seconds(), "pushes/s")
				b.ReportMetric(took[len(took)/2].Seconds(), "p50-sec")
				b.ReportMetric(took[len(took)*99/100].Seconds(), "p99-sec")
				b.ReportMetric((s.cpu(b)-cpu).Seconds()/float64(len(took)), "cpu-sec/push")
				b.ReportMetric(s.peak(b), "peak-B")
				clear()
			})
		})
	}
}

// BenchmarkMemory is the peak memory of a process, after a tenth of the pushes
// and after all.
func BenchmarkMemory(b *testing.B) {
	host, clear := pubSubWithoutSubscriptions(b)
	for _, h := range handlers(b) {
		b.Run("handler="+strings.ReplaceAll(h.name, "/", "-"), func(b *testing.B) {
			b.ReportMetric(0, "ns/op")
			s := serve(b, h.program, webhookSettings(host))
			defer s.stop()
			body := documented(b)
			for part := range 10 {
				post(b, s.url+"/"+webhookToken, body, 64, times(manyPushes/10))
				clear() // or this process would slow the other down
				if part == 0 {
					b.ReportMetric(s.peak(b), "peak-after-10k-B")
				}
			}
			b.ReportMetric(s.peak(b), "peak-after-100k-B")
		})
	}
}

// BenchmarkEndToEnd is the time from sending a webhook until GitLab has the
// request for a pipeline. GitLab and the registry answer immediately, and the
// ledger is in memory. The embedded Pub/Sub delivers every 10 ms.
func BenchmarkEndToEnd(b *testing.B) {
	binary, err := program()
	if err != nil {
		b.Fatal(err)
	}
	arrived := make(chan time.Time, 1)
	gitlab := httptest.NewServer(nil)
	defer gitlab.Close()
	fake := gitlabtest.New(gitlab.URL)
	fake.AnyProject(triggerToken)
	fake.OnPipeline(func(gitlabtest.Pipeline) { arrived <- time.Now() })
	gitlab.Config.Handler = fake
	registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Docker-Content-Digest", digestOf("acme/api:1.4.0", 1))
		w.Header().Set("Content-Type", indexType)
		w.Header().Set("Content-Length", "2")
	}))
	defer registry.Close()

	port := freePort(b)
	queue, err := sandbox.StartQueue(b.Context(), sandbox.QueueConfig{
		Topic: topic, DeadLetterTopic: deadLetterTopic, Endpoint: "http://127.0.0.1:" + port,
	})
	if err != nil {
		b.Fatal(err)
	}
	var delivering sync.WaitGroup
	delivering.Go(func() { queue.Deliver(b.Context()) })
	b.Cleanup(func() { // the context has ended
		delivering.Wait()
		queue.Close()
	})
	trigger, ok := serveAt(b, port, binary, []string{
		"FUNCTION_TARGET=Trigger", "PUBSUB_EMULATOR_HOST=" + queue.Addr, "TOPIC=" + topic, "DEAD_LETTER_TOPIC=" + deadLetterTopic,
		"ROUTES=" + routes, fmt.Sprintf(`GITLAB_TRIGGER_TOKENS={"*":%q}`, triggerToken), "GITLAB_URL=" + gitlab.URL,
		"REGISTRY=" + registry.URL, "LEDGER=memory:bench",
	})
	if !ok {
		b.Fatal("Trigger does not answer")
	}
	defer trigger.stop()
	webhook := serve(b, binary, webhookSettings(queue.Addr))
	defer webhook.stop()
	pushes := 0
	for round := range rounds {
		b.Run(fmt.Sprintf("round=%d/handler=webhook", round), func(b *testing.B) {
			b.ReportMetric(0, "ns/op")
			var took []time.Duration
			for range endToEnd {
				pushes++
				began := time.Now()
				post(b, webhook.url+"/"+webhookToken, webhookBody("acme/api", fmt.Sprintf("1.4.%d", pushes), pushes), 1, times(1))
				took = append(took, (<-arrived).Sub(began))
			}
			slices.Sort(took)
			b.ReportMetric(took[len(took)/2].Seconds(), "p50-sec")
			b.ReportMetric(took[len(took)*99/100].Seconds(), "p99-sec")
		})
	}
}

// documented is the webhook that Docker Hub documents.
func documented(b *testing.B) string {
	b.Helper()
	body, err := os.ReadFile("../dockerhub/testdata/documented-today.json")
	if err != nil {
		b.Fatal(err)
	}
	return string(body)
}

// pubSubWithoutSubscriptions keeps what is published until clear.
func pubSubWithoutSubscriptions(b *testing.B) (host string, clear func()) {
	b.Helper()
	server := pstest.NewServer()
	b.Cleanup(func() { _ = server.Close() })
	if _, err := server.GServer.CreateTopic(b.Context(), &pubsubpb.Topic{Name: topic}); err != nil {
		b.Fatal(err)
	}
	return server.Addr, server.ClearMessages
}

func webhookSettings(pubsubHost string) []string {
	return []string{"FUNCTION_TARGET=Webhook", "WEBHOOK_TOKENS=" + webhookToken, "TOPIC=" + topic, "PUBSUB_EMULATOR_HOST=" + pubsubHost}
}

// served is a program that has answered.
type served struct {
	url   string
	cmd   *exec.Cmd
	ended chan struct{}
}

// serve starts a program at a free port and waits for its first answer. A port
// may be taken just before the program listens: then it starts at another one.
func serve(b *testing.B, program string, settings []string) served {
	b.Helper()
	for range 3 {
		if s, ok := serveAt(b, freePort(b), program, settings); ok {
			return s
		}
	}
	b.Fatalf("%s does not answer", program)
	return served{}
}

func serveAt(b *testing.B, port, program string, settings []string) (s served, ok bool) {
	b.Helper()
	s = served{"http://127.0.0.1:" + port, exec.Command(program), make(chan struct{})}
	s.cmd.Env = append([]string{"PORT=" + port}, settings...)
	if err := s.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	go func() {
		_ = s.cmd.Wait()
		close(s.ended)
	}()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		if res, err := http.Get(s.url + "/ready"); err == nil {
			_ = res.Body.Close()
			return s, true
		}
		select {
		case <-s.ended:
			return s, false
		case <-time.After(200 * time.Microsecond):
		}
	}
	s.stop()
	return s, false
}

func (s served) stop() {
	_ = s.cmd.Process.Kill()
	<-s.ended
}

// cpu is the CPU time of the process, of all its threads together.
func (s served) cpu(b *testing.B) time.Duration {
	b.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", s.cmd.Process.Pid))
	if err != nil || len(threads) == 0 {
		b.Skip("the CPU time of a process is read from Linux's /proc")
	}
	var sum time.Duration
	for _, thread := range threads {
		text, err := os.ReadFile(thread)
		if err != nil {
			continue // it has ended
		}
		used, _, _ := strings.Cut(string(text), " ")
		ns, err := strconv.ParseInt(used, 10, 64)
		if err != nil {
			b.Fatalf("%s: %v", thread, err)
		}
		sum += time.Duration(ns)
	}
	return sum
}

var highWater = regexp.MustCompile(`VmHWM:\s+(\d+) kB`)

// peak is the peak memory of the process, in bytes.
func (s served) peak(b *testing.B) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		b.Skip("the memory of a process is read from Linux's /proc")
	}
	m := highWater.FindSubmatch(text)
	if m == nil {
		b.Fatalf("no VmHWM in\n%s", text)
	}
	kilobytes, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		b.Fatal(err)
	}
	return kilobytes * 1024
}

// until and times decide whether to send another push, by time or by number.
func until(d time.Duration) func(sent int) bool {
	end := time.Now().Add(d)
	return func(int) bool { return time.Now().Before(end) }
}

func times(n int) func(sent int) bool { return func(sent int) bool { return sent < n } }

// post sends a body repeatedly over a number of connections, and returns how
// long each took, the fastest first.
func post(b *testing.B, url, body string, connections int, more func(sent int) bool) []time.Duration {
	b.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: connections, MaxConnsPerHost: connections}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	var (
		running sync.WaitGroup
		mu      sync.Mutex
		sent    int
		all     []time.Duration
	)
	next := func() bool {
		mu.Lock()
		defer mu.Unlock()
		sent++
		return more(sent - 1)
	}
	for range connections {
		running.Go(func() {
			var took []time.Duration
			for next() {
				began := time.Now()
				res, err := client.Post(url, "application/json", strings.NewReader(body))
				if err != nil {
					b.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
				if res.StatusCode >= 300 {
					b.Errorf("got %s", res.Status)
					return
				}
				took = append(took, time.Since(began))
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
		})
	}
	running.Wait()
	if len(all) == 0 {
		b.Fatal("nothing was sent")
	}
	slices.Sort(all)
	return all
}
