# For a GitLab whose certificate is signed by a CA of one's own: a file in Trigger
# and Notify that SSL_CERT_FILE names. Go reads it in the place of the system's
# bundle, and the system's directory of certificates beside it, so that Docker Hub
# and Google are trusted as ever: https://go.dev/src/crypto/x509/root_unix.go
locals {
  call_gitlab  = var.gitlab_ca == null ? [] : ["trigger", "notify"]
  ca_directory = "/etc/hubrelay"
  ca_file      = "gitlab-ca.pem"
  ca_secrets   = var.gitlab_ca == null ? {} : { GITLAB_CA = { id = "${var.name}-gitlab-ca" } }
}

# A certificate is no secret: it is one (secrets.tf) because a function can mount
# nothing else. So its value may be in the state, and Terraform sees by itself
# that it has changed.
resource "google_secret_manager_secret_version" "ca" {
  count = var.gitlab_ca == null ? 0 : 1

  secret          = google_secret_manager_secret.managed["GITLAB_CA"].id
  secret_data     = var.gitlab_ca
  deletion_policy = "ABANDON" # as those in secrets.tf

  lifecycle {
    create_before_destroy = true
  }
}

resource "google_secret_manager_secret_iam_member" "function_reads_ca" {
  for_each = toset(local.call_gitlab)

  project   = google_secret_manager_secret.managed["GITLAB_CA"].project
  secret_id = google_secret_manager_secret.managed["GITLAB_CA"].secret_id
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.function[each.key].member

  lifecycle {
    create_before_destroy = true
  }
}
