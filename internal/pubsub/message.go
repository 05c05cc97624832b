package pubsub

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Message is one delivery of a push subscription.
type Message struct {
	ID           string
	Data         []byte
	Attributes   map[string]string
	PublishedAt  time.Time // zero if it is not known
	Subscription string
	// Attempt counts the deliveries of this message, from 1. It is 0 if the
	// subscription has no dead-letter policy.
	Attempt int
}

// ParsePush reads the body of a push request. If it is not such a body, it is
// returned as the Data of a Message, with an error that says what is wrong.
func ParsePush(body []byte) (Message, error) {
	var push struct {
		Message *struct {
			Data        []byte            `json:"data"`
			Attributes  map[string]string `json:"attributes"`
			MessageID   string            `json:"messageId"`
			PublishTime time.Time         `json:"publishTime"`
		} `json:"message"`
		Subscription    string `json:"subscription"`
		DeliveryAttempt int    `json:"deliveryAttempt"`
	}
	err := json.Unmarshal(body, &push)
	if err == nil && push.Message == nil {
		err = errors.New("there is no message in it")
	}
	if err != nil {
		return Message{Data: body}, fmt.Errorf("the body is not a push of Pub/Sub: %w", err)
	}
	return Message{
		ID:           push.Message.MessageID,
		Data:         push.Message.Data,
		Attributes:   push.Message.Attributes,
		PublishedAt:  push.Message.PublishTime,
		Subscription: push.Subscription,
		Attempt:      push.DeliveryAttempt,
	}, nil
}

// Attributes of messages.
const (
	IDAttribute          = "id"
	RepositoryAttribute  = "repository"
	TagAttribute         = "tag"
	SourceAttribute      = "source"      // who queued it: SourceWebhook or SourceReconcile
	TraceparentAttribute = "traceparent" // of the request that brought the push
	ReplayedAttribute    = "replayed_at" // when a dead letter was queued again, in RFC 3339

	// For dead letters that Trigger publishes.
	ReasonAttribute      = "reason"       // a code of the outcome table in docs/architecture.md
	HintAttribute        = "hint"         // what to fix
	WordsAttribute       = "words"        // GitLab's own
	PromotionIDAttribute = "promotion_id" // the promotion that died
	QueuedAtAttribute    = "queued_at"    // when the message was queued, in RFC 3339
)

// Values of SourceAttribute.
const (
	SourceWebhook   = "webhook"
	SourceReconcile = "reconcile"
)

// Attributes that Pub/Sub adds to a message that it gives up.
// https://cloud.google.com/pubsub/docs/dead-letter-topics#track_delivery_attempts
const (
	forwardedPrefix      = "CloudPubSubDeadLetterSource"
	forwardedAttempts    = forwardedPrefix + "DeliveryCount"
	forwardedPublishTime = forwardedPrefix + "TopicPublishTime"
)

// maxAttribute is how long the value of an attribute may be, in bytes.
const maxAttribute = 1024

// Death says why a dead letter is dead. If Pub/Sub gave the message up, only
// Attempts is set.
type Death struct {
	Reason      string
	Hint        string
	Words       string
	PromotionID string
	// Attempts is how often Pub/Sub had delivered the message when it gave up.
	// It is 0 if Pub/Sub does not say, or if Trigger gave up.
	Attempts int
}

// DeadLetter returns the attributes with which a message is published as a dead
// letter: its own, why it is dead, and when it was queued. Attributes of an
// earlier death are removed. Values that are too long for Pub/Sub are
// shortened.
func (m Message) DeadLetter(d Death) map[string]string {
	attributes := map[string]string{}
	for name, value := range m.Attributes {
		if !strings.HasPrefix(name, forwardedPrefix) {
			attributes[name] = value
		}
	}
	queued := ""
	if !m.PublishedAt.IsZero() {
		queued = m.PublishedAt.UTC().Format(time.RFC3339Nano)
	}
	for name, value := range map[string]string{
		ReasonAttribute:      d.Reason,
		HintAttribute:        d.Hint,
		WordsAttribute:       d.Words,
		PromotionIDAttribute: d.PromotionID,
		QueuedAtAttribute:    queued,
	} {
		if value == "" {
			delete(attributes, name)
			continue
		}
		attributes[name] = short(value)
	}
	return attributes
}

// short shortens a value to what Pub/Sub accepts for an attribute.
func short(value string) string {
	const ellipsis = "…"
	value = strings.ToValidUTF8(value, "\ufffd")
	if len(value) <= maxAttribute {
		return value
	}
	end := maxAttribute - len(ellipsis)
	for !utf8.RuneStart(value[end]) {
		end--
	}
	return value[:end] + ellipsis
}

// Death reads why a dead letter is dead. If Pub/Sub gave it up, attributes of
// an earlier death do not count.
func (m Message) Death() Death {
	if m.forwarded() {
		attempts, _ := strconv.Atoi(m.Attributes[forwardedAttempts])
		return Death{Attempts: max(0, attempts)}
	}
	return Death{
		Reason:      m.Attributes[ReasonAttribute],
		Hint:        m.Attributes[HintAttribute],
		Words:       m.Attributes[WordsAttribute],
		PromotionID: m.Attributes[PromotionIDAttribute],
	}
}

// forwarded reports whether it was Pub/Sub that gave a dead letter up.
func (m Message) forwarded() bool {
	for name := range m.Attributes {
		if strings.HasPrefix(name, forwardedPrefix) {
			return true
		}
	}
	return false
}

// QueuedAt returns when a message was queued that is not a dead letter:
// PublishedAt, else ReplayedAt. It is zero if the message has neither.
func (m Message) QueuedAt() time.Time {
	if !m.PublishedAt.IsZero() {
		return m.PublishedAt
	}
	return m.ReplayedAt()
}

// DeadLetterQueuedAt returns when the message was queued that became this dead
// letter. Trigger or Pub/Sub, whichever gave it up, says so; otherwise it is
// ReplayedAt. It is zero if the letter has neither. A replayed message looks
// like the letter that it was, so the caller must know which of the two methods
// to use.
func (m Message) DeadLetterQueuedAt() time.Time {
	name := QueuedAtAttribute
	if m.forwarded() {
		name = forwardedPublishTime
	}
	if queued := m.moment(name); !queued.IsZero() {
		return queued
	}
	return m.ReplayedAt()
}

// ReplayedAt returns when the message was last queued again as a dead letter.
// It is zero if it never was, or does not say so in RFC 3339.
func (m Message) ReplayedAt() time.Time { return m.moment(ReplayedAttribute) }

// moment reads an attribute that is a time in RFC 3339.
func (m Message) moment(name string) time.Time {
	at, err := time.Parse(time.RFC3339Nano, m.Attributes[name])
	if err != nil {
		return time.Time{}
	}
	return at.UTC()
}
