package slack

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"net/url"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	api "github.com/slack-go/slack"
)

// Language of a message.
type Language string

// The languages. Any other counts as En.
const (
	En Language = "en"
	Ja Language = "ja"
)

// Event is what a message is about.
type Event string

// The events. Any other counts as Promote.
const (
	Promote Event = "promote" // an image was built, and is signed
	Release Event = "release"
	Deploy  Event = "deploy"
	// Registration is the registration of a webhook in Docker Hub. Its only
	// status is Waiting.
	Registration Event = "registration"
)

// Status is the status of an event.
type Status string

// The statuses.
const (
	Running    Status = "running"
	Success    Status = "success"
	Failure    Status = "failure"
	Skipped    Status = "skipped"    // there was nothing to do
	Superseded Status = "superseded" // the tag is another image now
	Waiting    Status = "waiting"    // it cannot continue yet, and continues without help once it can
	Dead       Status = "dead"       // there is no pipeline, and none will come without help
	Silent     Status = "silent"     // there is a pipeline, and it does not report
)

// Bad reports whether a person must look.
func (s Status) Bad() bool {
	switch s {
	case Failure, Waiting, Dead, Silent:
		return true
	}
	return false
}

// Message is the content of a message. An empty text is not shown. Texts are
// shown literally: they cannot mention anybody or contain links. A text that is
// too long for Slack is shortened, and the cut is marked.
type Message struct {
	Language Language
	Event    Event
	Status   Status

	Repository  string
	Tag         string
	Digest      string
	Version     string
	Project     string // GitLab's
	Text        string // the caller's message
	PipelineURL string // no link if it is not http or https
	PromotionID string // selects the voice; shown shortened

	// Shown for failures and for Skipped.
	Reason string // a code
	Hint   string // what to fix
	Words  string // GitLab's own

	Attempts int           // of Dead: after which it was given up; 0 if that is not known
	Command  string        // of Dead: the command that starts it again
	Since    time.Duration // of Waiting: how long it has waited; 0 is not shown
	Silence  time.Duration // of Silent

	// Mention is pinged for failures, only in Reply, so that each failure pings
	// once. It is the ID of a user (U…, W…) or a user group (S…), @here or
	// @channel. Anything else pings nobody.
	Mention string
}

const (
	maxSection = 3000 // characters of a section or another text of Block Kit
	digestSize = len("sha256:") + 12
	idSize     = 8
)

// How much of a text is shown, in characters as they are sent to Slack: & is
// sent as &amp;. Together they stay below 12,000, because Slack was seen to
// refuse messages from 13,200 on. The sentence alone stays below 4,000, the
// limit of an update's text.
const (
	maxSubject = 500
	maxFact    = 300
	maxLink    = 1500 // a longer address is left out, because a part of it does not work
	maxReason  = 200
	maxHint    = 800
	maxWords   = 500
	maxCommand = 1000 // a longer command is left out, too
	maxText    = 5000
)

// fallback is what notifications and screen readers show.
func (m Message) fallback() string { return m.say(m.sentence(), m.subject()) }

// blocks show what happened, to which image, and where to look.
func (m Message) blocks() []api.Block {
	blocks := sections(m.say(m.sentence(), m.markedSubject()))
	if facts := m.facts(); len(facts) > 0 {
		blocks = append(blocks, api.NewContextBlock("", facts...))
	}
	blocks = append(blocks, sections(m.why())...)
	return append(blocks, m.text()...)
}

func (m Message) text() []api.Block {
	return sections(shorten(escape(m.Text), maxText, m.words().shortened))
}

// why says what is known of a failure, and what can be done.
func (m Message) why() string {
	var (
		w     = m.words()
		lines []string
	)
	switch {
	case m.Status == Dead && m.Attempts > 0:
		lines = append(lines, fmt.Sprintf(w.gaveUpAfter, m.Attempts))
	case m.Status == Dead && m.Hint == "":
		lines = append(lines, w.gaveUp)
	case m.Status == Waiting && m.Since > 0:
		lines = append(lines, fmt.Sprintf(w.since, w.duration(m.Since)))
	case m.Status == Silent:
		lines = append(lines, fmt.Sprintf(w.silence, w.duration(m.Silence)))
	}
	if m.Status.Bad() || m.Status == Skipped {
		reason := w.reason
		if m.Status == Waiting {
			reason = w.waitsFor
		}
		if visible(m.Reason) {
			lines = append(lines, fmt.Sprintf(reason, span(m.Reason, maxReason)))
		}
		if visible(m.Hint) {
			lines = append(lines, shorten(escape(m.Hint), maxHint, ellipsis))
		}
		if visible(m.Words) {
			lines = append(lines, fmt.Sprintf(w.gitlab, span(m.Words, maxWords)))
		}
	}
	command := strings.ReplaceAll(escape(line(m.Command)), "`", "'")
	switch {
	case m.Status == Dead && visible(command) && length(command) <= maxCommand:
		lines = append(lines, w.replay, "```"+command+"```")
	case m.Status == Waiting && visible(m.Hint):
		lines = append(lines, w.goesOn)
	}
	return strings.Join(lines, "\n")
}

func (m Message) replyFallback() string { return m.say(m.call(), m.subject()) }

func (m Message) replyBlocks() []api.Block {
	blocks := sections(m.say(m.call(), m.markedSubject()))
	if link := m.link(); link != "" {
		blocks = append(blocks, section(link))
	}
	return append(blocks, m.text()...)
}

// call asks people to look.
func (m Message) call() string {
	call := m.words().reply[m.voice()]
	if who := m.mention(); who != "" {
		return who + " " + call
	}
	return call
}

var (
	userID  = regexp.MustCompile(`^[UW][A-Z0-9]+$`)
	groupID = regexp.MustCompile(`^S[A-Z0-9]+$`)
)

// mention returns the markup that pings for a failure, "" if nobody is pinged.
func (m Message) mention() string {
	switch {
	case !m.Status.Bad():
		return ""
	case m.wakesChannel():
		return "<!" + m.Mention[1:] + ">"
	case userID.MatchString(m.Mention):
		return "<@" + m.Mention + ">"
	case groupID.MatchString(m.Mention):
		return "<!subteam^" + m.Mention + ">"
	}
	return ""
}

// wakesChannel reports whether a whole channel is pinged, and not a user or a
// group.
func (m Message) wakesChannel() bool {
	return m.Status.Bad() && (m.Mention == "@here" || m.Mention == "@channel")
}

func (m Message) words() wording {
	if m.Language == Ja {
		return words[Ja]
	}
	return words[En]
}

// voice is the same for all messages about one promotion.
func (m Message) voice() int {
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(cmp.Or(m.PromotionID, m.Repository+m.Tag+m.Version)))
	return int(hash.Sum32() % voices)
}

// sentence states the status. If an event has no words for it, those of Promote
// are used.
func (m Message) sentence() string {
	sentences := m.words().sentences
	ways, ok := sentences[m.Event][m.Status]
	if !ok {
		ways, ok = sentences[Promote][m.Status]
	}
	if !ok {
		return "{} " + shorten(escape(line(string(m.Status))), maxFact, ellipsis)
	}
	return ways[m.voice()]
}

// say inserts the subject, in Slack's markup, into a sentence.
func (m Message) say(sentence, subject string) string {
	return cmp.Or(emoji[m.Status], ":grey_question:") + " " + strings.Replace(sentence, "{}", subject, 1)
}

// subject is what the message is about, escaped: for a promotion the image, for
// a release or a deploy the version if there is one.
func (m Message) subject() string {
	if name := m.name(); visible(name) {
		return shorten(escape(name), maxSubject, ellipsis)
	}
	return m.words().unnamed
}

func (m Message) markedSubject() string {
	if name := m.name(); visible(name) {
		return span(name, maxSubject)
	}
	return m.words().unnamed
}

func (m Message) name() string {
	name := cmp.Or(m.Repository, m.Project)
	switch {
	case m.byVersion():
		name += " " + m.Version
	case m.Tag != "":
		name += ":" + m.Tag
	}
	return line(name)
}

// byVersion reports whether the subject is a version, not an image with its
// tag.
func (m Message) byVersion() bool {
	return m.Version != "" && (m.Tag == "" || m.Event == Release || m.Event == Deploy)
}

// facts are the small print.
func (m Message) facts() []api.MixedElement {
	var facts []api.MixedElement
	add := func(fact string) {
		if visible(fact) {
			facts = append(facts, mrkdwn(span(fact, maxFact)))
		}
	}
	add(first(m.Digest, digestSize))
	if m.byVersion() {
		add(m.Tag)
	} else {
		add(m.Version)
	}
	if m.Repository != "" { // otherwise the project is the subject
		add(m.Project)
	}
	if link := m.link(); link != "" {
		facts = append(facts, mrkdwn(link))
	}
	add(first(m.PromotionID, idSize))
	return facts
}

// link returns the link to the pipeline, "" if the address must not be shown.
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
	link := "<" + escape(target.String()) + "|" + m.words().pipeline + ">"
	if length(link) > maxLink {
		return ""
	}
	return link
}

// escape makes text that Slack shows as it is.
func escape(text string) string {
	text = strings.Map(func(c rune) rune {
		if unicode.IsControl(c) && c != '\n' && c != '\t' || unicode.Is(unicode.Bidi_Control, c) {
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

const ellipsis = "…"

// shorten returns escaped text of at most limit characters. A longer text ends
// with mark; no character reference is cut.
func shorten(text string, limit int, mark string) string {
	text = strings.TrimSpace(text)
	if length(text) <= limit {
		return text
	}
	return strings.TrimSpace(text[:fits(text, limit-length(mark))]) + mark
}

// fits returns how many bytes of escaped text take at most limit characters.
func fits(text string, limit int) int {
	end, size := 0, 0
	for end < len(text) {
		n := step(text[end:])
		if size += length(text[end : end+n]); size > limit {
			break
		}
		end += n
	}
	return end
}

// span shows at most limit characters of text as code, so that nothing in it is
// markup. With the zero-width spaces Slack recognises it between Japanese
// letters.
func span(text string, limit int) string {
	text = shorten(strings.ReplaceAll(escape(line(text)), "`", "'"), limit, ellipsis)
	return "\u200b`" + text + "`\u200b"
}

// mrkdwn is text in Slack's markup. It is verbatim: Slack does not look for
// addresses, channels or people in it.
func mrkdwn(text string) *api.TextBlockObject {
	return api.NewTextBlockObject(api.MarkdownType, text, false, true)
}

func section(text string) api.Block { return api.NewSectionBlock(mrkdwn(text), nil, nil) }

// sections shows escaped text of any length. If it is too long for one section,
// it continues in the next; no character reference is cut.
func sections(text string) []api.Block {
	var blocks []api.Block
	for text = strings.TrimSpace(text); text != ""; {
		end := fits(text, maxSection)
		if part := text[:end]; visible(part) {
			blocks = append(blocks, section(part))
		}
		text = text[end:]
	}
	return blocks
}

// visible reports whether the text has a visible character. Slack refuses a
// text without one.
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

// length counts characters by the stricter reading of Slack's limits: a
// character beyond the basic plane, such as most emoji, counts twice.
func length(text string) int {
	n := 0
	for _, c := range text {
		n += utf16.RuneLen(c)
	}
	return n
}
