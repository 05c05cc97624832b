package check

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// config is what matters of a .gitlab-ci.yml: its header, and what it says of
// pipelines as a whole. GitLab itself judges the rest.
type config struct {
	Inputs map[string]*input
	// InputsElsewhere says that other files declare inputs, too (spec: include:).
	InputsElsewhere bool
	Workflow        workflow
}

// input is what a header declares of one.
type input struct {
	Type    string `yaml:"type"`
	Default any    `yaml:"default"`
	Options []any  `yaml:"options"`
	Regex   string `yaml:"regex"`

	set bool // there is a default, which may be empty, or rules that may have one
}

func (i *input) UnmarshalYAML(n *yaml.Node) error {
	type plain input
	var p plain
	if n.Kind == yaml.MappingNode {
		if err := n.Decode(&p); err != nil {
			return err
		}
	}
	*i = input(p)
	for k := 0; k+1 < len(n.Content); k += 2 {
		i.set = i.set || n.Content[k].Value == "default" || n.Content[k].Value == "rules"
	}
	return nil
}

type workflow struct {
	Name       string     `yaml:"name"`
	AutoCancel autoCancel `yaml:"auto_cancel"`
	Rules      []struct {
		AutoCancel autoCancel `yaml:"auto_cancel"`
	} `yaml:"rules"`
}

type autoCancel struct {
	OnNewCommit string `yaml:"on_new_commit"`
}

// keepsPromotions tells whether some pipelines are not canceled by a new commit.
func (c config) keepsPromotions() bool {
	if c.Workflow.AutoCancel.OnNewCommit == "none" {
		return true
	}
	for _, r := range c.Workflow.Rules {
		if r.AutoCancel.OnNewCommit == "none" {
			return true
		}
	}
	return false
}

// parseConfig reads a .gitlab-ci.yml: with a header where its first document has
// the key spec.
func parseConfig(text []byte) (config, error) {
	var c config
	d := yaml.NewDecoder(bytes.NewReader(text))
	var first yaml.Node
	if err := d.Decode(&first); err != nil {
		if errors.Is(err, io.EOF) {
			return c, nil // an empty file
		}
		return c, errors.New("it is not YAML")
	}
	var header struct {
		Spec *struct {
			Inputs  map[string]*input `yaml:"inputs"`
			Include yaml.Node         `yaml:"include"`
		} `yaml:"spec"`
	}
	if err := first.Decode(&header); err != nil {
		return c, errors.New("its first document is not a map")
	}
	body := first
	if header.Spec != nil {
		c.Inputs, c.InputsElsewhere = header.Spec.Inputs, !header.Spec.Include.IsZero()
		body = yaml.Node{}
		if err := d.Decode(&body); err != nil {
			return c, errors.New("nothing that is YAML follows its header")
		}
	}
	var pipeline struct {
		Workflow workflow `yaml:"workflow"`
	}
	// A part that GitLab would take from elsewhere, as by !reference, stays empty.
	var odd *yaml.TypeError
	if err := body.Decode(&pipeline); err != nil && (!errors.As(err, &odd) || !isMap(body)) {
		return c, errors.New("it is not a map")
	}
	c.Workflow = pipeline.Workflow
	return c, nil
}

func isMap(document yaml.Node) bool {
	return document.Kind == yaml.DocumentNode && len(document.Content) == 1 && document.Content[0].Kind == yaml.MappingNode
}

// refuses says what GitLab would refuse of inputs, all of which are texts.
func (c config) refuses(sent map[string]string) []string {
	var mistakes []string
	wrong := func(format string, args ...any) { mistakes = append(mistakes, fmt.Sprintf(format, args...)) }
	for _, name := range slices.Sorted(maps.Keys(sent)) {
		if _, ok := c.Inputs[name]; !ok && !c.InputsElsewhere {
			wrong("%s is sent and not declared", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Inputs)) {
		declared := c.Inputs[name]
		value, isSent := sent[name]
		switch {
		case declared == nil && !isSent, declared != nil && !declared.set && !isSent:
			wrong("%s is required and not sent", name)
		case declared == nil, !isSent:
		case declared.Type != "" && declared.Type != "string":
			wrong("%s is declared as a %s, and a text is sent", name, declared.Type)
		case declared.Options != nil && !slices.ContainsFunc(declared.Options, func(o any) bool { return fmt.Sprint(o) == value }):
			wrong("%s is sent as %s, which is none of its options", name, strconv.Quote(value))
		case declared.Regex != "":
			pattern, err := regexp.Compile(declared.Regex) // RE2, as in GitLab
			if err == nil && !pattern.MatchString(value) {
				wrong("%s is sent as %s, which its regex does not match", name, strconv.Quote(value))
			}
		}
	}
	return mistakes
}
