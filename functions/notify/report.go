package notify

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/getto-systems/hubrelay/internal/dockerhub"
	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/slack"
)

// Limits of what a report may say, in characters.
const (
	maxMessage   = 2000
	maxVersion   = 128
	maxURL       = 2048
	maxTimestamp = 32
	maxFields    = 50 // of a report, known or not
)

// report is what a pipeline says, as it was sent.
type report struct {
	status, event    string
	repository       string
	deliveryID, ts   string
	tag, digest      string
	version, message string
	pipelineURL      string
}

// states are the values of status, and what each makes of a promotion.
var states = map[string]ledger.State{
	string(slack.Running): ledger.Running,
	string(slack.Success): ledger.Promoted,
	string(slack.Failure): ledger.Failed,
	string(slack.Skipped): ledger.Skipped,
}

// statuses is the reverse of states.
var statuses = map[ledger.State]slack.Status{
	ledger.Running:  slack.Running,
	ledger.Promoted: slack.Success,
	ledger.Failed:   slack.Failure,
	ledger.Skipped:  slack.Skipped,
}

var events = []string{string(slack.Promote), string(slack.Release), string(slack.Deploy)}

var timestamp = regexp.MustCompile(`^[0-9]+\.[0-9]+$`)

// parseReport reads JSON or a form, whichever the body is: curl calls
// everything a form unless it is told. Its error holds every mistake, one a
// line.
func parseReport(body []byte) (report, error) {
	fields, err := readFields(strings.TrimSpace(string(body)))
	if err != nil {
		return report{}, err
	}
	r := report{
		status:      fields["status"],
		event:       fields["event"],
		repository:  fields["repository"],
		deliveryID:  fields["delivery_id"],
		ts:          fields["ts"],
		tag:         fields["tag"],
		digest:      fields["digest"],
		version:     fields["version"],
		message:     fields["message"],
		pipelineURL: fields["pipeline_url"],
	}
	if r.event == "" {
		r.event = string(slack.Promote)
	}
	return r, r.check()
}

// names are the fields that a report may have.
var names = []string{
	"status", "event", "repository", "delivery_id", "ts",
	"tag", "digest", "version", "message", "pipeline_url",
}

func readFields(body string) (map[string]string, error) {
	fields := map[string]string{}
	var mistakes []error
	add := func(name, value string) {
		switch {
		case !slices.Contains(names, name):
			mistakes = append(mistakes, fmt.Errorf("%.50q is not a field; those are %s", name, strings.Join(names, ", ")))
		case !utf8.ValidString(value):
			mistakes = append(mistakes, fmt.Errorf("%s is not UTF-8", name))
		default:
			fields[name] = strings.TrimSpace(value)
		}
	}
	if strings.HasPrefix(body, "{") {
		var raw map[string]json.RawMessage
		if err := json.Unmarshal([]byte(body), &raw); err != nil {
			return nil, fmt.Errorf("the body is not JSON: %w", err)
		}
		if len(raw) > maxFields {
			return nil, fmt.Errorf("there are %d fields; those that a report may have are %s", len(raw), strings.Join(names, ", "))
		}
		for _, name := range slices.Sorted(maps.Keys(raw)) {
			var value string // stays "" for null
			if err := json.Unmarshal(raw[name], &value); err != nil {
				mistakes = append(mistakes, fmt.Errorf("%.50q is not a string", name))
				continue
			}
			add(name, value)
		}
		return fields, errors.Join(mistakes...)
	}
	form, err := url.ParseQuery(body)
	if err != nil {
		return nil, errors.New("the body is neither JSON nor a form")
	}
	if len(form) > maxFields {
		return nil, fmt.Errorf("there are %d fields; those that a report may have are %s", len(form), strings.Join(names, ", "))
	}
	for _, name := range slices.Sorted(maps.Keys(form)) {
		if len(form[name]) > 1 {
			mistakes = append(mistakes, fmt.Errorf("%.50q stands twice", name))
		}
		add(name, form[name][0])
	}
	return fields, errors.Join(mistakes...)
}

func (r report) check() error {
	var mistakes []error
	wrong := func(format string, args ...any) { mistakes = append(mistakes, fmt.Errorf(format, args...)) }
	field := func(name, value string, check func(string) error) {
		if value == "" {
			return
		}
		if err := check(value); err != nil {
			wrong("%s %w", name, err)
		}
	}
	switch {
	case r.status == "":
		wrong("status is required: running, success, failure or skipped")
	case states[r.status] == "":
		wrong("status is %.50q, must be running, success, failure or skipped", r.status)
	}
	if !slices.Contains(events, r.event) {
		wrong("event is %.50q, must be %s", r.event, strings.Join(events, ", "))
	}
	field("repository", r.repository, dockerhub.CheckRepository)
	field("delivery_id", r.deliveryID, dockerhub.CheckID)
	field("ts", r.ts, checkTimestamp)
	field("tag", r.tag, dockerhub.CheckTag)
	field("digest", r.digest, dockerhub.CheckDigest)
	field("version", r.version, atMost(maxVersion))
	field("message", r.message, atMost(maxMessage))
	field("pipeline_url", r.pipelineURL, checkURL)
	return errors.Join(mistakes...)
}

func checkTimestamp(ts string) error {
	if len(ts) > maxTimestamp || !timestamp.MatchString(ts) {
		return fmt.Errorf("%.50q is not the ts of a message, such as 1732286000.000100", ts)
	}
	return nil
}

func atMost(n int) func(string) error {
	return func(s string) error {
		if utf8.RuneCountInString(s) > n {
			return fmt.Errorf("is over %d characters", n)
		}
		return nil
	}
}

func checkURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil {
		return errors.New("is not a URL that starts with https:// or http://")
	}
	return atMost(maxURL)(s)
}
