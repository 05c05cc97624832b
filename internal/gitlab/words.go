package gitlab

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html"
	"maps"
	"mime"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/httpclient"
)

const (
	maxMessage = 500 // runes of GitLab's own words that are kept
	maxDepth   = 10  // of lists and maps in GitLab's message, which has two levels
)

// said is the text of an answer for people: one line without HTML and without
// the token.
type said struct {
	text    string
	json    bool // as GitLab's API answers
	page    bool // HTML, as of a proxy, or of GitLab's pages for people
	nowhere bool // as GitLab's API answers if it has no such path
}

// said returns the values of message and error if the answer is JSON; they may
// be strings, lists or maps. Otherwise it returns the whole text.
func (a answer) said(token env.Secret) said {
	var s said
	text := string(a.body)
	var top any
	if json.Unmarshal(a.body, &top) == nil {
		s.json = true
		var parts []string
		if fields, ok := top.(map[string]any); ok {
			for _, key := range []string{"message", "error", "error_description"} {
				parts = flatten(parts, fields[key], 0)
			}
			s.nowhere = fields["message"] == nil && fields["error"] == "404 Not Found"
		} else {
			parts = flatten(parts, top, 0)
		}
		text = strings.Join(parts, ", ")
	} else {
		media, _, _ := mime.ParseMediaType(a.header.Get("Content-Type"))
		s.page = strings.HasSuffix(media, "html") || bytes.HasPrefix(bytes.TrimSpace(a.body), []byte("<"))
	}
	// The token may be there as it is, in the form of a URL or HTML, or with
	// tags inside: so it is removed before and after.
	text = html.UnescapeString(redact(text, token))
	tags := htmlMarkup()
	text = tags.inlineTag.ReplaceAllString(tags.learnMore.ReplaceAllString(text, ""), "")
	if s.page {
		text = tags.anyTag.ReplaceAllString(tags.unseen.ReplaceAllString(text, " "), " ")
	} else {
		text = tags.blockTag.ReplaceAllString(text, " ")
	}
	s.text = redact(httpclient.OneLine(text), token)
	return s
}

// markup is what is removed from GitLab's words.
type markup struct{ learnMore, unseen, anyTag, inlineTag, blockTag *regexp.Regexp }

// Like the outcomes, htmlMarkup is compiled when it is first needed.
var htmlMarkup = sync.OnceValue(func() markup {
	return markup{
		learnMore: regexp.MustCompile(`(?i)\s*<a\b[^>]*>\s*(?:learn|read|find out) more\W*</a>`),
		unseen:    regexp.MustCompile(`(?is)<!--.*?(?:-->|$)|<script\b.*?(?:</script\s*>|$)|<style\b.*?(?:</style\s*>|$)`),
		anyTag:    regexp.MustCompile(`<[/!?]?[a-zA-Z][^>]*(?:>|$)`),
		// The tags that GitLab uses in messages. Others, such as <unknown>, are
		// words of its YAML parser.
		inlineTag: regexp.MustCompile(`(?i)</?(?:a|abbr|b|code|em|i|small|span|strong)\b[^>]*>`),
		blockTag:  regexp.MustCompile(`(?i)</?(?:br|div|h[1-6]|hr|img|li|ol|p|pre|script|style|ul)\b[^>]*>`),
	}
})

// flatten appends the texts in v, each key before its values. GitLab's key for
// errors that belong to no field is base.
func flatten(parts []string, v any, depth int) []string {
	if depth > maxDepth {
		return parts
	}
	switch v := v.(type) {
	case nil:
	case []any:
		for _, item := range v {
			parts = flatten(parts, item, depth+1)
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			first := len(parts)
			parts = flatten(parts, v[key], depth+1)
			if key != "base" && len(parts) > first {
				parts[first] = key + ": " + parts[first]
			}
		}
	default:
		parts = append(parts, fmt.Sprint(v))
	}
	return parts
}

// redact removes the token from text, also in the form that it has in a URL or
// a page.
func redact(text string, token env.Secret) string {
	if token.IsZero() {
		return text
	}
	secret := token.Reveal()
	for _, form := range []string{secret, url.QueryEscape(secret), url.PathEscape(secret), html.EscapeString(secret)} {
		text = strings.ReplaceAll(text, form, fmt.Sprint(token))
	}
	return text
}

func shorten(text string) string {
	if utf8.RuneCountInString(text) <= maxMessage {
		return text
	}
	return string([]rune(text)[:maxMessage-1]) + "…"
}
