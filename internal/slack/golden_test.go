package slack

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write testdata")

// golden is a message that has everything, in the warm voice.
var golden = Message{
	Repository: "acme/api", Tag: "1.4.0", Version: "v1.4.0", Project: "acme/images/api",
	Digest:      "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
	Text:        "2 of 3 platforms are signed:\n<linux/arm64> is missing & so is its SBOM.",
	PipelineURL: "https://gitlab.example/acme/images/api/-/pipelines/7",
	PromotionID: "b3b3b3b3b3b3b3b3b3b3b3b3b3b3b3b3",
	Reason:      "forbidden",
	Hint:        "Give the owner of the trigger token the role Developer in acme/images/api.",
	Words:       `{"message":"403 Forbidden"}`,
	Attempts:    50,
	Command:     "go run ./cmd/hubrelay replay --match acme/api:1.4.0 --apply",
	Since:       12 * time.Minute,
	Silence:     6 * time.Hour,
	Mention:     "@here",
}

// What people read of each event and status, as Slack gets it.
func TestMessagesAreAsInTestdata(t *testing.T) {
	t.Parallel()
	reported := []Status{Running, Success, Failure, Skipped, Superseded}
	var files []string
	for _, language := range []Language{En, Ja} {
		for event, statuses := range map[Event][]Status{
			Promote: append(slices.Clone(reported), Waiting, Dead, Silent), Release: reported, Deploy: reported, Registration: {Waiting},
		} {
			for _, status := range statuses {
				m := golden
				m.Language, m.Event, m.Status = language, event, status
				file := filepath.Join("testdata", string(language), string(event)+"-"+string(status)+".json")
				files = append(files, file)
				t.Run(file, func(t *testing.T) {
					t.Parallel()
					compare(t, file, sent(t, m))
				})
			}
		}
	}
	t.Run("nothing else is there", func(t *testing.T) {
		t.Parallel()
		there, err := filepath.Glob("testdata/*/*.json")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range there {
			if !slices.Contains(files, file) {
				t.Errorf("%s is of nothing", file)
			}
		}
	})
}

func compare(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v: run go test ./internal/slack -update", err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("run go test ./internal/slack -update, and read what changed (-want +got):\n%s", diff)
	}
}

// sent returns what Slack gets of a message, and of the reply to bad news.
func sent(t *testing.T, m Message) []byte {
	t.Helper()
	fake, client := workspace(t)
	ref, err := client.Post(t.Context(), "C1", m)
	if err != nil {
		t.Fatal(err)
	}
	if m.Status.Bad() {
		if err := client.Reply(t.Context(), ref, m); err != nil {
			t.Fatal(err)
		}
	}
	type said struct {
		Text   string `json:"text"`
		Blocks any    `json:"blocks"` // decoded, so that < is not \u003c
	}
	type message struct {
		said
		Reply *said `json:"reply,omitempty"`
	}
	var all []said
	for _, shown := range fake.Messages() {
		one := said{Text: shown.Text}
		if err := json.Unmarshal(shown.Blocks, &one.Blocks); err != nil {
			t.Fatal(err)
		}
		all = append(all, one)
	}
	whole := message{said: all[0]}
	if len(all) > 1 {
		whole.Reply = &all[1]
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(whole); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
