# Secrets: nothing of them is kept, each is its function's own, and one can be
# rotated without a gap.

mock_provider "google" {
  source          = "./tests/mocks"
  override_during = plan
}

mock_provider "archive" {
  source          = "./tests/mocks"
  override_during = plan
}

run "no_secret_is_in_the_plan" {
  command = plan

  variables {
    gitlab_api_tokens   = { "*" = "glpat-canary-0123456789abcdef" }
    notify_tokens       = ["canary-notify-0123456789abcdef"]
    registry_auth       = "{\"auths\": {\"https://index.docker.io/v1/\": {\"auth\": \"Y2FuYXJ5OmNhbmFyeQ==\"}}}"
    secret_versions     = { gitlab_api_tokens = 1, notify_tokens = 1, registry_auth = 1 }
    alert_slack_channel = "#ops"
  }

  assert {
    condition     = length(google_secret_manager_secret_version.managed) == 6
    error_message = "A secret is missing."
  }
  assert {
    condition     = alltrue([for v in google_secret_manager_secret_version.managed : v.secret_data == null && v.secret_data_wo == null])
    error_message = "The plan has the value of a secret."
  }
  assert {
    condition     = alltrue([for c in google_monitoring_notification_channel.slack : alltrue([for l in c.sensitive_labels : l.auth_token == null && l.auth_token_wo == null])])
    error_message = "The plan has Slack's token."
  }
  assert {
    condition     = !strcontains(jsonencode([for f in google_cloudfunctions2_function.this : f.service_config[0].environment_variables]), "canary")
    error_message = "A setting in the clear has the value of a secret."
  }
}

run "each_secret_goes_to_its_own_function_and_to_one_version" {
  command = plan

  variables {
    notify_tokens   = ["canary-notify-0123456789abcdef"]
    registry_auth   = "{\"auths\": {\"docker.io\": {\"auth\": \"Y2FuYXJ5OmNhbmFyeQ==\"}}}"
    secret_versions = { notify_tokens = 1, registry_auth = 1 }
  }

  assert {
    condition = { for name, f in google_cloudfunctions2_function.this : name => [for s in f.service_config[0].secret_environment_variables : s.key] } == {
      webhook = ["WEBHOOK_TOKENS"]
      trigger = ["GITLAB_TRIGGER_TOKENS", "REGISTRY_AUTH"]
      notify  = ["NOTIFY_TOKENS", "SLACK_BOT_TOKEN"]
    }
    error_message = "A secret goes to the wrong function."
  }
  assert {
    condition     = alltrue(flatten([for f in google_cloudfunctions2_function.this : [for s in f.service_config[0].secret_environment_variables : s.version == "7" && s.project_id == "acme-hubrelay"]]))
    error_message = "A secret is not pinned to its version."
  }
  assert {
    condition     = { for setting, m in google_secret_manager_secret_iam_member.function_reads_secret : setting => m.secret_id } == { for setting, s in google_secret_manager_secret.managed : setting => s.secret_id }
    error_message = "A function may read another secret than its own."
  }
}

run "secrets_that_nobody_uses_do_not_exist" {
  command = plan

  assert {
    condition     = toset(keys(google_secret_manager_secret.managed)) == toset(["WEBHOOK_TOKENS", "GITLAB_TRIGGER_TOKENS", "SLACK_BOT_TOKEN"])
    error_message = "There is a secret without a value."
  }
}

# Rotation: the new token beside the old one, Docker Hub gets the new URL, and
# then the old one goes. Each step is a new version, and a deploy, as this one is.
run "two_webhook_tokens_are_valid_at_once" {
  command = plan

  variables {
    webhook_tokens  = ["canary-webhook-0123456789abcdef", "canary-another-0123456789abcdef"]
    secret_versions = { webhook_tokens = 2 }
  }

  assert {
    condition     = tostring(google_secret_manager_secret_version.managed["WEBHOOK_TOKENS"].secret_data_wo_version) == "2"
    error_message = "The new value goes nowhere."
  }
}

run "secrets_of_ones_own" {
  command = plan

  variables {
    webhook_tokens        = null
    gitlab_trigger_tokens = null
    slack_bot_token       = null
    existing_secrets = {
      webhook_tokens        = "projects/acme-vault/secrets/docker-hub/versions/3"
      gitlab_trigger_tokens = "projects/acme-vault/secrets/gitlab/versions/1"
      slack_bot_token       = "projects/acme-hubrelay/secrets/slack/versions/12"
      notify_tokens         = "projects/123456789012/secrets/notify/versions/1"
      registry_auth         = "projects/acme-vault/secrets/docker-config/versions/1"
    }
  }

  assert {
    condition     = length(google_secret_manager_secret.managed) == 0 && length(google_secret_manager_secret_version.managed) == 0
    error_message = "Terraform makes secrets beside those that exist."
  }
  assert {
    condition     = [for s in google_cloudfunctions2_function.this["webhook"].service_config[0].secret_environment_variables : "${s.project_id}/${s.secret}/${s.version}"] == ["acme-vault/docker-hub/3"]
    error_message = "The webhook does not read the secret that was named."
  }
  assert {
    condition     = length(google_secret_manager_secret_iam_member.function_reads_secret) == 5 && google_secret_manager_secret_iam_member.function_reads_secret["SLACK_BOT_TOKEN"].secret_id == "slack" && google_secret_manager_secret_iam_member.function_reads_secret["WEBHOOK_TOKENS"].project == "acme-vault"
    error_message = "A function may not read the secret that was named."
  }
}

# A rotation that fails must leave the version that still serves; so must the
# apply after it, which sees nothing but a version to be let go of.
run "old_versions_are_left_for_whoever_still_reads_them" {
  command = plan

  assert {
    condition     = length(google_secret_manager_secret_version.managed) == 3 && alltrue([for v in google_secret_manager_secret_version.managed : v.deletion_policy == "ABANDON"])
    error_message = "The version that a revision still reads is destroyed."
  }
  assert {
    condition     = alltrue([for s in google_secret_manager_secret.managed : length(s.replication[0].auto) == 1 && length(s.replication[0].user_managed) == 0])
    error_message = "Secrets are not kept wherever Google likes."
  }
}
