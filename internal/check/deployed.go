package check

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/getto-systems/hubrelay/internal/version"
)

// maxWebhookURL is how long a URL Docker Hub registers at most, in characters.
const maxWebhookURL = 255

// deployed looks at the three functions where they run.
func (c *checker) deployed(s settings, t targets, templates []*templateVersion) {
	versions := map[string]*string{"Webhook": new(string), "Notify": new(string)}
	doorWebhook := c.door("deployed.webhook", webhookURL, versions["Webhook"])
	doorNotify := c.door("deployed.notify", notifyURL, versions["Notify"])

	webhookTokens := c.tokens("WEBHOOK_TOKENS")
	for i, token := range webhookTokens {
		c.add("deployed.webhook_token", nth(i, len(webhookTokens)), append(s.need("WEBHOOK_TOKENS"), doorWebhook), func(ctx context.Context) result {
			base := c.base(webhookURL)
			if length := len(base) + len("/") + len(token); length > maxWebhookURL {
				return fail("Make a shorter token.", "the URL that Docker Hub is to call has %d characters", length)
			}
			answer, err := ask(ctx, http.MethodPost, base+"/"+token, jsonHeader, []byte("{}"))
			return judgeToken(answer, err, "Webhook", "Set the token in WEBHOOK_TOKENS of what is deployed, and apply; or take it out of your settings. Check WEBHOOK_URL, too: Notify answers the same.")
		})
	}
	if len(webhookTokens) == 0 {
		c.add("deployed.webhook_token", "", s.need("WEBHOOK_TOKENS"), func(context.Context) result { return notAsked("WEBHOOK_TOKENS is not set") })
	}
	notifyTokens := c.tokens("NOTIFY_TOKENS")
	for i, token := range notifyTokens {
		c.add("deployed.notify_token", nth(i, len(notifyTokens)), append(s.need("NOTIFY_TOKENS"), doorNotify), func(ctx context.Context) result {
			header := jsonHeader.Clone()
			header.Set("Authorization", "Bearer "+token)
			answer, err := ask(ctx, http.MethodPost, c.base(notifyURL)+"/", header, []byte("{}"))
			return judgeToken(answer, err, "Notify", "Set the token in NOTIFY_TOKENS of what is deployed, and apply; or take it out of your settings. Check NOTIFY_URL, too: Webhook answers the same.")
		})
	}
	if len(notifyTokens) == 0 {
		c.known("deployed.notify_token", "", notAsked("NOTIFY_TOKENS is not set: pipelines report by id token alone"))
	}
	c.add("deployed.trigger", "", nil, func(ctx context.Context) result {
		if _, stop := c.address(triggerURL); stop != nil {
			return *stop
		}
		answer, err := get(ctx, c.base(triggerURL)+"/ready", nil)
		return judgeShut(answer, err, c.Deployed)
	})
	c.version(versions, []*probe{doorWebhook, doorNotify}, templates)
	c.heard(s, t)
}

var jsonHeader = http.Header{"Content-Type": {"application/json"}}

func nth(i, n int) string { return fmt.Sprintf("token %d of %d", i+1, n) }

// base is the address of a function, without a slash at its end; "" where there is
// none that can be asked.
func (c *checker) base(name string) string { return strings.TrimRight(c.get(name), "/") }

// address returns where a function is, or why it cannot be asked.
func (c *checker) address(name string) (*url.URL, *result) {
	stop := func(r result) (*url.URL, *result) { return nil, &r }
	base := c.base(name)
	if base == "" {
		return stop(notAsked("%s is not set; Terraform's output %s has it", name, strings.ToLower(name)))
	}
	u, err := url.Parse(base)
	switch {
	case err != nil, u.Scheme != "https" && u.Scheme != "http", u.Host == "", u.User != nil, u.RawQuery != "":
		return stop(fail("Set "+name+" to the address of the function, such as https://hubrelay.example.", "it is not a base URL"))
	case slices.Contains(c.tokens("WEBHOOK_TOKENS"), path.Base(u.Path)):
		return stop(fail("Set "+name+" to the address of the function alone: the token belongs in WEBHOOK_TOKENS.", "it ends in a token"))
	}
	for _, other := range Addresses {
		if other != name && c.base(other) == base {
			return stop(fail("Set "+name+" to Terraform's output "+strings.ToLower(name)+": each function has an address of its own.", "it is the same as %s", other))
		}
	}
	return u, nil
}

// door asks a function whether it is ready, and which version it is.
func (c *checker) door(id, name string, said *string) *probe {
	return c.add(id, "", nil, func(ctx context.Context) result {
		u, stop := c.address(name)
		if stop != nil {
			return *stop
		}
		answer, err := get(ctx, c.base(name)+"/ready", nil)
		if err != nil {
			return unknown("Check the address, and whether this machine reaches it.", "no answer: %v", err)
		}
		*said = answer.header.Get(version.Header)
		switch {
		case answer.ready():
			return pass("200 from %s", u.Host)
		case answer.status == http.StatusOK:
			return fail("Correct "+name+".", "what answers at %s is not hubrelay", u.Host)
		case answer.status == http.StatusTooManyRequests:
			return unknown("Run it again: the function has no free instance.", "429 from %s", u.Host)
		case answer.status >= 300 && answer.status < 400:
			return fail("Correct "+name+": what answers there redirects to another address, such as a login.", "%d from %s", answer.status, u.Host)
		case answer.ours() && u.Path != "":
			return fail("Set "+name+" to the address of the function alone, without a token or another path.", "%d from %s", answer.status, u.Host)
		case answer.status == http.StatusForbidden, answer.status == http.StatusUnauthorized:
			return fail("Let everybody call it: the organisation's policy may forbid allUsers the role run.invoker.", "%d from %s: Google lets nobody in", answer.status, u.Host)
		case answer.status == http.StatusNotFound:
			return fail("Correct "+name+", or let in traffic from outside.", "404 from %s", u.Host)
		}
		return fail("Look at the function's log: it may not start with its settings.", "%d from %s", answer.status, u.Host)
	})
}

// judgeToken reads the answer to {}, which is no push and no report. A function
// says so only to who has a token.
func judgeToken(answer got, err error, function, mend string) result {
	switch {
	case err != nil:
		return unknown("Run it again.", "no answer: %v", err)
	case answer.status >= 500, answer.status == http.StatusTooManyRequests:
		return unknown("Run it again, or look at the function's log.", "%s answered %d", function, answer.status)
	case !answer.ours():
		return unknown("Check the proxy in front of the function.", "the answer, %d, is not hubrelay's", answer.status)
	case answer.status == http.StatusBadRequest:
		return pass("%s accepts it", function)
	case answer.status == http.StatusUnauthorized:
		return fail(mend, "%s answered 401: it does not know the token", function)
	}
	return fail("Check the address.", "%s answered %d", function, answer.status)
}

// ready tells whether it is the answer of a function of ours to GET /ready.
func (g got) ready() bool {
	return g.status == http.StatusOK && strings.TrimSpace(string(g.body)) == "ok"
}

// ours tells whether it is the answer of a function to a mistake: a proxy has pages of
// its own.
func (g got) ours() bool {
	var said struct {
		Error string `json:"error"`
	}
	return json.Unmarshal(g.body, &said) == nil && said.Error != ""
}

// judgeShut reads Trigger's answer to somebody without credentials. Google keeps
// them out with 401 or 403, and answers 404 where only internal traffic is let in. It
// does so where there is no function, too: then it counts if the address is that of
// the deploy.
func judgeShut(answer got, err error, deployed bool) result {
	switch {
	case err != nil:
		return unknown("Check TRIGGER_URL, and whether this machine reaches it.", "no answer: %v", err)
	case answer.ready():
		return fail("Take the role run.invoker on Trigger from allUsers: whoever can call it can start promotions.", "200: everybody may call Trigger")
	case answer.status == http.StatusOK:
		return fail("Set TRIGGER_URL to Terraform's output trigger_url.", "what answers there is not hubrelay")
	case answer.status == http.StatusUnauthorized, answer.status == http.StatusForbidden, answer.status == http.StatusNotFound && deployed:
		return pass("%d without credentials", answer.status)
	case answer.status == http.StatusNotFound:
		return unknown("Check TRIGGER_URL, or take it from Terraform's outputs, with -terraform.",
			"404: only Google's internal traffic is let in, or there is no function at this address")
	}
	return unknown("Look at the function's log.", "Trigger answered %d", answer.status)
}

// version compares the versions of all that says one.
func (c *checker) version(functions map[string]*string, doors []*probe, templates []*templateVersion) {
	after := doors
	for _, t := range templates {
		after = append(after, t.probe)
	}
	p := c.add("deployed.version", "", nil, func(context.Context) result {
		var said []string
		all := map[string]bool{}
		add := func(what, version string) {
			if version != "" {
				said = append(said, what+" "+version)
				all[version] = true
			}
		}
		add("hubrelay check", c.Version)
		for _, name := range []string{"Webhook", "Notify"} {
			add(name, *functions[name])
		}
		for _, t := range templates {
			add("the template of "+t.project, t.version)
		}
		switch {
		case len(said) < 2:
			return notAsked("fewer than two parts tell their version")
		case len(all) > 1:
			return warn("Deploy the version that the others have, or pin the template to it.", "%s", strings.Join(said, ", "))
		}
		return pass("%s", strings.Join(said, ", "))
	})
	p.after = after
}
