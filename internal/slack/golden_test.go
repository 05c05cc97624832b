package slack

import (
	"bytes"
	"encoding/json"
	"flag"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write testdata")

// golden is a message with every field, in the warm voice.
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

var reported = []Status{Running, Success, Failure, Skipped, Superseded}

// statusesOf are those that a message of each event may have.
var statusesOf = map[Event][]Status{
	Promote: append(slices.Clone(reported), Waiting, Dead, Silent), Release: reported, Deploy: reported, Registration: {Waiting},
}

// What is posted to Slack for each event and status, in each language.
func TestMessagesAreAsInTestdata(t *testing.T) {
	t.Parallel()
	var files []string
	for _, language := range []Language{En, Ja} {
		for event, statuses := range statusesOf {
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

// sent returns what is posted to Slack for a message, and for the reply to a
// failure, as JSON: https://docs.slack.dev/reference/methods/chat.postMessage
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
	var posts []string
	for _, call := range fake.Calls() {
		if call.Method != "chat.postMessage" {
			t.Errorf("called %s", call.Method)
		}
		if call.Values.Has("thread_ts") {
			call.Values.Set("thread_ts", strings.ReplaceAll(call.Values.Get("thread_ts"), ref.TS, "1700000000.000100"))
		}
		posts = append(posts, asJSON(t, call.Values))
	}
	var out bytes.Buffer
	if err := json.Indent(&out, []byte("["+strings.Join(posts, ",")+"]\n"), "", "  "); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// asJSON is a call for people to read: what they see first, blocks in their own
// order, <, > and & as they are, and the space of no width as what it is.
func asJSON(t *testing.T, form url.Values) string {
	t.Helper()
	names := []string{"channel", "thread_ts", "reply_broadcast", "text", "blocks"}
	for _, name := range slices.Sorted(maps.Keys(form)) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	var fields []string
	for _, name := range names {
		if !form.Has(name) {
			continue
		}
		value := form.Get(name)
		if !slices.Contains([]string{"true", "false"}, value) && name != "blocks" {
			quoted, err := json.Marshal(value)
			if err != nil {
				t.Fatal(err)
			}
			value = string(quoted)
		}
		fields = append(fields, strconv.Quote(name)+":"+value)
	}
	return strings.NewReplacer(`\\`, `\\`, `\u003c`, "<", `\u003e`, ">", `\u0026`, "&", "\u200b", `\u200b`).Replace("{" + strings.Join(fields, ",") + "}")
}
