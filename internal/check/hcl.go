package check

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxDepth is how deep values may be nested; routes are four deep.
const maxDepth = 20

// hcl reads what Terraform reads of a .tfvars file: names and literal values. It
// knows no expressions, and Terraform takes none there; nor heredocs, which
// nothing of hubrelay's needs.
type hcl struct {
	text string
	at   int
}

// parseAttributes reads a file of NAME = VALUE. Values are string, json.Number,
// bool, nil, []any and map[string]any.
func parseAttributes(text string) (map[string]any, error) {
	p := &hcl{text: text}
	values := map[string]any{}
	for {
		p.space(true)
		if p.at == len(p.text) {
			return values, nil
		}
		name := p.word()
		p.space(false)
		if name == "" || !p.take("=") {
			return nil, p.mistake("NAME = VALUE is expected")
		}
		value, err := p.value(0)
		if err != nil {
			return nil, err
		}
		p.space(false)
		if p.at < len(p.text) && !p.take("\n") {
			return nil, p.mistake("something follows the value of " + name)
		}
		values[name] = value
	}
}

// parseValue reads one value, as of a TF_VAR_ variable.
func parseValue(text string) (any, error) {
	p := &hcl{text: text}
	value, err := p.value(0)
	if err != nil {
		return nil, err
	}
	if p.space(true); p.at < len(p.text) {
		return nil, p.mistake("something follows the value")
	}
	return value, nil
}

// mistake says where it is, and repeats nothing of the text.
func (p *hcl) mistake(what string) error {
	return fmt.Errorf("line %d: %s", 1+strings.Count(p.text[:p.at], "\n"), what)
}

// space skips space and comments, and with lines also the ends of lines.
func (p *hcl) space(lines bool) {
	for p.at < len(p.text) {
		rest := p.text[p.at:]
		switch {
		case rest[0] == ' ', rest[0] == '\t', rest[0] == '\r', rest[0] == '\n' && lines:
			p.at++
		case strings.HasPrefix(rest, "#"), strings.HasPrefix(rest, "//"):
			if end := strings.IndexByte(rest, '\n'); end >= 0 {
				p.at += end
			} else {
				p.at = len(p.text)
			}
		case strings.HasPrefix(rest, "/*"):
			end := strings.Index(rest[2:], "*/")
			if end < 0 {
				return
			}
			p.at += 2 + end + 2
		default:
			return
		}
	}
}

func (p *hcl) take(text string) bool {
	if strings.HasPrefix(p.text[p.at:], text) {
		p.at += len(text)
		return true
	}
	return false
}

func (p *hcl) word() string {
	begin := p.at
	for p.at < len(p.text) {
		c := p.text[p.at]
		letter := c == '_' || 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && (p.at == begin || c != '-' && (c < '0' || c > '9')) {
			break
		}
		p.at++
	}
	return p.text[begin:p.at]
}

func (p *hcl) value(depth int) (any, error) {
	p.space(true)
	switch {
	case depth > maxDepth:
		return nil, p.mistake("values are nested too deeply")
	case p.at == len(p.text):
		return nil, p.mistake("a value is missing")
	case p.take("["):
		return p.list(depth)
	case p.take("{"):
		return p.object(depth)
	case p.text[p.at] == '"':
		return p.quoted()
	case strings.IndexByte("-0123456789", p.text[p.at]) >= 0:
		begin := p.at
		for p.at < len(p.text) && strings.IndexByte("-+.eE0123456789", p.text[p.at]) >= 0 {
			p.at++
		}
		if number := p.text[begin:p.at]; json.Valid([]byte(number)) {
			return json.Number(number), nil
		}
		return nil, p.mistake("a number is not one")
	}
	switch word := p.word(); word {
	case "true":
		return true, nil
	case "false":
		return false, nil
	case "null":
		return nil, nil
	}
	return nil, p.mistake("a value is neither a text in double quotes, a number, true, false, null, a list nor a map")
}

func (p *hcl) list(depth int) (any, error) {
	list := []any{}
	for {
		p.space(true)
		if p.take("]") {
			return list, nil
		}
		value, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		list = append(list, value)
		if p.space(true); !p.take(",") && !strings.HasPrefix(p.text[p.at:], "]") {
			return nil, p.mistake("a list wants , or ]")
		}
	}
}

func (p *hcl) object(depth int) (any, error) {
	object := map[string]any{}
	for {
		p.space(true)
		if p.take("}") {
			return object, nil
		}
		name := p.word()
		if name == "" {
			if p.at == len(p.text) || p.text[p.at] != '"' {
				return nil, p.mistake("a map wants a name or }")
			}
			var err error
			if name, err = p.quoted(); err != nil {
				return nil, err
			}
		}
		if p.space(false); !p.take("=") && !p.take(":") {
			return nil, p.mistake("a map wants = after a name")
		}
		value, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		if _, twice := object[name]; twice {
			return nil, p.mistake("a name stands twice in a map")
		}
		object[name] = value
		p.space(false)
		if !p.take(",") && !p.take("\n") && !strings.HasPrefix(p.text[p.at:], "}") {
			return nil, p.mistake("a map wants a comma, a new line or }")
		}
	}
}

var escapes = map[byte]string{'n': "\n", 'r': "\r", 't': "\t", '"': `"`, '\\': `\`}

func (p *hcl) quoted() (string, error) {
	var b strings.Builder
	for p.at++; p.at < len(p.text); {
		rest := p.text[p.at:]
		switch {
		case rest[0] == '"':
			p.at++
			return b.String(), nil
		case rest[0] == '\n':
			return "", p.mistake("a text has no closing quote on its line")
		case strings.HasPrefix(rest, "$${"), strings.HasPrefix(rest, "%%{"):
			b.WriteString(rest[1:3])
			p.at += 3
		case strings.HasPrefix(rest, "${"), strings.HasPrefix(rest, "%{"):
			return "", p.mistake("a text has ${ or %{ in it, which has no meaning here")
		case rest[0] == '\\':
			n, err := unescape(&b, rest)
			if err != nil {
				return "", p.mistake(err.Error())
			}
			p.at += n
		default:
			b.WriteByte(rest[0])
			p.at++
		}
	}
	return "", p.mistake("a text has no closing quote")
}

// unescape writes what a backslash at the beginning of text stands for, and
// returns how long it is.
func unescape(b *strings.Builder, text string) (int, error) {
	wrong := errors.New("a backslash in a text stands before something that it does not escape")
	if len(text) < 2 {
		return 0, wrong
	}
	if plain, ok := escapes[text[1]]; ok {
		b.WriteString(plain)
		return 2, nil
	}
	digits := map[byte]int{'u': 4, 'U': 8}[text[1]]
	if digits == 0 || len(text) < 2+digits {
		return 0, wrong
	}
	code, err := strconv.ParseUint(text[2:2+digits], 16, 32)
	if err != nil || !utf8.ValidRune(rune(code)) {
		return 0, wrong
	}
	b.WriteRune(rune(code))
	return 2 + digits, nil
}
