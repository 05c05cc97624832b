# What can be set, each with a reason to set it. Nobody needs all of it.
terraform {
  required_version = ">= 1.11"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "~> 7.45"
    }
    archive = {
      source  = "hashicorp/archive"
      version = "~> 2.8"
    }
  }
}

module "hubrelay" {
  source = "../.."

  project_id = "acme-hubrelay"
  region     = "europe-west1"
  name       = "hubrelay-images" # a second one in the same project has another

  # An organisation that says where data may be, and under whose key.
  secret_locations = ["europe-west1"]
  kms_key          = "projects/acme-keys/locations/europe-west1/keyRings/hubrelay/cryptoKeys/hubrelay"

  # A GitLab of one's own, whose certificate is signed by a CA of one's own.
  gitlab_url = "https://gitlab.acme.example"
  gitlab_ca  = file("${path.module}/ca.pem")

  routes = {
    # One repository with rules of its own. Good news stays out of the channel,
    # bad news pings a group.
    "acme/api" = {
      gitlab   = { project = "acme/images/api", ref = "release" }
      slack    = { channel = "C0123456789", mention = "S0123456789", tell = "failures" }
      tags     = { include = ["semver:>=1.2"], exclude = ["*-debug"] }
      latest   = "stable"
      once_per = "digest"
      inputs   = { severity = "low" }
    }

    # All others of the namespace, each with the GitLab project of its name. These
    # take variables, as pipelines did before inputs.
    "acme/*" = {
      gitlab = { project = "acme/images/{name}", pass = "variables" }
      slack  = { channel = "C0123456789", mention = "@here" }
    }
  }

  language        = "ja"
  default_channel = "C0123456789"
  silent_after    = "30m"

  # Beside the three secrets that are required: to read private images, to ask
  # GitLab about silent pipelines, and for jobs that cannot have an id token. The
  # last three have a version only if they are there.
  webhook_tokens        = var.webhook_tokens
  gitlab_trigger_tokens = var.gitlab_trigger_tokens
  slack_bot_token       = var.slack_bot_token
  registry_auth         = var.registry_auth
  gitlab_api_tokens     = var.gitlab_api_tokens
  notify_tokens         = var.notify_tokens
  secret_versions       = { registry_auth = 1, gitlab_api_tokens = 1, notify_tokens = 1 }

  # Alerts go to those who are on duty, and to Slack, by Google itself.
  alert_channels      = ["projects/acme-hubrelay/notificationChannels/1234567890"]
  alert_slack_channel = "#ops"

  max_delivery_attempts = 80 # over twelve hours, for a GitLab that is upgraded by hand
  sizes                 = { trigger = { instances = 4, memory = "512Mi" } }
  deletion_protection   = true
}

variable "webhook_tokens" {
  type      = list(string)
  ephemeral = true
}

variable "gitlab_trigger_tokens" {
  type      = map(string)
  ephemeral = true
}

variable "slack_bot_token" {
  type      = string
  ephemeral = true
}

variable "registry_auth" {
  type      = string
  ephemeral = true
}

variable "gitlab_api_tokens" {
  type      = map(string)
  ephemeral = true
}

variable "notify_tokens" {
  type      = list(string)
  ephemeral = true
}

output "webhook_url" {
  value = module.hubrelay.webhook_url
}

output "notify_url" {
  value = module.hubrelay.notify_url
}

output "notify_audience" {
  value = module.hubrelay.notify_audience
}

output "commands" {
  value = module.hubrelay.commands
}
