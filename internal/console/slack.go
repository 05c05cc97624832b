package console

import (
	"cmp"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/getto-systems/hubrelay/internal/slack/slacktest"
)

// post is a message as Slack shows it to people.
type post struct {
	Channel string
	At      time.Time
	Edited  bool
	Mood    string // good, bad, wait or busy: of its bar
	Blocks  []block
	Replies []post
}

// block is a block of a post.
type block struct {
	Context bool // small print
	Parts   [][]span
}

// span is a piece of text in one style. It is never markup: the template
// escapes it.
type span struct {
	Kind string // "", code, pre, bold, italic, strike, link or at
	Text string
	URL  string // of a link
}

// postsOf converts messages to what a channel shows: each with its thread.
func postsOf(messages []slacktest.Message) []post {
	var posts []post
	where := map[string]int{} // by ts
	for _, m := range messages {
		if m.ThreadTS == "" || m.ThreadTS == m.TS {
			where[m.Channel+m.TS] = len(posts)
			posts = append(posts, postOf(m))
		}
	}
	for _, m := range messages {
		if m.ThreadTS == "" || m.ThreadTS == m.TS {
			continue
		}
		if i, ok := where[m.Channel+m.ThreadTS]; ok {
			posts[i].Replies = append(posts[i].Replies, postOf(m))
		} else {
			posts = append(posts, postOf(m)) // the message that it replies to is gone
		}
	}
	return posts
}

func postOf(m slacktest.Message) post {
	p := post{Channel: m.Channel, At: m.PostedAt, Edited: m.Edits > 0, Mood: moodOf(m.Text)}
	type text struct {
		Type string `json:"type"`
		Text string `json:"text"`
	}
	var blocks []struct {
		Type     string `json:"type"`
		Text     *text  `json:"text"`
		Fields   []text `json:"fields"`
		Elements []text `json:"elements"`
	}
	if json.Unmarshal(m.Blocks, &blocks) != nil || len(blocks) == 0 {
		p.Blocks = []block{{Parts: [][]span{spansOf(m.Text)}}}
		return p
	}
	for _, b := range blocks {
		shown := block{Context: b.Type == "context"}
		texts := slices.Concat(b.Fields, b.Elements)
		if b.Text != nil {
			texts = append([]text{*b.Text}, texts...)
		}
		for _, t := range texts {
			if t.Type == "plain_text" {
				shown.Parts = append(shown.Parts, []span{{Text: emojis(t.Text)}})
			} else {
				shown.Parts = append(shown.Parts, spansOf(t.Text))
			}
		}
		p.Blocks = append(p.Blocks, shown)
	}
	return p
}

// moodOf returns the mood of a message, by its first emoji.
func moodOf(text string) string {
	for emoji, mood := range map[string]string{
		":white_check_mark:": "good", ":x:": "bad", ":rotating_light:": "bad", ":hourglass_flowing_sand:": "busy", ":grey_question:": "wait",
	} {
		if strings.HasPrefix(text, emoji) {
			return mood
		}
	}
	return ""
}

// markup finds Slack's markup: code, links, mentions, and formatted words.
var markup = regexp.MustCompile("(?s)```(.+?)```|`([^`\n]+)`|<([^<>\n]+)>|\\*([^*\n]+)\\*|\\b_([^_\n]+)_\\b|~([^~\n]+)~")

// spansOf reads Slack's markup.
func spansOf(text string) []span {
	var spans []span
	plain := func(t string) {
		if t = emojis(unescape(strings.ReplaceAll(t, "\u200b", ""))); t != "" {
			spans = append(spans, span{Text: t})
		}
	}
	end := 0
	for _, m := range markup.FindAllStringSubmatchIndex(text, -1) {
		plain(text[end:m[0]])
		end = m[1]
		group := func(n int) string {
			if m[2*n] < 0 {
				return ""
			}
			return text[m[2*n]:m[2*n+1]]
		}
		switch {
		case group(1) != "":
			spans = append(spans, span{Kind: "pre", Text: unescape(strings.Trim(group(1), "\n"))})
		case group(2) != "":
			spans = append(spans, span{Kind: "code", Text: unescape(group(2))})
		case group(3) != "":
			spans = append(spans, reference(group(3)))
		case group(4) != "":
			spans = append(spans, span{Kind: "bold", Text: emojis(unescape(group(4)))})
		case group(5) != "":
			spans = append(spans, span{Kind: "italic", Text: emojis(unescape(group(5)))})
		default:
			spans = append(spans, span{Kind: "strike", Text: emojis(unescape(group(6)))})
		}
	}
	plain(text[end:])
	return spans
}

// reference reads the text between < and >.
func reference(inside string) span {
	target, label, _ := strings.Cut(inside, "|")
	switch {
	case target == "":
		return span{Text: unescape(label)}
	case strings.ContainsRune("!@#", rune(target[0])):
		name := cmp.Or(label, strings.TrimPrefix(target[1:], "subteam^"))
		return span{Kind: "at", Text: "@" + strings.TrimPrefix(unescape(name), "@")}
	}
	s := span{Kind: "link", Text: unescape(cmp.Or(label, target)), URL: webAddress(unescape(target))}
	if s.URL == "" {
		s.Kind = ""
	}
	return s
}

var (
	entities = strings.NewReplacer("&lt;", "<", "&gt;", ">", "&amp;", "&")
	emojis   = strings.NewReplacer(
		":hourglass_flowing_sand:", "⏳", ":white_check_mark:", "✅", ":x:", "❌", ":fast_forward:", "⏩",
		":rotating_light:", "🚨", ":grey_question:", "❔", ":rocket:", "🚀", ":tada:", "🎉", ":warning:", "⚠️",
	).Replace
)

func unescape(text string) string { return entities.Replace(text) }
