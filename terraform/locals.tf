locals {
  # The project, for whoever needs its APIs: what takes the project from here
  # is created after they are enabled.
  project = one(toset([for api in google_project_service.this : api.project]))

  # The three functions by their short names, which are also the names of their
  # service accounts and Cloud Run services, after var.name.
  webhook = "${var.name}-webhook"
  trigger = "${var.name}-trigger"
  notify  = "${var.name}-notify"

  # Google's own account that delivers Pub/Sub messages:
  # https://cloud.google.com/iam/docs/service-agents#cloud-pubsub-service-account
  pubsub_agent = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-pubsub.iam.gserviceaccount.com"

  # Routes as the functions read them. What nobody wrote stays out: the defaults
  # are the functions' own, and an environment has room for 32 KiB.
  routes = jsonencode({
    for key, route in var.routes : key => {
      for field, value in merge(route, {
        gitlab = { for name, given in route.gitlab : name => given if given != "" }
        tags   = { for name, patterns in route.tags : name => patterns if length(patterns) > 0 }
      }) : field => value if !contains(["\"\"", "false", "{}"], jsonencode(value))
    }
  })

  # The audiences of the two kinds of tokens that Notify takes. They are names,
  # not addresses: each says for which hubrelay a token was made, and is known
  # before there is a URL.
  notify_audience = "https://${var.region}-${var.project_id}.cloudfunctions.net/${local.notify}"
  push_audience   = "${local.notify_audience}/dead-letter"
}
