package coordinator

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// Expression is the condition of a rule (rules:if), as GitLab reads it. It
// follows gitlabhq's lib/gitlab/ci/pipeline/expression. It looks like shell or
// JavaScript, and is neither. An empty string is true in front of && and ||,
// and false as the result.
type Expression struct{ root node }

// maxTokens is GitLab's own limit.
const maxTokens = 100

// ParseExpression returns an error if GitLab would refuse the pipeline for
// invalid expression syntax.
func ParseExpression(text string) (*Expression, error) {
	tokens, err := lex(text)
	if err != nil {
		return nil, err
	}
	root, err := parse(tokens)
	if err != nil {
		return nil, err
	}
	return &Expression{root}, nil
}

// True reports whether a rule with the expression matches. A variable that is
// not in the map is null; an empty variable is not null.
func (e *Expression) True(variables map[string]string) bool {
	switch v := e.root.value(variables).(type) {
	case bool:
		return v
	case string:
		return strings.TrimSpace(v) != ""
	case *regexp.Regexp:
		return true
	}
	return false
}

type (
	node interface {
		value(map[string]string) any // nil, a bool, a string or a *regexp.Regexp
	}
	literal  struct{ is any }
	variable struct{ name string }
	operator struct {
		sign        string
		left, right node
	}
)

func (l literal) value(map[string]string) any { return l.is }

func (v variable) value(variables map[string]string) any {
	if s, ok := variables[v.name]; ok {
		return s
	}
	return nil
}

func (o operator) value(variables map[string]string) any {
	left := o.left.value(variables)
	switch o.sign {
	case "&&":
		if !truthy(left) {
			return left
		}
		return o.right.value(variables)
	case "||":
		if truthy(left) {
			return left
		}
		return o.right.value(variables)
	}
	right := o.right.value(variables)
	switch o.sign {
	case "==":
		return left == right
	case "!=":
		return left != right
	case "=~":
		return matches(left, right)
	default: // !~
		return !matches(left, right)
	}
}

// truthy follows Ruby.
func truthy(v any) bool { return v != nil && v != false }

// matches is =~. A string on the right is a pattern if it looks like one; else
// it matches what it contains.
func matches(left, right any) bool {
	text, _ := left.(string)
	switch r := right.(type) {
	case *regexp.Regexp:
		return r.MatchString(text)
	case string:
		if pattern, err := compile(r); err == nil {
			return pattern.MatchString(text)
		}
		return strings.Contains(r, text)
	}
	return false
}

var rubySyntax = regexp.MustCompile(`^/(.*)/([ismU]*)$`)

// compile reads /pattern/flags, which GitLab gives to RE2, as Go does.
func compile(text string) (*regexp.Regexp, error) {
	parts := rubySyntax.FindStringSubmatch(strings.ReplaceAll(text, `\/`, "/"))
	if parts == nil {
		return nil, errors.New("invalid regular expression")
	}
	pattern := parts[1]
	if parts[2] != "" {
		pattern = "(?" + parts[2] + ")" + pattern
	}
	return regexp.Compile(pattern)
}

type token struct {
	kind string // value, operator, ( or )
	text string
	node node
}

// lexemes are tried in GitLab's order.
var lexemes = []struct {
	kind    string
	pattern *regexp.Regexp
	build   func(string) (node, error)
}{
	{"(", regexp.MustCompile(`^\(`), nil},
	{")", regexp.MustCompile(`^\)`), nil},
	{"value", regexp.MustCompile(`^\$\w+`), func(s string) (node, error) { return variable{s[1:]}, nil }},
	{"value", regexp.MustCompile(`^(".*?"|'.*?')`), func(s string) (node, error) { return literal{s[1 : len(s)-1]}, nil }},
	{"value", regexp.MustCompile(`^/([^/]|\\/)+[^\\]/[ismU]*`), func(s string) (node, error) {
		pattern, err := compile(s)
		return literal{pattern}, err
	}},
	{"value", regexp.MustCompile(`^null`), func(string) (node, error) { return literal{nil}, nil }},
	{"value", regexp.MustCompile(`^(true|false)\b`), func(s string) (node, error) { return literal{s == "true"}, nil }},
	{"operator", regexp.MustCompile(`^(==|=~|!=|!~|&&|\|\|)`), nil},
}

func lex(text string) ([]token, error) {
	var tokens []token
next:
	for range maxTokens {
		text = strings.TrimLeft(text, " \t\r\n\v\f")
		if text == "" {
			return tokens, nil
		}
		for _, l := range lexemes {
			found := l.pattern.FindString(text)
			if found == "" {
				continue
			}
			t := token{kind: l.kind, text: found}
			if l.build != nil {
				var err error
				if t.node, err = l.build(found); err != nil {
					return nil, err
				}
			}
			tokens = append(tokens, t)
			text = text[len(found):]
			continue next
		}
		return nil, fmt.Errorf("unknown lexeme at %.20q", text)
	}
	return nil, errors.New("too many tokens")
}

// parse is the shunting-yard algorithm, with operators of one kind binding to
// the left.
func parse(tokens []token) (node, error) {
	var values []node
	var waiting []token
	reduce := func() error {
		sign := waiting[len(waiting)-1]
		waiting = waiting[:len(waiting)-1]
		if sign.kind != "operator" {
			return errors.New("unmatched parenthesis")
		}
		n := len(values)
		if n < 2 {
			return fmt.Errorf("%s lacks an operand", sign.text)
		}
		values = append(values[:n-2], operator{sign.text, values[n-2], values[n-1]})
		return nil
	}
	for _, t := range tokens {
		switch t.kind {
		case "value":
			values = append(values, t.node)
		case "operator":
			for n := len(waiting); n > 0 && waiting[n-1].kind == "operator" && precedence(t.text) >= precedence(waiting[n-1].text); n = len(waiting) {
				if err := reduce(); err != nil {
					return nil, err
				}
			}
			waiting = append(waiting, t)
		case "(":
			waiting = append(waiting, t)
		case ")":
			for n := len(waiting); n > 0 && waiting[n-1].kind == "operator"; n = len(waiting) {
				if err := reduce(); err != nil {
					return nil, err
				}
			}
			if len(waiting) == 0 {
				return nil, errors.New("unmatched parenthesis")
			}
			waiting = waiting[:len(waiting)-1]
		}
	}
	for len(waiting) > 0 {
		if err := reduce(); err != nil {
			return nil, err
		}
	}
	if len(values) != 1 {
		return nil, errors.New("not one expression")
	}
	return values[0], nil
}

// precedence is lower for what binds more tightly.
func precedence(sign string) int {
	switch sign {
	case "||":
		return 12
	case "&&":
		return 11
	}
	return 10
}
