# Builds run as an account of their own: the default one may not exist in a new
# project, and may do far more elsewhere.
# https://cloud.google.com/functions/docs/securing/build-custom-sa
resource "google_service_account" "build" {
  project      = local.project
  account_id   = "${var.name}-build"
  display_name = "${var.name}: builds the functions"
}

# The images of the functions. The repository that Cloud Functions would make
# keeps every one for ever; here the last five of each function stay, to go back
# to. https://cloud.google.com/artifact-registry/docs/repositories/cleanup-policy
resource "google_artifact_registry_repository" "images" {
  project       = local.project
  location      = var.region
  repository_id = var.name
  description   = "Images of the functions of ${var.name}, made by Cloud Build"
  format        = "DOCKER"
  kms_key_name  = var.kms_key

  cleanup_policies {
    id     = "delete-old"
    action = "DELETE"
    condition {
      tag_state  = "ANY"
      older_than = "2592000s" # 30 days
    }
  }
  cleanup_policies {
    id     = "keep-last-five"
    action = "KEEP"
    most_recent_versions {
      keep_count = 5
    }
  }
}
