# The least that works: one route, three secrets, all else as it is by default.
# Every secret comes from the environment, as TF_VAR_webhook_tokens and so on, and
# stays out of plan and state.
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

  project_id      = "acme-hubrelay"
  region          = "europe-west1"
  default_channel = "C0123456789"

  routes = {
    "acme/*" = {
      gitlab = { project = "acme/images/{name}" }
      slack  = { channel = "C0123456789" }
    }
  }

  webhook_tokens        = var.webhook_tokens
  gitlab_trigger_tokens = var.gitlab_trigger_tokens
  slack_bot_token       = var.slack_bot_token
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

output "webhook_url" {
  value = module.hubrelay.webhook_url
}

output "notify_url" {
  value = module.hubrelay.notify_url
}

output "notify_audience" {
  value = module.hubrelay.notify_audience
}
