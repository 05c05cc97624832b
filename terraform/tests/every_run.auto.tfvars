# What every run has where it does not say otherwise.
project_id            = "acme-hubrelay"
region                = "europe-west1"
default_channel       = "C0123456789"
webhook_tokens        = ["canary-webhook-0123456789abcdef"]
gitlab_trigger_tokens = { "*" = "canary-gitlab-0123456789" }
slack_bot_token       = "xoxb-canary-0123456789"
routes = {
  "acme/*" = {
    gitlab = { project = "acme/images/{name}" }
    slack  = { channel = "C0123456789" }
  }
}
