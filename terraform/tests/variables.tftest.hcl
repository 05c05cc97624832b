# Every rule of every variable, and one value that it refuses. A run holds one
# wrong value each of several variables, all of which must be refused; it takes
# one of each, for Terraform does not say by which rule a value is refused.

run "the_values_that_all_others_differ_from_are_fine" {
  command = plan

  module {
    source = "./tests/variables"
  }
}

run "wrong_values_1" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    project_id            = "123456789012"                                                       # is a number
    region                = "europe-west1-b"                                                     # is a zone
    name                  = "hubrelay-of-the-acme-co"                                            # too long for a service account
    default_channel       = "C 1"                                                                # with a space
    webhook_tokens        = null                                                                 # missing
    gitlab_trigger_tokens = null                                                                 # missing
    slack_bot_token       = null                                                                 # missing
    gitlab_api_tokens     = { "*" = "glpat-canary" }                                             # without a version
    notify_tokens         = ["canary-notify-0123456789abcdef"]                                   # without a version
    registry_auth         = "{\"auths\": {\"docker.io\": {\"auth\": \"Y2FuYXJ5OmNhbmFyeQ==\"}}}" # without a version
    sizes                 = { webhook = { cpu = 0 } }                                            # cpu of nothing
    secret_locations      = []                                                                   # empty
  }

  expect_failures = [var.project_id, var.region, var.name, var.default_channel, var.webhook_tokens, var.gitlab_trigger_tokens, var.slack_bot_token, var.gitlab_api_tokens, var.notify_tokens, var.registry_auth, var.sizes, var.secret_locations]
}

run "wrong_values_2" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    project_id            = "Acme Hubrelay"                      # is a name
    region                = "eu"                                 # is a multi region
    name                  = "hub"                                # too short for firestore
    default_channel       = join("", [for n in range(27) : "あ"]) # too long in bytes
    webhook_tokens        = []                                   # empty
    gitlab_trigger_tokens = { "*" = "" }                         # empty
    slack_bot_token       = "xoxp-0123456789"                    # is a user token
    sizes                 = { trigger = { memory = "256" } }     # memory without a unit
    secret_locations      = ["europe"]                           # is a continent
  }

  expect_failures = [var.project_id, var.region, var.name, var.default_channel, var.webhook_tokens, var.gitlab_trigger_tokens, var.slack_bot_token, var.sizes, var.secret_locations]
}

run "wrong_values_3" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    name                  = "Hubrelay"                       # in upper case
    default_channel       = "\u3000"                         # is a space
    webhook_tokens        = ["0123456789012345678"]          # too short
    gitlab_trigger_tokens = { "*" = "<token>" }              # is a placeholder
    slack_bot_token       = "xoxb-your-token-here"           # is a placeholder
    sizes                 = { notify = { concurrency = 0 } } # concurrency of nothing
    alert_channels        = ["#ops"]                         # by its name
  }

  expect_failures = [var.name, var.default_channel, var.webhook_tokens, var.gitlab_trigger_tokens, var.slack_bot_token, var.sizes, var.alert_channels]
}

run "wrong_values_4" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    language              = "de"                                    # unknown
    webhook_tokens        = [join("", [for n in range(65) : "ab"])] # too long for docker hub
    gitlab_trigger_tokens = {}                                      # route without a trigger token
    secret_versions       = { webhook_tokens = 1.5 }                # in halves
    max_delivery_attempts = 4                                       # fewer attempts than pubsub takes
    sizes                 = { trigger = { timeout = 60 } }          # timeout shorter than triggers own
  }

  expect_failures = [var.language, var.webhook_tokens, var.gitlab_trigger_tokens, var.secret_versions, var.max_delivery_attempts, var.sizes]
}

run "wrong_values_5" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    ledger_location       = "EU"                                                                          # is a country
    webhook_tokens        = ["change-me-change-me-change-me"]                                             # is a placeholder
    gitlab_trigger_tokens = { "*" = "canary-gitlab-0123456789", "acme/apo" = "canary-gitlab-0123456789" } # trigger token without a route
    secret_versions       = { slack_bot_token = 0 }                                                       # of what is required is 0
    max_delivery_attempts = 101                                                                           # more attempts than pubsub takes
    sizes                 = { trigger = { instances = 0 } }                                               # instances of nothing
    gitlab_ca             = "/etc/ssl/ca.pem"                                                             # is a path
    alert_slack_channel   = "ops"                                                                         # without its sign
  }

  expect_failures = [var.ledger_location, var.webhook_tokens, var.gitlab_trigger_tokens, var.secret_versions, var.max_delivery_attempts, var.sizes, var.gitlab_ca, var.alert_slack_channel]
}

run "wrong_values_6" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    registry       = "https://registry.example.com/v2"                                                                                              # with a path
    webhook_tokens = ["aaaaaaaaaaaaaaaaaaaaaaaa"]                                                                                                   # is one letter
    sizes          = { webhook = { cpu = 3 } }                                                                                                      # cpu that cloud run does not have
    kms_key        = "hubrelay"                                                                                                                     # by its short name
    gitlab_ca      = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n" # with its key
  }

  expect_failures = [var.registry, var.webhook_tokens, var.sizes, var.kms_key, var.gitlab_ca]
}

run "wrong_values_7" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    registry       = "http://registry.example.com"                                                                                                          # in the clear
    webhook_tokens = ["0123456789/0123456789"]                                                                                                              # with a slash
    sizes          = { webhook = { cpu = 1.5 } }                                                                                                            # cpu and a half
    kms_key        = "projects/acme-keys/locations/europe/keyRings/hubrelay/cryptoKeys/hubrelay"                                                            # of another region
    gitlab_ca      = "-----BEGIN CERTIFICATE-----\n${join("", [for n in range(65) : join("", [for m in range(1024) : "A"])])}\n-----END CERTIFICATE-----\n" # too large
  }

  expect_failures = [var.registry, var.webhook_tokens, var.sizes, var.kms_key, var.gitlab_ca]
}

run "wrong_values_8" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    registry       = "off"                                        # off
    webhook_tokens = ["canary-webhook-0123456789abcdef", "short"] # second webhook token too short
    silent_after   = "soon"                                       # is no time
    sizes          = { webhook = { memory = "64Mi" } }            # memory below the least
  }

  expect_failures = [var.registry, var.webhook_tokens, var.silent_after, var.sizes]
}

run "wrong_values_9" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    name         = "goog-images"                               # begins as a name of Google
    registry     = "https://docker.io"                         # is the name of Docker Hub
    gitlab_url   = "http://gitlab.example.com"                 # in the clear
    silent_after = "0h"                                        # is nothing
    sizes        = { trigger = { cpu = 8, memory = "256Mi" } } # memory too small for so many cpu
  }

  expect_failures = [var.name, var.registry, var.gitlab_url, var.silent_after, var.sizes]
}

run "wrong_values_10" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    name         = "images-google"                            # has Google in it
    registry     = "https://Hub.Docker.com/"                  # is the address of Docker Hub
    gitlab_url   = "https://user:password@gitlab.example.com" # with a password
    silent_after = ""                                         # is empty
    sizes        = { trigger = { cpu = 4, memory = "1Gi" } }  # memory too small for four cpu
  }

  expect_failures = [var.name, var.registry, var.gitlab_url, var.silent_after, var.sizes]
}

run "wrong_values_11" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    registry = "https://index.docker.io:443"   # is the index of Docker Hub
    sizes    = { notify = { memory = "8Gi" } } # memory too large for one cpu
  }

  expect_failures = [var.registry, var.sizes]
}

run "wrong_values_12" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    gitlab_url = "https://[2001:db8::1]"                                       # is an IPv6 address
    sizes      = { notify = { cpu = 0.167, concurrency = 1, memory = "1Gi" } } # memory too large for part of a cpu
  }

  expect_failures = [var.gitlab_url, var.sizes]
}

run "wrong_values_13" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    sizes = { webhook = { concurrency = 1.5 } } # half a request at once
  }

  expect_failures = [var.sizes]
}

run "wrong_values_14" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    sizes = { trigger = { instances = 1.5 } } # half an instance
  }

  expect_failures = [var.sizes]
}

run "wrong_values_15" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    sizes = { notify = { timeout = 90.5 } } # half a second
  }

  expect_failures = [var.sizes]
}

run "optional_secrets_of_a_version_missing" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    secret_versions = { gitlab_api_tokens = 1, notify_tokens = 1, registry_auth = 1 }
  }

  expect_failures = [var.gitlab_api_tokens, var.notify_tokens, var.registry_auth]
}

run "optional_secrets_with_wrong_values" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    gitlab_api_tokens = { "nobody/*" = "glpat-canary" } # no such route
    notify_tokens     = ["short"]
    registry_auth     = "user:password"
    secret_versions   = { gitlab_api_tokens = 1, notify_tokens = 1, registry_auth = 1 }
  }

  expect_failures = [var.gitlab_api_tokens, var.notify_tokens, var.registry_auth]
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

run "docker_hub_with_its_port" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    registry = "https://Registry-1.docker.io:443/"
  }
}

run "a_registry_that_is_called_like_docker_hub" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    registry = "https://acme-docker.io"
  }
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

run "wrong_values_16" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    gitlab_url            = "https://:443"                       # without a host
    registry              = "https://registry.example.com:99999" # a port too high
    gitlab_trigger_tokens = { "*" = "canary gitlab" }            # with a space
    gitlab_api_tokens     = { "*" = "glpat-canäry" }             # a letter outside of ASCII
    notify_tokens         = ["canary/notify+0123456789"]         # that a URL would not keep
    secret_versions       = { gitlab_api_tokens = 1, notify_tokens = 1 }
    silent_after          = "9999999h" # too long
  }

  expect_failures = [var.gitlab_url, var.registry, var.gitlab_trigger_tokens, var.gitlab_api_tokens, var.notify_tokens, var.silent_after]
}

run "wrong_values_17" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    gitlab_url            = "https://gitlab.example.com:0" # port 0
    gitlab_trigger_tokens = { "*" = "canary-gitlab\n" }    # with a line break
  }

  expect_failures = [var.gitlab_url, var.gitlab_trigger_tokens]
}

run "wrong_values_18" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    gitlab_url = "https://gitlab.example.com:65536" # a port too high
  }

  expect_failures = [var.gitlab_url]
}

run "wrong_values_19" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    gitlab_url = "https://gitlab.example.com/a\u00a0b" # with a space
  }

  expect_failures = [var.gitlab_url]
}

run "wrong_values_20" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    gitlab_url = "https://gitlab.example.com/%zz" # with a percent sign
  }

  expect_failures = [var.gitlab_url]
}
