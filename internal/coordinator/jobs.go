package coordinator

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// notJobs are the keys of a CI file that name no job.
var notJobs = []string{"stages", "variables", "workflow", "default", "include", "spec"}

// jobKeys are the supported keys of a job. GitLab has more.
var jobKeys = []string{
	"script", "after_script", "stage", "rules", "variables", "extends", "inherit", "image", "id_tokens", "dependencies", "timeout", "retry",
	"allow_failure", "resource_group", "interruptible", "artifacts", "tags", "release", "before_script", "cache", "needs", "services",
}

// read creates the jobs of a merged file.
func (p *Pipeline) read(config map[string]any) error {
	stages := []string{".pre"}
	for _, s := range list(config["stages"]) {
		stages = append(stages, fmt.Sprint(s))
	}
	if len(stages) == 1 {
		stages = append(stages, "build", "test", "deploy")
	}
	stages = append(stages, ".post")
	globals, globalsRaw, err := variables(config["variables"])
	if err != nil {
		return err
	}
	if workflow, ok := config["workflow"].(map[string]any); ok {
		if err := p.workflow(workflow, globals); err != nil {
			return err
		}
	}
	var names []string
	for name := range config {
		if !slices.Contains(notJobs, name) && !strings.HasPrefix(name, ".") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		keys, err := extended(config, name, 0)
		if err != nil {
			return err
		}
		job, err := p.job(name, keys, config, globals, globalsRaw)
		if err != nil {
			return fmt.Errorf("job %s: %w", name, err)
		}
		if job == nil {
			continue
		}
		if job.stage = slices.Index(stages, job.Stage); job.stage < 0 {
			return fmt.Errorf("job %s: chosen stage %s does not exist; available stages are %s", name, job.Stage, strings.Join(stages, ", "))
		}
		p.Jobs = append(p.Jobs, job)
	}
	slices.SortStableFunc(p.Jobs, func(a, b *Job) int { return a.stage - b.stage })
	// Jobs of .pre and .post alone are not enough for a pipeline.
	if !slices.ContainsFunc(p.Jobs, func(j *Job) bool { return j.Stage != ".pre" && j.Stage != ".post" }) {
		p.Jobs = nil
	}
	return nil
}

// workflow decides whether there is a pipeline at all.
func (p *Pipeline) workflow(workflow map[string]any, globals map[string]string) error {
	cancel := workflow["auto_cancel"]
	if rules, ok := workflow["rules"]; ok {
		rule, err := p.match(rules, p.known(globals))
		if err != nil {
			return fmt.Errorf("workflow: %w", err)
		}
		if rule == nil || rule["when"] == "never" {
			return errors.New("pipeline filtered out by workflow rules")
		}
		extra, _, err := variables(rule["variables"])
		if err != nil {
			return fmt.Errorf("workflow: %w", err)
		}
		maps.Copy(globals, extra)
		if own, ok := rule["auto_cancel"]; ok {
			cancel = own
		}
	}
	if cancel, ok := cancel.(map[string]any); ok {
		p.AutoCancel, _ = cancel["on_new_commit"].(string)
	}
	if name, ok := workflow["name"].(string); ok {
		known := p.known(globals)
		for range 3 { // variables may hold variables
			name = expand(name, known)
		}
		p.Name = name
	}
	return nil
}

// match returns the first rule that matches, nil if none does.
func (p *Pipeline) match(rules any, known map[string]string) (map[string]any, error) {
	for _, r := range flatten(list(rules)) {
		rule, ok := r.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("rule %v is not known here", r)
		}
		for key := range rule {
			if !slices.Contains([]string{"if", "when", "variables", "allow_failure", "auto_cancel"}, key) {
				return nil, fmt.Errorf("rules:%s is not known here", key)
			}
		}
		if condition, ok := rule["if"]; ok {
			text, ok := condition.(string)
			if !ok {
				return nil, fmt.Errorf("rules:if %v is no expression", condition)
			}
			expression, err := ParseExpression(text)
			if err != nil {
				return nil, fmt.Errorf("rules:if %s: invalid expression syntax: %w", text, err)
			}
			if !expression.True(known) {
				continue
			}
		}
		return rule, nil
	}
	return nil, nil
}

// extended returns a job's keys with those that it extends.
func extended(config map[string]any, name string, depth int) (map[string]any, error) {
	own, ok := config[name].(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%s: unknown key, or no job", name)
	}
	if depth > 10 {
		return nil, fmt.Errorf("%s: extends is nested too deeply", name)
	}
	all := map[string]any{}
	for _, parent := range list(own["extends"]) {
		keys, err := extended(config, fmt.Sprint(parent), depth+1)
		if err != nil {
			return nil, err
		}
		merge(all, keys)
	}
	merge(all, own)
	return all, nil
}

func (p *Pipeline) job(name string, keys, config map[string]any, globals map[string]string, globalsRaw map[string]bool) (*Job, error) {
	for key := range keys {
		if !slices.Contains(jobKeys, key) {
			return nil, fmt.Errorf("%s is not known here", key)
		}
	}
	j := &Job{Name: name, Stage: "test", When: "on_success", ArtifactsWhen: "on_success", raw: map[string]bool{}, IDTokens: map[string]string{}}
	own, ownRaw, err := variables(keys["variables"])
	if err != nil {
		return nil, err
	}
	j.Variables = maps.Clone(globals)
	maps.Copy(j.Variables, own)
	maps.Copy(j.raw, globalsRaw)
	for k := range own {
		j.raw[k] = ownRaw[k]
	}
	if j.Script, err = lines(keys["script"], config); err != nil {
		return nil, err
	}
	if before, err := lines(keys["before_script"], config); err != nil {
		return nil, err
	} else if len(before) > 0 {
		j.Script = slices.Concat(before, j.Script)
	}
	if j.After, err = lines(keys["after_script"], config); err != nil {
		return nil, err
	}
	if len(j.Script) == 0 && keys["release"] == nil {
		return nil, errors.New("script config can't be blank")
	}
	j.AllowFailure, _ = keys["allow_failure"].(bool)
	if rules, ok := keys["rules"]; ok {
		resolved, err := resolve(rules, config)
		if err != nil {
			return nil, err
		}
		rule, err := p.match(resolved, p.known(j.Variables))
		if err != nil {
			return nil, err
		}
		if rule == nil || rule["when"] == "never" {
			return nil, nil
		}
		if when, ok := rule["when"].(string); ok {
			j.When = when
		}
		if allow, ok := rule["allow_failure"].(bool); ok {
			j.AllowFailure = allow
		}
	}
	if stage, ok := keys["stage"]; ok {
		if j.Stage, ok = stage.(string); !ok {
			return nil, errors.New("stage is no string")
		}
	}
	j.Image, _ = keys["image"].(string)
	for _, tag := range list(keys["tags"]) {
		j.Tags = append(j.Tags, fmt.Sprint(tag))
	}
	j.Interruptible, _ = keys["interruptible"].(bool)
	j.Timeout, _ = keys["timeout"].(string)
	if group, ok := keys["resource_group"].(string); ok {
		j.ResourceGroup = expand(group, p.known(j.Variables))
	}
	if dependencies, ok := keys["dependencies"]; ok {
		j.Dependencies = []string{}
		for _, d := range list(dependencies) {
			j.Dependencies = append(j.Dependencies, fmt.Sprint(d))
		}
	}
	switch retry := keys["retry"].(type) {
	case int:
		j.RetryMax = retry
	case map[string]any:
		j.RetryMax, _ = retry["max"].(int)
		for _, w := range list(retry["when"]) {
			j.RetryWhen = append(j.RetryWhen, fmt.Sprint(w))
		}
		for _, c := range list(retry["exit_codes"]) {
			code, ok := c.(int)
			if !ok {
				return nil, fmt.Errorf("retry:exit_codes: %v is no number", c)
			}
			j.RetryCodes = append(j.RetryCodes, code)
		}
	}
	if j.RetryMax < 0 || j.RetryMax > 2 {
		return nil, errors.New("retry max must be less than or equal to 2")
	}
	if artifacts, ok := keys["artifacts"].(map[string]any); ok {
		if when, ok := artifacts["when"].(string); ok {
			j.ArtifactsWhen = when
		}
		reports, _ := artifacts["reports"].(map[string]any)
		j.Dotenv, _ = reports["dotenv"].(string)
	}
	tokens, _ := keys["id_tokens"].(map[string]any)
	for token, of := range tokens {
		aud, _ := of.(map[string]any)
		j.IDTokens[token] = expand(fmt.Sprint(aud["aud"]), p.known(j.Variables))
	}
	return j, nil
}

// variables reads variables, which may be written as {value: …, expand: false}.
func variables(v any) (values map[string]string, raw map[string]bool, err error) {
	values, raw = map[string]string{}, map[string]bool{}
	m, ok := v.(map[string]any)
	if !ok && v != nil {
		return nil, nil, errors.New("variables are no map")
	}
	for name, value := range m {
		if long, ok := value.(map[string]any); ok {
			for key := range long {
				if !slices.Contains([]string{"value", "expand", "description"}, key) {
					return nil, nil, fmt.Errorf("variables:%s:%s is not known here", name, key)
				}
			}
			if long["expand"] == false {
				raw[name] = true
			}
			value = long["value"]
		}
		switch value := value.(type) {
		case string:
			values[name] = value
		case int, bool, float64:
			values[name] = fmt.Sprint(value)
		default:
			return nil, nil, fmt.Errorf("variable %s is no string", name)
		}
	}
	return values, raw, nil
}

// lines are the commands of a script.
func lines(v any, config map[string]any) ([]string, error) {
	resolved, err := resolve(v, config)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, line := range flatten(list(resolved)) {
		text, ok := line.(string)
		if !ok {
			return nil, fmt.Errorf("script: %v is no string", line)
		}
		out = append(out, text)
	}
	return out, nil
}

// resolve follows !reference.
func resolve(v any, config map[string]any) (any, error) {
	switch v := v.(type) {
	case reference:
		if len(v) == 0 {
			return nil, errors.New("!reference is empty")
		}
		var at any = config
		for i, key := range v {
			m, ok := at.(map[string]any)
			if !ok {
				return nil, fmt.Errorf("!reference %v could not be found", []string(v))
			}
			if i == 1 {
				keys, err := extended(config, v[0], 0)
				if err != nil {
					return nil, err
				}
				m = keys
			}
			if at, ok = m[key]; !ok {
				return nil, fmt.Errorf("!reference %v could not be found", []string(v))
			}
		}
		return at, nil
	case []any:
		var out []any
		for _, item := range v {
			r, err := resolve(item, config)
			if err != nil {
				return nil, err
			}
			out = append(out, r)
		}
		return out, nil
	}
	return v, nil
}

func flatten(items []any) []any {
	var out []any
	for _, item := range items {
		if inner, ok := item.([]any); ok {
			out = append(out, flatten(inner)...)
			continue
		}
		out = append(out, item)
	}
	return out
}
