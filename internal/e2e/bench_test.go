package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
)

// bareMain is the least that the functions framework can serve: a handler that
// reads the body and publishes it. %d is how long a message waits for company.
const bareMain = `package main

import (
	"context"
	"io"
	"log"
	"net/http"
	"os"

	"cloud.google.com/go/pubsub/v2"
	"github.com/GoogleCloudPlatform/functions-framework-go/funcframework"
	"github.com/GoogleCloudPlatform/functions-framework-go/functions"
)

func main() {
	client, err := pubsub.NewClient(context.Background(), "demo")
	if err != nil {
		log.Fatal(err)
	}
	topic := client.Publisher("pushes")
	topic.PublishSettings.DelayThreshold = %d
	functions.HTTP("Webhook", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil && len(body) > 0 {
			_, err = topic.Publish(r.Context(), &pubsub.Message{Data: body}).Get(r.Context())
		}
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	if err := funcframework.Start(os.Getenv("PORT")); err != nil {
		log.Fatal(err)
	}
}
`

type named struct{ name, program string }

// programs are Webhook and two bare handlers: one that batches as Webhook
// does, and one as the client does by default.
func programs(b *testing.B) []named {
	b.Helper()
	list := []named{{name: "webhook"}, {name: "bare"}, {name: "bare-10ms-batches"}}
	for i, make := range []func() (string, error){
		program,
		func() (string, error) { return build(fmt.Sprintf(bareMain, time.Millisecond)) },
		func() (string, error) { return build(fmt.Sprintf(bareMain, 10*time.Millisecond)) },
	} {
		var err error
		if list[i].program, err = make(); err != nil {
			b.Fatal(err)
		}
	}
	return list
}

// BenchmarkStart is the time from the start of a process to its first answer,
// beside that of a bare handler.
func BenchmarkStart(b *testing.B) {
	for _, c := range programs(b) {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				firstAnswer(b, c.program)
			}
		})
	}
}

func firstAnswer(b *testing.B, program string) {
	_, stop := serve(b, program, "127.0.0.1:1")
	b.StopTimer()
	stop()
	b.StartTimer()
}

// serve starts a program and waits for its first answer.
func serve(b *testing.B, program, pubsubHost string) (url string, stop func() (cpu time.Duration)) {
	b.Helper()
	port := freePort(b)
	url = "http://127.0.0.1:" + port
	cmd := exec.Command(program)
	cmd.Env = []string{
		"FUNCTION_TARGET=Webhook", "PORT=" + port, "WEBHOOK_TOKENS=" + webhookToken, "TOPIC=" + topic, "PUBSUB_EMULATOR_HOST=" + pubsubHost,
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	for {
		res, err := http.Get(url + "/ready")
		if err == nil {
			_ = res.Body.Close()
			break
		}
		time.Sleep(time.Millisecond)
	}
	return url, func() time.Duration {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	}
}

// BenchmarkPush is the time of a push over HTTP, over one connection and over
// 64, beside that of a bare handler. Each is a process of its own; the embedded
// Pub/Sub and the sender share another.
func BenchmarkPush(b *testing.B) {
	built := programs(b)
	server := pstest.NewServer()
	defer server.Close()
	if _, err := server.GServer.CreateTopic(b.Context(), &pubsubpb.Topic{Name: topic}); err != nil {
		b.Fatal(err)
	}
	for _, connections := range []int{1, 64} {
		for _, c := range built {
			b.Run(fmt.Sprintf("connections=%d/%s", connections, c.name), func(b *testing.B) {
				url, stop := serve(b, c.program, server.Addr)
				send(b, url+"/"+webhookToken, connections)
				b.ReportMetric(float64(stop().Microseconds())/float64(b.N), "cpu-µs/op")
				server.ClearMessages()
			})
		}
	}
}

// send posts a push b.N times, over so many connections.
func send(b *testing.B, url string, connections int) {
	b.Helper()
	body := webhookBody("acme/api", "1.4.0", 1)
	transport := &http.Transport{MaxIdleConnsPerHost: connections, MaxConnsPerHost: connections}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	jobs, done := make(chan struct{}), make(chan error)
	for range connections {
		go func() {
			var failed error
			for range jobs {
				res, err := client.Post(url, "application/json", strings.NewReader(body))
				if err != nil {
					failed = err
					continue
				}
				_, _ = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
				if res.StatusCode >= 300 {
					failed = fmt.Errorf("got %s", res.Status)
				}
			}
			done <- failed
		}()
	}
	b.ResetTimer()
	for range b.N {
		jobs <- struct{}{}
	}
	close(jobs)
	for range connections {
		if err := <-done; err != nil {
			b.Error(err)
		}
	}
}
