// Package dockerhub reads what Docker Hub says of a push, and the grammar of
// repository and tag names.
//
// What Docker Hub sends is documented thinly and varies: only the fields that
// hubrelay uses are looked at, and what is not essential may have any type.
package dockerhub

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Push is one push that Docker Hub told of, in the form in which it travels
// through Pub/Sub.
type Push struct {
	// ID is the same for a repeated delivery of the same webhook: the hex
	// SHA-256 of repository, tag and the raw pushed_at, newline-separated. Where
	// there is no pushed_at, the time of receipt stands in its place.
	ID         string    `json:"id"`
	Repository string    `json:"repository"` // namespace/name
	Tag        string    `json:"tag"`
	Pusher     string    `json:"pusher"`
	PushedAt   time.Time `json:"pushed_at,omitzero"`
	ReceivedAt time.Time `json:"received_at"`
}

// Errors of webhooks that are fine, and leave nothing to promote.
var (
	ErrNoTag      = errors.New("the push has no tag")
	ErrNotAnImage = errors.New("the push is not of an image")
)

// Parse reads the body of a webhook that was received at the given time. It
// returns ErrNoTag for a push without a tag, or with a digest as its tag, and
// ErrNotAnImage for one whose media type says that it is something else; the
// Push then says which repository and tag were pushed, and nothing more. Any
// other error says what is wrong with the body.
func Parse(body []byte, received time.Time) (Push, error) {
	var raw struct {
		Repository *rawRepository `json:"repository"`
		PushData   struct {
			Tag       any             `json:"tag"`
			Pusher    any             `json:"pusher"`
			PushedAt  json.RawMessage `json:"pushed_at"`
			MediaType any             `json:"media_type"`
		} `json:"push_data"`
	}
	if err := json.Unmarshal(withoutMark(body), &raw); err != nil {
		var wrongType *json.UnmarshalTypeError
		switch {
		case !errors.As(err, &wrongType):
		case wrongType.Field != "":
			return Push{}, fmt.Errorf("%s is not an object", wrongType.Field)
		default:
			return Push{}, fmt.Errorf("the body is not a JSON object but a JSON %s", wrongType.Value)
		}
		return Push{}, fmt.Errorf("the body is not a JSON object: %w", err)
	}
	repository, err := raw.Repository.name()
	if err != nil {
		return Push{}, err
	}
	tag, err := text("push_data.tag", raw.PushData.Tag)
	switch {
	case err != nil:
		return Push{}, err
	case tag == "", isDigest(tag):
		return Push{Repository: repository}, ErrNoTag
	}
	if mediaType, _ := text("", raw.PushData.MediaType); !MayBeImage(mediaType) {
		return Push{Repository: repository, Tag: tag}, ErrNotAnImage
	}
	if err := CheckTag(tag); err != nil {
		return Push{}, fmt.Errorf("push_data.tag %w", err)
	}
	pusher, _ := text("", raw.PushData.Pusher)
	if len(pusher) > maxPusher {
		pusher = "" // it is for people to read: not worth losing a push
	}
	push := Push{
		Repository: repository,
		Tag:        tag,
		Pusher:     pusher,
		PushedAt:   moment(raw.PushData.PushedAt),
		ReceivedAt: received.UTC(),
	}
	when := string(raw.PushData.PushedAt)
	if push.PushedAt.IsZero() {
		when = push.ReceivedAt.Format(time.RFC3339Nano)
	}
	push.ID = ID(repository, tag, when)
	return push, nil
}

// withoutMark drops the byte order mark that some editors and shells put
// before a text.
func withoutMark(body []byte) []byte { return bytes.TrimPrefix(body, []byte("\ufeff")) }

type rawRepository struct {
	RepoName  any `json:"repo_name"`
	Namespace any `json:"namespace"`
	Name      any `json:"name"`
}

// name returns repo_name, or what namespace and name make.
func (r *rawRepository) name() (string, error) {
	if r == nil {
		return "", errors.New("repository is missing")
	}
	name, err := text("repository.repo_name", r.RepoName)
	if err != nil {
		return "", err
	}
	if name != "" {
		name = Canonical(name)
		if err := CheckRepository(name); err != nil {
			return "", fmt.Errorf("repository.repo_name %w", err)
		}
		return name, nil
	}
	namespace, err := text("repository.namespace", r.Namespace)
	if err != nil {
		return "", err
	}
	name, err = text("repository.name", r.Name)
	if err != nil {
		return "", err
	}
	if namespace == "" || name == "" {
		return "", errors.New("repository.repo_name is missing, and so is namespace or name")
	}
	name = namespace + "/" + name
	if err := CheckRepository(name); err != nil {
		return "", fmt.Errorf("repository.namespace and name: %w", err)
	}
	return name, nil
}

// text takes a string that may be absent or null.
func text(field string, v any) (string, error) {
	if v == nil {
		return "", nil
	}
	s, ok := v.(string)
	if !ok {
		return "", fmt.Errorf("%s is not a string", field)
	}
	return s, nil
}

// ID names a push: the hex SHA-256 of repository, tag and the text of its time,
// newline-separated.
func ID(repository, tag, pushedAt string) string {
	sum := sha256.Sum256([]byte(repository + "\n" + tag + "\n" + pushedAt))
	return hex.EncodeToString(sum[:])
}

// moment reads seconds since 1970 as an integer, a float, or either in a
// string. It is the zero time for what is no time after 1970: so is a 0, which
// stands for a time that somebody did not know.
func moment(raw json.RawMessage) time.Time {
	number := string(raw)
	if strings.HasPrefix(number, `"`) && json.Unmarshal(raw, &number) != nil {
		return time.Time{}
	}
	seconds, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	const year10000 = 253402300800                           // RFC 3339 has four digits for a year
	if err != nil || !(seconds > 0 && seconds < year10000) { // NaN is neither
		return time.Time{}
	}
	whole := int64(seconds)
	return time.Unix(whole, int64((seconds-float64(whole))*1e9)).UTC()
}

// The grammar of distribution/reference. Lengths are checked apart: to compile
// them into the expressions takes longer than the rest of a function's start.
var (
	repository = regexp.MustCompile(`^[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*$`)
	tag        = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]*$`)
	algorithm  = regexp.MustCompile(`^[a-z0-9]+(?:[.+_-][a-z0-9]+)*$`)
	word       = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
)

// Lengths, in characters.
const (
	maxRepository = 255
	maxTag        = 128
	maxID         = 128
	maxPusher     = 255 // Docker Hub's own limit is far below
	minDigestHex  = 32  // of any algorithm
	sha256Hex     = 64
)

// Canonical returns the full name of a repository: what has no namespace is in
// library, as Docker Hub calls it. It checks nothing.
func Canonical(repository string) string {
	if repository == "" || strings.Contains(repository, "/") {
		return repository
	}
	return "library/" + repository
}

// CheckRepository says what is wrong with a repository's name.
func CheckRepository(name string) error {
	switch {
	case len(name) > maxRepository:
		return fmt.Errorf("is longer than %d characters", maxRepository)
	case !repository.MatchString(name):
		return fmt.Errorf("%.100q is not a repository, such as acme/api", name)
	}
	return nil
}

// CheckTag says what is wrong with a tag.
func CheckTag(name string) error {
	if len(name) > maxTag || !tag.MatchString(name) {
		return fmt.Errorf("%.140q is not a tag: letters, digits, '_', '.' and '-', %d at most", name, maxTag)
	}
	return nil
}

// CheckDigest says what is wrong with the digest of an image.
func CheckDigest(name string) error {
	digits, ok := strings.CutPrefix(name, "sha256:")
	if !ok || len(digits) != sha256Hex || !isHex(digits) {
		return fmt.Errorf("%.100q is not a digest: sha256: and %d hex digits", name, sha256Hex)
	}
	return nil
}

// CheckID says what is wrong with a delivery's ID. It is wider than what Parse
// makes: messages may be published by hand.
func CheckID(id string) error {
	if len(id) > maxID || !word.MatchString(id) {
		return fmt.Errorf("%.140q is not an id: letters, digits, '.', '_' and '-', %d at most", id, maxID)
	}
	return nil
}

// IsArtifactTag tells whether a tag holds a signature or another artifact of
// an image, not an image: sha256-<hex of the image>, with or without a suffix.
func IsArtifactTag(tag string) bool {
	rest, ok := strings.CutPrefix(tag, "sha256-")
	if !ok || len(rest) < sha256Hex || !isHex(rest[:sha256Hex]) {
		return false
	}
	suffix := rest[sha256Hex:]
	return suffix == "" || suffix[0] == '.' && word.MatchString(suffix[1:])
}

// isDigest tells whether what stands in the place of a tag is a digest, by
// whatever algorithm.
func isDigest(tag string) bool {
	name, digits, ok := strings.Cut(tag, ":")
	return ok && algorithm.MatchString(name) && len(digits) >= minDigestHex && isHex(strings.ToLower(digits))
}

func isHex(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }

// Decode reads a Push from the data of a message, which may have been written
// by hand.
func Decode(data []byte) (Push, error) {
	var p Push
	if err := json.Unmarshal(withoutMark(data), &p); err != nil {
		return Push{}, fmt.Errorf("the message is not a push: %w", err)
	}
	p.Repository = Canonical(p.Repository)
	var mistakes []error
	for _, field := range []struct {
		name string
		err  error
	}{
		{"id", CheckID(p.ID)},
		{"repository", CheckRepository(p.Repository)},
		{"tag", CheckTag(p.Tag)},
	} {
		if field.err != nil {
			mistakes = append(mistakes, fmt.Errorf("%s %w", field.name, field.err))
		}
	}
	if err := errors.Join(mistakes...); err != nil {
		return Push{}, fmt.Errorf("the message is not a push: %w", err)
	}
	return p, nil
}
