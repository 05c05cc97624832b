package check

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	ctyjson "github.com/zclconf/go-cty/cty/json"

	"github.com/getto-systems/hubrelay/internal/slack"
)

// variables are the inputs of terraform/ that are settings of the functions. Routes
// are taken as they stand.
var variables = map[string]struct {
	setting string
	is      cty.Type
}{
	"default_channel": {"DEFAULT_CHANNEL", cty.String},
	"gitlab_url":      {"GITLAB_URL", cty.String},
	"language":        {"LANGUAGE", cty.String},
	"reconcile":       {"RECONCILE", cty.Bool},
	"registry":        {"REGISTRY", cty.String},
	"routes":          {"ROUTES", cty.DynamicPseudoType},
	"silent_after":    {"SILENT_AFTER", cty.String},
}

// Bounds of what is read as Terraform's language: its parser calls itself for each
// bracket and operator, and ends the process where that is too deep. Routes that an
// environment can hold stay far below.
const (
	maxVariables = 128 << 10 // bytes
	maxBrackets  = 10_000
)

func tooLarge(text string) error {
	brackets := strings.Count(text, "[") + strings.Count(text, "{") + strings.Count(text, "(")
	if len(text) > maxVariables || brackets > maxBrackets {
		return fmt.Errorf("it has over %d bytes or %d brackets", maxVariables, maxBrackets)
	}
	return nil
}

// ParseVariables reads a terraform.tfvars, as far as it says how the functions are
// set. Terraform drops a field of a route that it does not know, and hubrelay check
// names it. The error repeats no value.
func ParseVariables(text string) (map[string]string, error) {
	if err := tooLarge(text); err != nil {
		return nil, err
	}
	file, mistakes := hclsyntax.ParseConfig([]byte(text), "", hcl.InitialPos)
	if mistakes.HasErrors() {
		return nil, mistake(mistakes)
	}
	attributes, mistakes := file.Body.JustAttributes()
	if mistakes.HasErrors() {
		return nil, mistake(mistakes)
	}
	var err error
	values, found := map[string]string{}, false
	for _, name := range slices.Sorted(maps.Keys(variables)) {
		attribute, ok := attributes[name]
		if !ok {
			continue
		}
		found = true
		value, mistakes := attribute.Expr.Value(nil)
		if mistakes.HasErrors() {
			return nil, mistake(mistakes)
		}
		input := variables[name]
		value, err = as(value, input.is)
		switch {
		case err != nil:
			return nil, fmt.Errorf("%s is not a %s, or holds a number that is too large", name, input.is.FriendlyName())
		case value.IsNull(): // as if it were not there
		case value.Type() == cty.Bool:
			values[input.setting] = map[bool]string{true: "on", false: "off"}[value.True()]
		case value.Type() == cty.String:
			values[input.setting] = value.AsString()
		default:
			if values[input.setting], err = routesOf(value); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	for _, name := range Secrets { // where somebody keeps them there, Terraform takes them
		attribute, ok := attributes[strings.ToLower(name)]
		if !ok {
			continue
		}
		found = true
		value, mistakes := attribute.Expr.Value(nil)
		if mistakes.HasErrors() {
			return nil, mistake(mistakes)
		}
		if values[name], err = secretOf(name, value); err != nil {
			return nil, fmt.Errorf("%s %w", strings.ToLower(name), err)
		}
	}
	if !found {
		return nil, errors.New("it has none of hubrelay's inputs: is it a terraform.tfvars, or what terraform output -json prints?")
	}
	return values, nil
}

// as converts as Terraform does. A number that nobody means, such as 1e99999999, is an
// error: as a text it would have that many digits.
func as(value cty.Value, t cty.Type) (cty.Value, error) {
	const maxExponent = 1024
	if err := cty.Walk(value, func(_ cty.Path, v cty.Value) (bool, error) {
		if v.Type() == cty.Number && !v.IsNull() {
			if e := v.AsBigFloat().MantExp(nil); v.AsBigFloat().IsInf() || e > maxExponent || e < -maxExponent {
				return false, errors.New("a number is too large or too small")
			}
		}
		return true, nil
	}); err != nil {
		return value, err
	}
	return convert.Convert(value, t)
}

// routesOf writes routes as JSON. A number or boolean becomes a text, as Terraform
// makes it: in routes nothing else is wanted.
func routesOf(value cty.Value) (string, error) {
	value, err := cty.Transform(value, func(_ cty.Path, v cty.Value) (cty.Value, error) {
		if v.Type().IsPrimitiveType() {
			return convert.Convert(v, cty.String)
		}
		return v, nil
	})
	if err != nil {
		return "", err
	}
	raw, err := ctyjson.Marshal(value, value.Type())
	return string(raw), err
}

// mistake says where the first one is, and repeats nothing of the text.
func mistake(all hcl.Diagnostics) error {
	for _, d := range all {
		if d.Severity == hcl.DiagError && d.Subject != nil {
			return fmt.Errorf("line %d: %s", d.Subject.Start.Line, strings.ToLower(d.Summary))
		}
	}
	return errors.New("it cannot be read")
}

// Environment returns a setting from an environment: by its name, or a secret by the
// variable by which Terraform gets it, such as TF_VAR_webhook_tokens for
// WEBHOOK_TOKENS, or "". The error repeats no value.
func Environment(name string, getenv func(string) string) (string, error) {
	value := strings.TrimSpace(getenv(name))
	// The name is gettext's, too, with values such as en_US:en.
	if name == "LANGUAGE" && value != string(slack.En) && value != string(slack.Ja) {
		return "", nil
	}
	if value != "" {
		return value, nil
	}
	return variable(name, getenv)
}

func variable(name string, getenv func(string) string) (string, error) {
	from := "TF_VAR_" + strings.ToLower(name)
	text := strings.TrimSpace(getenv(from))
	if text == "" {
		return "", nil
	}
	if name == "SLACK_BOT_TOKEN" || name == "REGISTRY_AUTH" {
		return text, nil
	}
	if !slices.Contains(Secrets, name) {
		return "", nil
	}
	if err := tooLarge(text); err != nil {
		return "", fmt.Errorf("%s: %w", from, err)
	}
	expression, mistakes := hclsyntax.ParseExpression([]byte(text), "", hcl.InitialPos)
	if mistakes.HasErrors() {
		return "", fmt.Errorf("%s %s: %w", from, wantedOf(name), mistake(mistakes))
	}
	value, mistakes := expression.Value(nil)
	if mistakes.HasErrors() {
		return "", fmt.Errorf("%s %s: %w", from, wantedOf(name), mistake(mistakes))
	}
	secret, err := secretOf(name, value)
	if err != nil {
		return "", fmt.Errorf("%s %w", from, err)
	}
	return secret, nil
}

// wantedOf says what the value of a secret is not.
func wantedOf(name string) string {
	switch name {
	case "WEBHOOK_TOKENS", "NOTIFY_TOKENS":
		return `is not a list of texts, such as ["…"]`
	case "GITLAB_TRIGGER_TOKENS", "GITLAB_API_TOKENS":
		return `is not a map of texts, such as {"*" = "…"}`
	}
	return "is not a text"
}

// secretOf makes of Terraform's value of a secret what the functions get, "" of null.
func secretOf(name string, value cty.Value) (string, error) {
	var (
		text   string
		list   []string
		byKey  map[string]string
		failed error
	)
	switch name {
	case "WEBHOOK_TOKENS", "NOTIFY_TOKENS":
		failed = decode(value, cty.List(cty.String), &list)
		text = strings.Join(list, "\n")
	case "GITLAB_TRIGGER_TOKENS", "GITLAB_API_TOKENS":
		failed = decode(value, cty.Map(cty.String), &byKey)
		if byKey != nil {
			raw, err := json.Marshal(byKey)
			if err != nil {
				return "", err
			}
			text = string(raw)
		}
	default:
		failed = decode(value, cty.String, &text)
	}
	if failed != nil {
		return "", errors.New(wantedOf(name))
	}
	return text, nil
}

// decode converts a value as Terraform does, into what t is in Go.
func decode(value cty.Value, t cty.Type, into any) error {
	value, err := as(value, t)
	if err != nil {
		return err
	}
	raw, err := ctyjson.Marshal(value, t)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, into)
}
