package e2e

import (
	"net/http"
	"os/exec"
	"testing"
	"time"
)

// bareMain is the least that the functions framework can serve: a handler that
// reads the body and publishes it.
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

// BenchmarkStart is the time from the start of a process to its first answer,
// beside that of a bare handler.
func BenchmarkStart(b *testing.B) {
	bare, err := build(bareMain)
	if err != nil {
		b.Fatal(err)
	}
	webhook, err := program()
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct{ name, program string }{{"bare", bare}, {"webhook", webhook}, {"bare again", bare}} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				firstAnswer(b, c.program)
			}
		})
	}
}

func firstAnswer(b *testing.B, program string) {
	port := freePort(b)
	cmd := exec.Command(program)
	cmd.Env = []string{
		"FUNCTION_TARGET=Webhook", "PORT=" + port, "WEBHOOK_TOKENS=" + webhookToken, "TOPIC=" + topic, "PUBSUB_EMULATOR_HOST=127.0.0.1:1",
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	for {
		res, err := http.Get("http://127.0.0.1:" + port + "/ready")
		if err == nil {
			_ = res.Body.Close()
			break
		}
		time.Sleep(time.Millisecond)
	}
	b.StopTimer()
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	b.StartTimer()
}
