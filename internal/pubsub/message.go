package pubsub

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
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

// Attributes that a dead letter has beside those of the message that died.
const (
	ReasonAttribute = "reason" // a code of the outcome table in docs/architecture.md
	HintAttribute   = "hint"   // what to mend, in words
)

// maxAttribute is how long the value of an attribute may be, in bytes.
const maxAttribute = 1024

// DeadLetter returns the attributes with which a message is published as a
// dead letter: its own, and why it is dead. A hint that Pub/Sub would not take
// is left out.
func (m Message) DeadLetter(reason, hint string) map[string]string {
	attributes := maps.Clone(m.Attributes)
	if attributes == nil {
		attributes = map[string]string{}
	}
	attributes[ReasonAttribute] = reason
	if hint != "" && len(hint) <= maxAttribute {
		attributes[HintAttribute] = hint
	}
	return attributes
}
