package check

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"html"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/agext/levenshtein"

	"github.com/getto-systems/hubrelay/functions/notify"
	"github.com/getto-systems/hubrelay/functions/trigger"
	"github.com/getto-systems/hubrelay/functions/webhook"
)

const (
	webhookURL = "WEBHOOK_URL"
	notifyURL  = "NOTIFY_URL"
	triggerURL = "TRIGGER_URL"
)

// Names are all settings that mean something to hubrelay check, or to a function.
var Names = []string{
	"WEBHOOK_TOKENS", "TOPIC",
	"ROUTES", "LEDGER", "GITLAB_TRIGGER_TOKENS", "GITLAB_API_TOKENS", "GITLAB_URL", "DEAD_LETTER_TOPIC",
	"REGISTRY", "REGISTRY_AUTH", "HUB_URL", "RECONCILE",
	"SLACK_BOT_TOKEN", "SLACK_API_URL", "DEFAULT_CHANNEL", "LANGUAGE", "NOTIFY_TOKENS", "OIDC_AUDIENCE", "OIDC_ISSUER",
	"PUSH_AUDIENCE", "PUSH_SERVICE_ACCOUNT", "PUSH_ISSUER", "SILENT_AFTER",
	"GOOGLE_CLOUD_PROJECT", "LOG_EXECUTION_ID", "SSL_CERT_FILE",
	webhookURL, notifyURL, triggerURL,
}

// Addresses are settings that no function reads itself.
var Addresses = []string{webhookURL, notifyURL, triggerURL}

// Secrets are settings that are in no output of Terraform.
var Secrets = []string{"WEBHOOK_TOKENS", "GITLAB_TRIGGER_TOKENS", "GITLAB_API_TOKENS", "REGISTRY_AUTH", "SLACK_BOT_TOKEN", "NOTIFY_TOKENS"}

// fromDeploy are settings that a deploy makes, and what stands for them before
// it.
var fromDeploy = map[string]string{
	"TOPIC":             "projects/before-the-deploy/topics/pushes",
	"DEAD_LETTER_TOPIC": "projects/before-the-deploy/topics/dead-letters",
	"LEDGER":            "firestore:projects/before-the-deploy/databases/hubrelay",
	"OIDC_AUDIENCE":     "before-the-deploy",
}

// settings are what the functions read.
type settings struct {
	webhook webhook.Settings
	trigger trigger.Settings
	notify  notify.Settings
	wrong   map[string]*probe // the findings of settings with a mistake, by name
}

// need returns what must be in order for settings to be used.
func (s settings) need(names ...string) []*probe {
	var needs []*probe
	for _, name := range names {
		if p, ok := s.wrong[name]; ok {
			needs = append(needs, p)
		}
	}
	return needs
}

// get returns a setting, without the space around it.
func (c *checker) get(name string) string { return strings.TrimSpace(c.Getenv(name)) }

func (c *checker) settings() settings {
	s := settings{wrong: map[string]*probe{}}
	getenv := c.Getenv
	if c.Pre {
		getenv = func(name string) string {
			if name == "OIDC_ISSUER" { // Terraform takes it from the same input
				return cmp.Or(c.Getenv(name), c.Getenv("GITLAB_URL"))
			}
			return cmp.Or(c.Getenv(name), fromDeploy[name])
		}
	}
	if c.Names != nil {
		c.names()
	}
	var err error
	said := map[string]bool{} // Trigger and Notify have settings in common
	s.webhook, err = webhook.ReadSettings(getenv)
	c.mistakes("settings.webhook", err, s.wrong, said, func() result {
		return pass("%s, and TOPIC %s", count(len(c.tokens("WEBHOOK_TOKENS")), "token"), c.told("TOPIC", s.webhook.Topic.String()))
	})
	s.trigger, err = trigger.ReadSettings(getenv)
	c.mistakes("settings.trigger", err, s.wrong, said, func() result {
		return pass("%s, GitLab at %s, DEAD_LETTER_TOPIC %s", count(len(s.trigger.Routes.All()), "route"), s.trigger.Pipelines.Host(),
			c.told("DEAD_LETTER_TOPIC", s.trigger.DeadLetters.String()))
	})
	s.notify, err = notify.ReadSettings(getenv)
	c.mistakes("settings.notify", err, s.wrong, said, func() result {
		return pass("reports by %s, DEFAULT_CHANNEL %s", c.reporters(s), s.notify.DefaultChannel)
	})
	c.issuer(s)
	c.ledger(s)
	return s
}

// told says what a setting is, and not what stands for it before the deploy.
func (c *checker) told(name, value string) string {
	if c.Pre && c.get(name) == "" {
		return "(set by the deploy)"
	}
	return value
}

func (c *checker) reporters(s settings) string {
	var by []string
	if s.notify.IDTokens != nil {
		by = append(by, "id tokens of "+s.notify.Issuer)
	}
	if n := len(c.tokens("NOTIFY_TOKENS")); n > 0 {
		by = append(by, count(n, "shared token"))
	}
	return strings.Join(by, " and ")
}

// mistakes makes a finding for each setting that has a mistake, or one that says
// that there is none.
func (c *checker) mistakes(id string, err error, wrong map[string]*probe, said map[string]bool, fine func() result) {
	if err == nil {
		c.known(id, "", fine())
		return
	}
	begin, texts := []string{}, map[string][]string{}
	for line := range strings.Lines(err.Error()) {
		name, text, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if len(texts[name]) == 0 {
			begin = append(begin, name)
		}
		if !slices.Contains(texts[name], text) {
			texts[name] = append(texts[name], text)
		}
	}
	for _, name := range begin {
		text := strings.Join(texts[name], "; ")
		if said[name+text] {
			continue
		}
		said[name+text] = true
		mend := "Set " + name + " as the page says. A function with a mistake in its settings does not start."
		if _, byDeploy := fromDeploy[name]; byDeploy && !c.Deployed && c.get(name) == "" {
			mend = "Set " + name + ", or use -pre before the deploy, which makes it."
		}
		r := fail(mend, "%s", text)
		if c.Deployed && c.get(name) == "" && slices.Contains(Secrets, name) {
			r = notAsked("is not given here; what is deployed has its own")
		}
		p := c.known(id, name, r)
		if wrong[name] == nil {
			wrong[name] = p
		}
	}
}

// names says which names of a file look like that of a setting which is not there.
// Others are somebody else's: a file may be a whole environment.
func (c *checker) names() {
	known := 0
	var misspelt []string
	for _, name := range c.Options.Names {
		if slices.Contains(Names, name) {
			known++
		} else if meant := nearest(name, Names); meant != "" && !slices.Contains(c.Options.Names, meant) {
			misspelt = append(misspelt, name)
			c.known("settings.names", name, warn("Correct the name to "+meant+", or take it out.", "is not a setting of hubrelay, and %s is", meant))
		}
	}
	if len(misspelt) == 0 {
		c.known("settings.names", "", pass("%s, and no name that looks like another", count(known, "setting")))
	}
}

// nearest returns the word that most likely was meant, or "" where none is within
// two slips of the finger, or one in a short word: TOKEN is not TOPIC.
func nearest(typed string, words []string) string {
	best, least := "", 3
	for _, word := range words {
		if d := levenshtein.Distance(strings.ToUpper(typed), word, nil); d < least && (d < 2 || len(word) > 7) {
			best, least = word, d
		}
	}
	return best
}

func (c *checker) issuer(s settings) {
	gitlab := strings.TrimRight(cmp.Or(c.get("GITLAB_URL"), "https://gitlab.com"), "/")
	switch {
	case len(s.need("OIDC_ISSUER", "GITLAB_URL")) > 0:
		c.add("settings.issuer", "", s.need("OIDC_ISSUER", "GITLAB_URL"), nil)
	case s.notify.IDTokens == nil:
		c.known("settings.issuer", "", notAsked("id tokens are not taken: OIDC_AUDIENCE is not set"))
	case s.notify.Issuer != gitlab:
		c.known("settings.issuer", "", fail(
			"Set OIDC_ISSUER to the URL of the GitLab whose pipelines report. Notify answers 401 to those of another.",
			"OIDC_ISSUER is %s, and GITLAB_URL is %s", s.notify.Issuer, gitlab))
	default:
		c.known("settings.issuer", "", pass("%s", gitlab))
	}
}

func (c *checker) ledger(s settings) {
	needs := s.need("LEDGER")
	switch {
	case len(needs) > 0:
		c.add("settings.ledger", "", needs, nil)
	case s.trigger.Ledger.InMemory():
		c.known("settings.ledger", "", warn("Set LEDGER to a Firestore database where it is not for trying things out.",
			"%s is gone with the process, and no other process sees it", s.trigger.Ledger))
	default:
		c.known("settings.ledger", "", pass("%s", c.told("LEDGER", string(s.trigger.Ledger))))
	}
}

// tokens returns shared tokens that were found fit by the function that takes
// them.
func (c *checker) tokens(name string) []string { return strings.Fields(c.Getenv(name)) }

// newRedactor returns a function that takes every secret of the settings out of a
// text. Nothing should be there to take out: it is the last line of defence.
func newRedactor(getenv func(string) string) func(string) string {
	var hidden []string
	for _, name := range []string{"WEBHOOK_TOKENS", "NOTIFY_TOKENS", "SLACK_BOT_TOKEN"} {
		hidden = append(hidden, strings.Fields(getenv(name))...)
	}
	for _, name := range []string{"GITLAB_TRIGGER_TOKENS", "GITLAB_API_TOKENS"} {
		var tokens map[string]string
		_ = json.Unmarshal([]byte(getenv(name)), &tokens)
		for _, token := range tokens {
			hidden = append(hidden, token)
		}
	}
	var config struct {
		Auths map[string]map[string]any `json:"auths"`
	}
	_ = json.Unmarshal([]byte(getenv("REGISTRY_AUTH")), &config)
	for _, entry := range config.Auths {
		for _, key := range []string{"auth", "password", "identitytoken", "registrytoken"} {
			text, _ := entry[key].(string)
			hidden = append(hidden, text)
		}
		auth, _ := entry["auth"].(string)
		plain, _ := base64.RawStdEncoding.DecodeString(strings.TrimRight(auth, "="))
		_, password, _ := strings.Cut(string(plain), ":")
		hidden = append(hidden, password)
	}
	for _, secret := range hidden { // as they look in a URL or a page
		hidden = append(hidden, url.QueryEscape(secret), url.PathEscape(secret), html.EscapeString(secret))
	}
	// The longest first, for one may begin with another.
	slices.SortFunc(hidden, func(a, b string) int { return len(b) - len(a) })
	var pairs []string
	for _, s := range hidden {
		if len(s) >= minSecret {
			pairs = append(pairs, s, "[secret]")
		}
	}
	known := strings.NewReplacer(pairs...)
	return func(text string) string { return token.ReplaceAllString(known.Replace(text), "[secret]") }
}

// token is what tokens of GitLab, Slack and Docker Hub look like, for one that stands
// in the place of another setting.
var token = regexp.MustCompile(`\b(?:(?:glpat|glptt|glcbt|gldt|glrt|glft|glsoat)-|xox[a-z]-|xapp-|dckr_[a-z]+_)[A-Za-z0-9._-]{8,}`)

// minSecret is how long what is taken out of texts is at least: what is shorter is
// no token, and may be a word.
const minSecret = 8
