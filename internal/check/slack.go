package check

import (
	"cmp"
	"context"
	"errors"
	"regexp"
	"slices"
	"strings"

	"github.com/getto-systems/hubrelay/internal/slack"
)

// slack looks at the bot's token, and at each channel.
func (c *checker) slack(s settings) {
	needs := s.need("SLACK_BOT_TOKEN", "SLACK_API_URL")
	var who slack.Identity
	token := c.add("slack.token", "", needs, func(ctx context.Context) result {
		var err error
		who, err = s.notify.Slack.Identity(ctx)
		switch {
		case err != nil:
			return slackRefusal(err)
		case who.User == "" && who.Team == "" && !who.Bot:
			return unknown("Check SLACK_API_URL, and run it again.", "Slack's answer does not say whose token it is")
		case !who.Bot:
			return warn("Set SLACK_BOT_TOKEN to the Bot User OAuth Token (xoxb-…) of the app.", "the token is of the user %s in %s, not of a bot", who.User, who.Team)
		}
		return pass("%s in %s", who.User, who.Team)
	})
	c.add("slack.scopes", "", []*probe{token}, func(context.Context) result {
		const write = "chat:write"
		switch {
		case who.Scopes == nil:
			return notAsked("Slack does not name them")
		case !slices.Contains(who.Scopes, write):
			return fail("Give the app the scope chat:write, and install it again.", "the token has %s", strings.Join(who.Scopes, ", "))
		}
		return pass("%s", strings.Join(who.Scopes, ", "))
	})
	if routes := s.need("ROUTES"); len(routes) > 0 {
		c.add("slack.channel", "", routes, nil)
	}
	for _, channel := range channels(s) {
		if !channelID.MatchString(channel) { // which takes no question
			c.known("slack.channel", channel, warn("Set the channel's ID, which is at the end of the channel's details: a name changes, and a private channel has none for the bot.",
				"it is not a channel's ID, and Slack was not asked about it"))
			continue
		}
		c.add("slack.channel", channel, []*probe{token}, func(ctx context.Context) result {
			return c.channel(ctx, s.notify.Slack, channel, who.Scopes)
		})
	}
}

// channels returns the channels of the routes and of what has none, sorted.
func channels(s settings) []string {
	var all []string
	for _, r := range s.trigger.Routes.All() {
		all = append(all, r.Slack.Channel)
	}
	if s.notify.DefaultChannel != "" {
		all = append(all, s.notify.DefaultChannel)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// channelID is what Slack's IDs of channels look like. D is a direct message.
var channelID = regexp.MustCompile(`^[CGD][A-Z0-9]{2,}$`)

func (c *checker) channel(ctx context.Context, client *slack.Client, channel string, scopes []string) result {
	const invite = "Invite the bot into the channel: /invite @hubrelay."
	found, err := client.Channel(ctx, channel)
	var e *slack.Error
	switch {
	case err == nil && found.Archived:
		return fail("Unarchive the channel, or set another one.", "#%s is archived", found.Name)
	case err == nil && !found.Member && found.Name == "" && channel[0] == 'D':
		return pass("it is a direct message of the bot's") // of which Slack names no members
	case err == nil && !found.Member && found.Name == "":
		return unknown("Run it again.", "Slack's answer does not say which channel it is")
	case err == nil && !found.Member:
		return fail(invite, "the bot is not in #%s", found.Name)
	case err == nil:
		return pass("the bot is in #%s", found.Name)
	case !errors.As(err, &e):
		return unknown(again, "%v", err)
	case e.Code == slack.MissingScope && c.Say:
		return c.say(ctx, client, channel)
	case e.Code == slack.MissingScope:
		return notAsked("the bot may not ask about channels (channels:read, groups:read); -say posts one line to it instead")
	case e.Code == slack.ChannelNotFound && scopes != nil && !slices.Contains(scopes, "groups:read") && c.Say:
		return c.say(ctx, client, channel)
	case e.Code == slack.ChannelNotFound && scopes != nil && !slices.Contains(scopes, "groups:read"):
		return notAsked("it is no public channel, and the bot may not ask about private ones (groups:read); -say posts one line to it instead")
	case e.Code == slack.ChannelNotFound:
		return fail("Correct the channel's ID; if it is right, the channel is private: "+strings.ToLower(invite[:1])+invite[1:], "there is no such channel, or it is private and the bot is not in it")
	}
	return slackRefusal(err)
}

func (c *checker) say(ctx context.Context, client *slack.Client, channel string) result {
	if _, err := client.Say(ctx, channel, "hubrelay check: this channel will hear of promotions."); err != nil {
		return slackRefusal(err)
	}
	return pass("the bot has posted a line")
}

func slackRefusal(err error) result {
	var e *slack.Error
	switch {
	case !errors.As(err, &e):
		return unknown(again, "%v", err)
	case e.Temporary():
		return unknown(cmp.Or(sentence(e.Hint), "Run it again when Slack answers."), "%v", err)
	case e.Code == "" && keptOut(e.Status): // Slack itself names an error
		return unknown(letIn+"SLACK_API_URL.", "%v", err)
	}
	return fail(sentence(e.Hint), "%v", err)
}
