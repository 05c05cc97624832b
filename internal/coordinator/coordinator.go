// Package coordinator replaces GitLab and its runners, on one machine and
// without an account. It reads CI files like GitLab (inputs, rules, includes),
// and runs the jobs like GitLab Runner. It refuses everything that it does not
// know, so that nothing passes because it was ignored.
//
// It follows gitlabhq and gitlab-runner of 2026. If versions differ, it follows
// the newest.
package coordinator

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Project is a project with CI files.
type Project struct {
	Path  string            // such as acme/images/api
	Files map[string]string // by path; .gitlab-ci.yml is the one to start with
	// Elsewhere are the files that include:component and include:remote lead to,
	// by address. May be nil.
	Elsewhere map[string]string
	Variables []Variable // of its settings
}

// Variable is a CI/CD variable of a project.
type Variable struct {
	Name, Value string
	File        bool // the job sees the path of a file that holds the value
	Raw         bool // $ in it has no meaning
}

// Request asks for a pipeline.
type Request struct {
	Source    string            // of the pipeline; trigger if it is ""
	Branch    string            // main if it is ""
	Inputs    map[string]any    // pipeline inputs
	Variables map[string]string // of the trigger
	ID        int               // 1 if it is 0
	URL       string            // made up if it is ""
	Created   time.Time         // now if it is zero
}

// Pipeline is the pipeline that GitLab creates for a request.
type Pipeline struct {
	Name       string // workflow:name
	AutoCancel string // workflow:auto_cancel:on_new_commit, "" if it is not set
	Jobs       []*Job // in the order of their stages
	project    Project
	request    Request
	predefined map[string]string
}

// Job is a job of a pipeline.
type Job struct {
	Name, Stage   string
	When          string // on_success, on_failure, always, manual
	Script, After []string
	AllowFailure  bool
	Image         string
	Tags          []string
	ResourceGroup string
	Interruptible bool
	Timeout       string
	RetryMax      int
	RetryWhen     []string
	RetryCodes    []int
	Dependencies  []string // the jobs whose dotenv files it gets; nil means all before it
	Dotenv        string   // the file that becomes variables of later jobs
	ArtifactsWhen string
	IDTokens      map[string]string // audience by name
	Variables     map[string]string // from the file, by precedence, before they are expanded
	raw           map[string]bool   // those of them that are not expanded
	stage         int
}

// Job returns the job with that name, nil where the pipeline has none.
func (p *Pipeline) Job(name string) *Job {
	for _, j := range p.Jobs {
		if j.Name == name {
			return j
		}
	}
	return nil
}

// ErrNoJobs is GitLab's refusal of a pipeline without jobs.
var ErrNoJobs = errors.New("the resulting pipeline would have been empty")

// Create creates a pipeline, or returns GitLab's refusal.
func (p Project) Create(r Request) (*Pipeline, error) {
	if r.Source == "" {
		r.Source = "trigger"
	}
	if r.Branch == "" {
		r.Branch = "main"
	}
	if r.ID == 0 {
		r.ID = 1
	}
	if r.URL == "" {
		r.URL = fmt.Sprintf("https://gitlab.example/%s/-/pipelines/%d", p.Path, r.ID)
	}
	if r.Created.IsZero() {
		r.Created = time.Now()
	}
	made := &Pipeline{project: p, request: r, predefined: map[string]string{
		"CI": "true", "GITLAB_CI": "true", "CI_PIPELINE_SOURCE": r.Source, "CI_COMMIT_BRANCH": r.Branch, "CI_COMMIT_REF_NAME": r.Branch,
		"CI_COMMIT_REF_PROTECTED": "true", "CI_PIPELINE_ID": fmt.Sprint(r.ID), "CI_PIPELINE_URL": r.URL, "CI_PROJECT_PATH": p.Path,
		"CI_PROJECT_URL": "https://gitlab.example/" + p.Path, "CI_SERVER_URL": "https://gitlab.example", "CI_SERVER_FQDN": "gitlab.example",
		"CI_CONFIG_PATH": ".gitlab-ci.yml", "CI_PIPELINE_CREATED_AT": r.Created.UTC().Format("2006-01-02T15:04:05Z"),
		"CI_COMMIT_SHA": strings.Repeat("c", 40),
	}}
	config, err := p.load(p.Files[".gitlab-ci.yml"], r.Inputs, made.predefined, 0)
	if err != nil {
		return nil, err
	}
	if err := made.read(config); err != nil {
		return nil, err
	}
	if len(made.Jobs) == 0 {
		return nil, ErrNoJobs
	}
	return made, nil
}

// known are the variables that rules see: those of the trigger win over the
// project's, which win over the file's.
func (p *Pipeline) known(file ...map[string]string) map[string]string {
	all := maps.Clone(p.predefined)
	for _, f := range file {
		maps.Copy(all, f)
	}
	for _, v := range p.project.Variables {
		all[v.Name] = v.Value
	}
	maps.Copy(all, p.request.Variables)
	return all
}

// load reads one file: its header, its inputs, and what it includes.
func (p Project) load(text string, inputs map[string]any, predefined map[string]string, depth int) (map[string]any, error) {
	if depth > 10 {
		return nil, errors.New("includes are nested too deeply")
	}
	body, err := interpolate(text, inputs)
	if err != nil {
		return nil, err
	}
	var node yaml.Node
	if err := yaml.Unmarshal([]byte(body), &node); err != nil {
		return nil, fmt.Errorf("invalid YAML: %w", err)
	}
	nodes := 0
	plain, err := decode(&node, &nodes)
	if err != nil {
		return nil, err
	}
	own, ok := plain.(map[string]any)
	if !ok {
		return nil, errors.New("the file is no map")
	}
	merged := map[string]any{}
	for _, include := range list(own["include"]) {
		in, ok := include.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("include %v is not known here", include)
		}
		content, err := p.included(in, predefined)
		if err != nil {
			return nil, err
		}
		given, _ := in["inputs"].(map[string]any)
		config, err := p.load(content, given, predefined, depth+1)
		if err != nil {
			return nil, fmt.Errorf("include: %w", err)
		}
		merge(merged, config)
	}
	delete(own, "include")
	merge(merged, own)
	return merged, nil
}

func (p Project) included(in map[string]any, predefined map[string]string) (string, error) {
	for kind, where := range map[string]map[string]string{"local": p.Files, "component": p.Elsewhere, "remote": p.Elsewhere} {
		address, ok := in[kind].(string)
		if !ok {
			continue
		}
		address = expand(address, predefined)
		if content, ok := where[strings.TrimPrefix(address, "/")]; ok {
			return content, nil
		}
		return "", fmt.Errorf("include: %s %s is not there", kind, address)
	}
	return "", fmt.Errorf("include %v is not known here", in)
}

// merge is GitLab's deep merge: maps are merged, all else is replaced.
func merge(into, from map[string]any) {
	for k, v := range from {
		if old, ok := into[k].(map[string]any); ok {
			if new, ok := v.(map[string]any); ok {
				merged := maps.Clone(old)
				merge(merged, new)
				into[k] = merged
				continue
			}
		}
		into[k] = v
	}
}

// reference is a value of the tag !reference.
type reference []string

// maxNodes bounds a file, with all that its aliases repeat.
const maxNodes = 100_000

// decode makes plain values of YAML. A time is an error, as in GitLab with
// Ruby's YAML.
func decode(n *yaml.Node, nodes *int) (any, error) {
	if *nodes++; *nodes > maxNodes {
		return nil, errors.New("the file is too large")
	}
	switch n.Kind {
	case 0:
		return nil, nil
	case yaml.DocumentNode:
		return decode(n.Content[0], nodes)
	case yaml.AliasNode:
		return decode(n.Alias, nodes)
	case yaml.SequenceNode:
		if n.Tag == "!reference" {
			var r reference
			for _, c := range n.Content {
				r = append(r, c.Value)
			}
			return r, nil
		}
		values := []any{}
		for _, c := range n.Content {
			v, err := decode(c, nodes)
			if err != nil {
				return nil, err
			}
			values = append(values, v)
		}
		return values, nil
	case yaml.MappingNode:
		values := map[string]any{}
		for i := 0; i < len(n.Content); i += 2 {
			v, err := decode(n.Content[i+1], nodes)
			if err != nil {
				return nil, err
			}
			values[n.Content[i].Value] = v
		}
		return values, nil
	}
	if n.Tag == "!!timestamp" {
		return nil, fmt.Errorf("invalid YAML: %s is a time, and must be quoted", n.Value)
	}
	if n.Style == 0 && slices.Contains([]string{"yes", "no", "on", "off"}, strings.ToLower(n.Value)) { // YAML 1.1
		return strings.EqualFold(n.Value, "yes") || strings.EqualFold(n.Value, "on"), nil
	}
	var v any
	return v, n.Decode(&v)
}

func list(v any) []any {
	switch v := v.(type) {
	case nil:
		return nil
	case []any:
		return v
	}
	return []any{v}
}

var (
	block       = regexp.MustCompile(`\$\[\[(.*?)\]\]`)
	inputAccess = regexp.MustCompile(`^\s*inputs\.([A-Za-z0-9_-]+)\s*$`)
)

// interpolate puts inputs into the text of a file, before it is read as YAML,
// as GitLab does. A file without a header (spec) takes no inputs.
func interpolate(text string, given map[string]any) (string, error) {
	header, body, ok := strings.Cut(text, "\n---\n")
	if !ok || !strings.Contains("\n"+header, "\nspec:") {
		if len(given) > 0 {
			return "", errors.New("given inputs not defined in the `spec` section of the included configuration file")
		}
		return text, nil
	}
	values, err := inputs(header, given)
	if err != nil {
		return "", err
	}
	var failed error
	body = block.ReplaceAllStringFunc(body, func(found string) string {
		name := inputAccess.FindStringSubmatch(found[3 : len(found)-2])
		if name == nil {
			failed = fmt.Errorf("%s is not known here", found)
			return found
		}
		value, ok := values[name[1]]
		if !ok {
			failed = fmt.Errorf("unknown interpolation key: `%s`", name[1])
			return found
		}
		if s, ok := value.(string); ok {
			return s
		}
		encoded, err := json.Marshal(value)
		if err != nil {
			failed = err
		}
		return string(encoded)
	})
	return body, failed
}

// inputSpec is what a header says about an input.
type inputSpec struct {
	Default     any
	Regex       string
	Options     []any
	Type        string
	Description string
}

// inputs checks the given inputs against a header, like GitLab. The error has
// every mistake.
func inputs(header string, given map[string]any) (map[string]any, error) {
	var spec struct {
		Spec struct {
			Inputs map[string]*inputSpec
		}
	}
	decoder := yaml.NewDecoder(strings.NewReader(header))
	decoder.KnownFields(true)
	if err := decoder.Decode(&spec); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	values := map[string]any{}
	var wrong []error
	for name := range given {
		if _, ok := spec.Spec.Inputs[name]; !ok {
			wrong = append(wrong, fmt.Errorf("unknown input arguments: %s", name))
		}
	}
	for name, is := range spec.Spec.Inputs {
		value, ok := given[name]
		which := "provided"
		if is == nil {
			is = new(inputSpec)
		}
		if !ok {
			if value, which = is.Default, "default"; value == nil {
				wrong = append(wrong, fmt.Errorf("`%s` input: required value has not been provided", name))
				continue
			}
		}
		values[name] = value
		kind := ""
		switch value.(type) {
		case string:
			kind = "string"
		case bool:
			kind = "boolean"
		case int, float64:
			kind = "number"
		case []any:
			kind = "array"
		}
		if want := is.Type; kind != want && (want != "" || kind != "string") {
			wrong = append(wrong, fmt.Errorf("`%s` input: %s value is not a %s", name, which, cmp.Or(want, "string")))
			continue
		}
		if is.Options != nil && !slices.Contains(is.Options, value) {
			wrong = append(wrong, fmt.Errorf("`%s` input: `%v` cannot be used because it is not in the list of allowed options", name, value))
		}
		if is.Regex != "" {
			pattern, err := regexp.Compile(is.Regex) // RE2, as in GitLab
			if err != nil {
				wrong = append(wrong, fmt.Errorf("`%s` input: invalid regular expression", name))
			} else if !pattern.MatchString(fmt.Sprint(value)) {
				wrong = append(wrong, fmt.Errorf("`%s` input: %s value does not match required RegEx pattern", name, which))
			}
		}
	}
	return values, errors.Join(wrong...)
}

var variableAccess = regexp.MustCompile(`\$(\$|\w+|\{\w+\})`)

// expand replaces $NAME and ${NAME}; an unknown variable is empty.
func expand(text string, variables map[string]string) string {
	return variableAccess.ReplaceAllStringFunc(text, func(found string) string {
		if found == "$$" {
			return "$"
		}
		return variables[strings.Trim(found[1:], "{}")]
	})
}
