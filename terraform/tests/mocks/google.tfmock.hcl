# What Google would answer, in forms that the real provider's own checks accept.

mock_data "google_project" {
  defaults = {
    number = "123456789012"
  }
}

mock_resource "google_service_account" {
  defaults = {
    name   = "projects/acme-hubrelay/serviceAccounts/mocked-account@acme-hubrelay.iam.gserviceaccount.com"
    email  = "mocked-account@acme-hubrelay.iam.gserviceaccount.com"
    member = "serviceAccount:mocked-account@acme-hubrelay.iam.gserviceaccount.com"
  }
}

mock_resource "google_cloudfunctions2_function" {
  defaults = {
    id    = "projects/acme-hubrelay/locations/europe-west1/functions/mock"
    state = "ACTIVE"
    service_config = {
      uri = "https://mock-abcdefghij-ew.a.run.app"
    }
  }
}

mock_resource "google_pubsub_topic" {
  defaults = {
    id = "projects/acme-hubrelay/topics/mock"
  }
}

mock_resource "google_pubsub_subscription" {
  defaults = {
    id = "projects/acme-hubrelay/subscriptions/mock"
  }
}

mock_resource "google_secret_manager_secret" {
  defaults = {
    id = "projects/acme-hubrelay/secrets/mock"
  }
}

mock_resource "google_secret_manager_secret_version" {
  defaults = {
    version = "7"
  }
}

mock_resource "google_artifact_registry_repository" {
  defaults = {
    id   = "projects/acme-hubrelay/locations/europe-west1/repositories/mock"
    name = "mock"
  }
}

mock_resource "google_monitoring_dashboard" {
  defaults = {
    id = "projects/123456789012/dashboards/00000000-0000-0000-0000-000000000000"
  }
}

mock_resource "google_monitoring_notification_channel" {
  defaults = {
    name = "projects/acme-hubrelay/notificationChannels/2"
  }
}

mock_resource "google_monitoring_uptime_check_config" {
  defaults = {
    uptime_check_id = "hubrelay-ready-mock"
  }
}
