package webhook_test

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"

	"github.com/getto-systems/hubrelay/functions/webhook"
	"github.com/getto-systems/hubrelay/internal/auth"
	"github.com/getto-systems/hubrelay/internal/gcplog"
	"github.com/getto-systems/hubrelay/internal/pubsub"
)

// BenchmarkOverHTTP sets the webhook beside a bare handler that reads the body
// and publishes it, with one connection and with 64. Both publish in the same
// way, to an embedded Pub/Sub.
func BenchmarkOverHTTP(b *testing.B) {
	tokens, err := auth.ParseTokens(token)
	if err != nil {
		b.Fatal(err)
	}
	body := payload(b)
	for _, connections := range []int{1, 64} {
		for _, c := range []struct {
			name string
			make func(*pubsub.Publisher) http.Handler
		}{
			{"bare", bare},
			{"webhook", func(p *pubsub.Publisher) http.Handler {
				return webhook.New(tokens, p, gcplog.New(io.Discard, ""))
			}},
		} {
			b.Run(fmt.Sprintf("connections=%d/%s", connections, c.name), func(b *testing.B) {
				server := httptest.NewServer(c.make(newPublisher(b)))
				defer server.Close()
				transport := &http.Transport{MaxIdleConnsPerHost: connections, MaxConnsPerHost: connections}
				client := &http.Client{Transport: transport}
				defer transport.CloseIdleConnections()
				jobs := make(chan struct{})
				done := make(chan error)
				for range connections {
					go func() {
						var failed error
						for range jobs {
							if err := post(client, server.URL+"/"+token, body); err != nil {
								failed = err
							}
						}
						done <- failed
					}()
				}
				for b.Loop() {
					jobs <- struct{}{}
				}
				close(jobs)
				for range connections {
					if err := <-done; err != nil {
						b.Error(err)
					}
				}
			})
		}
	}
}

func post(client *http.Client, url string, body []byte) error {
	res, err := client.Post(url, "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	if res.StatusCode != http.StatusAccepted {
		return fmt.Errorf("got %s", res.Status)
	}
	return err
}

// bare does the least that a webhook can.
func bare(p *pubsub.Publisher) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			_, err = p.Publish(r.Context(), body, nil)
		}
		if err != nil {
			http.Error(w, "failed", http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusAccepted)
	})
}

func newPublisher(b *testing.B) *pubsub.Publisher {
	b.Helper()
	server := pstest.NewServer()
	b.Cleanup(func() { _ = server.Close() })
	topic, err := pubsub.ParseTopic("projects/demo/topics/pushes")
	if err != nil {
		b.Fatal(err)
	}
	if _, err := server.GServer.CreateTopic(b.Context(), &pubsubpb.Topic{Name: topic.String()}); err != nil {
		b.Fatal(err)
	}
	p, err := pubsub.NewPublisher(b.Context(), topic, server.Addr)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = p.Close() })
	return p
}

// BenchmarkHandler is the webhook's own time, with nothing behind it.
func BenchmarkHandler(b *testing.B) {
	tokens, err := auth.ParseTokens(token)
	if err != nil {
		b.Fatal(err)
	}
	h := webhook.New(tokens, &queue{}, slog.New(slog.DiscardHandler))
	body := payload(b)
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/"+token, bytes.NewReader(body)))
	}
}
