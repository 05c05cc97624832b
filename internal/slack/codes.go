package slack

import "strings"

// class is what an error code of Slack means for the caller.
type class struct {
	temporary bool   // the same call may succeed later, with nothing fixed
	gone      bool   // the message, or its channel, accepts no more updates
	hint      string // what to fix
}

type group struct {
	class
	codes string // separated by spaces
}

const (
	apiHint     = "set SLACK_API_URL to Slack's Web API: what answers there is not"
	tokenHint   = "set SLACK_BOT_TOKEN to the bot token (xoxb-…) of an app that is installed in the workspace"
	unknownHint = "look the error up in Slack's documentation of chat.postMessage and chat.update"
)

// classes holds every error that Slack documents for chat.postMessage and
// chat.update (https://docs.slack.dev/reference/methods) and that a message
// without files can meet. A message is not gone if only replies are impossible:
// a new message would have the same problem, or leave one behind that could
// have been kept up to date.
var classes = classify(
	group{class{temporary: true},
		"ratelimited rate_limited internal_error fatal_error service_unavailable request_timeout " +
			"update_failed streaming_state_conflict"},
	group{class{temporary: true, hint: "wait until the workspace or the channel has been moved to the other organization"},
		"team_added_to_org org_login_required external_channel_migrating"},
	group{class{temporary: true, hint: "the workspace sends more messages than its plan allows: wait, or upgrade it"},
		"message_limit_exceeded"},

	group{class{gone: true, hint: "nothing needs to be fixed: the message was deleted, and a new one replaces it"},
		"message_not_found thread_not_found"},
	group{class{gone: true, hint: "set SLACK_BOT_TOKEN to the token of the bot that posted the message; otherwise a new message replaces it"},
		"cant_update_message"},
	group{class{gone: true, hint: "let messages be edited at any time, in the workspace's settings; otherwise a new message replaces it"},
		"edit_window_closed"},

	group{class{gone: true, hint: "set slack.channel of the route to a channel that is not archived, or unarchive it and invite the bot again"},
		"is_archived is_inactive"},
	group{class{gone: true, hint: "set slack.channel of the route to the ID of a channel that exists, and invite the bot to it"},
		"channel_not_found"},
	group{class{gone: true, hint: "invite the bot to the channel"},
		"not_in_channel"},
	group{class{gone: true, hint: "invite the bot to the channel, and check that the app has the scope chat:write"},
		"no_permission"},
	group{class{gone: true, hint: "set slack.channel of the route to the channel's ID, not its name, in a workspace that the app is installed in"},
		"team_not_found"},
	group{class{gone: true, hint: "ask an owner of the workspace to let the bot post to the channel, or set slack.channel of the route to another"},
		"access_denied ekm_access_denied posting_to_channel_denied restricted_action restricted_action_read_only_channel " +
			"restricted_action_thread_only_channel"},
	group{class{gone: true, hint: "turn on the Messages tab in the app's settings (App Home), or set slack.channel of the route to a channel"},
		"messages_tab_disabled"},
	group{class{hint: "ask an owner of the workspace to let the bot reply in threads of the channel, or set slack.channel of the route to another"},
		"restricted_action_non_threadable_channel restricted_action_thread_locked cannot_reply_to_message"},

	group{class{hint: tokenHint},
		"not_authed invalid_auth account_inactive token_revoked token_expired not_allowed_token_type"},
	group{class{hint: "give the app the scope chat:write, and install it again"},
		"missing_scope"},
	group{class{hint: "install the app in the workspace of the channel, and let an owner approve it"},
		"team_access_not_granted app_access_restricted"},
	group{class{hint: "set SLACK_BOT_TOKEN to a bot token of a workspace, not of the organization"},
		"enterprise_is_restricted"},
	group{class{hint: "set up two-factor authentication for the account that installed the app"},
		"two_factor_setup_required"},
	group{class{hint: "allow the function's address in the workspace, or in the app's list of addresses"},
		"accesslimited"},

	group{class{hint: apiHint},
		"unknown_method"},
	group{class{hint: "update hubrelay: Slack has retired a method that it calls"},
		"deprecated_endpoint method_deprecated upgrade_required"},
	group{class{hint: "send a shorter message"},
		"msg_too_long msg_blocks_too_long"},
	group{class{hint: "report this as a mistake in hubrelay, or fix the proxy that changes its requests"},
		"no_text invalid_blocks invalid_blocks_format invalid_attachments invalid_arguments invalid_arg_name invalid_array_arg " +
			"invalid_charset invalid_form_data invalid_json json_not_object invalid_post_type missing_post_type " +
			"invalid_metadata_format invalid_metadata_schema metadata_too_large metadata_must_be_sent_from_app " +
			"as_user_not_supported attachment_payload_limit_exceeded block_mismatch cant_broadcast_message " +
			"duplicate_channel_not_found duplicate_message_not_found markdown_text_conflict no_dual_broadcast_content_update " +
			"too_many_attachments too_many_contact_cards slack_connect_canvas_sharing_blocked " +
			"slack_connect_file_link_sharing_blocked slack_connect_lists_sharing_blocked"},
)

func classify(groups ...group) map[string]class {
	all := map[string]class{}
	for _, g := range groups {
		for _, code := range strings.Fields(g.codes) {
			all[code] = g.class
		}
	}
	return all
}

// hintOf says what to fix, also for an unknown code.
func hintOf(code string) string {
	if c, ok := classes[code]; ok {
		return c.hint
	}
	return unknownHint
}
