# What only shows of what is deployed. A check that fails is a warning of plan
# and apply: all else works. What must not be deployed is refused where it is
# written, by validations (variables.tf) and preconditions (functions.tf,
# pubsub.tf).

check "webhook_url" {
  assert {
    condition     = length(google_cloudfunctions2_function.this["webhook"].service_config[0].uri) + 1 + local.longest_token <= 255
    error_message = "Docker Hub takes URLs of 255 characters, and that of the webhook would be longer with the longest token: keep webhook tokens to ${255 - 1 - length(google_cloudfunctions2_function.this["webhook"].service_config[0].uri)} characters."
  }
}

# A deploy that failed looks up to date to the next plan: Google has the new
# settings, and goes on with the old revision.
check "functions" {
  assert {
    condition     = alltrue([for function in google_cloudfunctions2_function.this : function.state == "ACTIVE"])
    error_message = "The last deploy of ${join(", ", [for function in google_cloudfunctions2_function.this : function.name if function.state != "ACTIVE"])} failed: the old revision serves, and another apply changes nothing. ${local.runbook}#a-deploy-that-failed says what to do."
  }
}
