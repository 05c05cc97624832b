# Every rule of every variable, and one value that it refuses.

variables {
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
}

run "the_values_that_all_others_differ_from_are_fine" {
  command = plan

  module {
    source = "./tests/variables"
  }
}

run "project_id_is_a_number" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    project_id = "123456789012"
  }

  expect_failures = [var.project_id]
}

run "project_id_is_a_name" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    project_id = "Acme Hubrelay"
  }

  expect_failures = [var.project_id]
}

run "region_is_a_zone" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    region = "europe-west1-b"
  }

  expect_failures = [var.region]
}

run "region_is_a_multi_region" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    region = "eu"
  }

  expect_failures = [var.region]
}

run "name_too_long_for_a_service_account" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    name = "hubrelay-of-the-acme-co"
  }

  expect_failures = [var.name]
}

run "name_too_short_for_firestore" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    name = "hub"
  }

  expect_failures = [var.name]
}

run "name_in_upper_case" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    name = "Hubrelay"
  }

  expect_failures = [var.name]
}

run "ledger_location_is_a_country" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    ledger_location = "EU"
  }

  expect_failures = [var.ledger_location]
}

run "gitlab_url_in_the_clear" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    gitlab_url = "http://gitlab.example.com"
  }

  expect_failures = [var.gitlab_url]
}

run "gitlab_url_with_a_password" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    gitlab_url = "https://user:password@gitlab.example.com"
  }

  expect_failures = [var.gitlab_url]
}

run "registry_with_a_path" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    registry = "https://registry.example.com/v2"
  }

  expect_failures = [var.registry]
}

run "registry_in_the_clear" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    registry = "http://registry.example.com"
  }

  expect_failures = [var.registry]
}

run "registry_off" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    registry = "off"
  }

  expect_failures = [var.registry]
}

run "language_unknown" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    language = "de"
  }

  expect_failures = [var.language]
}

run "default_channel_with_a_space" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    default_channel = "C 1"
  }

  expect_failures = [var.default_channel]
}

run "webhook_tokens_missing" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    webhook_tokens = null
  }

  expect_failures = [var.webhook_tokens]
}

run "webhook_tokens_empty" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    webhook_tokens = []
  }

  expect_failures = [var.webhook_tokens]
}

run "webhook_token_too_short" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    webhook_tokens = ["0123456789012345678"]
  }

  expect_failures = [var.webhook_tokens]
}

run "webhook_token_too_long_for_docker_hub" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    webhook_tokens = [join("", [for n in range(65) : "ab"])]
  }

  expect_failures = [var.webhook_tokens]
}

run "webhook_token_is_a_placeholder" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    webhook_tokens = ["change-me-change-me-change-me"]
  }

  expect_failures = [var.webhook_tokens]
}

run "webhook_token_is_one_letter" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    webhook_tokens = ["aaaaaaaaaaaaaaaaaaaaaaaa"]
  }

  expect_failures = [var.webhook_tokens]
}

run "webhook_token_with_a_slash" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    webhook_tokens = ["0123456789/0123456789"]
  }

  expect_failures = [var.webhook_tokens]
}

run "second_webhook_token_too_short" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    webhook_tokens = ["canary-webhook-0123456789abcdef", "short"]
  }

  expect_failures = [var.webhook_tokens]
}

run "webhook_tokens_both_given_and_existing" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    existing_secrets = { webhook_tokens = "projects/acme/secrets/tokens/versions/1" }
  }

  expect_failures = [var.webhook_tokens]
}

run "gitlab_trigger_tokens_missing" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    gitlab_trigger_tokens = null
  }

  expect_failures = [var.gitlab_trigger_tokens]
}

run "gitlab_trigger_token_empty" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    gitlab_trigger_tokens = { "*" = "" }
  }

  expect_failures = [var.gitlab_trigger_tokens]
}

run "gitlab_trigger_token_is_a_placeholder" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    gitlab_trigger_tokens = { "*" = "<token>" }
  }

  expect_failures = [var.gitlab_trigger_tokens]
}

run "route_without_a_trigger_token" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    gitlab_trigger_tokens = {}
  }

  expect_failures = [var.gitlab_trigger_tokens]
}

run "trigger_token_without_a_route" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    gitlab_trigger_tokens = { "*" = "canary-gitlab-0123456789", "acme/apo" = "canary-gitlab-0123456789" }
  }

  expect_failures = [var.gitlab_trigger_tokens]
}

run "slack_bot_token_missing" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    slack_bot_token = null
  }

  expect_failures = [var.slack_bot_token]
}

run "slack_bot_token_is_a_user_token" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    slack_bot_token = "xoxp-0123456789"
  }

  expect_failures = [var.slack_bot_token]
}

run "slack_bot_token_is_a_placeholder" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    slack_bot_token = "xoxb-your-token-here"
  }

  expect_failures = [var.slack_bot_token]
}

run "slack_bot_token_existing_but_needed_for_alerts" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    slack_bot_token     = null
    alert_slack_channel = "#ops"
    existing_secrets    = { slack_bot_token = "projects/acme/secrets/slack/versions/1" }
  }

  expect_failures = [var.slack_bot_token]
}

run "gitlab_api_tokens_without_a_version" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    gitlab_api_tokens = { "*" = "glpat-canary" }
  }

  expect_failures = [var.gitlab_api_tokens]
}

run "gitlab_api_tokens_of_a_version_missing" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    secret_versions = { gitlab_api_tokens = 1 }
  }

  expect_failures = [var.gitlab_api_tokens]
}

run "gitlab_api_tokens_without_a_route" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    gitlab_api_tokens = { "nobody/*" = "glpat-canary" }
    secret_versions   = { gitlab_api_tokens = 1 }
  }

  expect_failures = [var.gitlab_api_tokens]
}

run "gitlab_url_without_a_host" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    gitlab_url = "https://:443"
  }

  expect_failures = [var.gitlab_url]
}

run "gitlab_url_with_port_0" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    gitlab_url = "https://gitlab.example.com:0"
  }

  expect_failures = [var.gitlab_url]
}

run "gitlab_url_with_a_port_too_high" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    gitlab_url = "https://gitlab.example.com:65536"
  }

  expect_failures = [var.gitlab_url]
}

run "gitlab_url_with_a_space" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    gitlab_url = "https://gitlab.example.com/a\u00a0b"
  }

  expect_failures = [var.gitlab_url]
}

run "gitlab_url_with_a_percent_sign" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    gitlab_url = "https://gitlab.example.com/%zz"
  }

  expect_failures = [var.gitlab_url]
}

run "registry_with_a_port_too_high" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    registry = "https://registry.example.com:99999"
  }

  expect_failures = [var.registry]
}

run "gitlab_trigger_tokens_with_a_space" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    gitlab_trigger_tokens = { "*" = "canary gitlab" }
  }

  expect_failures = [var.gitlab_trigger_tokens]
}

run "gitlab_trigger_tokens_with_a_line_break" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    gitlab_trigger_tokens = { "*" = "canary-gitlab\n" }
  }

  expect_failures = [var.gitlab_trigger_tokens]
}

run "gitlab_api_tokens_with_a_letter_outside_of_ascii" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    gitlab_api_tokens = { "*" = "glpat-canäry" }
    secret_versions   = { gitlab_api_tokens = 1 }
  }

  expect_failures = [var.gitlab_api_tokens]
}

run "notify_tokens_that_a_url_would_not_keep" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    notify_tokens   = ["canary/notify+0123456789"]
    secret_versions = { notify_tokens = 1 }
  }

  expect_failures = [var.notify_tokens]
}

run "silent_after_is_too_long" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    silent_after = "9999999h"
  }

  expect_failures = [var.silent_after]
}

run "silent_after_is_no_time" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    silent_after = "soon"
  }

  expect_failures = [var.silent_after]
}

run "silent_after_is_nothing" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    silent_after = "0h"
  }

  expect_failures = [var.silent_after]
}

run "silent_after_is_empty" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    silent_after = ""
  }

  expect_failures = [var.silent_after]
}

run "notify_tokens_without_a_version" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    notify_tokens = ["canary-notify-0123456789abcdef"]
  }

  expect_failures = [var.notify_tokens]
}

run "notify_tokens_of_a_version_missing" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    secret_versions = { notify_tokens = 1 }
  }

  expect_failures = [var.notify_tokens]
}

run "notify_token_too_short" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    notify_tokens   = ["short"]
    secret_versions = { notify_tokens = 1 }
  }

  expect_failures = [var.notify_tokens]
}

run "registry_auth_without_a_version" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    registry_auth = "{\"auths\": {}}"
  }

  expect_failures = [var.registry_auth]
}

run "registry_auth_is_no_json" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    registry_auth   = "user:password"
    secret_versions = { registry_auth = 1 }
  }

  expect_failures = [var.registry_auth]
}

run "registry_auth_with_a_helper" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    registry_auth   = "{\"auths\": {}, \"credsStore\": \"desktop\"}"
    secret_versions = { registry_auth = 1 }
  }

  expect_failures = [var.registry_auth]
}

run "secret_version_in_halves" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    secret_versions = { webhook_tokens = 1.5 }
  }

  expect_failures = [var.secret_versions]
}

run "secret_version_of_what_is_required_is_0" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    secret_versions = { slack_bot_token = 0 }
  }

  expect_failures = [var.secret_versions]
}

run "existing_secret_of_the_latest_version" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    webhook_tokens   = null
    existing_secrets = { webhook_tokens = "projects/acme/secrets/tokens/versions/latest" }
  }

  expect_failures = [var.existing_secrets]
}

run "existing_secret_by_its_short_name" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    webhook_tokens   = null
    existing_secrets = { webhook_tokens = "tokens" }
  }

  expect_failures = [var.existing_secrets]
}

run "fewer_attempts_than_pubsub_takes" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    max_delivery_attempts = 4
  }

  expect_failures = [var.max_delivery_attempts]
}

run "more_attempts_than_pubsub_takes" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    max_delivery_attempts = 101
  }

  expect_failures = [var.max_delivery_attempts]
}

run "cpu_of_nothing" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    sizes = { webhook = { cpu = 0 } }
  }

  expect_failures = [var.sizes]
}

run "memory_without_a_unit" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    sizes = { trigger = { memory = "256" } }
  }

  expect_failures = [var.sizes]
}

run "concurrency_of_nothing" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    sizes = { notify = { concurrency = 0 } }
  }

  expect_failures = [var.sizes]
}

run "timeout_shorter_than_triggers_own" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    sizes = { trigger = { timeout = 60 } }
  }

  expect_failures = [var.sizes]
}

run "instances_of_nothing" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    sizes = { trigger = { instances = 0 } }
  }

  expect_failures = [var.sizes]
}

run "cpu_that_cloud_run_does_not_have" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    sizes = { webhook = { cpu = 3 } }
  }

  expect_failures = [var.sizes]
}

run "cpu_and_a_half" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    sizes = { webhook = { cpu = 1.5 } }
  }

  expect_failures = [var.sizes]
}

run "memory_below_the_least" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    sizes = { webhook = { memory = "64Mi" } }
  }

  expect_failures = [var.sizes]
}

run "memory_too_small_for_so_many_cpu" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    sizes = { trigger = { cpu = 8, memory = "256Mi" } }
  }

  expect_failures = [var.sizes]
}

run "memory_too_small_for_four_cpu" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    sizes = { trigger = { cpu = 4, memory = "1Gi" } }
  }

  expect_failures = [var.sizes]
}

run "memory_too_large_for_one_cpu" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    sizes = { notify = { memory = "8Gi" } }
  }

  expect_failures = [var.sizes]
}

run "memory_too_large_for_part_of_a_cpu" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    sizes = { notify = { cpu = 0.167, concurrency = 1, memory = "1Gi" } }
  }

  expect_failures = [var.sizes]
}

run "half_a_request_at_once" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    sizes = { webhook = { concurrency = 1.5 } }
  }

  expect_failures = [var.sizes]
}

run "half_an_instance" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    sizes = { trigger = { instances = 1.5 } }
  }

  expect_failures = [var.sizes]
}

run "half_a_second" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    sizes = { notify = { timeout = 90.5 } }
  }

  expect_failures = [var.sizes]
}

run "sizes_that_cloud_run_has" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    sizes = {
      webhook = { cpu = 0.167, concurrency = 1, memory = "128Mi" }
      trigger = { cpu = 4, memory = "2Gi" }
      notify  = { cpu = 8, memory = "32Gi" }
    }
  }
}

run "secret_locations_empty" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    secret_locations = []
  }

  expect_failures = [var.secret_locations]
}

run "secret_location_is_a_continent" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    secret_locations = ["europe"]
  }

  expect_failures = [var.secret_locations]
}

run "kms_key_by_its_short_name" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    kms_key = "hubrelay"
  }

  expect_failures = [var.kms_key]
}

run "kms_key_of_another_region" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    kms_key = "projects/acme-keys/locations/europe/keyRings/hubrelay/cryptoKeys/hubrelay"
  }

  expect_failures = [var.kms_key]
}

run "kms_key_and_a_ledger_elsewhere" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    kms_key         = "projects/acme-keys/locations/europe-west1/keyRings/hubrelay/cryptoKeys/hubrelay"
    ledger_location = "eur3"
  }

  expect_failures = [var.kms_key]
}

run "kms_key_and_secrets_elsewhere" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    kms_key          = "projects/acme-keys/locations/europe-west1/keyRings/hubrelay/cryptoKeys/hubrelay"
    secret_locations = ["europe-west4"]
  }

  expect_failures = [var.kms_key]
}

run "gitlab_ca_is_a_path" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    gitlab_ca = "/etc/ssl/ca.pem"
  }

  expect_failures = [var.gitlab_ca]
}

run "gitlab_ca_with_its_key" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    gitlab_ca = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n"
  }

  expect_failures = [var.gitlab_ca]
}

run "gitlab_ca_too_large" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    gitlab_ca = "-----BEGIN CERTIFICATE-----\n${join("", [for n in range(65) : join("", [for m in range(1024) : "A"])])}\n-----END CERTIFICATE-----\n"
  }

  expect_failures = [var.gitlab_ca]
}

run "default_channel_too_long_in_bytes" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    default_channel = join("", [for n in range(27) : "あ"])
  }

  expect_failures = [var.default_channel]
}

run "alert_channel_by_its_name" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    alert_channels = ["#ops"]
  }

  expect_failures = [var.alert_channels]
}

run "alert_slack_channel_without_its_sign" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    alert_slack_channel = "ops"
  }

  expect_failures = [var.alert_slack_channel]
}
