# The way of a push: Webhook publishes, as does Trigger when it reconciles;
# Pub/Sub pushes to Trigger, tries again while GitLab or the registry is away,
# and gives up into the dead letters.
resource "google_pubsub_topic" "pushes" {
  project      = local.project
  name         = "${var.name}-pushes"
  kms_key_name = var.kms_key

  # terraform destroy stops here, for what is queued would go with it.
  deletion_policy = local.deletion_policy
}

# A subscription of our own and not an event trigger: that one keeps messages
# for a day only, and has no dead letters.
# https://github.com/hashicorp/terraform-provider-google/issues/25069
resource "google_pubsub_subscription" "trigger" {
  project         = local.project
  name            = local.trigger
  topic           = google_pubsub_topic.pushes.id
  deletion_policy = local.deletion_policy

  push_config {
    push_endpoint = google_cloudfunctions2_function.this["trigger"].service_config[0].uri

    oidc_token {
      service_account_email = google_service_account.push.email
      audience              = google_cloudfunctions2_function.this["trigger"].service_config[0].uri
    }
  }

  # Pub/Sub waits longer than Trigger may take, or it would deliver a message
  # again that is being worked on.
  ack_deadline_seconds = var.sizes.trigger.timeout + 30

  # Waits of 10, 20, 40 … 600 s: 50 attempts take some seven hours, longer than
  # Docker Hub limits pulls and most upgrades of GitLab take. The sandbox keeps
  # the same numbers (internal/sandbox/queue.go).
  retry_policy {
    minimum_backoff = "10s"
    maximum_backoff = "600s"
  }

  dead_letter_policy {
    dead_letter_topic     = google_pubsub_topic.dead_letters.id
    max_delivery_attempts = var.max_delivery_attempts
  }

  message_retention_duration = "604800s" # 7 days, for a Trigger that is broken

  # Without this, a subscription that was idle for 31 days is deleted:
  # https://cloud.google.com/pubsub/docs/subscription-properties#expiration_period
  expiration_policy {
    ttl = ""
  }

  lifecycle {
    precondition {
      condition     = var.sizes.trigger.timeout + 30 <= 600
      error_message = "sizes.trigger.timeout is ${var.sizes.trigger.timeout} s, and Pub/Sub waits 600 s for an answer at most: set it to 570 or less."
    }
  }
}

resource "google_pubsub_topic" "dead_letters" {
  project         = local.project
  name            = "${var.name}-dead-letters"
  kms_key_name    = var.kms_key
  deletion_policy = local.deletion_policy
}

# Where dead letters stay until somebody has fixed the cause: a topic
# without a subscription would drop them at once. 31 days is the most that
# Pub/Sub keeps.
resource "google_pubsub_subscription" "dead_letters" {
  project         = local.project
  name            = "${var.name}-dead-letters"
  topic           = google_pubsub_topic.dead_letters.id
  deletion_policy = local.deletion_policy

  ack_deadline_seconds       = 60
  message_retention_duration = "2678400s" # 31 days

  expiration_policy {
    ttl = ""
  }
}

# Notify tells Slack of every dead letter. Where that fails for a week nothing
# is lost: the letter itself is in the subscription above.
resource "google_pubsub_subscription" "dead_letters_notify" {
  project         = local.project
  name            = "${var.name}-dead-letters-notify"
  topic           = google_pubsub_topic.dead_letters.id
  deletion_policy = local.deletion_policy

  push_config {
    push_endpoint = "${google_cloudfunctions2_function.this["notify"].service_config[0].uri}/dead-letter"

    oidc_token {
      service_account_email = google_service_account.push.email
      audience              = local.push_audience
    }
  }

  ack_deadline_seconds = var.sizes.notify.timeout + 30

  retry_policy {
    minimum_backoff = "10s"
    maximum_backoff = "600s"
  }

  message_retention_duration = "604800s" # 7 days

  expiration_policy {
    ttl = ""
  }

  lifecycle {
    precondition {
      condition     = var.sizes.notify.timeout + 30 <= 600
      error_message = "sizes.notify.timeout is ${var.sizes.notify.timeout} s, and Pub/Sub waits 600 s for an answer at most: set it to 570 or less."
    }
  }
}

# Whose token Pub/Sub and the scheduler show to Trigger and Notify. It may call
# these two, and nothing else.
resource "google_service_account" "push" {
  project      = local.project
  account_id   = "${var.name}-push"
  display_name = "${var.name}: Google, when it calls Trigger and Notify"
}
