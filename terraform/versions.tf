terraform {
  # Write-only arguments, which keep secrets out of plan and state, came with
  # 1.11: https://developer.hashicorp.com/terraform/language/manage-sensitive-data/write-only
  required_version = ">= 1.11"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "~> 7.45"
    }
    archive = {
      source  = "hashicorp/archive"
      version = "~> 2.8"
    }
  }
}

# There is no provider block: every resource names its project, so that this
# directory is a module as it stands, and a root for `terraform apply`, too.
