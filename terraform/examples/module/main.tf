# hubrelay as a part of what you have: your provider, your labels, and two of it in
# one project, of which one is for trying things out. Outside of a checkout of
# hubrelay, source is
# git::https://github.com/getto-systems/hubrelay.git//terraform?ref=v0.1.0
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

provider "google" {
  default_labels = { team = "images" }
}

locals {
  hubrelays = {
    hubrelay         = { repositories = "acme/*", projects = "acme/images/{name}" }
    hubrelay-staging = { repositories = "acme-staging/*", projects = "acme/staging/{name}" }
  }
}

resource "google_monitoring_notification_channel" "duty" {
  project      = "acme-hubrelay"
  display_name = "Who is on duty"
  type         = "email"
  labels       = { email_address = "duty@acme.example" }
}

module "hubrelay" {
  source   = "../.."
  for_each = local.hubrelays

  project_id      = "acme-hubrelay"
  region          = "europe-west1"
  name            = each.key
  default_channel = "C0123456789"

  routes = {
    (each.value.repositories) = {
      gitlab = { project = each.value.projects }
      slack  = { channel = "C0123456789" }
    }
  }

  webhook_tokens        = var.webhook_tokens
  gitlab_trigger_tokens = var.gitlab_trigger_tokens
  slack_bot_token       = var.slack_bot_token

  alert_channels = [google_monitoring_notification_channel.duty.name]
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

output "webhook_urls" {
  value = { for name, hubrelay in module.hubrelay : name => hubrelay.webhook_url }
}
