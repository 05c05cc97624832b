// Package slack keeps messages in Slack: it says what happened to an image, in
// Block Kit, in English or Japanese. No other package knows which client
// library is used.
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

// Timeout spans one call.
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

// Ref names one message as Slack answered it: with the channel's ID.
type Ref struct{ Channel, TS string }

// Post posts a message to a channel, by its ID or name.
func (c *Client) Post(ctx context.Context, channel string, m Message) (Ref, error) {
	ref, err := c.send(ctx, channel, api.MsgOptionPost(), m.fallback(), m.blocks())
	if err != nil {
		return Ref{}, fmt.Errorf("post to %s: %w", channel, err)
	}
	return ref, nil
}

// Update makes a message say something else. Where the message cannot be
// updated any more, IsGone tells so of the error, and nothing was posted.
func (c *Client) Update(ctx context.Context, ref Ref, m Message) (Ref, error) {
	updated, err := c.send(ctx, ref.Channel, api.MsgOptionUpdate(ref.TS), m.fallback(), m.blocks())
	if err != nil {
		return Ref{}, fmt.Errorf("update %s in %s: %w", ref.TS, ref.Channel, err)
	}
	return updated, nil
}

// Reply asks in the thread of a message for somebody to look at it, and pings
// whom the message mentions. A reply that pings the channel is shown there,
// too: in a thread alone, @here and @channel reach nobody but its readers.
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

// caller is the HTTP client of the library, and reads each answer before the
// library does. That would take an answer without ok and error for a success,
// a success of which it cannot read some part for a failure, and a 429 whose
// Retry-After is no number for neither; and it drops the code of an answer
// that is no 200.
type caller struct {
	client *http.Client
	token  env.Secret
}

// Do returns an answer that names a message, and nothing else of it, or an
// *Error.
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
