# What the README and docs/operations.md promise of a deploy.

mock_provider "google" {
  source          = "./tests/mocks"
  override_during = plan
}

mock_provider "archive" {
  source          = "./tests/mocks"
  override_during = plan
}

run "there_are_three_functions_of_one_source" {
  command = plan

  assert {
    condition     = { for name, f in google_cloudfunctions2_function.this : f.name => f.build_config[0].entry_point } == { hubrelay-webhook = "Webhook", hubrelay-trigger = "Trigger", hubrelay-notify = "Notify" }
    error_message = "The functions are not Webhook, Trigger and Notify."
  }
  assert {
    condition     = alltrue([for f in google_cloudfunctions2_function.this : f.build_config[0].runtime == "go126"])
    error_message = "A function has another runtime than go126."
  }
  assert {
    condition     = length(distinct([for f in google_cloudfunctions2_function.this : f.build_config[0].source[0].storage_source[0].object])) == 1
    error_message = "The functions are not of one source."
  }
  assert {
    condition     = google_storage_bucket_object.source.name == "${data.archive_file.source.output_sha256}.zip"
    error_message = "The object's name is not the hash of the archive: a change of the source would deploy nothing."
  }
  assert {
    condition     = length(google_cloudfunctions2_function.this["webhook"].build_config[0].automatic_update_policy) == 1
    error_message = "The runtime gets no security patches."
  }
}

run "roles_get_time_to_spread" {
  command = plan

  assert {
    condition     = length(terraform_data.roles_have_spread.triggers_replace) == 6
    error_message = "A role that the build or a start needs is not waited for."
  }
}

run "the_source_is_what_the_functions_need" {
  command = plan

  assert {
    condition     = length(setsubtract(["go.mod", "go.sum", "hubrelay.go", "functions/webhook/webhook.go", "internal/route/route.go"], [for s in data.archive_file.source.source : s.filename])) == 0
    error_message = "A file is missing in the source."
  }
  assert {
    condition     = alltrue([for s in data.archive_file.source.source : !can(regex("_test\\.go$|/testdata/|test/|^internal/(?:sandbox|e2e)/|^(?:cmd|docs|terraform|scripts)/", s.filename))])
    error_message = "The source has something that only people and tests need."
  }
  assert {
    condition     = alltrue([for s in data.archive_file.source.source : s.content == file("${path.module}/../${s.filename}")])
    error_message = "A file is not in the source as it is."
  }
}

run "an_idle_deploy_costs_nothing" {
  command = plan

  assert {
    condition     = alltrue([for f in google_cloudfunctions2_function.this : f.service_config[0].min_instance_count == 0])
    error_message = "A function has instances that are paid while idle."
  }
  assert {
    condition     = length([for p in google_artifact_registry_repository.images.cleanup_policies : p if p.action == "DELETE"]) == 1
    error_message = "Images are kept for ever."
  }
  assert {
    condition     = google_storage_bucket.source.soft_delete_policy[0].retention_duration_seconds == 0
    error_message = "Old archives are kept."
  }
}

run "sizes_are_explicit_and_easy_on_gitlab" {
  command = plan

  assert {
    condition = alltrue([for f in google_cloudfunctions2_function.this :
      alltrue([for given in [f.service_config[0].available_cpu, f.service_config[0].available_memory, f.service_config[0].timeout_seconds, f.service_config[0].max_instance_count, f.service_config[0].max_instance_request_concurrency] : given != null])
    ])
    error_message = "A size is left to Google's default."
  }
  # GitLab.com makes 25 pipelines a minute for one project, user and commit.
  assert {
    condition     = google_cloudfunctions2_function.this["trigger"].service_config[0].max_instance_count <= 2
    error_message = "Trigger asks GitLab for more than ten pipelines at once: each instance for five."
  }
}

run "trigger_is_not_public" {
  command = plan

  assert {
    condition     = google_cloudfunctions2_function.this["trigger"].service_config[0].ingress_settings == "ALLOW_INTERNAL_ONLY"
    error_message = "Trigger can be reached from the internet."
  }
  assert {
    condition     = !contains([for m in google_cloud_run_v2_service_iam_member.anybody_calls : m.name], google_cloudfunctions2_function.this["trigger"].name)
    error_message = "Everybody may call Trigger."
  }
  assert {
    condition     = google_cloud_run_v2_service_iam_member.push_calls["trigger"].member == google_service_account.push.member && google_cloud_run_v2_service_iam_member.push_calls["trigger"].name == "hubrelay-trigger"
    error_message = "The push account may not call Trigger."
  }
  assert {
    condition     = toset([for m in google_cloud_run_v2_service_iam_member.anybody_calls : m.name]) == toset(["hubrelay-webhook", "hubrelay-notify"])
    error_message = "Docker Hub or GitLab cannot call."
  }
}

run "public_access_can_be_switched_off_and_google_still_gets_in" {
  command = plan

  variables {
    public_access = false
  }

  assert {
    condition     = length(google_cloud_run_v2_service_iam_member.anybody_calls) == 0
    error_message = "Somebody may still call."
  }
  assert {
    condition     = google_cloud_run_v2_service_iam_member.push_calls["notify"].member == google_service_account.push.member && google_cloud_run_v2_service_iam_member.push_calls["notify"].name == "hubrelay-notify"
    error_message = "Pub/Sub and the scheduler cannot call Notify."
  }
  # Cloud Run takes an address of the service as the audience, and no other.
  assert {
    condition     = google_cloudfunctions2_function.this["notify"].service_config[0].environment_variables["PUSH_AUDIENCE"] == "https://hubrelay-notify-123456789012.europe-west1.run.app"
    error_message = "Cloud Run refuses the tokens that Notify expects."
  }
}

run "accounts_are_distinct" {
  command = plan

  assert {
    condition = length(distinct(concat(
      [for account in google_service_account.function : account.account_id],
      [google_service_account.build.account_id, google_service_account.push.account_id],
    ))) == 5
    error_message = "Two parts share an account."
  }
  assert {
    condition     = toset(keys(google_service_account.function)) == toset(keys(google_cloudfunctions2_function.this))
    error_message = "A function has no account of its own."
  }
}

run "roles_are_small_and_narrow" {
  command = plan

  # Of all roles that are given on the project, two are narrowed to a resource,
  # and one cannot be.
  assert {
    condition     = length(google_project_iam_member.build_reads_source.condition) == 1 && alltrue([for m in google_project_iam_member.function_uses_ledger : length(m.condition) == 1])
    error_message = "A role on the project is not narrowed."
  }
  assert {
    condition     = alltrue([for m in google_project_iam_member.function_uses_ledger : m.condition[0].expression == "resource.name == \"projects/acme-hubrelay/databases/hubrelay\""])
    error_message = "A function may use another database."
  }
  assert {
    condition = alltrue([for file in fileset(path.module, "*.tf") :
      !can(regex("roles/(?:owner|editor|viewer|iam\\.serviceAccountUser|secretmanager\\.admin|pubsub\\.(?:admin|editor)|run\\.admin)\"", file("${path.module}/${file}")))
    ])
    error_message = "A wide role is given."
  }
  assert {
    condition     = alltrue([for m in google_secret_manager_secret_iam_member.function_reads_secret : m.role == "roles/secretmanager.secretAccessor"]) && length(google_secret_manager_secret_iam_member.function_reads_secret) == 3
    error_message = "Secrets can be read by others than their functions."
  }
  assert {
    condition     = google_pubsub_topic_iam_member.webhook_publishes_pushes.topic == "hubrelay-pushes" && google_pubsub_topic_iam_member.trigger_publishes_pushes.topic == "hubrelay-pushes" && google_pubsub_topic_iam_member.trigger_publishes_pushes.member == google_service_account.function["trigger"].member && google_pubsub_topic_iam_member.trigger_publishes_dead_letters.topic == "hubrelay-dead-letters" && google_pubsub_topic_iam_member.pubsub_publishes_dead_letters.topic == "hubrelay-dead-letters"
    error_message = "A publisher has the wrong topic."
  }
  assert {
    condition     = google_service_account_iam_member.pubsub_signs_in_as_push.member == "serviceAccount:service-123456789012@gcp-sa-pubsub.iam.gserviceaccount.com" && google_service_account_iam_member.pubsub_signs_in_as_push.role == "roles/iam.serviceAccountOpenIdTokenCreator"
    error_message = "Pub/Sub cannot sign in as the push account, or may do more than that."
  }
}

run "pushes_are_tried_again_and_then_kept" {
  command = plan

  assert {
    condition     = google_pubsub_subscription.trigger.retry_policy[0].minimum_backoff == "10s" && google_pubsub_subscription.trigger.retry_policy[0].maximum_backoff == "600s"
    error_message = "The waits are not 10 to 600 s."
  }
  assert {
    condition     = google_pubsub_subscription.trigger.dead_letter_policy[0].max_delivery_attempts == 50
    error_message = "A push does not get 50 deliveries."
  }
  assert {
    condition     = google_pubsub_subscription.trigger.message_retention_duration == "604800s"
    error_message = "Pushes are not kept for seven days."
  }
  assert {
    condition     = google_pubsub_subscription.trigger.ack_deadline_seconds > google_cloudfunctions2_function.this["trigger"].service_config[0].timeout_seconds
    error_message = "Pub/Sub delivers a push again while Trigger works on it."
  }
  assert {
    condition     = google_pubsub_subscription.trigger.push_config[0].oidc_token[0].audience == google_cloudfunctions2_function.this["trigger"].service_config[0].uri
    error_message = "Cloud Run refuses the token of another audience."
  }
}

run "the_clock_calls_both" {
  command = plan

  variables {
    silent_after = "90m"
  }

  assert {
    condition = { for key, job in google_cloud_scheduler_job.this : job.name => [job.schedule, job.http_target[0].http_method, job.http_target[0].uri] } == {
      hubrelay-reconcile = ["*/5 * * * *", "POST", "https://mock-abcdefghij-ew.a.run.app/reconcile"]
      hubrelay-tick      = ["* * * * *", "POST", "https://mock-abcdefghij-ew.a.run.app/tick"]
    }
    error_message = "The scheduler does not call Trigger every five minutes and Notify every minute."
  }
  assert {
    condition     = alltrue([for job in google_cloud_scheduler_job.this : job.http_target[0].oidc_token[0].service_account_email == google_service_account.push.email])
    error_message = "The scheduler calls as somebody else than the push account."
  }
  assert {
    condition     = google_cloud_scheduler_job.this["tick"].http_target[0].oidc_token[0].audience == google_cloudfunctions2_function.this["notify"].service_config[0].environment_variables["PUSH_AUDIENCE"]
    error_message = "The scheduler's token is not one that Notify takes."
  }
  assert {
    condition     = google_cloud_scheduler_job.this["reconcile"].http_target[0].oidc_token[0].audience == google_pubsub_subscription.trigger.push_config[0].oidc_token[0].audience
    error_message = "The scheduler's token is not one that Trigger's service takes."
  }
  assert {
    condition     = google_cloudfunctions2_function.this["notify"].service_config[0].environment_variables["SILENT_AFTER"] == "90m"
    error_message = "Notify does not know how long a pipeline may be silent."
  }
}

run "docker_hub_is_asked_what_was_pushed" {
  command = plan

  assert {
    condition = { for setting in ["HUB_URL", "RECONCILE"] : setting => google_cloudfunctions2_function.this["trigger"].service_config[0].environment_variables[setting] } == {
      HUB_URL   = "https://hub.docker.com"
      RECONCILE = "on"
    }
    error_message = "Pushes that no webhook told of are not looked for."
  }
}

run "the_registry_of_docker_hub_may_be_written_with_a_slash" {
  command = plan

  variables {
    registry = "https://Registry-1.docker.io/"
  }

  assert {
    condition     = google_cloudfunctions2_function.this["trigger"].service_config[0].environment_variables["RECONCILE"] == "on"
    error_message = "Docker Hub's registry is taken for another one."
  }
}

run "docker_hub_is_not_asked_about_another_registry" {
  command = plan

  variables {
    registry = "https://registry.acme.example"
  }

  assert {
    condition     = google_cloudfunctions2_function.this["trigger"].service_config[0].environment_variables["RECONCILE"] == "off"
    error_message = "Docker Hub is asked what was pushed elsewhere."
  }
}

run "reconcile_can_be_switched_off" {
  command = plan

  variables {
    reconcile = false
  }

  assert {
    condition     = google_cloudfunctions2_function.this["trigger"].service_config[0].environment_variables["RECONCILE"] == "off"
    error_message = "Docker Hub is asked all the same."
  }
  assert {
    condition     = contains(keys(google_cloud_scheduler_job.this), "reconcile")
    error_message = "Tags that were left are not looked at: switching it off is for Docker Hub only."
  }
}

run "the_number_of_attempts_can_be_set" {
  command = plan

  variables {
    max_delivery_attempts = 7
  }

  assert {
    condition     = google_pubsub_subscription.trigger.dead_letter_policy[0].max_delivery_attempts == 7
    error_message = "The number of attempts is not the one that was set."
  }
}

run "dead_letters_never_expire" {
  command = plan

  assert {
    condition     = google_pubsub_subscription.dead_letters.message_retention_duration == "2678400s" && length(google_pubsub_subscription.dead_letters.push_config) == 0
    error_message = "Dead letters do not wait for 31 days."
  }
  assert {
    condition     = alltrue([for s in [google_pubsub_subscription.trigger, google_pubsub_subscription.dead_letters, google_pubsub_subscription.dead_letters_notify] : s.expiration_policy[0].ttl == ""])
    error_message = "A subscription goes away when it is idle."
  }
  assert {
    condition     = google_pubsub_subscription.dead_letters_notify.push_config[0].push_endpoint == "https://mock-abcdefghij-ew.a.run.app/dead-letter"
    error_message = "Notify does not hear of dead letters."
  }
  assert {
    condition     = google_pubsub_subscription.dead_letters_notify.push_config[0].oidc_token[0].audience == google_cloudfunctions2_function.this["notify"].service_config[0].environment_variables["PUSH_AUDIENCE"]
    error_message = "Notify refuses dead letters: it expects another audience."
  }
  assert {
    condition     = google_cloudfunctions2_function.this["notify"].service_config[0].environment_variables["PUSH_SERVICE_ACCOUNT"] == "${google_service_account.push.account_id}@acme-hubrelay.iam.gserviceaccount.com"
    error_message = "Notify refuses dead letters: it expects another account."
  }
}

run "what_cannot_be_made_again_is_protected" {
  command = plan

  assert {
    condition     = google_firestore_database.ledger.name == "hubrelay" && google_firestore_database.ledger.delete_protection_state == "DELETE_PROTECTION_ENABLED" && google_firestore_database.ledger.location_id == "europe-west1"
    error_message = "The ledger is not a protected database of its own."
  }
  assert {
    condition = alltrue([for policy in [
      google_pubsub_topic.pushes.deletion_policy, google_pubsub_topic.dead_letters.deletion_policy,
      google_pubsub_subscription.trigger.deletion_policy, google_pubsub_subscription.dead_letters.deletion_policy, google_pubsub_subscription.dead_letters_notify.deletion_policy,
    ] : policy == "PREVENT"])
    error_message = "terraform destroy takes queued pushes and dead letters away."
  }
}

run "the_ledger_is_shared_and_forgets" {
  command = plan

  assert {
    condition     = toset(keys(google_firestore_field.expires_at)) == toset(["promotions", "tags"]) && alltrue([for collection, f in google_firestore_field.expires_at : length(f.ttl_config) == 1 && f.collection == collection && f.field == "expires_at" && f.database == "hubrelay"])
    error_message = "Records do not expire, or those do that must stay."
  }
  assert {
    condition = alltrue([for name in ["trigger", "notify"] :
      google_cloudfunctions2_function.this[name].service_config[0].environment_variables["LEDGER"] == "firestore:projects/acme-hubrelay/databases/hubrelay"
    ])
    error_message = "Trigger and Notify do not share the ledger."
  }
}

run "the_ledger_can_be_elsewhere_and_all_removed" {
  command = plan

  variables {
    ledger_location     = "eur3"
    deletion_protection = false
  }

  assert {
    condition     = google_firestore_database.ledger.location_id == "eur3" && google_firestore_database.ledger.delete_protection_state == "DELETE_PROTECTION_DISABLED"
    error_message = "The ledger is not where, or as, it was set."
  }
  assert {
    condition     = alltrue([for policy in [google_pubsub_topic.pushes.deletion_policy, google_pubsub_topic.dead_letters.deletion_policy, google_pubsub_subscription.trigger.deletion_policy, google_pubsub_subscription.dead_letters.deletion_policy, google_pubsub_subscription.dead_letters_notify.deletion_policy] : policy == "DELETE"])
    error_message = "The queue stays for ever."
  }
}

# docs/operations.md has a section for each alert, with the name and the metric of
# each of its conditions. A test in Go looks whether the code writes what is
# counted.
run "every_alert_is_in_the_runbook" {
  command = plan

  assert {
    condition     = toset(keys(google_monitoring_alert_policy.this)) == toset(["dead-letters", "backlog", "errors", "unreachable", "webhooks", "clock", "slack", "unauthorized"])
    error_message = "An alert is missing."
  }
  assert {
    condition = alltrue([for key, a in google_monitoring_alert_policy.this :
      a.documentation[0].links[0].url == "https://github.com/getto-systems/hubrelay/blob/main/docs/operations.md#alert-${key}"
      && strcontains(a.documentation[0].content, a.documentation[0].links[0].url)
      && strcontains(file("${path.module}/../docs/operations.md"), "\n## Alert: ${replace(key, "-", " ")}\n")
    ])
    error_message = "An alert does not link its section of docs/operations.md, or there is none."
  }
  assert {
    condition = alltrue(flatten([for key, a in google_monitoring_alert_policy.this : [for c in a.conditions : [for words in [
      c.display_name,
      regex("metric\\.type=\"([a-z./_]+[a-z-]+)\"", c.condition_threshold[0].filter)[0],
      ] :
      strcontains(split("\n## ", split("\n## Alert: ${replace(key, "-", " ")}\n", file("${path.module}/../docs/operations.md"))[1])[0], words)
    ]]]))
    error_message = "docs/operations.md does not say when an alert is raised, in the words and by the metric of its conditions."
  }
}

run "alerts_are_raised_when_they_say" {
  command = plan

  assert {
    condition = { for c in flatten([for a in google_monitoring_alert_policy.this : a.conditions]) : c.display_name => [
      c.condition_threshold[0].comparison, tostring(c.condition_threshold[0].threshold_value), c.condition_threshold[0].aggregations[0].alignment_period, c.condition_threshold[0].duration,
      ] } == {
      "dead letters wait"                              = ["COMPARISON_GT", "0", "60s", "0s"]
      "the oldest message is half an hour old"         = ["COMPARISON_GT", "1800", "60s", "0s"]
      "more than 5% of requests end in 5xx"            = ["COMPARISON_GT", "0.05", "600s", "0s"]
      "a request was turned away"                      = ["COMPARISON_GT", "0", "600s", "0s"]
      "/ready does not answer"                         = ["COMPARISON_GT", "1", "600s", "0s"]
      "more than three missed pushes in a day"         = ["COMPARISON_GT", "3", "86400s", "0s"]
      "Docker Hub refuses to be asked for three hours" = ["COMPARISON_GT", "0", "3600s", "10800s"]
      "no tick or no reconcile for half an hour"       = ["COMPARISON_LT", "1", "1800s", "60s"]
      "Cloud Scheduler's calls fail"                   = ["COMPARISON_GT", "2", "1200s", "0s"]
      "Slack is not told for half an hour"             = ["COMPARISON_GT", "0", "1200s", "1800s"]
      "more than 50 answers of 401 in ten minutes"     = ["COMPARISON_GT", "50", "600s", "0s"]
    }
    error_message = "An alert is raised at another moment than its name says."
  }
}

# Cloud Run's own count of requests has only those that an instance saw.
run "callers_that_are_turned_away_are_seen" {
  command = plan

  assert {
    condition = alltrue([for words in ["hubrelay-webhook", "hubrelay-notify", "log_id(\"run.googleapis.com/requests\")", "httpRequest.status=429", "textPayload:*"] :
      strcontains(google_logging_metric.unreached.filter, words)
    ])
    error_message = "Requests that Google answers by itself are not counted."
  }
  assert {
    condition     = { for key, c in google_monitoring_uptime_check_config.ready : key => "${c.monitored_resource[0].labels.host}${c.http_check[0].path}" } == { webhook = "mock-abcdefghij-ew.a.run.app/ready", notify = "mock-abcdefghij-ew.a.run.app/ready" }
    error_message = "Nobody looks from outside whether Webhook and Notify answer."
  }
  assert {
    condition     = strcontains(google_monitoring_alert_policy.this["unreachable"].conditions[0].condition_threshold[0].filter, "one_of(\"hubrelay-ready-mock\", \"hubrelay-ready-mock\")")
    error_message = "A look from outside that fails raises no alert."
  }
}

run "a_clock_that_stands_still_is_seen" {
  command = plan

  assert {
    condition     = strcontains(google_logging_metric.missed_ticks.filter, "\"hubrelay-reconcile\" OR \"hubrelay-tick\"")
    error_message = "Calls of the scheduler that fail are not counted."
  }
  assert {
    condition     = [for c in google_monitoring_alert_policy.this["clock"].conditions : c.condition_threshold[0].evaluation_missing_data if c.condition_threshold[0].comparison == "COMPARISON_LT"] == ["EVALUATION_MISSING_DATA_ACTIVE"]
    error_message = "Where there are no ticks at all there is no alert."
  }
}

run "alerts_reach_channels_and_slack" {
  command = plan

  variables {
    alert_channels      = ["projects/acme-hubrelay/notificationChannels/1"]
    alert_slack_channel = "#ops"
  }

  assert {
    condition     = alltrue([for a in google_monitoring_alert_policy.this : a.notification_channels == tolist(["projects/acme-hubrelay/notificationChannels/1", "projects/acme-hubrelay/notificationChannels/2"])])
    error_message = "An alert does not reach every channel."
  }
  assert {
    condition     = google_monitoring_notification_channel.slack[0].labels == tomap({ channel_name = "#ops" }) && google_monitoring_notification_channel.slack[0].sensitive_labels[0].auth_token == null
    error_message = "The Slack channel is wrong, or its token is kept."
  }
}

run "alerts_can_be_switched_off" {
  command = plan

  variables {
    alerts = false
  }

  assert {
    condition     = length(google_monitoring_alert_policy.this) == 0 && length(google_monitoring_uptime_check_config.ready) == 0
    error_message = "There are alerts, or looks that only they need."
  }
}

run "what_happens_is_seen" {
  command = plan

  assert {
    condition     = google_logging_metric.outcomes.label_extractors == tomap({ message = "EXTRACT(jsonPayload.message)", severity = "EXTRACT(severity)", outcome = "EXTRACT(jsonPayload.outcome)", reason = "EXTRACT(jsonPayload.reason)" })
    error_message = "Decisions are not counted by message, severity, outcome and reason."
  }
  assert {
    condition = alltrue([for metric in ["logging.googleapis.com/user/hubrelay-outcomes", "num_undelivered_messages", "oldest_unacked_message_age", "request_latencies", "request_count"] :
      strcontains(google_monitoring_dashboard.this.dashboard_json, metric)
    ])
    error_message = "The dashboard lacks something."
  }
}

run "tokens_in_urls_are_not_logged" {
  command = plan

  assert {
    condition     = strcontains(google_logging_project_exclusion.webhook_urls.filter, "service_name=\"hubrelay-webhook\"") && strcontains(google_logging_project_exclusion.webhook_urls.filter, "log_id(\"run.googleapis.com/requests\")")
    error_message = "Cloud Run's request log keeps the URLs of webhooks."
  }
}

run "two_can_live_in_one_project" {
  command = plan

  variables {
    name = "hubrelay-staging"
  }

  assert {
    condition = alltrue([for name in concat(
      [for f in google_cloudfunctions2_function.this : f.name],
      [for a in google_service_account.function : a.account_id],
      [for s in google_secret_manager_secret.managed : s.secret_id],
      [google_pubsub_topic.pushes.name, google_pubsub_topic.dead_letters.name],
      [google_pubsub_subscription.trigger.name, google_pubsub_subscription.dead_letters.name, google_pubsub_subscription.dead_letters_notify.name],
      [google_firestore_database.ledger.name, google_artifact_registry_repository.images.repository_id, google_logging_metric.outcomes.name, google_logging_metric.unreached.name, google_logging_metric.missed_ticks.name, google_logging_project_exclusion.webhook_urls.name],
      [for job in google_cloud_scheduler_job.this : job.name],
    ) : startswith(name, "hubrelay-staging")])
    error_message = "Two would share a name."
  }
}

run "outputs_say_how_to_go_on" {
  command = plan

  assert {
    condition     = output.webhook_url == "https://mock-abcdefghij-ew.a.run.app" && output.notify_url == output.webhook_url
    error_message = "An address is wrong."
  }
  assert {
    condition     = output.dashboard_url == "https://console.cloud.google.com/monitoring/dashboards/builder/00000000-0000-0000-0000-000000000000?project=acme-hubrelay"
    error_message = "The dashboard's address is wrong."
  }
  assert {
    condition     = output.notify_audience == google_cloudfunctions2_function.this["notify"].service_config[0].environment_variables["OIDC_AUDIENCE"]
    error_message = "Notify expects another audience than the output says."
  }
  assert {
    condition     = tomap(output.settings.trigger) == google_cloudfunctions2_function.this["trigger"].service_config[0].environment_variables && toset(keys(output.settings)) == toset(["webhook", "trigger", "notify"]) && output.trigger_url == output.webhook_url
    error_message = "Other settings are checked than those that are deployed."
  }
  assert {
    condition     = strcontains(output.commands.logs, "service_name=(\"hubrelay-webhook\" OR \"hubrelay-trigger\" OR \"hubrelay-notify\")")
    error_message = "The logs are those of another hubrelay, too."
  }
}

run "a_deploy_that_failed_is_told" {
  command = plan

  override_resource {
    target          = google_cloudfunctions2_function.this
    override_during = plan
    values = {
      state = "FAILED"
      service_config = {
        uri = "https://mock-abcdefghij-ew.a.run.app"
      }
    }
  }

  expect_failures = [check.functions]
}

run "a_gitlab_with_a_ca_of_its_own" {
  command = plan

  variables {
    gitlab_ca = "-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIUQ2FuYXJ5\n-----END CERTIFICATE-----\n"
  }

  assert {
    condition = { for name, f in google_cloudfunctions2_function.this : name => [for v in f.service_config[0].secret_volumes : "${v.mount_path}/${v.versions[0].path} of ${v.secret}/${v.versions[0].version}"] } == {
      webhook = []
      trigger = ["/etc/hubrelay/gitlab-ca.pem of hubrelay-gitlab-ca/7"]
      notify  = ["/etc/hubrelay/gitlab-ca.pem of hubrelay-gitlab-ca/7"]
    }
    error_message = "The CA is not where GitLab is called from."
  }
  assert {
    condition     = { for name, f in google_cloudfunctions2_function.this : name => lookup(f.service_config[0].environment_variables, "SSL_CERT_FILE", "") } == { webhook = "", trigger = "/etc/hubrelay/gitlab-ca.pem", notify = "/etc/hubrelay/gitlab-ca.pem" }
    error_message = "Go is not told where the CA is."
  }
  assert {
    condition     = toset(keys(google_secret_manager_secret_iam_member.function_reads_ca)) == toset(["trigger", "notify"]) && alltrue([for m in google_secret_manager_secret_iam_member.function_reads_ca : m.secret_id == "hubrelay-gitlab-ca"])
    error_message = "A function may not read the CA."
  }
}

run "where_an_organisation_says_where_data_may_be" {
  command = plan

  variables {
    secret_locations = ["europe-west1", "europe-west4"]
    gitlab_ca        = "-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIUQ2FuYXJ5\n-----END CERTIFICATE-----\n"
  }

  assert {
    condition     = length(google_secret_manager_secret.managed) == 4 && alltrue([for s in google_secret_manager_secret.managed : length(s.replication[0].auto) == 0 && [for r in s.replication[0].user_managed[0].replicas : r.location] == ["europe-west1", "europe-west4"]])
    error_message = "A secret is kept elsewhere."
  }
}

run "where_an_organisation_wants_its_own_key" {
  command = plan

  variables {
    kms_key = "projects/acme-keys/locations/europe-west1/keyRings/hubrelay/cryptoKeys/hubrelay"
  }

  assert {
    condition = alltrue([for key in concat(
      [for f in google_cloudfunctions2_function.this : f.kms_key_name],
      [for s in google_secret_manager_secret.managed : s.replication[0].user_managed[0].replicas[0].customer_managed_encryption[0].kms_key_name],
      [
        google_pubsub_topic.pushes.kms_key_name, google_pubsub_topic.dead_letters.kms_key_name,
        google_firestore_database.ledger.cmek_config[0].kms_key_name,
        google_storage_bucket.source.encryption[0].default_kms_key_name,
        google_artifact_registry_repository.images.kms_key_name,
      ],
    ) : key == var.kms_key])
    error_message = "Something is kept under another key."
  }
}

run "a_url_too_long_for_docker_hub_is_told" {
  command = plan

  override_resource {
    target          = google_cloudfunctions2_function.this
    override_during = plan
    values = {
      state = "ACTIVE"
      service_config = {
        uri = "https://mock-abcdefghij-ew.a.run.app/0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"
      }
    }
  }

  expect_failures = [check.webhook_url]
}

run "half_a_cpu_for_many_requests_is_told" {
  command = plan

  variables {
    sizes = { webhook = { cpu = 0.5 } }
  }

  expect_failures = [google_cloudfunctions2_function.this["webhook"]]
}

run "a_timeout_beyond_the_ack_deadline_is_told" {
  command = plan

  variables {
    sizes = { trigger = { timeout = 571 }, notify = { timeout = 571 } }
  }

  expect_failures = [google_pubsub_subscription.trigger, google_pubsub_subscription.dead_letters_notify]
}
