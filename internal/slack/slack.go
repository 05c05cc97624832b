// Package slack keeps messages in Slack: it says what happened to an image, in
// Block Kit, in English or Japanese. No other package knows which client
// library is used.
package slack

import (
	"context"
	"errors"
	"time"

	api "github.com/slack-go/slack"

	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/httpx"
)

// timeout spans one call.
const timeout = 10 * time.Second

// Client posts as one bot. One call is one HTTP request, and each error is an
// *Error.
type Client struct{ api *api.Client }

// New returns a client of the Web API at apiURL, such as
// https://slack.com/api/. It asks nobody anything yet.
func New(apiURL string, token env.Secret) *Client {
	return &Client{api.New(token.Reveal(), api.OptionAPIURL(apiURL), api.OptionHTTPClient(httpx.NewClient(timeout)))}
}

// Ref names one message as Slack answered it, with the channel's ID.
type Ref struct{ Channel, TS string }

// Post posts a message to a channel, by its ID or name.
func (c *Client) Post(ctx context.Context, channel string, m Message) (Ref, error) {
	return c.send(ctx, channel, append(m.options(), api.MsgOptionPost()))
}

// Update makes a message say something else.
func (c *Client) Update(ctx context.Context, ref Ref, m Message) (Ref, error) {
	return c.send(ctx, ref.Channel, append(m.options(), api.MsgOptionUpdate(ref.TS)))
}

// Reply tells in the thread of a message that it failed.
func (c *Client) Reply(ctx context.Context, ref Ref, m Message) error {
	_, err := c.send(ctx, ref.Channel, append(m.replyOptions(), api.MsgOptionPost(), api.MsgOptionTS(ref.TS)))
	return err
}

func (c *Client) send(ctx context.Context, channel string, options []api.MsgOption) (Ref, error) {
	options = append(options, api.MsgOptionDisableLinkUnfurl(), api.MsgOptionDisableMediaUnfurl())
	channel, ts, _, err := c.api.SendMessageContext(ctx, channel, options...)
	if err == nil && (channel == "" || ts == "") {
		err = errors.New("the answer names no message")
	}
	if err != nil {
		return Ref{}, explain(err)
	}
	return Ref{channel, ts}, nil
}
