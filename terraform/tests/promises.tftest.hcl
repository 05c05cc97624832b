# What the README and docs/operations.md promise of a deploy.

mock_provider "google" {
  source          = "./tests/mocks"
  override_during = plan
}

mock_provider "archive" {
  source          = "./tests/mocks"
  override_during = plan
}

variables {
  project_id            = "acme-hubrelay"
  region                = "europe-west1"
  webhook_tokens        = ["canary-webhook-0123456789abcdef"]
  gitlab_trigger_tokens = { "*" = "canary-gitlab-0123456789" }
  slack_bot_token       = "xoxb-canary-0123456789"
  routes = {
    "acme/*" = {
      gitlab = { project = "acme/images/{name}" }
      slack  = { channel = "C0123456789" }
    }
  }
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
    condition     = google_cloud_run_v2_service_iam_member.push_calls_trigger.member == google_service_account.push.member && google_cloud_run_v2_service_iam_member.push_calls_trigger.name == "hubrelay-trigger"
    error_message = "The push account may not call Trigger."
  }
  assert {
    condition     = toset([for m in google_cloud_run_v2_service_iam_member.anybody_calls : m.name]) == toset(["hubrelay-webhook", "hubrelay-notify"])
    error_message = "Docker Hub or GitLab cannot call."
  }
}

run "public_access_can_be_switched_off" {
  command = plan

  variables {
    public_access = false
  }

  assert {
    condition     = length(google_cloud_run_v2_service_iam_member.anybody_calls) == 0
    error_message = "Somebody may still call."
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
    condition     = google_pubsub_topic_iam_member.webhook_publishes_pushes.topic == "hubrelay-pushes" && google_pubsub_topic_iam_member.trigger_publishes_dead_letters.topic == "hubrelay-dead-letters" && google_pubsub_topic_iam_member.pubsub_publishes_dead_letters.topic == "hubrelay-dead-letters"
    error_message = "A publisher has the wrong topic."
  }
  assert {
    condition     = google_service_account_iam_member.pubsub_signs_in_as_push.member == "serviceAccount:service-123456789012@gcp-sa-pubsub.iam.gserviceaccount.com"
    error_message = "Pub/Sub cannot sign in as the push account."
  }
}

run "pushes_are_tried_again_and_then_kept" {
  command = plan

  assert {
    condition     = google_pubsub_subscription.trigger.retry_policy[0].minimum_backoff == "10s" && google_pubsub_subscription.trigger.retry_policy[0].maximum_backoff == "600s"
    error_message = "The waits are not 10 to 600 s."
  }
  assert {
    condition     = google_pubsub_subscription.trigger.dead_letter_policy[0].max_delivery_attempts == 20
    error_message = "A push does not get 20 deliveries."
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

run "silence_is_looked_for" {
  command = plan

  variables {
    silent_after = "90m"
  }

  assert {
    condition     = google_cloud_scheduler_job.silence.http_target[0].uri == "https://mock-abcdefghij-ew.a.run.app/silent" && google_cloud_scheduler_job.silence.http_target[0].http_method == "POST"
    error_message = "The scheduler does not call Notify."
  }
  assert {
    condition     = google_cloud_scheduler_job.silence.http_target[0].oidc_token[0].service_account_email == google_service_account.push.email && google_cloud_scheduler_job.silence.http_target[0].oidc_token[0].audience == google_cloudfunctions2_function.this["notify"].service_config[0].environment_variables["PUSH_AUDIENCE"]
    error_message = "The scheduler's token is not one that Notify takes."
  }
  assert {
    condition     = google_cloudfunctions2_function.this["notify"].service_config[0].environment_variables["SILENT_AFTER"] == "90m"
    error_message = "Notify does not know how long a pipeline may be silent."
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

run "the_ledger_is_protected_and_forgets" {
  command = plan

  assert {
    condition     = google_firestore_database.ledger.name == "hubrelay" && google_firestore_database.ledger.delete_protection_state == "DELETE_PROTECTION_ENABLED" && google_firestore_database.ledger.location_id == "europe-west1"
    error_message = "The ledger is not a protected database of its own."
  }
  assert {
    condition     = alltrue([for f in google_firestore_field.expires_at : length(f.ttl_config) == 1 && f.field == "expires_at" && f.database == "hubrelay"])
    error_message = "Records do not expire."
  }
  assert {
    condition = alltrue([for name in ["trigger", "notify"] :
      google_cloudfunctions2_function.this[name].service_config[0].environment_variables["LEDGER"] == "firestore:projects/acme-hubrelay/databases/hubrelay"
    ])
    error_message = "Trigger and Notify do not share the ledger."
  }
}

run "the_ledger_can_be_elsewhere_and_removed" {
  command = plan

  variables {
    ledger_location     = "eur3"
    deletion_protection = false
  }

  assert {
    condition     = google_firestore_database.ledger.location_id == "eur3" && google_firestore_database.ledger.delete_protection_state == "DELETE_PROTECTION_DISABLED"
    error_message = "The ledger is not where, or as, it was set."
  }
}

run "every_alert_names_a_metric_and_a_section_of_the_runbook" {
  command = plan

  assert {
    condition     = toset(keys(google_monitoring_alert_policy.this)) == toset(["dead-letters", "backlog", "errors", "unauthorized"])
    error_message = "An alert is missing."
  }
  assert {
    condition     = alltrue([for a in google_monitoring_alert_policy.this : can(regex("metric\\.type=\"[a-z]+\\.googleapis\\.com/[a-z_/]+\"", a.conditions[0].condition_threshold[0].filter))])
    error_message = "An alert names no metric."
  }
  assert {
    condition = alltrue([for key, a in google_monitoring_alert_policy.this :
      a.documentation[0].links[0].url == "https://github.com/getto-systems/hubrelay/blob/main/docs/operations.md#alert-${key}"
      && strcontains(a.documentation[0].content, a.documentation[0].links[0].url)
      && strcontains(file("${path.module}/../docs/operations.md"), "\n## Alert: ${replace(key, "-", " ")}\n")
    ])
    error_message = "An alert does not link its section of docs/operations.md, or there is none."
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
    condition     = length(google_monitoring_alert_policy.this) == 0
    error_message = "There are alerts."
  }
}

run "what_happens_is_seen" {
  command = plan

  assert {
    condition     = google_logging_metric.outcomes.label_extractors == tomap({ outcome = "EXTRACT(jsonPayload.outcome)", reason = "EXTRACT(jsonPayload.reason)" })
    error_message = "Outcomes are not counted by outcome and reason."
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
      [google_firestore_database.ledger.name, google_artifact_registry_repository.images.repository_id, google_logging_metric.outcomes.name, google_logging_project_exclusion.webhook_urls.name],
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
}

run "a_url_too_long_for_docker_hub_is_told" {
  command = plan

  override_resource {
    target          = google_cloudfunctions2_function.this
    override_during = plan
    values = {
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
