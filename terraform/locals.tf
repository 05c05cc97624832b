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
        slack  = { for name, given in route.slack : name => given if given != "" }
      }) : field => value if !contains(["\"\"", "{}"], jsonencode(value))
    }
  })

  # Whether Trigger asks Docker Hub for pushes that it was never told of: what
  # stands in another registry, Docker Hub does not know.
  asks_docker_hub = var.reconcile && lower(trimsuffix(var.registry, "/")) == "https://registry-1.docker.io"

  # The audiences of the two kinds of tokens that Notify takes: GitLab's and
  # Google's. Each says for which hubrelay a token was made, and is known before
  # there is a function. Google's is an address of Notify, for Cloud Run takes no
  # other where it asks who calls:
  # https://cloud.google.com/run/docs/triggering/https-request#deterministic
  notify_audience = "https://${var.region}-${var.project_id}.cloudfunctions.net/${local.notify}"
  push_audience   = "https://${local.notify}-${data.google_project.this.number}.${var.region}.run.app"

  # Of what cannot be made again.
  deletion_policy = var.deletion_protection ? "PREVENT" : "DELETE"
}
