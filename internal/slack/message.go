package slack

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	api "github.com/slack-go/slack"
)

// Language of a message.
type Language string

// The languages. Any other is taken for En.
const (
	En Language = "en"
	Ja Language = "ja"
)

// Event is what a message is about.
type Event string

// The events. Any other is taken for Promote.
const (
	Promote Event = "promote" // an image was built, and is signed
	Release Event = "release"
	Deploy  Event = "deploy"
)

// Status is how an event goes.
type Status string

// The statuses.
const (
	Running Status = "running"
	Success Status = "success"
	Failure Status = "failure"
	Skipped Status = "skipped"
	Dead    Status = "dead"   // there is no pipeline, and none will come by itself
	Silent  Status = "silent" // there is a pipeline, and nobody hears of it
)

// Message is what people read. A text that is "" is not shown. Whatever the
// texts are, they are shown as they are: they neither mention nor link.
type Message struct {
	Language Language
	Event    Event
	Status   Status

	Repository  string
	Tag         string
	Digest      string
	Version     string
	Project     string // GitLab's
	Text        string // what the caller has to say; of 2,000 characters at most, or Slack may refuse it
	PipelineURL string // no link where it is not http or https
	DeliveryID  string

	Reason   string        // of Dead: a code
	Attempts int           // of Dead: after which it was given up; 0 where that is not known
	Hint     string        // of Dead: what to mend
	Command  string        // of Dead: what starts it again
	Silence  time.Duration // of Silent
}

const (
	maxSection = 3000 // characters of a section or another text of Block Kit
	digestSize = len("sha256:") + 12
	idSize     = 8
)

// fallback is what notifications and screen readers show.
func (m Message) fallback() string {
	return m.say(m.sentence(), escape(cmp.Or(m.subject(), m.words().unnamed)))
}

// blocks show it at a glance: what happened, to what, and where to look.
func (m Message) blocks() []api.Block {
	blocks := sections(m.say(m.sentence(), m.markedSubject()))
	if facts := m.facts(); len(facts) > 0 {
		blocks = append(blocks, api.NewContextBlock("", facts...))
	}
	blocks = append(blocks, sections(m.why())...)
	return append(blocks, sections(escape(m.Text))...)
}

// why says of bad news what is known and what can be done.
func (m Message) why() string {
	w := m.words()
	var lines []string
	switch m.Status {
	case Dead:
		switch {
		case m.Attempts > 0:
			lines = append(lines, fmt.Sprintf(w.gaveUpAfter, m.Attempts))
		case m.Hint == "":
			lines = append(lines, w.gaveUp)
		}
		if m.Reason != "" {
			lines = append(lines, fmt.Sprintf(w.reason, span(m.Reason)))
		}
		lines = append(lines, escape(m.Hint))
		if m.Command != "" {
			lines = append(lines, w.replay, "```"+strings.ReplaceAll(escape(line(m.Command)), "`", "'")+"```")
		}
	case Silent:
		lines = append(lines, fmt.Sprintf(w.silence, m.Silence.Minutes()))
	}
	return strings.Join(slices.DeleteFunc(lines, func(l string) bool { return l == "" }), "\n")
}

func (m Message) replyFallback() string {
	return m.say(m.words().reply[m.voice()], escape(cmp.Or(m.subject(), m.words().unnamed)))
}

func (m Message) replyBlocks() []api.Block {
	blocks := sections(m.say(m.words().reply[m.voice()], m.markedSubject()))
	if link := m.link(); link != "" && length(link) <= maxSection {
		blocks = append(blocks, section(link))
	}
	return append(blocks, sections(escape(m.Text))...)
}

func (m Message) words() wording {
	if m.Language == Ja {
		return words[Ja]
	}
	return words[En]
}

// voice is chosen once for all that is said of one promotion.
func (m Message) voice() int {
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(cmp.Or(m.DeliveryID, m.Repository+m.Tag+m.Version)))
	return int(hash.Sum32() % voices)
}

func (m Message) sentence() string {
	event := m.Event
	if event != Release && event != Deploy {
		event = Promote
	}
	ways, ok := m.words().sentences[event][m.Status]
	if !ok {
		return "{} " + escape(string(m.Status))
	}
	return ways[m.voice()]
}

// say puts the subject, in Slack's markup, into a sentence.
func (m Message) say(sentence, subject string) string {
	return cmp.Or(emoji[m.Status], ":grey_question:") + " " + strings.Replace(sentence, "{}", subject, 1)
}

// subject is what it happened to: of a promotion the image, of a release or a
// deploy the version where there is one.
func (m Message) subject() string {
	name := cmp.Or(m.Repository, m.Project)
	switch {
	case m.byVersion():
		name += " " + m.Version
	case m.Tag != "":
		name += ":" + m.Tag
	}
	return line(name)
}

func (m Message) markedSubject() string {
	if subject := m.subject(); subject != "" {
		return span(subject)
	}
	return m.words().unnamed
}

// byVersion tells whether the subject is a version, not an image with its tag.
func (m Message) byVersion() bool {
	return m.Version != "" && (m.Tag == "" || m.Event == Release || m.Event == Deploy)
}

// facts are the small print. One that Slack would refuse for its length is
// left out: what callers may send is shorter.
func (m Message) facts() []api.MixedElement {
	var facts []api.MixedElement
	add := func(given, text string) {
		if visible(given) && text != "" && length(text) <= maxSection {
			facts = append(facts, mrkdwn(text))
		}
	}
	add(m.Digest, span(first(m.Digest, digestSize)))
	if m.byVersion() {
		add(m.Tag, span(m.Tag))
	} else {
		add(m.Version, span(m.Version))
	}
	if m.Repository != "" { // else it is the subject's name
		add(m.Project, span(m.Project))
	}
	add(m.PipelineURL, m.link())
	add(m.DeliveryID, span(first(m.DeliveryID, idSize)))
	return facts
}

// link returns the link to the pipeline, "" where that is no address to show
// to people.
func (m Message) link() string {
	u, err := url.Parse(m.PipelineURL)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil {
		return ""
	}
	var target strings.Builder
	for _, c := range []byte(u.String()) {
		if c <= ' ' || c >= utf8.RuneSelf || strings.IndexByte("\"<>\\^`{|}\x7f", c) >= 0 {
			fmt.Fprintf(&target, "%%%02X", c)
		} else {
			target.WriteByte(c)
		}
	}
	return "<" + escape(target.String()) + "|" + m.words().pipeline + ">"
}

// escape makes text that Slack shows as it is.
func escape(text string) string {
	text = strings.Map(func(c rune) rune {
		if unicode.IsControl(c) && c != '\n' && c != '\t' {
			return -1
		}
		return c
	}, strings.ToValidUTF8(text, "\uFFFD"))
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(text)
}

// line puts text on one line.
func line(text string) string { return strings.Join(strings.Fields(text), " ") }

// first returns the first n characters.
func first(text string, n int) string {
	for i := range text {
		if n == 0 {
			return text[:i]
		}
		n--
	}
	return text
}

// span shows text as code, in which nothing has a meaning but its end. The
// spaces of no width make Slack see it between Japanese letters.
func span(text string) string {
	return "\u200b`" + strings.ReplaceAll(escape(line(text)), "`", "'") + "`\u200b"
}

// mrkdwn is text in Slack's markup. It is verbatim: Slack looks for no
// addresses, channels or people in it.
func mrkdwn(text string) *api.TextBlockObject {
	return api.NewTextBlockObject(api.MarkdownType, text, false, true)
}

func section(text string) api.Block { return api.NewSectionBlock(mrkdwn(text), nil, nil) }

// sections shows escaped text of any length. What is too long for one section
// goes on in the next; no character reference is cut.
func sections(text string) []api.Block {
	var blocks []api.Block
	for text = strings.TrimSpace(text); text != ""; {
		end, size := 0, 0
		for end < len(text) {
			n := step(text[end:])
			if size += length(text[end : end+n]); size > maxSection {
				break
			}
			end += n
		}
		if part := text[:end]; visible(part) {
			blocks = append(blocks, section(part))
		}
		text = text[end:]
	}
	return blocks
}

// visible tells whether there is anything to see. Slack refuses a text without.
func visible(text string) bool {
	return strings.ContainsFunc(text, func(c rune) bool { return unicode.IsGraphic(c) && !unicode.IsSpace(c) })
}

// step returns how many bytes the first character of escaped text takes.
func step(text string) int {
	if text[0] == '&' {
		return strings.IndexByte(text, ';') + 1
	}
	_, n := utf8.DecodeRuneInString(text)
	return n
}

// length counts as the stricter of two readings of Slack's limits does: a
// character beyond the basic plane, such as most emoji, counts twice.
func length(text string) int {
	n := 0
	for _, c := range text {
		n += utf16.RuneLen(c)
	}
	return n
}
