# What is seen of hubrelay, and who hears when it fails.

# The URL of a webhook ends in its token, and Cloud Run's request log has the
# URL of every request: keep that log of Webhook out of the project's log
# bucket. Webhook writes a line of its own for each, without the URL.
# https://cloud.google.com/logging/docs/routing/overview#exclusions
resource "google_logging_project_exclusion" "webhook_urls" {
  project     = local.project
  name        = "${var.name}-webhook-urls"
  description = "Request log of ${local.webhook}: its URLs hold tokens"
  filter      = <<-EOT
    resource.type="cloud_run_revision"
    resource.labels.service_name="${local.webhook}"
    log_id("run.googleapis.com/requests")
  EOT
}

# What became of every webhook, push and report. The functions write one line
# for each decision, with its outcome and reason from the tables of
# docs/architecture.md.
resource "google_logging_metric" "outcomes" {
  project     = local.project
  name        = "${var.name}-outcomes"
  description = "Decisions of ${var.name}, by outcome and reason"
  filter      = <<-EOT
    resource.type="cloud_run_revision"
    resource.labels.service_name=("${local.webhook}" OR "${local.trigger}" OR "${local.notify}")
    jsonPayload.outcome:*
  EOT

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"
    unit        = "1"

    labels {
      key         = "outcome"
      value_type  = "STRING"
      description = "queued, triggered, ignored, retry, dead and so on"
    }
    labels {
      key         = "reason"
      value_type  = "STRING"
      description = "Why, such as duplicate or gitlab_unavailable"
    }
  }

  label_extractors = {
    outcome = "EXTRACT(jsonPayload.outcome)"
    reason  = "EXTRACT(jsonPayload.reason)"
  }
}

resource "google_monitoring_notification_channel" "slack" {
  count = var.alert_slack_channel == null ? 0 : 1

  project      = local.project
  display_name = "${var.name}: Slack ${var.alert_slack_channel}"
  type         = "slack"
  labels       = { channel_name = var.alert_slack_channel }

  sensitive_labels {
    auth_token_wo         = var.slack_bot_token
    auth_token_wo_version = tostring(var.secret_versions.slack_bot_token)
  }
}

# Each alert by the name of its section in docs/operations.md, which its
# notification links.
locals {
  runbook = "https://github.com/getto-systems/hubrelay/blob/main/docs/operations.md"

  subscription = "resource.type=\"pubsub_subscription\" AND resource.labels.subscription_id"
  service      = "resource.type=\"cloud_run_revision\" AND resource.labels.service_name"
  open_doors   = "one_of(\"${local.webhook}\", \"${local.notify}\")"

  alerts = {
    dead-letters = {
      title     = "dead letters wait"
      severity  = "ERROR"
      meaning   = "Pushes were given up. Each is a push whose image is not signed, and waits to be replayed once the cause is mended."
      filter    = "metric.type=\"pubsub.googleapis.com/subscription/num_undelivered_messages\" AND ${local.subscription}=\"${google_pubsub_subscription.dead_letters.name}\""
      per       = null # without one: no ratio
      aligner   = "ALIGN_MAX"
      reducer   = "REDUCE_MAX"
      group_by  = []
      threshold = 0
      period    = "60s"
    }

    # Dead letters that Slack does not hear of count, too.
    backlog = {
      title     = "pushes are waiting"
      severity  = "WARNING"
      meaning   = "A push, or the news of a dead letter, has waited for half an hour. GitLab, the registry or Slack is away, or a function fails."
      filter    = "metric.type=\"pubsub.googleapis.com/subscription/oldest_unacked_message_age\" AND ${local.subscription}=one_of(\"${google_pubsub_subscription.trigger.name}\", \"${google_pubsub_subscription.dead_letters_notify.name}\")"
      per       = null
      aligner   = "ALIGN_MAX"
      reducer   = "REDUCE_MAX"
      group_by  = ["resource.label.subscription_id"]
      threshold = 1800
      period    = "60s"
    }

    # Not Trigger's: it answers 503 for what shall be tried again.
    errors = {
      title     = "requests fail"
      severity  = "ERROR"
      meaning   = "More than one request in twenty to Webhook or Notify ended in an error of ours. Docker Hub does not try again: a webhook that fails is a push that is lost."
      filter    = "metric.type=\"run.googleapis.com/request_count\" AND metric.labels.response_code_class=\"5xx\" AND ${local.service}=${local.open_doors}"
      per       = "metric.type=\"run.googleapis.com/request_count\" AND ${local.service}=${local.open_doors}"
      aligner   = "ALIGN_RATE"
      reducer   = "REDUCE_SUM"
      group_by  = ["resource.label.service_name"]
      threshold = 0.05
      period    = "600s"
    }

    unauthorized = {
      title     = "somebody tries tokens"
      severity  = "WARNING"
      meaning   = "More than 50 requests in ten minutes had no valid token: a rotation that was not finished, or somebody who guesses."
      filter    = "metric.type=\"run.googleapis.com/request_count\" AND metric.labels.response_code=\"401\" AND ${local.service}=${local.open_doors}"
      per       = null
      aligner   = "ALIGN_DELTA"
      reducer   = "REDUCE_SUM"
      group_by  = ["resource.label.service_name"]
      threshold = 50
      period    = "600s"
    }
  }
}

resource "google_monitoring_alert_policy" "this" {
  for_each = var.alerts ? local.alerts : {}

  project               = local.project
  display_name          = "${var.name}: ${each.value.title}"
  severity              = each.value.severity
  combiner              = "OR"
  notification_channels = concat(var.alert_channels, google_monitoring_notification_channel.slack[*].name)

  conditions {
    display_name = each.value.title

    condition_threshold {
      filter             = each.value.filter
      denominator_filter = each.value.per
      comparison         = "COMPARISON_GT"
      threshold_value    = each.value.threshold
      duration           = "0s"

      aggregations {
        alignment_period     = each.value.period
        per_series_aligner   = each.value.aligner
        cross_series_reducer = each.value.reducer
        group_by_fields      = each.value.group_by
      }

      dynamic "denominator_aggregations" {
        for_each = each.value.per == null ? [] : [each.value]
        content {
          alignment_period     = each.value.period
          per_series_aligner   = each.value.aligner
          cross_series_reducer = each.value.reducer
          group_by_fields      = each.value.group_by
        }
      }
    }
  }

  alert_strategy {
    auto_close = "86400s" # a day after its data has ended
  }

  documentation {
    mime_type = "text/markdown"
    subject   = "${var.name}: ${each.value.title}"
    content   = "${each.value.meaning}\n\nWhat to do: ${local.runbook}#alert-${each.key}"

    links {
      display_name = "What to do"
      url          = "${local.runbook}#alert-${each.key}"
    }
  }
}

# The dashboard. Nothing is in the JSON that is at its default: what the API adds
# to it does no harm, but what it leaves out every plan would add again.
locals {
  outcomes = "metric.type=\"logging.googleapis.com/user/${google_logging_metric.outcomes.name}\" AND resource.type=\"cloud_run_revision\""
  services = "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=one_of(\"${local.webhook}\", \"${local.trigger}\", \"${local.notify}\")"

  charts = [
    {
      title    = "Webhooks, by outcome"
      filter   = "${local.outcomes} AND resource.labels.service_name=\"${local.webhook}\""
      aligner  = "ALIGN_DELTA"
      reducer  = "REDUCE_SUM"
      group_by = ["metric.label.outcome", "metric.label.reason"]
      plot     = "STACKED_BAR"
    },
    {
      title    = "Pushes: pipelines created, ignored, put off, dead"
      filter   = "${local.outcomes} AND resource.labels.service_name=\"${local.trigger}\""
      aligner  = "ALIGN_DELTA"
      reducer  = "REDUCE_SUM"
      group_by = ["metric.label.outcome", "metric.label.reason"]
      plot     = "STACKED_BAR"
    },
    {
      title    = "Dead letters that wait"
      filter   = "metric.type=\"pubsub.googleapis.com/subscription/num_undelivered_messages\" AND ${local.subscription}=\"${google_pubsub_subscription.dead_letters.name}\""
      aligner  = "ALIGN_MAX"
      reducer  = "REDUCE_MAX"
      group_by = ["resource.label.subscription_id"]
      plot     = "LINE"
    },
    {
      title    = "Oldest message that waits, in seconds"
      filter   = "metric.type=\"pubsub.googleapis.com/subscription/oldest_unacked_message_age\" AND ${local.subscription}=one_of(\"${google_pubsub_subscription.trigger.name}\", \"${google_pubsub_subscription.dead_letters_notify.name}\")"
      aligner  = "ALIGN_MAX"
      reducer  = "REDUCE_MAX"
      group_by = ["resource.label.subscription_id"]
      plot     = "LINE"
    },
    {
      title    = "Latency, 95th percentile, in ms"
      filter   = "metric.type=\"run.googleapis.com/request_latencies\" AND ${local.services}"
      aligner  = "ALIGN_DELTA"
      reducer  = "REDUCE_PERCENTILE_95"
      group_by = ["resource.label.service_name"]
      plot     = "LINE"
    },
    {
      title    = "Requests that were refused or failed"
      filter   = "metric.type=\"run.googleapis.com/request_count\" AND metric.labels.response_code_class=one_of(\"4xx\", \"5xx\") AND ${local.services}"
      aligner  = "ALIGN_DELTA"
      reducer  = "REDUCE_SUM"
      group_by = ["resource.label.service_name", "metric.label.response_code"]
      plot     = "STACKED_BAR"
    },
  ]
}

resource "google_monitoring_dashboard" "this" {
  project = local.project

  dashboard_json = jsonencode({
    displayName = var.name
    gridLayout = {
      columns = "2"
      widgets = [for chart in local.charts : {
        title = chart.title
        xyChart = {
          dataSets = [{
            plotType = chart.plot
            timeSeriesQuery = {
              timeSeriesFilter = {
                filter = chart.filter
                aggregation = {
                  alignmentPeriod    = "300s"
                  perSeriesAligner   = chart.aligner
                  crossSeriesReducer = chart.reducer
                  groupByFields      = chart.group_by
                }
              }
            }
          }]
        }
      }]
    }
  })
}
