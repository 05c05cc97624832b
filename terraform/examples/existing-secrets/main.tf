# Secrets that somebody else looks after: Terraform only names them, and lets each
# function read its own. To rotate one, name its next version and apply.
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

  existing_secrets = {
    webhook_tokens        = "projects/acme-vault/secrets/docker-hub-webhook/versions/3" # one token a line
    gitlab_trigger_tokens = "projects/acme-vault/secrets/gitlab-trigger/versions/1"     # {"*": "glptt-…"}
    slack_bot_token       = "projects/acme-vault/secrets/slack-bot/versions/12"         # xoxb-…
  }
}

output "webhook_url" {
  value = module.hubrelay.webhook_url
}
