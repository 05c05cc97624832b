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
// a backslash; a value in quotes may go over several lines. Nothing is expanded: a
// setting of hubrelay with $NAME in it is a mistake, unless it is in single quotes, or
// the $ has a backslash in double ones. So is a comment behind one without quotes. The
// error says in which line it is, and repeats no value.
func ParseEnv(text string) (values map[string]string, names []string, err error) {
	if text, err = plainText(text); err != nil {
		return nil, nil, err
	}
	values, text = map[string]string{}, strings.ReplaceAll(text, "\r\n", "\n")
	for start, at := 0, 1; start < len(text); at++ {
		whole, _, _ := strings.Cut(text[start:], "\n")
		first := start
		start += len(whole) + len("\n")
		line := strings.TrimSpace(whole)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, ok := strings.Cut(strings.TrimPrefix(line, "export "), "=")
		if name = strings.TrimSpace(name); !ok || !settingName.MatchString(name) {
			return nil, nil, fmt.Errorf("line %d is not NAME=VALUE", at)
		}
		value = strings.TrimSpace(value)
		lines := 0 // beside the first
		quote := firstOf(value, `"'`)
		if quote != 0 {
			begin := first + strings.IndexByte(whole, quote) // for a name has none
			end := closing(text[begin:], quote)
			if end < 0 {
				return nil, nil, fmt.Errorf("line %d: the value of %s has no closing quote", at, name)
			}
			value = text[begin+1 : begin+end]
			lines = strings.Count(value, "\n")
			rest, _, _ := strings.Cut(text[begin+end+1:], "\n")
			start = begin + end + 1 + len(rest) + len("\n")
			if rest = strings.TrimSpace(rest); rest != "" && !strings.HasPrefix(rest, "#") {
				return nil, nil, fmt.Errorf("line %d: something follows the quoted value of %s", at, name)
			}
		}
		ours := slices.Contains(Names, name)
		if ours && quote == 0 && comment.MatchString(value) {
			return nil, nil, fmt.Errorf("line %d: a comment follows the value of %s, of which it would be a part: put it on a line of its own, or the value in quotes", at, name)
		}
		if ours && quote != '\'' && expands(value) {
			return nil, nil, fmt.Errorf("line %d: %s has a $ or a ` that a shell would expand, and here nothing is expanded: write the value itself, in single quotes", at, name)
		}
		if quote == '"' {
			value = strings.NewReplacer(`\n`, "\n", `\"`, `"`, `\$`, `$`, `\\`, `\`).Replace(value)
		}
		if _, twice := values[name]; twice {
			return nil, nil, fmt.Errorf("line %d: %s is set twice", at, name)
		}
		values[name] = value
		names = append(names, name)
		at += lines
	}
	return values, names, nil
}

// plainText returns text without a byte order mark. It refuses UTF-16, which Windows
// calls Unicode.
func plainText(text string) (string, error) {
	if strings.Contains(text, "\x00") {
		return "", errors.New("it is not UTF-8 text: save it as UTF-8")
	}
	return strings.TrimPrefix(text, "\ufeff"), nil
}

// expands tells whether a shell would put something else into a value, in double
// quotes or without any.
func expands(value string) bool {
	return expansion.MatchString(escaped.ReplaceAllString(value, ""))
}

var (
	escaped   = regexp.MustCompile(`\\.`)
	comment   = regexp.MustCompile(`\s#`)
	expansion = regexp.MustCompile("\\$[A-Za-z_{(]|`")
)

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
		return nil, errors.New("it is not what terraform output -json prints; inputs are read from a terraform.tfvars, not from a .tfvars.json")
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

// ParseTerraformFile reads what terraform output -json prints, which says that it
// is deployed, or a terraform.tfvars.
func ParseTerraformFile(raw []byte) (values map[string]string, deployed bool, err error) {
	text, err := plainText(string(raw))
	if err != nil {
		return nil, false, err
	}
	if strings.HasPrefix(strings.TrimSpace(text), "{") {
		values, err = ParseTerraform([]byte(text))
		return values, true, err
	}
	values, err = ParseVariables(text)
	return values, false, err
}
