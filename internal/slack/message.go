package slack

import (
	"hash/fnv"
	"net/url"
	"strings"
	"unicode/utf8"

	api "github.com/slack-go/slack"
)

// Language of a message.
type Language string

// The languages.
const (
	En Language = "en"
	Ja Language = "ja"
)

// Event is what a message is about.
type Event string

// The events.
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
)

// Message is what people read. What is "" is left out. Texts are what somebody
// sent: they can neither mention nor link.
type Message struct {
	Language Language
	Event    Event
	Status   Status

	Repository  string
	Tag         string
	Digest      string
	Version     string
	Project     string // GitLab's, shown where there is no repository
	Text        string // what the caller has to say
	PipelineURL string
	DeliveryID  string
}

func (m Message) options() []api.MsgOption {
	return []api.MsgOption{api.MsgOptionText(m.fallback(), false), api.MsgOptionBlocks(m.blocks()...)}
}

func (m Message) replyOptions() []api.MsgOption {
	text := m.replyText()
	return []api.MsgOption{api.MsgOptionText(text, false), api.MsgOptionBlocks(m.replyBlocks()...)}
}

// fallback is what notifications and screen readers show.
func (m Message) fallback() string {
	return emoji[m.Status] + " " + m.sentence(escape(m.subject()))
}

// blocks show it at a glance: what happened, to what, and where to look.
func (m Message) blocks() []api.Block {
	subject := "*" + escape(m.subject()) + "*"
	blocks := []api.Block{section(emoji[m.Status] + " " + m.sentence(subject))}
	if facts := m.facts(); len(facts) > 0 {
		blocks = append(blocks, api.NewContextBlock("", mrkdwn(strings.Join(facts, "  ·  "))))
	}
	return append(blocks, sections(m.Text)...)
}

func (m Message) replyText() string {
	return words[m.language()].reply + " " + escape(m.subject())
}

func (m Message) replyBlocks() []api.Block {
	text := m.replyText()
	if link := m.link(); link != "" {
		text += "  " + link
	}
	return append([]api.Block{section(text)}, sections(m.Text)...)
}

// subject is what it happened to.
func (m Message) subject() string {
	name := m.Repository
	if name == "" {
		name = m.Project
	}
	switch {
	case m.Event != Promote && m.Version != "":
		return strings.TrimSpace(name + " " + m.Version)
	case m.Tag != "" && m.Repository != "":
		return name + ":" + m.Tag
	case m.Version != "":
		return strings.TrimSpace(name + " " + m.Version)
	}
	return name
}

func (m Message) facts() []string {
	var facts []string
	if hex, ok := strings.CutPrefix(m.Digest, "sha256:"); ok && len(hex) >= 12 {
		facts = append(facts, "`sha256:"+escape(hex[:12])+"`")
	}
	if m.Version != "" && m.Event == Promote && m.Tag != "" {
		facts = append(facts, escape(m.Version))
	}
	if link := m.link(); link != "" {
		facts = append(facts, link)
	}
	if len(m.DeliveryID) >= 8 {
		facts = append(facts, "`"+escape(m.DeliveryID[:8])+"`")
	}
	return facts
}

func (m Message) link() string {
	u, err := url.Parse(m.PipelineURL)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return ""
	}
	target := strings.NewReplacer("|", "%7C", "<", "%3C", ">", "%3E").Replace(u.String())
	return "<" + escape(target) + "|" + words[m.language()].pipeline + ">"
}

func (m Message) language() Language {
	if m.Language == Ja {
		return Ja
	}
	return En
}

// sentence says what happened in one of several ways. The same promotion is
// always spoken of in the same voice.
func (m Message) sentence(subject string) string {
	ways := words[m.language()].sentences[m.Event][m.Status]
	voice := fnv.New32a()
	_, _ = voice.Write([]byte(m.DeliveryID + m.subject()))
	return strings.ReplaceAll(ways[int(voice.Sum32()%uint32(len(ways)))], "{}", subject)
}

// escape makes text that Slack shows as it is.
func escape(text string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(text)
}

func mrkdwn(text string) *api.TextBlockObject {
	return api.NewTextBlockObject(api.MarkdownType, text, false, false)
}

func section(text string) api.Block { return api.NewSectionBlock(mrkdwn(text), nil, nil) }

// maxSection is how long the text of a section may be, in characters.
const maxSection = 3000

// sections shows a text of any length, escaped. What is too long for one
// section goes on in the next.
func sections(text string) []api.Block {
	var (
		blocks []api.Block
		part   strings.Builder
		length int
	)
	for _, r := range text {
		piece := escape(string(r))
		if n := utf8.RuneCountInString(piece); length+n > maxSection {
			blocks = append(blocks, plain(part.String()))
			part.Reset()
			length = 0
		}
		part.WriteString(piece)
		length += utf8.RuneCountInString(piece)
	}
	if strings.TrimSpace(part.String()) != "" {
		blocks = append(blocks, plain(part.String()))
	}
	return blocks
}

// plain is a section in which only mrkdwn's own marks have a meaning; no
// channel or person is looked for in it.
func plain(text string) api.Block {
	return api.NewSectionBlock(api.NewTextBlockObject(api.MarkdownType, text, false, true), nil, nil)
}
