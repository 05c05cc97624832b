package pubsub

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Message is one delivery of a push subscription.
type Message struct {
	ID           string
	Data         []byte
	Attributes   map[string]string
	PublishedAt  time.Time // zero where it is not told
	Subscription string
	// Attempt counts the deliveries of this message, from 1. It is 0 where
	// the subscription has no dead-letter policy.
	Attempt int
}

// ParsePush reads the body of a push request. What is no such body comes back
// as the Data of a Message, with an error that says what is wrong.
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

// Attributes that hubrelay adds to those of a message.
const (
	ReasonAttribute   = "reason"      // of a dead letter: a code of the outcome table in docs/architecture.md
	HintAttribute     = "hint"        // of a dead letter: what to mend, in words
	ReplayedAttribute = "replayed_at" // of a dead letter that was queued again: when, in RFC 3339
)

// maxAttribute is how long the value of an attribute may be, in bytes.
const maxAttribute = 1024

// DeadLetter returns the attributes with which a message is published as a
// dead letter: its own, and why it is dead. A hint that Pub/Sub would not take
// is left out. What it carries of an earlier life as a dead letter goes.
func (m Message) DeadLetter(reason, hint string) map[string]string {
	attributes := map[string]string{ReasonAttribute: reason}
	for name, value := range m.Attributes {
		if name != ReasonAttribute && name != HintAttribute && name != ReplayedAttribute && !strings.HasPrefix(name, forwardedPrefix) {
			attributes[name] = value
		}
	}
	if hint != "" && len(hint) <= maxAttribute {
		attributes[HintAttribute] = hint
	}
	return attributes
}

// forwardedPrefix begins the attributes that Pub/Sub adds to what it gives up.
// https://cloud.google.com/pubsub/docs/dead-letter-topics#track_delivery_attempts
const forwardedPrefix = "CloudPubSubDeadLetterSource"

// Death says why a dead letter is dead. Where Pub/Sub gave it up there is no
// reason: one that it carries is of an earlier life, before it was replayed.
// attempts is how often it was delivered then, 0 where Pub/Sub does not say.
func (m Message) Death() (reason, hint string, attempts int) {
	if m.Attributes[ReplayedAttribute] == "" && m.Attributes[ReasonAttribute] != "" {
		return m.Attributes[ReasonAttribute], m.Attributes[HintAttribute], 0
	}
	attempts, _ = strconv.Atoi(m.Attributes[forwardedPrefix+"DeliveryCount"])
	return "", "", attempts
}
