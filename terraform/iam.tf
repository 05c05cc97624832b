# Who may do what: this file is all of it. One account a function, the smallest
# role that serves, on the one resource that it is for. Where a role can only be
# given on the project, a condition names the resource.

resource "google_service_account" "function" {
  for_each = {
    webhook = "takes webhooks"
    trigger = "creates pipelines"
    notify  = "tells Slack"
  }

  project      = local.project
  account_id   = "${var.name}-${each.key}"
  display_name = "${var.name}: ${each.value}"
}

# Building.

resource "google_project_iam_member" "build_writes_logs" {
  project = local.project
  role    = "roles/logging.logWriter" # there is no narrower place to write build logs to
  member  = google_service_account.build.member
}

resource "google_artifact_registry_repository_iam_member" "build_writes_images" {
  project    = local.project
  location   = google_artifact_registry_repository.images.location
  repository = google_artifact_registry_repository.images.name
  role       = "roles/artifactregistry.writer"
  member     = google_service_account.build.member
}

# Cloud Functions copies the source into a bucket of its own, which it makes
# with the first function of a region; so the role can be given on the project
# only (https://github.com/hashicorp/terraform-provider-google/issues/20571).
resource "google_project_iam_member" "build_reads_source" {
  project = local.project
  role    = "roles/storage.objectViewer"
  member  = google_service_account.build.member

  condition {
    title       = "source-of-functions"
    description = "Only the bucket to which Cloud Functions copies sources"
    expression  = "resource.name.startsWith(\"projects/_/buckets/gcf-v2-sources-${data.google_project.this.number}-${var.region}\")"
  }
}

# Settings.

resource "google_secret_manager_secret_iam_member" "function_reads_secret" {
  for_each = local.secret_references

  project   = each.value.project
  secret_id = each.value.secret
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.function[each.value.function].member

  # A function that moves to another secret may read both while it does.
  lifecycle {
    create_before_destroy = true
  }
}

# Google tells of a role before all of its servers know it, and the first build
# and the first start would fail. https://cloud.google.com/iam/docs/access-change-propagation
resource "terraform_data" "roles_have_spread" {
  triggers_replace = concat(
    [
      google_project_iam_member.build_writes_logs.id,
      google_project_iam_member.build_reads_source.id,
      google_artifact_registry_repository_iam_member.build_writes_images.id,
    ],
    [for binding in google_secret_manager_secret_iam_member.function_reads_secret : binding.id],
    [for binding in google_secret_manager_secret_iam_member.function_reads_ca : binding.id],
  )

  provisioner "local-exec" {
    command = "sleep 60"
  }
}

# The way of a push.

resource "google_pubsub_topic_iam_member" "webhook_publishes_pushes" {
  project = local.project
  topic   = google_pubsub_topic.pushes.name
  role    = "roles/pubsub.publisher"
  member  = google_service_account.function["webhook"].member
}

# What reconcile finds is queued as a webhook is.
resource "google_pubsub_topic_iam_member" "trigger_publishes_pushes" {
  project = local.project
  topic   = google_pubsub_topic.pushes.name
  role    = "roles/pubsub.publisher"
  member  = google_service_account.function["trigger"].member
}

resource "google_pubsub_topic_iam_member" "trigger_publishes_dead_letters" {
  project = local.project
  topic   = google_pubsub_topic.dead_letters.name
  role    = "roles/pubsub.publisher"
  member  = google_service_account.function["trigger"].member
}

# Firestore's roles are given on the project; the condition narrows them to one
# database: https://cloud.google.com/firestore/docs/manage-databases#iam
resource "google_project_iam_member" "function_uses_ledger" {
  for_each = toset(["trigger", "notify"])

  project = local.project
  role    = "roles/datastore.user"
  member  = google_service_account.function[each.key].member

  condition {
    title       = "ledger-of-${var.name}"
    description = "Only the database ${google_firestore_database.ledger.name}"
    expression  = "resource.name == \"projects/${var.project_id}/databases/${google_firestore_database.ledger.name}\""
  }
}

# Pub/Sub itself: to sign in as the push account, and to move what it gives up
# from the subscription to the dead letters. The scheduler's own agent may sign
# in as any account of the project that the deployer may let it use.
# https://cloud.google.com/pubsub/docs/authenticate-push-subscriptions
# https://cloud.google.com/pubsub/docs/dead-letter-topics#grant_forwarding_permissions

resource "google_service_account_iam_member" "pubsub_signs_in_as_push" {
  service_account_id = google_service_account.push.name
  role               = "roles/iam.serviceAccountOpenIdTokenCreator"
  member             = local.pubsub_agent
}

resource "google_pubsub_topic_iam_member" "pubsub_publishes_dead_letters" {
  project = local.project
  topic   = google_pubsub_topic.dead_letters.name
  role    = "roles/pubsub.publisher"
  member  = local.pubsub_agent
}

resource "google_pubsub_subscription_iam_member" "pubsub_takes_what_it_gives_up" {
  project      = local.project
  subscription = google_pubsub_subscription.trigger.name
  role         = "roles/pubsub.subscriber"
  member       = local.pubsub_agent
}

# Who may call. The role belongs on the Cloud Run service beneath a function,
# which has the function's name; the function's own policy does not let anybody
# in (https://github.com/hashicorp/terraform-provider-google/issues/15264). A
# function that is made anew has a service without bindings.

# Notify's is of use where not everybody may call it.
resource "google_cloud_run_v2_service_iam_member" "push_calls" {
  for_each = toset(["trigger", "notify"])

  project  = local.project
  location = var.region
  name     = google_cloudfunctions2_function.this[each.key].name
  role     = "roles/run.invoker"
  member   = google_service_account.push.member

  lifecycle {
    replace_triggered_by = [google_cloudfunctions2_function.this[each.key].id]
  }
}

# Docker Hub and GitLab jobs have no Google account: Webhook and Notify are open
# to the internet, and check tokens themselves.
resource "google_cloud_run_v2_service_iam_member" "anybody_calls" {
  for_each = var.public_access ? toset(["webhook", "notify"]) : []

  project  = local.project
  location = var.region
  name     = google_cloudfunctions2_function.this[each.key].name
  role     = "roles/run.invoker"
  member   = "allUsers"

  lifecycle {
    replace_triggered_by = [google_cloudfunctions2_function.this[each.key].id]
  }
}
