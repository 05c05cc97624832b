# Every secret belongs to one function and one setting. Its value comes in an
# ephemeral variable, and goes by a write-only argument to Secret Manager:
# neither plan nor state ever holds it. Terraform cannot see that a value has
# changed, so var.secret_versions says it.
# https://registry.terraform.io/providers/hashicorp/google/latest/docs/guides/using_write_only_arguments
locals {
  secrets = {
    WEBHOOK_TOKENS = {
      function = "webhook"
      id       = "${var.name}-webhook-tokens"
      version  = var.secret_versions.webhook_tokens
      existing = var.existing_secrets.webhook_tokens
    }
    GITLAB_TRIGGER_TOKENS = {
      function = "trigger"
      id       = "${var.name}-gitlab-trigger-tokens"
      version  = var.secret_versions.gitlab_trigger_tokens
      existing = var.existing_secrets.gitlab_trigger_tokens
    }
    GITLAB_API_TOKENS = {
      function = "trigger"
      id       = "${var.name}-gitlab-api-tokens"
      version  = var.secret_versions.gitlab_api_tokens
      existing = var.existing_secrets.gitlab_api_tokens
    }
    REGISTRY_AUTH = {
      function = "trigger"
      id       = "${var.name}-registry-auth"
      version  = var.secret_versions.registry_auth
      existing = var.existing_secrets.registry_auth
    }
    SLACK_BOT_TOKEN = {
      function = "notify"
      id       = "${var.name}-slack-bot-token"
      version  = var.secret_versions.slack_bot_token
      existing = var.existing_secrets.slack_bot_token
    }
    NOTIFY_TOKENS = {
      function = "notify"
      id       = "${var.name}-notify-tokens"
      version  = var.secret_versions.notify_tokens
      existing = var.existing_secrets.notify_tokens
    }
  }

  # The settings as the functions read them: ephemeral, as the variables are.
  secret_values = {
    WEBHOOK_TOKENS        = var.webhook_tokens == null ? null : join("\n", var.webhook_tokens)
    GITLAB_TRIGGER_TOKENS = var.gitlab_trigger_tokens == null ? null : jsonencode(var.gitlab_trigger_tokens)
    GITLAB_API_TOKENS     = var.gitlab_api_tokens == null ? null : jsonencode(var.gitlab_api_tokens)
    REGISTRY_AUTH         = var.registry_auth
    SLACK_BOT_TOKEN       = var.slack_bot_token
    NOTIFY_TOKENS         = var.notify_tokens == null ? null : join("\n", var.notify_tokens)
  }

  # null is wherever Google likes. A key belongs to one region, and what it
  # encrypts has to be there.
  secret_locations = var.kms_key != null ? [var.region] : var.secret_locations

  managed_secrets  = { for setting, secret in local.secrets : setting => secret if secret.existing == null && secret.version > 0 }
  existing_secrets = { for setting, secret in local.secrets : setting => secret if secret.existing != null }

  # Where each function finds its secrets. The version is a number, never
  # "latest": so a rotation is a deploy, which can be seen and taken back.
  # https://cloud.google.com/run/docs/configuring/services/secrets
  secret_references = merge(
    { for setting, secret in local.managed_secrets : setting => {
      function = secret.function
      project  = google_secret_manager_secret.managed[setting].project
      secret   = google_secret_manager_secret.managed[setting].secret_id
      version  = google_secret_manager_secret_version.managed[setting].version
    } },
    { for setting, secret in local.existing_secrets : setting => {
      function = secret.function
      project  = split("/", secret.existing)[1]
      secret   = split("/", secret.existing)[3]
      version  = split("/", secret.existing)[5]
    } },
  )
}

resource "google_secret_manager_secret" "managed" {
  for_each = merge(local.managed_secrets, local.ca_secrets)

  project   = local.project
  secret_id = each.value.id

  replication {
    dynamic "auto" {
      for_each = local.secret_locations == null ? [true] : []
      content {}
    }
    dynamic "user_managed" {
      for_each = local.secret_locations == null ? [] : [local.secret_locations]
      content {
        dynamic "replicas" {
          for_each = user_managed.value
          content {
            location = replicas.value
            dynamic "customer_managed_encryption" {
              for_each = var.kms_key[*]
              content {
                kms_key_name = customer_managed_encryption.value
              }
            }
          }
        }
      }
    }
  }
}

resource "google_secret_manager_secret_version" "managed" {
  for_each = local.managed_secrets

  secret                 = google_secret_manager_secret.managed[each.key].id
  secret_data_wo         = local.secret_values[each.key]
  secret_data_wo_version = each.value.version

  # A rotation leaves the old version where it is, for a revision that still
  # serves reads it at every start: if the new one fails, or is rolled back, the
  # old one must go on. When the new one serves, docs/operations.md says how to
  # destroy the old version. terraform destroy takes all of them, with the secret.
  deletion_policy = "ABANDON"

  # The function lets go of a secret before the secret is deleted.
  lifecycle {
    create_before_destroy = true
  }
}
