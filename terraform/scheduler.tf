# The clock. A pipeline that never ran, or whose runner died, reports nothing,
# and nothing else would notice: Notify is called every ten minutes to look for
# promotions that have been silent for var.silent_after, and tells Slack once.
resource "google_cloud_scheduler_job" "silence" {
  project     = local.project
  region      = var.region
  name        = "${var.name}-silence"
  description = "Has ${local.notify} look for pipelines that report nothing"
  schedule    = "*/10 * * * *"

  # A call that fails is not made again: the next one does what it did not.
  attempt_deadline = "${var.sizes.notify.timeout}s"

  http_target {
    http_method = "POST"
    uri         = "${google_cloudfunctions2_function.this["notify"].service_config[0].uri}/silent"

    oidc_token {
      service_account_email = google_service_account.push.email
      audience              = local.push_audience
    }
  }
}
