package slack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	api "github.com/slack-go/slack"

	"github.com/getto-systems/hubrelay/internal/httpclient"
)

// MissingScope is the code of a refusal to a token without a scope.
const MissingScope = "missing_scope"

// ChannelNotFound is the code for a channel that does not exist, or that the
// bot may not see.
const ChannelNotFound = "channel_not_found"

// Identity is who a token belongs to.
type Identity struct {
	Team, User string
	Bot        bool
	// Scopes are those that Slack names in an undocumented header; nil if it
	// names none.
	Scopes []string
}

// Identity says who the token belongs to (auth.test, which needs no scope).
func (c *Client) Identity(ctx context.Context) (Identity, error) {
	var who struct {
		Team  string `json:"team"`
		User  string `json:"user"`
		BotID string `json:"bot_id"`
	}
	header, err := c.question(ctx, "auth.test", url.Values{}, &who)
	if err != nil {
		return Identity{}, fmt.Errorf("ask Slack whose token it is: %w", err)
	}
	i := Identity{Team: httpclient.OneLine(who.Team), User: httpclient.OneLine(who.User), Bot: who.BotID != ""}
	for scope := range strings.SplitSeq(header.Get("X-OAuth-Scopes"), ",") {
		if scope = strings.TrimSpace(scope); scope != "" {
			i.Scopes = append(i.Scopes, httpclient.OneLine(scope))
		}
	}
	return i, nil
}

// Channel is a channel as the bot sees it.
type Channel struct {
	Name             string
	Member, Archived bool // Member: the bot is in it. Archived: it accepts no messages
}

// Channel describes a channel, by its ID (conversations.info, which needs the
// scope channels:read, and groups:read for a private channel).
func (c *Client) Channel(ctx context.Context, id string) (Channel, error) {
	var answer struct {
		Channel *struct {
			Name       string `json:"name"`
			IsMember   bool   `json:"is_member"`
			IsArchived bool   `json:"is_archived"`
		} `json:"channel"`
	}
	_, err := c.question(ctx, "conversations.info", url.Values{"channel": {id}}, &answer)
	switch {
	case err != nil:
		return Channel{}, fmt.Errorf("ask Slack for channel %s: %w", id, err)
	case answer.Channel == nil:
		return Channel{}, fmt.Errorf("ask Slack for channel %s: %w", id, &Error{Status: http.StatusOK, Hint: apiHint, Cause: errors.New("the answer names no channel")})
	}
	return Channel{httpclient.OneLine(answer.Channel.Name), answer.Channel.IsMember, answer.Channel.IsArchived}, nil
}

// Say posts one line of plain text.
func (c *Client) Say(ctx context.Context, channel, text string) (Ref, error) {
	ref, err := c.send(ctx, channel, api.MsgOptionPost(), escape(text), nil)
	if err != nil {
		return Ref{}, fmt.Errorf("post to %s: %w", channel, err)
	}
	return ref, nil
}

// question calls a method that has no side effects.
func (c *Client) question(ctx context.Context, method string, values url.Values, into any) (http.Header, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+method, strings.NewReader(values.Encode()))
	if err != nil {
		return nil, unanswered(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Authorization", "Bearer "+c.caller.token.Reveal())
	res, err := c.caller.client.Do(r)
	if err != nil {
		return nil, unanswered(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, unanswered(err)
	}
	var said struct {
		OK       bool   `json:"ok"`
		Code     string `json:"error"`
		Needed   string `json:"needed"`
		Provided string `json:"provided"`
	}
	var odd *json.UnmarshalTypeError
	readable := func(err error) bool { return err == nil || errors.As(err, &odd) }
	refusal := &Error{Status: res.StatusCode, RetryAfter: httpclient.RetryAfter(res.Header)}
	switch err := json.Unmarshal(body, &said); {
	case readable(err) && said.Code != "":
		refusal.Code = codeOf(redact(said.Code, c.caller.token))
		refusal.Hint = hintOf(refusal.Code)
		if said.Needed != "" {
			refusal.Cause = fmt.Errorf("needed is %s, provided %s", httpclient.OneLine(redact(said.Needed, c.caller.token)), httpclient.OneLine(redact(said.Provided, c.caller.token)))
		}
	case res.StatusCode != http.StatusOK:
		if !refusal.Temporary() {
			refusal.Hint = apiHint
		}
	case !readable(err), !said.OK, !readable(json.Unmarshal(body, into)):
		refusal.Code, refusal.Hint = unknown, apiHint
	default:
		return res.Header, nil
	}
	return nil, refusal
}
