output "webhook_url" {
  description = "Where Docker Hub's webhook goes: append / and a token, and paste it into the repository's Webhooks. Without a token it is no secret."
  value       = google_cloudfunctions2_function.this["webhook"].service_config[0].uri
}

output "notify_url" {
  description = "Where pipelines report to."
  value       = google_cloudfunctions2_function.this["notify"].service_config[0].uri
}

output "trigger_url" {
  description = "Trigger's address, which only Google's callers may call; hubrelay check tries whether that is so."
  value       = google_cloudfunctions2_function.this["trigger"].service_config[0].uri
}

output "settings" {
  description = "The settings of each function that are no secrets, for hubrelay check."
  value       = local.environments
}

output "notify_audience" {
  description = "The aud of the id token with which a pipeline reports."
  value       = local.notify_audience
}

output "dashboard_url" {
  description = "The dashboard, in Google's console."
  value       = "https://console.cloud.google.com/monitoring/dashboards/builder/${element(split("/", google_monitoring_dashboard.this.id), 3)}?project=${var.project_id}"
}

output "dead_letter_subscription" {
  description = "Where dead letters wait to be replayed."
  value       = google_pubsub_subscription.dead_letters.id
}

output "pushes_topic" {
  description = "Where pushes are queued, and dead letters are replayed to."
  value       = google_pubsub_topic.pushes.id
}

output "ledger" {
  description = "The record of promotions, as the setting LEDGER names it."
  value       = "firestore:projects/${var.project_id}/databases/${google_firestore_database.ledger.name}"
}

output "commands" {
  description = "What to do next, to be pasted into a shell."
  value = {
    ready        = "curl --fail ${google_cloudfunctions2_function.this["webhook"].service_config[0].uri}/ready ${google_cloudfunctions2_function.this["notify"].service_config[0].uri}/ready"
    check        = "terraform -chdir=terraform output -json | go run ./cmd/hubrelay check -terraform -"
    smoke_test   = "go run ./cmd/hubrelay push ${google_cloudfunctions2_function.this["webhook"].service_config[0].uri}/TOKEN REPOSITORY:TAG"
    logs         = "gcloud logging read 'resource.type=cloud_run_revision AND resource.labels.service_name=(\"${local.webhook}\" OR \"${local.trigger}\" OR \"${local.notify}\") AND jsonPayload.message:*' --project ${var.project_id} --limit 20 --format 'table(timestamp, resource.labels.service_name, jsonPayload.message, jsonPayload.reason, jsonPayload.repository, jsonPayload.tag)'"
    dead_letters = "go run ./cmd/hubrelay replay --subscription ${google_pubsub_subscription.dead_letters.id}"
    status       = "go run ./cmd/hubrelay status --ledger firestore:projects/${var.project_id}/databases/${google_firestore_database.ledger.name}"
  }
}
