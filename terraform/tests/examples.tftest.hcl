# The examples, planned as they stand.

mock_provider "google" {
  source          = "./tests/mocks"
  override_during = plan
}

mock_provider "archive" {
  source          = "./tests/mocks"
  override_during = plan
}

run "minimal" {
  command = plan

  module {
    source = "./examples/minimal"
  }

  assert {
    condition     = output.webhook_url == "https://mock-abcdefghij-ew.a.run.app"
    error_message = "There is no Webhook."
  }
}

run "complete" {
  command = plan

  module {
    source = "./examples/complete"
  }

  variables {
    registry_auth     = "{\"auths\": {\"https://index.docker.io/v1/\": {\"auth\": \"Y2FuYXJ5OmNhbmFyeQ==\"}}}"
    gitlab_api_tokens = { "*" = "glpat-canary-0123456789abcdef" }
    notify_tokens     = ["canary-notify-0123456789abcdef"]
  }

  assert {
    condition     = strcontains(output.commands.logs, "hubrelay-images-trigger")
    error_message = "There is no Trigger, or by another name."
  }
}

run "existing_secrets" {
  command = plan

  module {
    source = "./examples/existing-secrets"
  }

  assert {
    condition     = output.webhook_url == "https://mock-abcdefghij-ew.a.run.app"
    error_message = "There is no Webhook."
  }
}

run "module" {
  command = plan

  module {
    source = "./examples/module"
  }

  assert {
    condition     = toset(keys(output.webhook_urls)) == toset(["hubrelay", "hubrelay-staging"])
    error_message = "There are not two."
  }
}
