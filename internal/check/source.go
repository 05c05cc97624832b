package check

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// MaxSource bounds what settings are read from, in bytes. An environment on Cloud
// Run has 32 KiB.
const MaxSource = 1 << 20

var settingName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// ParseEnv reads lines NAME=VALUE, as Docker and systemd do: a line may begin with
// export, and be empty or a comment that begins with #. A value may stand in
// single quotes, or in double quotes, where \n is a line break, \" a quote and \\
// a backslash; a value in quotes may go over several lines. The error says in
// which line it is, and repeats no value.
func ParseEnv(text string) (values map[string]string, names []string, err error) {
	values = map[string]string{}
	lines := strings.Split(strings.ReplaceAll(strings.TrimPrefix(text, "\ufeff"), "\r\n", "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		at := i + 1
		line := strings.TrimSpace(lines[i])
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, ok := strings.Cut(strings.TrimPrefix(line, "export "), "=")
		if name = strings.TrimSpace(name); !ok || !settingName.MatchString(name) {
			return nil, nil, fmt.Errorf("line %d is not NAME=VALUE", at)
		}
		value = strings.TrimSpace(value)
		if quote := firstOf(value, `"'`); quote != 0 {
			for closing(value, quote) < 0 {
				if i++; i >= len(lines) {
					return nil, nil, fmt.Errorf("line %d: the value of %s has no closing quote", at, name)
				}
				value += "\n" + lines[i]
			}
			end := closing(value, quote)
			if rest := strings.TrimSpace(value[end+1:]); rest != "" && !strings.HasPrefix(rest, "#") {
				return nil, nil, fmt.Errorf("line %d: something follows the quoted value of %s", at, name)
			}
			value = value[1:end]
			if quote == '"' {
				value = strings.NewReplacer(`\n`, "\n", `\"`, `"`, `\\`, `\`).Replace(value)
			}
		}
		if _, twice := values[name]; twice {
			return nil, nil, fmt.Errorf("line %d: %s stands twice", at, name)
		}
		values[name] = value
		names = append(names, name)
	}
	return values, names, nil
}

// firstOf returns the first byte of text if it is one of those, else 0.
func firstOf(text, those string) byte {
	if text == "" || !strings.Contains(those, text[:1]) {
		return 0
	}
	return text[0]
}

// closing returns where the quote is that ends the value which begins with it, or
// -1.
func closing(value string, quote byte) int {
	for i := 1; i < len(value); i++ {
		switch {
		case value[i] == '\\' && quote == '"':
			i++
		case value[i] == quote:
			return i
		}
	}
	return -1
}

// outputs are Terraform's outputs that are settings.
var outputs = map[string]string{
	"webhook_url":     webhookURL,
	"notify_url":      notifyURL,
	"trigger_url":     triggerURL,
	"notify_audience": "OIDC_AUDIENCE",
	"pushes_topic":    "TOPIC",
	"ledger":          "LEDGER",
}

// ParseTerraform reads what terraform output -json prints. Of the outputs,
// settings is what each function has in its environment; secrets are in none.
func ParseTerraform(text []byte) (map[string]string, error) {
	var all map[string]struct {
		Value json.RawMessage `json:"value"`
	}
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, errors.New("it is not what terraform output -json prints")
	}
	values := map[string]string{}
	for output, name := range outputs {
		if raw, ok := all[output]; ok {
			var value string
			if json.Unmarshal(raw.Value, &value) != nil {
				return nil, fmt.Errorf("the output %s is not a text", output)
			}
			values[name] = value
		}
	}
	if raw, ok := all["settings"]; ok {
		var functions map[string]map[string]string
		if json.Unmarshal(raw.Value, &functions) != nil {
			return nil, errors.New("the output settings does not hold the environments of the functions")
		}
		for _, function := range slices.Sorted(maps.Keys(functions)) {
			maps.Copy(values, functions[function])
		}
	}
	if len(values) == 0 {
		return nil, errors.New("it has none of hubrelay's outputs: is it of this root module, after an apply?")
	}
	return values, nil
}

// variables are the inputs of terraform/ that are settings of the functions.
var variables = map[string]string{
	"gitlab_url": "GITLAB_URL", "registry": "REGISTRY", "language": "LANGUAGE", "default_channel": "DEFAULT_CHANNEL", "silent_after": "SILENT_AFTER",
}

// ParseVariables reads a terraform.tfvars, as far as it says how the functions are
// set. Its routes are taken as they stand: Terraform drops a field that it does
// not know, and hubrelay check names it.
func ParseVariables(text string) (map[string]string, error) {
	inputs, err := parseAttributes(text)
	if err != nil {
		return nil, err
	}
	values := map[string]string{}
	for input, name := range variables {
		switch value := inputs[input].(type) {
		case nil:
		case string:
			values[name] = value
		default:
			return nil, fmt.Errorf("%s is not a text", input)
		}
	}
	if on, ok := inputs["reconcile"].(bool); ok {
		values["RECONCILE"] = map[bool]string{true: "on", false: "off"}[on]
	}
	if routes, ok := inputs["routes"].(map[string]any); ok {
		for _, route := range routes {
			if fields, ok := route.(map[string]any); ok {
				if inputs, ok := fields["inputs"].(map[string]any); ok {
					toTexts(inputs)
				}
			}
		}
		raw, err := json.Marshal(routes)
		if err != nil {
			return nil, err
		}
		values["ROUTES"] = string(raw)
	}
	return values, nil
}

// toTexts makes texts of numbers and booleans, as Terraform does where a map of
// texts is wanted.
func toTexts(values map[string]any) {
	for name, value := range values {
		switch value.(type) {
		case json.Number, bool:
			values[name] = fmt.Sprint(value)
		}
	}
}

// ParseTerraformFile reads what terraform output -json prints, which says that it
// is deployed, or a terraform.tfvars.
func ParseTerraformFile(text []byte) (values map[string]string, deployed bool, err error) {
	if strings.HasPrefix(strings.TrimSpace(string(text)), "{") {
		values, err = ParseTerraform(text)
		return values, true, err
	}
	values, err = ParseVariables(string(text))
	return values, false, err
}

// Variable returns a secret from the variable by which Terraform gets it, such as
// TF_VAR_webhook_tokens for WEBHOOK_TOKENS, or "". The error repeats no value.
func Variable(name string, getenv func(string) string) (string, error) {
	variable := "TF_VAR_" + strings.ToLower(name)
	text := strings.TrimSpace(getenv(variable))
	if text == "" {
		return "", nil
	}
	switch name {
	case "SLACK_BOT_TOKEN", "REGISTRY_AUTH":
		return text, nil
	case "WEBHOOK_TOKENS", "NOTIFY_TOKENS":
		var tokens []string
		if err := decodeValue(text, &tokens); err != nil {
			return "", fmt.Errorf(`%s is not a list of texts, such as ["…"]: %w`, variable, err)
		}
		return strings.Join(tokens, "\n"), nil
	case "GITLAB_TRIGGER_TOKENS", "GITLAB_API_TOKENS":
		var tokens map[string]string
		if err := decodeValue(text, &tokens); err != nil {
			return "", fmt.Errorf(`%s is not a map of texts, such as {"*" = "…"}: %w`, variable, err)
		}
		raw, err := json.Marshal(tokens)
		return string(raw), err
	}
	return "", nil
}

// decodeValue reads a value as Terraform would, into what it should be.
func decodeValue(text string, into any) error {
	value, err := parseValue(text)
	if err != nil {
		return err
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return err
	}
	if json.Unmarshal(raw, into) != nil { // its error may repeat a part of a token
		return errors.New("it is something else")
	}
	return nil
}
