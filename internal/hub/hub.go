// Package hub asks Docker Hub's API what was pushed, to find the pushes that no
// webhook told of. What it says are hints: which image a tag is, the registry
// knows.
//
// The API is documented at https://docs.docker.com/reference/api/hub/latest/,
// and not all of it: where an answer is other than expected, more pages are
// read, or the error says so.
package hub

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/getto-systems/hubrelay/internal/dockerhub"
	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/httpclient"
)

// Timeout bounds one call of a Client, with all the requests that it takes.
const Timeout = 15 * time.Second

// Sizes of pages, of which Docker Hub gives at most 100. With twenty platforms
// a tag takes some 7 kB.
const (
	auditPage      = 100
	tagPage        = 50
	repositoryPage = 100
)

// maxPages bounds what is read of one list.
const maxPages = 1000

// fullAuditPage is how many events a page of the audit log has at least where
// another one follows. That is the documented default, and nowhere is said
// which sizes are allowed.
const fullAuditPage = 25

// Client asks one Docker Hub. It is safe for concurrent use. It logs in before
// the first question, and again when that login has expired.
//
// A call asks for one page or tag, so that who calls can count. It sends one request,
// and at most three more: to log in, and where the login is no longer taken, to
// do so once more and to ask again. Once Docker Hub says that a limit is
// reached, nothing is sent until it is lifted. Every error is an *Error.
type Client struct {
	base    string
	http    *http.Client
	account env.DockerAccount
	session session
	hold    hold
}

// New returns a Client of the API at baseURL, such as https://hub.docker.com.
// auth is a Docker config.json, or zero. Of it the entry for Docker Hub counts,
// by its user name and password or access token: where there is none of the
// two, everything is asked as nobody. There is no request before the first
// question. The error repeats neither of the two.
func New(baseURL string, auth env.Secret) (*Client, error) {
	u, err := url.Parse(baseURL)
	switch {
	case err != nil, u.Scheme != "https" && u.Scheme != "http", u.Host == "":
		return nil, errors.New("must be a URL that starts with https:// or http://")
	case u.User != nil, u.RawQuery != "", u.Fragment != "":
		return nil, errors.New("must be a plain base URL, without user, query or fragment")
	}
	account, err := env.ParseDockerAccount(auth, "docker.io")
	if err != nil {
		return nil, err
	}
	return &Client{
		base:    strings.TrimRight(baseURL, "/"),
		http:    httpclient.New(Timeout),
		account: account,
		session: newSession(),
	}, nil
}

// Page is part of a list.
type Page[T any] struct {
	Items []T
	// Next is the cursor of the page that follows, "" at the end. It is text
	// that may be stored, and goes on with what was asked at first: the times
	// given then count. One that cannot be read, or is of another list, begins
	// anew.
	Next string
}

// Push is one push of the audit log.
type Push struct {
	Repository string // namespace/name
	Tag        string
	Digest     string // "" where the log does not say
	PushedAt   time.Time
	Actor      string // "" where the log does not say
}

// Pushes returns pushes of a namespace from since on and before until, in no
// order. Where until is zero, there is no end. A push may be missing for some
// time: how late the log is, is not known. The error wraps ErrNoAuditLog where
// there is none for this account, as on plans without one; as nobody that is
// known without a request.
func (c *Client) Pushes(ctx context.Context, namespace string, since, until time.Time, cursor string) (Page[Push], error) {
	pushes, err := c.pushes(ctx, namespace, since, until, cursor)
	if err != nil {
		return Page[Push]{}, explain("pushes of "+namespace, err)
	}
	return pushes, nil
}

func (c *Client) pushes(ctx context.Context, namespace string, since, until time.Time, cursor string) (Page[Push], error) {
	if err := checkNamespace(namespace); err != nil {
		return Page[Push]{}, err
	}
	if !c.signsIn() {
		return Page[Push]{}, noAuditLog(0)
	}
	at := readPosition(cursor, position{Of: "pushes " + namespace, Page: 1, Since: since.UTC(), Until: until.UTC()})
	query := url.Values{"action": {pushAction}, "from": {at.Since.Format(time.RFC3339)}}
	if !at.Until.IsZero() {
		query.Set("to", at.Until.Add(time.Second).Format(time.RFC3339)) // the fraction of a second is not sent
	}
	body, err := c.page(ctx, "/v2/auditlogs/"+namespace, at, auditPage, query)
	// How a plan or an account without one is answered is not documented.
	if e, ok := errors.AsType[*Error](err); ok && (e.Reason == Denied || e.Reason == NotFound || e.Reason == Refused) {
		return Page[Push]{}, noAuditLog(e.Status)
	}
	if err != nil || body == nil {
		return Page[Push]{}, err
	}
	pushes, events, err := decodePushes(body, namespace)
	if err != nil {
		return Page[Push]{}, err
	}
	var found Page[Push]
	for _, p := range pushes {
		if !p.PushedAt.Before(at.Since) && (at.Until.IsZero() || p.PushedAt.Before(at.Until)) {
			found.Items = append(found.Items, p)
		}
	}
	if events >= fullAuditPage {
		found.Next = at.next()
	}
	return found, nil
}

// Tag is a tag of a repository, as it is now.
type Tag struct {
	Name     string
	Digest   string    // "" where the API does not say; of one platform, perhaps
	Images   []string  // digests of the platforms
	PushedAt time.Time // never zero
	// MediaType is of a manifest, an index or a configuration, and "" where the
	// API does not say. ContentType is "image" for images.
	MediaType, ContentType string
}

// Tags returns the tags of a repository that were pushed from since on. Where
// Docker Hub lists the newest first, which is looked at, no more pages follow
// than hold them; else all do. As nobody that ends, with an *Error, at some
// 1,000 tags.
func (c *Client) Tags(ctx context.Context, repository string, since time.Time, cursor string) (Page[Tag], error) {
	tags, err := c.tags(ctx, dockerhub.Canonical(repository), since, cursor)
	if err != nil {
		return Page[Tag]{}, explain("tags of "+repository, err)
	}
	return tags, nil
}

// tagsPath is where the tags of a repository are.
func tagsPath(repository string) (string, error) {
	namespace, name, _ := strings.Cut(repository, "/")
	if dockerhub.CheckRepository(repository) != nil || strings.Contains(name, "/") {
		return "", refusedName("is not a repository of Docker Hub, such as acme/api")
	}
	return "/v2/namespaces/" + namespace + "/repositories/" + name + "/tags", nil
}

func (c *Client) tags(ctx context.Context, repository string, since time.Time, cursor string) (Page[Tag], error) {
	path, err := tagsPath(repository)
	if err != nil {
		return Page[Tag]{}, err
	}
	at := readPosition(cursor, position{Of: "tags " + repository, Page: 1, Since: since.UTC()})
	body, err := c.page(ctx, path, at, tagPage, url.Values{"ordering": {"last_updated"}})
	if err != nil || body == nil {
		return Page[Tag]{}, err
	}
	tags, more, err := decodeTags(body)
	if err != nil {
		return Page[Tag]{}, err
	}
	var found Page[Tag]
	enough := false
	for _, t := range tags {
		// This is what Docker Hub sorts by, and not always when the tag was
		// pushed.
		at.Mixed = at.Mixed || !at.Last.IsZero() && t.updatedAt.After(at.Last)
		at.Last = t.updatedAt
		enough = enough || t.updatedAt.Before(at.Since)
		if !t.PushedAt.Before(at.Since) {
			found.Items = append(found.Items, t.Tag)
		}
	}
	if more && (at.Mixed || !enough) {
		found.Next = at.next()
	}
	return found, nil
}

// Tag returns one tag of a repository.
func (c *Client) Tag(ctx context.Context, repository, tag string) (Tag, error) {
	found, err := c.tag(ctx, dockerhub.Canonical(repository), tag)
	if err != nil {
		return Tag{}, explain(fmt.Sprintf("tag %s of %s", tag, repository), err)
	}
	return found, nil
}

func (c *Client) tag(ctx context.Context, repository, tag string) (Tag, error) {
	path, err := tagsPath(repository)
	switch {
	case err != nil:
		return Tag{}, err
	case dockerhub.CheckTag(tag) != nil:
		return Tag{}, refusedName("is not a tag")
	}
	body, err := c.ask(ctx, path+"/"+tag, nil)
	if err != nil {
		return Tag{}, err
	}
	return decodeTag(body)
}

// Repository is a repository of a namespace.
type Repository struct {
	Name string // namespace/name
	// UpdatedAt grows with each push, as far as was seen. It tells whom to ask
	// first, not whom to leave out. Zero where the API does not say.
	UpdatedAt time.Time
}

// Repositories returns the repositories of a namespace that the account may
// see, in no order. As nobody that ends, with an *Error, at 100.
func (c *Client) Repositories(ctx context.Context, namespace, cursor string) (Page[Repository], error) {
	repositories, err := c.repositories(ctx, namespace, cursor)
	if err != nil {
		return Page[Repository]{}, explain("repositories of "+namespace, err)
	}
	return repositories, nil
}

func (c *Client) repositories(ctx context.Context, namespace, cursor string) (Page[Repository], error) {
	if err := checkNamespace(namespace); err != nil {
		return Page[Repository]{}, err
	}
	at := readPosition(cursor, position{Of: "repositories " + namespace, Page: 1})
	body, err := c.page(ctx, "/v2/namespaces/"+namespace+"/repositories", at, repositoryPage, url.Values{})
	if err != nil || body == nil {
		return Page[Repository]{}, err
	}
	repositories, more, err := decodeRepositories(body, namespace)
	if err != nil {
		return Page[Repository]{}, err
	}
	found := Page[Repository]{Items: repositories}
	if more {
		found.Next = at.next()
	}
	return found, nil
}

func checkNamespace(namespace string) error {
	if strings.Contains(namespace, "/") || dockerhub.CheckRepository(namespace) != nil {
		return refusedName("is not a namespace of Docker Hub, such as acme")
	}
	return nil
}

// page returns one page of a list, or nothing where the list has become shorter
// than that. Links to a next page are not followed: its number is enough, and
// the account's token goes nowhere else.
func (c *Client) page(ctx context.Context, path string, at position, size int, query url.Values) ([]byte, error) {
	if at.Page > maxPages {
		return nil, &Error{Reason: TooMuch, Cause: fmt.Errorf("there are more than %d pages", maxPages)}
	}
	query.Set("page", strconv.Itoa(at.Page))
	query.Set("page_size", strconv.Itoa(size))
	body, err := c.ask(ctx, path, query)
	if e, ok := errors.AsType[*Error](err); ok && e.Reason == NotFound && at.Page > 1 {
		return nil, nil
	}
	return body, err
}

// ask returns the JSON that answers one question.
func (c *Client) ask(ctx context.Context, path string, query url.Values) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	question := ""
	if len(query) > 0 {
		question = "?" + query.Encode()
	}
	for again := false; ; again = true {
		g, fresh, err := c.login(ctx)
		if err != nil {
			return nil, err
		}
		got, err := c.send(ctx, http.MethodGet, path+question, nil, g.token)
		if err != nil {
			return nil, err
		}
		c.heed(got.header)
		switch {
		case got.status == http.StatusUnauthorized && c.signsIn() && !fresh && !again:
			c.session.forget(g)
		case got.status != http.StatusOK:
			return nil, c.refused(got)
		case !isObject(got.body):
			return nil, notJSON(got.status)
		default:
			return got.body, nil
		}
	}
}

// position is where a list is read.
type position struct {
	Of    string    `json:"of"`
	Page  int       `json:"page"`
	Since time.Time `json:"since,omitzero"`
	Until time.Time `json:"until,omitzero"`
	Last  time.Time `json:"last,omitzero"`  // of the tag before
	Mixed bool      `json:"mixed,omitzero"` // the tags' times do not fall
}

// next returns the cursor of the page after this one.
func (p position) next() string {
	p.Page++
	raw, err := json.Marshal(p)
	if err != nil { // a year beyond 9999: nobody asked for that
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(raw)
}

// readPosition reads a cursor, or returns the beginning.
func readPosition(cursor string, beginning position) position {
	raw, err := base64.RawURLEncoding.DecodeString(cursor)
	var p position
	if err != nil || json.Unmarshal(raw, &p) != nil || p.Of != beginning.Of || p.Page < 2 || p.Page > maxPages+1 {
		return beginning
	}
	return p
}
