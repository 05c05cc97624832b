# The clock. What nobody calls for, nobody would do: Trigger looks for pushes
# that Docker Hub never told of and for tags that were left, and Notify for news
# that Slack has not heard and for pipelines that report nothing.
resource "google_cloud_scheduler_job" "this" {
  for_each = {
    reconcile = {
      function    = "trigger"
      schedule    = "*/5 * * * *"
      audience    = google_cloudfunctions2_function.this["trigger"].service_config[0].uri
      description = "Has ${local.trigger} look for pushes that were missed"
    }
    tick = {
      function    = "notify"
      schedule    = "* * * * *"
      audience    = local.push_audience
      description = "Has ${local.notify} tell Slack what it has not heard yet"
    }
  }

  project     = local.project
  region      = var.region
  name        = "${var.name}-${each.key}"
  description = each.value.description
  schedule    = each.value.schedule

  # A call that fails is not made again: the next one does what it did not.
  attempt_deadline = "${var.sizes[each.value.function].timeout}s"

  http_target {
    http_method = "POST"
    uri         = "${google_cloudfunctions2_function.this[each.value.function].service_config[0].uri}/${each.key}"

    oidc_token {
      service_account_email = google_service_account.push.email
      audience              = each.value.audience
    }
  }
}
