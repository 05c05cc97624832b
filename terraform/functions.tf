# The three functions, and every setting that they get. What a setting means
# stands in the README of the repository. All values are known when Terraform
# plans: the provider cannot handle others well
# (https://github.com/hashicorp/terraform-provider-google/issues/18747).
locals {
  functions = {
    webhook = {
      entry_point = "Webhook"
      description = "Takes Docker Hub's webhook and queues the push"
      ingress     = "ALLOW_ALL"
      environment = {
        TOPIC = "projects/${var.project_id}/topics/${google_pubsub_topic.pushes.name}"
      }
    }

    trigger = {
      entry_point = "Trigger"
      description = "Creates the GitLab pipeline of a queued push"
      ingress     = "ALLOW_INTERNAL_ONLY" # Pub/Sub and the scheduler of the same project are internal
      environment = {
        ROUTES            = local.routes
        GITLAB_URL        = var.gitlab_url
        REGISTRY          = var.registry
        HUB_URL           = "https://hub.docker.com"
        RECONCILE         = local.asks_docker_hub ? "on" : "off"
        TOPIC             = "projects/${var.project_id}/topics/${google_pubsub_topic.pushes.name}"
        DEAD_LETTER_TOPIC = "projects/${var.project_id}/topics/${google_pubsub_topic.dead_letters.name}"
        LEDGER            = "firestore:projects/${var.project_id}/databases/${google_firestore_database.ledger.name}"
      }
    }

    notify = {
      entry_point = "Notify"
      description = "Takes the pipeline's report and dead letters, and tells Slack"
      ingress     = "ALLOW_ALL"
      environment = {
        ROUTES               = local.routes
        LANGUAGE             = var.language
        LEDGER               = "firestore:projects/${var.project_id}/databases/${google_firestore_database.ledger.name}"
        SLACK_API_URL        = "https://slack.com/api/"
        DEFAULT_CHANNEL      = var.default_channel
        SILENT_AFTER         = var.silent_after
        OIDC_ISSUER          = trimsuffix(var.gitlab_url, "/")
        OIDC_AUDIENCE        = local.notify_audience
        PUSH_ISSUER          = "https://accounts.google.com"
        PUSH_AUDIENCE        = local.push_audience
        PUSH_SERVICE_ACCOUNT = "${google_service_account.push.account_id}@${var.project_id}.iam.gserviceaccount.com"
      }
    }
  }

  # What every function gets beside its own. LOG_EXECUTION_ID is what Google
  # sets by itself where it is not given, and would be planned away every time.
  shared_environment = {
    GOOGLE_CLOUD_PROJECT = var.project_id
    LOG_EXECUTION_ID     = "true"
  }

  environments = {
    for name, function in local.functions : name => merge(
      local.shared_environment,
      function.environment,
      contains(local.call_gitlab, name) ? { SSL_CERT_FILE = "${local.ca_directory}/${local.ca_file}" } : {},
    )
  }

  # In bytes, which Terraform does not count: four characters of base64 are three.
  environment_bytes = {
    for name, environment in local.environments : name =>
    floor(length(trim(base64encode(join("", flatten([for setting, value in environment : [setting, value]]))), "=")) * 3 / 4)
  }
}

resource "google_cloudfunctions2_function" "this" {
  for_each = local.functions

  project     = local.project
  name        = "${var.name}-${each.key}"
  location    = var.region
  description = each.value.description

  kms_key_name = var.kms_key

  build_config {
    runtime           = "go126"
    entry_point       = each.value.entry_point
    service_account   = google_service_account.build.name
    docker_repository = google_artifact_registry_repository.images.id

    # Google puts security patches of the runtime under the running function:
    # https://cloud.google.com/functions/docs/concepts/execution-environment#automatic
    automatic_update_policy {}

    source {
      storage_source {
        bucket = google_storage_bucket_object.source.bucket
        object = google_storage_bucket_object.source.name
      }
    }
  }

  service_config {
    service_account_email          = google_service_account.function[each.key].email
    ingress_settings               = each.value.ingress
    all_traffic_on_latest_revision = true

    # An idle function costs nothing: the first request after a pause waits for
    # a start of a second or so, which neither Docker Hub nor Pub/Sub minds.
    min_instance_count               = 0
    max_instance_count               = var.sizes[each.key].instances
    max_instance_request_concurrency = var.sizes[each.key].concurrency
    available_cpu                    = tostring(var.sizes[each.key].cpu)
    available_memory                 = var.sizes[each.key].memory
    timeout_seconds                  = var.sizes[each.key].timeout

    environment_variables = local.environments[each.key]

    dynamic "secret_environment_variables" {
      for_each = { for setting, secret in local.secret_references : setting => secret if secret.function == each.key }
      content {
        key        = secret_environment_variables.key
        project_id = secret_environment_variables.value.project
        secret     = secret_environment_variables.value.secret
        version    = secret_environment_variables.value.version
      }
    }

    dynamic "secret_volumes" {
      for_each = contains(local.call_gitlab, each.key) ? [google_secret_manager_secret_version.ca[0]] : []
      content {
        mount_path = local.ca_directory
        project_id = google_secret_manager_secret.managed["GITLAB_CA"].project
        secret     = google_secret_manager_secret.managed["GITLAB_CA"].secret_id
        versions {
          path    = local.ca_file
          version = secret_volumes.value.version
        }
      }
    }
  }

  lifecycle {
    precondition {
      condition     = var.sizes[each.key].cpu >= 1 || var.sizes[each.key].concurrency == 1
      error_message = "sizes.${each.key} has ${var.sizes[each.key].cpu} cpu and a concurrency of ${var.sizes[each.key].concurrency}: Cloud Run gives less than one cpu to one request at a time only. Set cpu to 1, or concurrency to 1."
    }
    precondition {
      condition     = local.environment_bytes[each.key] <= 32 * 1024
      error_message = "The settings of ${each.key} have ${local.environment_bytes[each.key]} bytes, over 32 KiB, which is all that an environment holds: put routes together by globs, such as acme/* with the project acme/images/{name}."
    }
  }

  # No attribute of these is of use here. But the first build and the first start
  # fail without the roles, and while there is a Webhook, the URLs that it is
  # called by must be kept out of the logs, when it comes and when it goes.
  depends_on = [
    terraform_data.roles_have_spread,
    google_project_iam_member.build_writes_logs,
    google_project_iam_member.build_reads_source,
    google_artifact_registry_repository_iam_member.build_writes_images,
    google_secret_manager_secret_iam_member.function_reads_secret,
    google_secret_manager_secret_iam_member.function_reads_ca,
    google_logging_project_exclusion.webhook_urls,
  ]
}
