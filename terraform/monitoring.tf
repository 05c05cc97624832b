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

# What the functions write: one line for each decision, with a constant message,
# and its outcome and reason from the tables of docs/architecture.md. A metric
# counts what the exclusion above leaves out, too:
# https://cloud.google.com/logging/docs/logs-based-metrics#user-metrics
resource "google_logging_metric" "outcomes" {
  project     = local.project
  name        = "${var.name}-outcomes"
  description = "Decisions of ${var.name}, by message, outcome and reason"
  filter      = <<-EOT
    resource.type="cloud_run_revision"
    resource.labels.service_name=("${local.webhook}" OR "${local.trigger}" OR "${local.notify}")
    jsonPayload.message:*
  EOT

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"
    unit        = "1"

    labels {
      key         = "message"
      value_type  = "STRING"
      description = "push queued, pipeline created, clock ticked and so on"
    }
    labels {
      key         = "severity"
      value_type  = "STRING"
      description = "INFO, WARNING or ERROR"
    }
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
    message  = "EXTRACT(jsonPayload.message)"
    severity = "EXTRACT(severity)"
    outcome  = "EXTRACT(jsonPayload.outcome)"
    reason   = "EXTRACT(jsonPayload.reason)"
  }
}

# Requests that Google answers in the place of the function: there is no instance
# to be had, none starts, or nobody may call. run.googleapis.com/request_count
# leaves them out; the request log has them, with Google's words as the text.
# https://cloud.google.com/run/docs/troubleshooting
resource "google_logging_metric" "unreached" {
  project     = local.project
  name        = "${var.name}-unreached"
  description = "Requests to Webhook and Notify of ${var.name} that no instance saw"
  filter      = <<-EOT
    resource.type="cloud_run_revision"
    resource.labels.service_name=("${local.webhook}" OR "${local.notify}")
    log_id("run.googleapis.com/requests")
    httpRequest.status>=400
    (textPayload:* OR httpRequest.status=429)
  EOT

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"
    unit        = "1"

    labels {
      key         = "status"
      value_type  = "STRING"
      description = "429, 403, 503 and so on"
    }
  }

  label_extractors = {
    status = "EXTRACT(httpRequest.status)"
  }
}

# A call of the clock that was refused, or came to nothing.
resource "google_logging_metric" "missed_ticks" {
  project     = local.project
  name        = "${var.name}-missed-ticks"
  description = "Calls by Cloud Scheduler to ${var.name} that failed"
  filter      = <<-EOT
    resource.type="cloud_scheduler_job"
    resource.labels.job_id=(${join(" OR ", [for job in google_cloud_scheduler_job.this : "\"${job.name}\""])})
    severity>=ERROR
  EOT

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"
    unit        = "1"
  }
}

# Looks from outside, for a door that is shut is seen by nobody inside. The path
# has no token.
resource "google_monitoring_uptime_check_config" "ready" {
  for_each = var.alerts ? toset(["webhook", "notify"]) : []

  project      = local.project
  display_name = "${var.name}: ${each.key} is ready"
  period       = "300s"
  timeout      = "10s"

  http_check {
    path         = "/ready"
    port         = 443
    use_ssl      = true
    validate_ssl = true
  }

  monitored_resource {
    type = "uptime_url"
    labels = {
      project_id = var.project_id
      host       = trimprefix(google_cloudfunctions2_function.this[each.key].service_config[0].uri, "https://")
    }
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
# notification links. A condition without a period of its own is looked at over
# the last ten minutes.
locals {
  runbook = "https://github.com/getto-systems/hubrelay/blob/main/docs/operations.md"

  subscription = "resource.type=\"pubsub_subscription\" AND resource.labels.subscription_id"
  service      = "resource.type=\"cloud_run_revision\" AND resource.labels.service_name"
  open_doors   = "one_of(\"${local.webhook}\", \"${local.notify}\")"
  lines        = "metric.type=\"logging.googleapis.com/user/${google_logging_metric.outcomes.name}\" AND resource.type=\"cloud_run_revision\""

  alerts = {
    dead-letters = {
      title    = "dead letters wait"
      severity = "ERROR"
      meaning  = "Pushes were given up. Each is a push whose image is not signed, and waits to be replayed once the cause is fixed."
      conditions = {
        "dead letters wait" = {
          filter    = "metric.type=\"pubsub.googleapis.com/subscription/num_undelivered_messages\" AND ${local.subscription}=\"${google_pubsub_subscription.dead_letters.name}\""
          aligner   = "ALIGN_MAX"
          reducer   = "REDUCE_MAX"
          threshold = 0
          period    = "60s"
        }
      }
    }

    # Dead letters that Notify does not take count, too.
    backlog = {
      title    = "pushes are waiting"
      severity = "WARNING"
      meaning  = "A push, or the news of a dead letter, has waited for half an hour. GitLab or the registry is away, or a function fails."
      conditions = {
        "the oldest message is half an hour old" = {
          filter    = "metric.type=\"pubsub.googleapis.com/subscription/oldest_unacked_message_age\" AND ${local.subscription}=one_of(\"${google_pubsub_subscription.trigger.name}\", \"${google_pubsub_subscription.dead_letters_notify.name}\")"
          aligner   = "ALIGN_MAX"
          reducer   = "REDUCE_MAX"
          group_by  = ["resource.label.subscription_id"]
          threshold = 1800
          period    = "60s"
        }
      }
    }

    # Not Trigger's: it answers 503 for what shall be tried again.
    errors = {
      title    = "requests fail"
      severity = "ERROR"
      meaning  = "More than one request in twenty to Webhook or Notify ended in an error of ours. Docker Hub does not try again: a webhook that fails is a push that waits to be found, which takes a quarter of an hour."
      conditions = {
        "more than 5% of requests end in 5xx" = {
          filter    = "metric.type=\"run.googleapis.com/request_count\" AND metric.labels.response_code_class=\"5xx\" AND ${local.service}=${local.open_doors}"
          per       = "metric.type=\"run.googleapis.com/request_count\" AND ${local.service}=${local.open_doors}"
          aligner   = "ALIGN_RATE"
          group_by  = ["resource.label.service_name"]
          threshold = 0.05
        }
      }
    }

    unreachable = {
      title    = "requests reach no instance"
      severity = "CRITICAL"
      meaning  = "Google turns callers of Webhook or Notify away: no instance is to be had, none starts, or nobody may call. Pushes come back by reconciling, reports do not."
      conditions = {
        "a request was turned away" = {
          filter    = "metric.type=\"logging.googleapis.com/user/${google_logging_metric.unreached.name}\" AND resource.type=\"cloud_run_revision\""
          group_by  = ["resource.label.service_name"]
          threshold = 0
        }
        # From more than one place, for Google's checkers fail, too.
        "/ready does not answer" = {
          filter    = "metric.type=\"monitoring.googleapis.com/uptime_check/check_passed\" AND resource.type=\"uptime_url\" AND metric.labels.check_id=one_of(${join(", ", [for check in google_monitoring_uptime_check_config.ready : "\"${check.uptime_check_id}\""])})"
          aligner   = "ALIGN_NEXT_OLDER"
          reducer   = "REDUCE_COUNT_FALSE"
          group_by  = ["metric.label.check_id"]
          threshold = 1
        }
      }
    }

    # One build often pushes three tags, so that a single hiccup of Docker Hub
    # raises nothing. A refusal is told once in a round over all repositories,
    # which ends within the hour.
    webhooks = {
      title    = "webhooks are lost"
      severity = "WARNING"
      meaning  = "Docker Hub has pushes that its webhooks did not tell of, or does not say which it has. What was found is on its way; a repository may have no webhook, or a wrong one."
      conditions = {
        "more than three missed pushes in a day" = {
          filter    = "${local.lines} AND metric.labels.message=\"missed push found\""
          threshold = 3
          period    = "86400s"
        }
        "Docker Hub refuses to be asked for three hours" = {
          filter    = "${local.lines} AND metric.labels.message=\"missed pushes not looked for\""
          threshold = 0
          period    = "3600s"
          duration  = "10800s"
        }
      }
    }

    clock = {
      title    = "the clock stands still"
      severity = "ERROR"
      meaning  = "Nobody has Notify tell Slack what it has not heard, or nobody has Trigger look for pushes that were missed. What is under way goes on."
      conditions = {
        "no tick or no reconcile for half an hour" = {
          filter     = "${local.lines} AND metric.labels.message=one_of(\"clock ticked\", \"tags reconciled\")"
          group_by   = ["metric.label.message"]
          comparison = "COMPARISON_LT"
          threshold  = 1
          period     = "1800s"
          duration   = "60s"
          missing    = "EVALUATION_MISSING_DATA_ACTIVE" # silence is what it looks for
        }
        "Cloud Scheduler's calls fail" = {
          filter    = "metric.type=\"logging.googleapis.com/user/${google_logging_metric.missed_ticks.name}\" AND resource.type=\"cloud_scheduler_job\""
          group_by  = ["resource.label.job_id"]
          threshold = 2
          period    = "1200s"
        }
      }
    }

    # Notify tries again after 1, 2, 4, 8 … 60 minutes: for half an hour there is
    # no gap of twenty.
    slack = {
      title    = "Slack is not told"
      severity = "ERROR"
      meaning  = "Slack has refused, or not answered, for half an hour. The record is right, Slack is not; nothing is lost, and all is shown once it is fixed."
      conditions = {
        "Slack is not told for half an hour" = {
          filter    = "${local.lines} AND metric.labels.message=\"slack not told\""
          threshold = 0
          period    = "1200s"
          duration  = "1800s"
        }
      }
    }

    unauthorized = {
      title    = "somebody tries tokens"
      severity = "WARNING"
      meaning  = "More than 50 requests in ten minutes had no valid token: a rotation that was not finished, or somebody who guesses."
      conditions = {
        "more than 50 answers of 401 in ten minutes" = {
          filter    = "metric.type=\"run.googleapis.com/request_count\" AND metric.labels.response_code=\"401\" AND ${local.service}=${local.open_doors}"
          group_by  = ["resource.label.service_name"]
          threshold = 50
        }
      }
    }
  }
}

resource "google_monitoring_alert_policy" "this" {
  for_each = { for key, alert in local.alerts : key => alert if var.alerts }

  project               = local.project
  display_name          = "${var.name}: ${each.value.title}"
  severity              = each.value.severity
  combiner              = "OR"
  notification_channels = concat(var.alert_channels, google_monitoring_notification_channel.slack[*].name)

  dynamic "conditions" {
    for_each = each.value.conditions
    content {
      display_name = conditions.key

      condition_threshold {
        filter                  = conditions.value.filter
        denominator_filter      = try(conditions.value.per, null)
        comparison              = try(conditions.value.comparison, "COMPARISON_GT")
        threshold_value         = conditions.value.threshold
        duration                = try(conditions.value.duration, "0s")
        evaluation_missing_data = try(conditions.value.missing, null)

        aggregations {
          alignment_period     = try(conditions.value.period, "600s")
          per_series_aligner   = try(conditions.value.aligner, "ALIGN_DELTA")
          cross_series_reducer = try(conditions.value.reducer, "REDUCE_SUM")
          group_by_fields      = try(conditions.value.group_by, [])
        }

        dynamic "denominator_aggregations" {
          for_each = can(conditions.value.per) ? [conditions.value] : []
          content {
            alignment_period     = "600s"
            per_series_aligner   = "ALIGN_RATE"
            cross_series_reducer = "REDUCE_SUM"
            group_by_fields      = denominator_aggregations.value.group_by
          }
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
  services = "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=one_of(\"${local.webhook}\", \"${local.trigger}\", \"${local.notify}\")"

  charts = [
    {
      title    = "Webhooks, by outcome"
      filter   = "${local.lines} AND resource.labels.service_name=\"${local.webhook}\""
      aligner  = "ALIGN_DELTA"
      reducer  = "REDUCE_SUM"
      group_by = ["metric.label.outcome", "metric.label.reason"]
      plot     = "STACKED_BAR"
    },
    {
      title    = "Pushes: pipelines created, ignored, put off, dead"
      filter   = "${local.lines} AND resource.labels.service_name=\"${local.trigger}\""
      aligner  = "ALIGN_DELTA"
      reducer  = "REDUCE_SUM"
      group_by = ["metric.label.outcome", "metric.label.reason"]
      plot     = "STACKED_BAR"
    },
    {
      title    = "What went wrong, by message"
      filter   = "${local.lines} AND metric.labels.severity=one_of(\"WARNING\", \"ERROR\")"
      aligner  = "ALIGN_DELTA"
      reducer  = "REDUCE_SUM"
      group_by = ["metric.label.message"]
      plot     = "STACKED_BAR"
    },
    {
      title    = "The clock: ticks, reconciles"
      filter   = "${local.lines} AND metric.labels.message=one_of(\"clock ticked\", \"tags reconciled\")"
      aligner  = "ALIGN_DELTA"
      reducer  = "REDUCE_SUM"
      group_by = ["metric.label.message"]
      plot     = "LINE"
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
