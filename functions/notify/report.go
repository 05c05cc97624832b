package notify

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/getto-systems/hubrelay/internal/dockerhub"
	"github.com/getto-systems/hubrelay/internal/ledger"
)

// How much of the texts in a report is kept, in characters.
const (
	maxMessage  = 2000
	maxVersion  = 128
	maxKey      = 256
	maxURL      = 2048
	maxWarnings = 10
)

// report is a pipeline's report, as far as it could be understood.
type report struct {
	status, event    string
	repository       string
	promotionID, key string
	tag, digest      string
	version, message string
	pipelineURL      string

	warnings []string // what was not understood
	unknown  bool     // the event is not a known one
}

// states are the values of status, including GitLab's own, and the state that
// each gives to a promotion.
var states = map[string]ledger.State{
	"running":    ledger.Running,
	"success":    ledger.Promoted,
	"failure":    ledger.Failed,
	"failed":     ledger.Failed,
	"canceled":   ledger.Failed,
	"skipped":    ledger.Skipped,
	"superseded": ledger.Superseded,
}

var promotionID = regexp.MustCompile(`^[0-9a-f]{32}$`)

// promotes reports whether the report is about a promotion. A release or a
// deploy is a message of its own.
func (r report) promotes() bool { return r.event == string(ledger.Promote) && !r.unknown }

func (r *report) warn(text string) {
	if len(r.warnings) < maxWarnings {
		r.warnings = append(r.warnings, text)
	}
}

// attrs are the fields of the report that are logged.
func (r report) attrs(who caller) []slog.Attr {
	var attrs []slog.Attr
	for _, a := range []slog.Attr{
		slog.String("reason", r.status), slog.String("repository", r.repository), slog.String("tag", r.tag),
		slog.String("pipeline_url", r.pipelineURL), slog.String("project", who.project.Path),
	} {
		if a.Value.String() != "" {
			attrs = append(attrs, a)
		}
	}
	return attrs
}

// parseReport reads JSON or a form, whichever the body is, because curl
// declares every body a form by default. A report is often about a failure, so
// it takes everything that it can understand. Only a report without a status is
// useless. The error has every mistake, one a line.
func parseReport(body []byte) (report, error) {
	body = bytes.TrimPrefix(body, []byte("\ufeff"))
	text := strings.TrimSpace(strings.ToValidUTF8(string(body), "\ufffd"))
	var r report
	fields, err := r.read(text)
	if err != nil {
		return report{}, err
	}
	r.status = strings.ToLower(fields["status"])
	switch {
	case r.status == "":
		return report{}, errors.New("status is required: running, success, failure, skipped or superseded")
	case r.status == "cancelled":
		r.status = "canceled"
	case states[r.status] == "":
		return report{}, fmt.Errorf("status is %.50q, must be running, success, failure, skipped or superseded", fields["status"])
	}
	switch r.event = strings.ToLower(fields["event"]); r.event {
	case "":
		r.event = string(ledger.Promote)
	case string(ledger.Promote), string(ledger.Release), string(ledger.Deploy):
	default:
		r.warn(fmt.Sprintf("event is %.50q, must be promote, release or deploy", fields["event"]))
		r.event, r.unknown = string(ledger.Promote), true
	}
	r.repository = r.checked(fields, "repository", dockerhub.CheckRepository)
	if r.repository != "" {
		r.repository = dockerhub.Canonical(r.repository)
	}
	r.promotionID = r.checked(fields, "promotion_id", checkPromotionID)
	r.tag = r.checked(fields, "tag", dockerhub.CheckTag)
	r.digest = r.checked(fields, "digest", dockerhub.CheckDigest)
	r.pipelineURL = r.checked(fields, "pipeline_url", checkURL)
	r.key = shorten(fields["key"], maxKey)
	r.version = shorten(fields["version"], maxVersion)
	r.message = shorten(fields["message"], maxMessage)
	if r.status == "canceled" && r.message == "" {
		r.message = "The job was canceled."
	}
	return r, nil
}

// names are the fields that a report may have.
var names = []string{
	"status", "event", "repository", "promotion_id", "key",
	"tag", "digest", "version", "message", "pipeline_url",
}

// read splits a body into its fields.
func (r *report) read(body string) (map[string]string, error) {
	raw := readForm(body)
	if strings.HasPrefix(body, "{") {
		var err error
		if raw, err = readJSON(body); err != nil {
			return nil, err
		}
	}
	fields := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(raw)) {
		if !slices.Contains(names, name) {
			r.warn(fmt.Sprintf("%.50q is not a field; those are %s", name, strings.Join(names, ", ")))
			continue
		}
		fields[name] = strings.TrimSpace(raw[name])
	}
	return fields, nil
}

// readJSON reads an object. A value that is not a string is taken as it is
// written.
func readJSON(body string) (map[string]string, error) {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal([]byte(body), &raw); err != nil {
		return nil, fmt.Errorf("the body is not JSON: %w", err)
	}
	fields := map[string]string{}
	for name, value := range raw {
		var text string // stays "" for null
		if json.Unmarshal(value, &text) != nil {
			text = string(value)
		}
		fields[name] = text
	}
	return fields, nil
}

// readForm reads a form as people write it by hand: a % or & that was not
// encoded is a part of the text. If a field occurs twice, the first one counts.
func readForm(body string) map[string]string {
	fields := map[string]string{}
	last := ""
	for part := range strings.SplitSeq(body, "&") {
		name, value, ok := strings.Cut(part, "=")
		name = unescape(name)
		_, twice := fields[name]
		begins := ok && isName(name) && !twice && (slices.Contains(names, name) || last != "message")
		if !begins {
			if last != "" { // it is part of the text before it
				fields[last] += "&" + unescape(part)
			}
			continue
		}
		fields[name] = unescape(value)
		last = name
	}
	return fields
}

// isName reports whether a text could be the name of a field.
func isName(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.") == ""
}

// unescape decodes what is encoded, and leaves a % that encodes nothing.
func unescape(s string) string {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '+':
			out.WriteByte(' ')
		case s[i] == '%' && i+2 < len(s):
			n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
			if err != nil {
				out.WriteByte('%')
				continue
			}
			out.WriteByte(byte(n))
			i += 2
		default:
			out.WriteByte(s[i])
		}
	}
	return strings.ToValidUTF8(out.String(), "\ufffd")
}

// checked returns a field if it is valid, and adds a warning if it is not.
func (r *report) checked(fields map[string]string, name string, check func(string) error) string {
	value := fields[name]
	if value == "" {
		return ""
	}
	if err := check(value); err != nil {
		r.warn(name + " is left out: it " + err.Error())
		return ""
	}
	return value
}

func checkPromotionID(id string) error {
	if !promotionID.MatchString(id) {
		return fmt.Errorf("%.50q is not 32 hex digits", id)
	}
	return nil
}

func checkURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil {
		return errors.New("is not a URL that starts with https:// or http://")
	}
	if len(s) > maxURL {
		return fmt.Errorf("is over %d bytes", maxURL)
	}
	return nil
}

// shorten cuts a text that is longer than n characters, and marks the cut.
func shorten(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n-1]) + "…"
}
