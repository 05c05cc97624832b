package slack

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	api "github.com/slack-go/slack"
)

// shown is what Slack reads of a block: its type, and then its texts.
func shown(t *testing.T, blocks []api.Block) [][]string {
	t.Helper()
	data, err := json.Marshal(blocks)
	if err != nil {
		t.Fatal(err)
	}
	type text struct {
		Type, Text string
		Verbatim   bool
	}
	var read []struct {
		Type     string
		Text     *text
		Elements []text
	}
	if err := json.Unmarshal(data, &read); err != nil {
		t.Fatal(err)
	}
	var all [][]string
	for _, b := range read {
		texts := b.Elements
		if b.Text != nil {
			texts = append(texts, *b.Text)
		}
		one := []string{b.Type}
		for _, x := range texts {
			if x.Type != "mrkdwn" || !x.Verbatim {
				t.Errorf("%q is %s, verbatim %v", x.Text, x.Type, x.Verbatim)
			}
			one = append(one, strings.ReplaceAll(x.Text, "\u200b", ""))
		}
		all = append(all, one)
	}
	return all
}

func TestWhatPeopleRead(t *testing.T) {
	t.Parallel()
	const digest = "sha256:0123456789abcdef0123456789abcdef"
	for _, c := range []struct {
		name     string
		message  Message
		fallback string
		blocks   [][]string
		reply    [][]string
	}{
		{"a promotion that runs", Message{
			Event: Promote, Status: Running, Repository: "acme/api", Tag: "1.4.0", DeliveryID: "b",
		},
			":hourglass_flowing_sand: acme/api:1.4.0 has arrived, let me sign it …",
			[][]string{{"section", ":hourglass_flowing_sand: `acme/api:1.4.0` has arrived, let me sign it …"}, {"context", "`b`"}}, nil},
		{"ふう", Message{
			Language: Ja, Event: Promote, Status: Success, Repository: "acme/api", Tag: "1.4.0", Digest: digest,
			Version: "v1", PipelineURL: "https://gitlab.example/acme/api/-/pipelines/7", DeliveryID: "b1b1b1b1b1b1",
		},
			":white_check_mark: ふう、acme/api:1.4.0 をビルドして署名したよ",
			[][]string{
				{"section", ":white_check_mark: ふう、`acme/api:1.4.0` をビルドして署名したよ"},
				{"context", "`sha256:0123456789ab`", "`v1`", "<https://gitlab.example/acme/api/-/pipelines/7|パイプライン>", "`b1b1b1b1`"},
			}, nil},
		{"a failure", Message{
			Event: Deploy, Status: Failure, Repository: "acme/api", Tag: "1.4.0", Version: "2.0", Project: "acme/images",
			Text: "R&D said:\n\"no\" <!channel>", PipelineURL: "http://gitlab.example/7?a=1&b=|<x> \"y\"", DeliveryID: "b",
		},
			":x: Sniff, I could not deploy acme/api 2.0 …",
			[][]string{
				{"section", ":x: Sniff, I could not deploy `acme/api 2.0` …"},
				{"context", "`1.4.0`", "`acme/images`", "<http://gitlab.example/7?a=1&amp;b=%7C%3Cx%3E%20%22y%22|pipeline>", "`b`"},
				{"section", "R&amp;D said:\n\"no\" &lt;!channel&gt;"},
			},
			[][]string{
				{"section", ":x: Could somebody have a look at `acme/api 2.0`, please?"},
				{"section", "<http://gitlab.example/7?a=1&amp;b=%7C%3Cx%3E%20%22y%22|pipeline>"},
				{"section", "R&amp;D said:\n\"no\" &lt;!channel&gt;"},
			}},
		{"nothing but a status", Message{Status: Skipped},
			":fast_forward: an image needed nothing from me.",
			[][]string{{"section", ":fast_forward: an image needed nothing from me."}}, nil},
		{"a dead letter", Message{
			Status: Dead, Repository: "acme/api", Tag: "1.4.0", DeliveryID: "b", Reason: "not_found", Hint: "Check the project <x>.",
			Command: "go run ./cmd/hubrelay replay `-apply`",
		},
			":rotating_light: Sniff, I could not start a pipeline for acme/api:1.4.0 …",
			[][]string{
				{"section", ":rotating_light: Sniff, I could not start a pipeline for `acme/api:1.4.0` …"},
				{"context", "`b`"},
				{"section", "The reason: `not_found`\nCheck the project &lt;x&gt;.\nOnce that is mended, this starts it again:\n```go run ./cmd/hubrelay replay '-apply'```"},
			}, nil},
		{"one that Pub/Sub gave up", Message{Status: Dead, Language: Ja, Repository: "acme/api", Tag: "1.4.0", DeliveryID: "b", Attempts: 20, Reason: "not_in_registry"},
			":rotating_light: うぅ、acme/api:1.4.0 のパイプラインを始められなかったよ・・・",
			[][]string{
				{"section", ":rotating_light: うぅ、`acme/api:1.4.0` のパイプラインを始められなかったよ・・・"},
				{"context", "`b`"},
				{"section", "20 回ためして、あきらめました。\nりゆう: `not_in_registry`"},
			}, nil},
		{"silence", Message{Status: Silent, Repository: "acme/api", Tag: "1.4.0", DeliveryID: "b", Silence: 90 * time.Minute},
			":grey_question: I have not heard from the pipeline of acme/api:1.4.0 for a while …",
			[][]string{
				{"section", ":grey_question: I have not heard from the pipeline of `acme/api:1.4.0` for a while …"},
				{"context", "`b`"},
				{"section", "It has reported nothing for 90 minutes. Perhaps its runner is gone, or it never ran."},
			}, nil},
		{"a status that nobody knows", Message{Status: "<odd>", Repository: "a`b"},
			":grey_question: a`b &lt;odd&gt;",
			[][]string{{"section", ":grey_question: `a'b` &lt;odd&gt;"}}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := c.message.fallback(); got != c.fallback {
				t.Errorf("got %q, want %q", got, c.fallback)
			}
			if diff := cmp.Diff(c.blocks, shown(t, c.message.blocks())); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if c.reply == nil {
				return
			}
			if diff := cmp.Diff(c.reply, shown(t, c.message.replyBlocks())); diff != "" {
				t.Errorf("reply (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLinksGoToWebPagesOnly(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"":                                "",
		"gitlab.example/7":                "",
		"javascript:alert(1)":             "",
		"ftp://gitlab.example/7":          "",
		"https:///7":                      "",
		"https://user:pw@gitlab.example/": "",
		"https://gitlab.example/\x01":     "",
		"!channel":                        "",
		"HTTPS://gitlab.example/7":        "<https://gitlab.example/7|pipeline>",
		"https://gitlab.example/a|b>c<d":  "<https://gitlab.example/a%7Cb%3Ec%3Cd|pipeline>",
		"https://gitlab.example/あ#x|`":    "<https://gitlab.example/%E3%81%82#x%7C%60|pipeline>",
	} {
		if got := (Message{PipelineURL: given}).link(); got != want {
			t.Errorf("%q: got %q, want %q", given, got, want)
		}
	}
}

// A text of what callers may send is shown whole, and Slack takes it.
func TestLongTextsAreSplitAndNotCut(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text     string
		sections int
	}{
		"ampersands":     {strings.Repeat("&", 2000), 4},
		"letters":        {strings.Repeat("x", 2000), 1},
		"emoji":          {strings.Repeat("🎉", 2000), 2},
		"Japanese":       {strings.Repeat("あ", 2000), 1},
		"odd boundaries": {"x" + strings.Repeat("<&>", 666), 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			blocks := shown(t, Message{Text: c.text}.blocks())[1:]
			var whole strings.Builder
			for _, b := range blocks {
				if n := utf8.RuneCountInString(b[1]); n > maxSection {
					t.Errorf("a section of %d characters", n)
				}
				whole.WriteString(b[1])
			}
			if len(blocks) != c.sections || whole.String() != escape(c.text) {
				t.Errorf("%d sections, want %d; or the text is another", len(blocks), c.sections)
			}
		})
	}
}

func TestLanguagesDifferAndNothingIsEmpty(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for _, event := range []Event{Promote, Release, Deploy} {
		for _, status := range []Status{Running, Success, Failure, Skipped, Dead, Silent} {
			if event != Promote && (status == Dead || status == Silent) {
				continue
			}
			for _, language := range []Language{En, Ja} {
				for i, way := range words[language].sentences[event][status] {
					where := string(language) + " " + string(event) + " " + string(status)
					if strings.TrimSpace(strings.Replace(way, "{}", "", 1)) == "" || seen[way] != "" {
						t.Errorf("%s, voice %d: %q is empty, or that of %s", where, i, way, seen[way])
					}
					seen[way] = where
				}
			}
		}
	}
	for _, w := range words {
		for _, way := range w.reply {
			if strings.Count(way, "{}") != 1 {
				t.Errorf("%q does not name its subject once", way)
			}
		}
		if w.pipeline == "" || w.unnamed == "" {
			t.Errorf("%+v lacks a word", w)
		}
	}
}

func TestARunningMessageBecomesASuccessInTheSameVoice(t *testing.T) {
	t.Parallel()
	for id := range 30 {
		m := Message{DeliveryID: strings.Repeat("a", id), Repository: "acme/api", Tag: "1.4.0"}
		voice := m.voice()
		m.Status, m.Language, m.Text, m.PipelineURL, m.Digest = Failure, Ja, "x", "https://gitlab.example", "sha256:1"
		if m.voice() != voice {
			t.Errorf("voice %d became %d", voice, m.voice())
		}
	}
}

var link = regexp.MustCompile(`<https?://[^<>|\s]+\|(pipeline|パイプライン)>`)

// checkBlocks holds blocks to what Slack takes, and to what no text may do.
func checkBlocks(t *testing.T, blocks []api.Block) {
	t.Helper()
	links := 0
	for _, b := range shown(t, blocks) {
		if len(b) < 2 || b[0] == "context" && len(b) > 11 {
			t.Errorf("a %s with %d texts", b[0], len(b)-1)
		}
		for _, text := range b[1:] {
			if n := utf8.RuneCountInString(text); n == 0 || n > maxSection || strings.TrimSpace(text) == "" {
				t.Errorf("a text of %d characters: %.100q", n, text)
			}
			links += len(link.FindAllString(text, -1))
			if rest := link.ReplaceAllString(text, ""); strings.ContainsAny(rest, "<>") {
				t.Errorf("not escaped: %q", text)
			}
		}
	}
	if links > 1 {
		t.Errorf("%d links", links)
	}
}
