package hub

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/getto-systems/hubrelay/internal/env"
)

const (
	// early is how long before its end a token is no longer used: a call may
	// take as long.
	early = 2 * Timeout
	// defaultLife is how long a token is used that does not say when it ends.
	// Docker Hub's last ten minutes.
	defaultLife = 5 * time.Minute
	maxLife     = time.Hour
	maxToken    = 16 << 10 // bytes; they go into a header
	// loginPause is how long no login is tried after one was refused: Docker
	// Hub locks an account out.
	loginPause = time.Minute
)

// session is the login of an account.
type session struct {
	turn    chan struct{} // taken by whoever logs in
	current *atomic.Pointer[grant]
}

// grant is what a login gave.
type grant struct {
	token string
	until time.Time
}

func newSession() session { return session{make(chan struct{}, 1), new(atomic.Pointer[grant])} }

func (s session) valid() *grant {
	if g := s.current.Load(); g != nil && time.Now().Before(g.until) {
		return g
	}
	return nil
}

// forget drops a grant that was not taken, unless there is another by now.
func (s session) forget(g *grant) { s.current.CompareAndSwap(g, nil) }

// signsIn tells whether there is an account to log in with.
func (c *Client) signsIn() bool { return c.account.Name != "" && !c.account.Password.IsZero() }

// SignIn logs in as whoever asks does, and tells whether there is an account to
// log in with.
func (c *Client) SignIn(ctx context.Context) (account bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	_, _, err = c.login(ctx)
	return c.signsIn(), err
}

// nobody has no header: a wrong one is refused even where none is asked for.
var nobody = new(grant)

// login returns the grant that the session holds, or logs in, which makes it a
// fresh one. Callers who come at once share one login.
func (c *Client) login(ctx context.Context) (g *grant, fresh bool, err error) {
	if !c.signsIn() {
		return nobody, false, nil
	}
	if g := c.session.valid(); g != nil {
		return g, false, nil
	}
	select {
	case c.session.turn <- struct{}{}:
		defer func() { <-c.session.turn }()
	case <-ctx.Done():
		return nil, false, unanswered(ctx.Err())
	}
	if g := c.session.valid(); g != nil {
		return g, false, nil
	}
	token, err := c.authorize(ctx)
	if err != nil {
		return nil, false, explain("log in", err)
	}
	g = &grant{token, time.Now().Add(lifeOf(token, time.Now()) - early)}
	c.session.current.Store(g)
	return g, true, nil
}

func (c *Client) authorize(ctx context.Context) (string, error) {
	body, err := json.Marshal(map[string]string{
		"identifier": c.account.Name,
		"secret":     c.account.Password.Reveal(),
	})
	if err != nil {
		return "", err
	}
	got, err := c.send(ctx, http.MethodPost, "/v2/auth/token", body, "")
	if err != nil {
		return "", err
	}
	switch {
	case got.status == http.StatusOK:
		return decodeToken(got.body)
	case got.status == http.StatusUnauthorized,
		isObject(got.body) && (got.status == http.StatusForbidden || got.status == http.StatusBadRequest):
		e := &Error{Status: got.status, Reason: LoginDenied, Hint: loginHint, Cause: statusText(got.status)}
		c.hold.set(e, loginPause)
		return "", e
	}
	return "", c.refused(got)
}

// decodeToken reads the answer to a login.
func decodeToken(body []byte) (string, error) {
	var answer struct {
		Token string `json:"access_token"`
	}
	if !isObject(body) {
		return "", notJSON(http.StatusOK)
	}
	if json.Unmarshal(body, &answer) != nil || answer.Token == "" || len(answer.Token) > maxToken || env.CheckToken(answer.Token) != nil {
		return "", unexpected("a token")
	}
	return answer.Token, nil
}

// lifeOf returns how long a token that was just given may be used. It is
// counted from the token's own beginning, where there is one: clocks differ.
func lifeOf(token string, now time.Time) time.Duration {
	var claims struct {
		IssuedAt float64 `json:"iat"`
		Expires  float64 `json:"exp"`
	}
	_, rest, _ := strings.Cut(token, ".")
	payload, _, _ := strings.Cut(rest, ".")
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(payload, "="))
	if err != nil || json.Unmarshal(raw, &claims) != nil || claims.Expires <= 0 {
		return defaultLife
	}
	begin := claims.IssuedAt
	if begin <= 0 {
		begin = float64(now.Unix())
	}
	seconds := min(max(0, claims.Expires-begin), maxLife.Seconds())
	return time.Duration(seconds) * time.Second
}
