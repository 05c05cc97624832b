package slack

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"
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

// What the golden messages, which have everything, do not show.
func TestWhatPeopleRead(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		message  Message
		fallback string
		blocks   [][]string
		reply    [][]string
	}{
		{"a failure", Message{
			Event: Deploy, Status: Failure, Repository: "acme/api", Tag: "1.4.0", Version: "2.0", Project: "acme/images",
			Text: "R&D said:\n\"no\" <!channel>", PipelineURL: "http://gitlab.example/7?a=1&b=|<x> \"y\"", PromotionID: "b",
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
			Status: Dead, Repository: "acme/api", Tag: "1.4.0", PromotionID: "b", Reason: "not_found", Hint: "Check the project <x>.",
			Command: "go run ./cmd/hubrelay replay `-apply`",
		},
			":rotating_light: Sniff, I could not start a pipeline for acme/api:1.4.0 …",
			[][]string{
				{"section", ":rotating_light: Sniff, I could not start a pipeline for `acme/api:1.4.0` …"},
				{"context", "`b`"},
				{"section", "The reason: `not_found`\nCheck the project &lt;x&gt;.\nOnce that is fixed, this starts it again:\n```go run ./cmd/hubrelay replay '-apply'```"},
			}, nil},
		{"waiting for a person", Message{Status: Waiting, Repository: "acme/api", Tag: "1.4.0", PromotionID: "b", Since: 12 * time.Minute,
			Reason: "forbidden", Hint: "Give the account the role Developer.", Words: "403 <Forbidden>\nno role", Mention: "U1"},
			":hourglass_flowing_sand: acme/api:1.4.0 has to wait a little, I am sorry …",
			[][]string{
				{"section", ":hourglass_flowing_sand: `acme/api:1.4.0` has to wait a little, I am sorry …"},
				{"context", "`b`"},
				{"section", "It has been waiting for 12 minutes.\nWhat it waits for: `forbidden`\nGive the account the role Developer.\n" +
					"GitLab says: `403 &lt;Forbidden&gt; no role`\nOnce that is fixed, it goes on by itself."},
			},
			[][]string{{"section", ":hourglass_flowing_sand: <@U1> Could somebody have a look at `acme/api:1.4.0`, please?"}}},
		{"a failure that has a reason", Message{Status: Failure, Repository: "acme/api", Tag: "1.4.0", PromotionID: "b", Reason: "unreported", Hint: "Check notify_url."},
			":x: Sniff, I could not sign acme/api:1.4.0 …",
			[][]string{
				{"section", ":x: Sniff, I could not sign `acme/api:1.4.0` …"},
				{"context", "`b`"},
				{"section", "The reason: `unreported`\nCheck notify_url."},
			}, nil},
		{"a success after a reason", Message{Status: Success, Repository: "acme/api", Tag: "1.4.0", PromotionID: "b", Reason: "silent", Hint: "x", Words: "y", Since: time.Hour, Command: "z"},
			":white_check_mark: Phew, acme/api:1.4.0 is built and signed.",
			[][]string{{"section", ":white_check_mark: Phew, `acme/api:1.4.0` is built and signed."}, {"context", "`b`"}}, nil},
		{"a release without its own words", Message{Event: Release, Status: Dead, Repository: "acme/api", Version: "2.0", PromotionID: "b", Hint: "x"},
			":rotating_light: Sniff, I could not start a pipeline for acme/api 2.0 …",
			[][]string{{"section", ":rotating_light: Sniff, I could not start a pipeline for `acme/api 2.0` …"}, {"context", "`b`"}, {"section", "x"}}, nil},
		{"an unknown status", Message{Status: "<odd>", Repository: "a`b"},
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

// What people write of 2,000 characters is shown whole.
func TestLongTextsAreSplitAndNotCut(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text     string
		sections int
	}{
		"ampersands":     {strings.Repeat("&", 1000), 2},
		"a log":          {strings.Repeat("exit & <1>\n", 181) + "so it is.", 2},
		"letters":        {strings.Repeat("x", 2000), 1},
		"emoji":          {strings.Repeat("🎉", 2000), 2},
		"Japanese":       {strings.Repeat("あ", 2000), 1},
		"odd boundaries": {"x" + strings.Repeat("<&>", 384), 2},
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

func TestLongTextsAreShortenedAndMarked(t *testing.T) {
	t.Parallel()
	long := func(s string) string { return strings.Repeat(s, 10_000) }
	for language, mark := range map[Language]string{En: " … (shortened)", Ja: " …（つづきは省略しました）"} {
		for _, letter := range []string{"x", "&", "あ", "🎉", "a b\n"} {
			blocks := shown(t, Message{Language: language, Text: long(letter)}.blocks())[1:]
			var text strings.Builder
			for _, b := range blocks {
				text.WriteString(b[1])
			}
			if got := text.String(); length(got) > maxText || length(got) < maxText-100 || !strings.HasSuffix(got, mark) {
				t.Errorf("%q: %d characters that end in %q", letter, length(got), got[max(0, len(got)-60):])
			}
		}
	}
	m := Message{
		Status: Dead, Repository: long("r"), Tag: long("t"), Project: long("p"), Version: long("v"),
		Reason: long("c"), Hint: long("h"), Words: long("w"), Command: long("x"), PipelineURL: "https://gitlab.example/" + long("u"),
	}
	got := shown(t, m.blocks())
	for i, want := range []string{"rr…`", "vv…`", "cc…`"} {
		if all := strings.Join(got[i], " "); !strings.Contains(all, want) {
			t.Errorf("%q is not in %.2000s", want, all)
		}
	}
	if all := got[2][1]; !strings.Contains(all, "hh…\n") || !strings.Contains(all, "ww…`") || strings.Contains(all, "xx") || strings.Contains(all, "uu") {
		t.Errorf("got %s", all)
	}
	if n := utf8.RuneCountInString(m.fallback()); n > 4000 {
		t.Errorf("the fallback has %d characters, and an update takes 4,000", n)
	}
}

func TestDurationsAreWrittenAsPeopleSayThem(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration][2]string{
		0: {"1 minute", "1 分"}, 10 * time.Second: {"1 minute", "1 分"}, 10 * time.Minute: {"10 minutes", "10 分"},
		90 * time.Minute: {"90 minutes", "90 分"}, 2*time.Hour + 20*time.Minute: {"2 hours", "2 時間"},
		6 * time.Hour: {"6 hours", "6 時間"}, 50 * time.Hour: {"2 days", "2 日"}, -time.Hour: {"1 minute", "1 分"},
	} {
		if got := [2]string{words[En].duration(d), words[Ja].duration(d)}; got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
}

func TestOnlyFailuresNeedAPerson(t *testing.T) {
	t.Parallel()
	for status, want := range map[Status]bool{
		Running: false, Success: false, Skipped: false, Superseded: false, "odd": false, "": false,
		Failure: true, Waiting: true, Dead: true, Silent: true,
	} {
		if status.Bad() != want {
			t.Errorf("%q: %v", status, !want)
		}
	}
}

func TestARunningMessageBecomesASuccessInTheSameVoice(t *testing.T) {
	t.Parallel()
	voices := map[int]bool{}
	for id := range 30 {
		m := Message{PromotionID: strings.Repeat("a", id), Repository: "acme/api", Tag: "1.4.0"}
		voice := m.voice()
		voices[voice] = true
		m.Status, m.Language, m.Text, m.PipelineURL, m.Digest = Failure, Ja, "x", "https://gitlab.example", "sha256:1"
		if m.voice() != voice {
			t.Errorf("voice %d became %d", voice, m.voice())
		}
	}
	if len(voices) < 2 {
		t.Errorf("there is one voice: %v", voices)
	}
}

var link = regexp.MustCompile(`<https?://[^<>|\s]+\|(pipeline|パイプライン)>`)

// checkBlocks holds blocks to what Slack takes, and to what no text may do.
func checkBlocks(t *testing.T, blocks []api.Block) {
	t.Helper()
	links, all := 0, 0
	if len(blocks) == 0 || len(blocks) > 50 {
		t.Errorf("%d blocks", len(blocks))
	}
	for _, b := range shown(t, blocks) {
		if len(b) < 2 || b[0] == "context" && len(b) > 11 {
			t.Errorf("a %s with %d texts", b[0], len(b)-1)
		}
		for _, text := range b[1:] {
			if n := utf8.RuneCountInString(text); n == 0 || n > maxSection || strings.TrimSpace(text) == "" {
				t.Errorf("a text of %d characters: %.100q", n, text)
			}
			if strings.ContainsFunc(text, func(c rune) bool { return unicode.IsControl(c) && c != '\n' && c != '\t' }) || !utf8.ValidString(text) {
				t.Errorf("%q holds what nobody can read", text)
			}
			all += length(text)
			links += len(link.FindAllString(text, -1))
			if rest := link.ReplaceAllString(text, ""); strings.ContainsAny(rest, "<>") {
				t.Errorf("not escaped: %q", text)
			}
		}
	}
	if all > 12_000 {
		t.Errorf("%d characters", all)
	}
	if links > 1 {
		t.Errorf("%d links", links)
	}
}
