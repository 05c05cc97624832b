// Package slack posts and updates messages in Slack. They say what happened to
// an image, in Block Kit, in English or Japanese. Only this package uses
// Slack's client library.
package slack

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	api "github.com/slack-go/slack"

	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/httpclient"
)

// Timeout bounds one call.
const Timeout = 10 * time.Second

// Client posts as one bot. One call is one HTTP request, and each error wraps
// an *Error. It is safe for concurrent use.
type Client struct {
	api    *api.Client
	url    string // of the Web API, with a slash at its end
	caller caller
}

// New returns a Client of the Web API at apiURL, such as
// https://slack.com/api/. It asks nobody anything yet.
func New(apiURL string, token env.Secret) *Client {
	apiURL = strings.TrimRight(apiURL, "/") + "/"
	c := caller{httpclient.New(Timeout), token}
	return &Client{api.New(token.Reveal(), api.OptionAPIURL(apiURL), api.OptionHTTPClient(c)), apiURL, c}
}

// Ref names one message by the values of Slack's answer, with the channel's ID.
type Ref struct{ Channel, TS string }

// Post posts a message to a channel, by its ID or name.
func (c *Client) Post(ctx context.Context, channel string, m Message) (Ref, error) {
	ref, err := c.send(ctx, channel, api.MsgOptionPost(), m.fallback(), m.blocks())
	if err != nil {
		return Ref{}, fmt.Errorf("post to %s: %w", channel, err)
	}
	return ref, nil
}

// Update changes a message. If the message can no longer be updated, IsGone is
// true for the error, and nothing was posted.
func (c *Client) Update(ctx context.Context, ref Ref, m Message) (Ref, error) {
	updated, err := c.send(ctx, ref.Channel, api.MsgOptionUpdate(ref.TS), m.fallback(), m.blocks())
	if err != nil {
		return Ref{}, fmt.Errorf("update %s in %s: %w", ref.TS, ref.Channel, err)
	}
	return updated, nil
}

// Reply asks people in the thread of a message to look at it, and pings the
// Mention. A reply that pings the channel is shown in the channel, too, because
// in a thread @here and @channel reach only its readers.
func (c *Client) Reply(ctx context.Context, ref Ref, m Message) error {
	how := api.MsgOptionTS(ref.TS)
	if m.wakesChannel() {
		how = api.MsgOptionCompose(how, api.MsgOptionBroadcast())
	}
	if _, err := c.send(ctx, ref.Channel, how, m.replyFallback(), m.replyBlocks()); err != nil {
		return fmt.Errorf("reply to %s in %s: %w", ref.TS, ref.Channel, err)
	}
	return nil
}

func (c *Client) send(ctx context.Context, channel string, how api.MsgOption, fallback string, blocks []api.Block) (Ref, error) {
	channel, ts, _, err := c.api.SendMessageContext(ctx, channel, how,
		api.MsgOptionText(fallback, false),
		api.MsgOptionBlocks(blocks...),
		api.MsgOptionParse(false),
		api.MsgOptionDisableLinkUnfurl(),
		api.MsgOptionDisableMediaUnfurl(),
	)
	var refusal *Error
	switch {
	case err == nil:
		return Ref{channel, ts}, nil
	case errors.As(err, &refusal):
		return Ref{}, refusal
	}
	return Ref{}, unanswered(err)
}

// caller is the HTTP client of the library. It reads each answer before the
// library, which would misread some: an answer without ok and error as a
// success, a success with an unreadable part as a failure, and a 429 without a
// numeric Retry-After as neither. The library also drops the code of an answer
// other than 200.
type caller struct {
	client *http.Client
	token  env.Secret
}

// Do returns only the part of an answer that names a message, or an *Error.
func (c caller) Do(r *http.Request) (*http.Response, error) {
	res, err := c.client.Do(r)
	if err != nil {
		return nil, unanswered(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil && res.StatusCode == http.StatusOK {
		return nil, unanswered(err)
	}
	a, refusal := readAnswer(res.StatusCode, res.Header, body, c.token)
	if refusal != nil {
		return nil, refusal
	}
	body, err = json.Marshal(a)
	if err != nil {
		return nil, fmt.Errorf("marshal answer: %w", err)
	}
	res.Body = io.NopCloser(bytes.NewReader(body))
	return res, nil
}
