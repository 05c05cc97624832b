# What is deployed: the Go packages that the functions are made of, and nothing
# that only people and tests need. Cloud Functions builds it as it stands:
# https://cloud.google.com/run/docs/write-functions#structuring_code
locals {
  checkout = "${path.module}/.."

  source_included = ["*.go", "go.mod", "go.sum", "functions/**/*.go", "internal/**/*.go"]
  source_excluded = ["*_test.go", "**/*_test.go", "internal/**/*test/*.go", "internal/check/**", "internal/console/**", "internal/coordinator/**", "internal/deadletter/**", "internal/sandbox/**", "internal/skip/**", "**/testdata/**"]

  source_files = setsubtract(
    setunion([for pattern in local.source_included : fileset(local.checkout, pattern)]...),
    setunion([for pattern in local.source_excluded : fileset(local.checkout, pattern)]...),
  )
}

# One source block a file, for the archive is then the same whatever the modes
# and times of the files are; source_dir would put them in:
# https://github.com/hashicorp/terraform-provider-archive/issues/34
data "archive_file" "source" {
  type        = "zip"
  output_path = "${path.root}/.terraform/${var.project_id}-${var.name}-source.zip"

  dynamic "source" {
    for_each = local.source_files
    content {
      filename = source.value
      content  = file("${local.checkout}/${source.value}")
    }
  }
}

resource "google_storage_bucket" "source" {
  project  = local.project
  name     = "${var.project_id}-${var.name}-source"
  location = var.region

  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = true # it holds nothing that a checkout does not

  dynamic "encryption" {
    for_each = var.kms_key[*]
    content {
      default_kms_key_name = encryption.value
    }
  }

  # Seven days of every archive that was replaced would cost, and serve nobody.
  soft_delete_policy {
    retention_duration_seconds = 0
  }
}

# The archive's hash is its name, and the name is what tells Cloud Functions to
# build anew. `generation` would, too, and is left out: it plans a change that
# is none (https://github.com/hashicorp/terraform-provider-google/issues/19134).
resource "google_storage_bucket_object" "source" {
  bucket = google_storage_bucket.source.name
  name   = "${data.archive_file.source.output_sha256}.zip"
  source = data.archive_file.source.output_path

  lifecycle {
    create_before_destroy = true
  }
}
