# Where hubrelay runs.

variable "project_id" {
  description = "ID of the Google Cloud project that hubrelay runs in."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project_id))
    error_message = "project_id must be the ID of a project, such as acme-hubrelay, and neither its name nor its number: gcloud projects list shows it."
  }
}

variable "region" {
  description = "Region of all resources: https://cloud.google.com/functions/docs/locations. Regions of Tier 1 cost less."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "region must be a region, such as europe-west1, and not a zone or a multi-region: gcloud functions regions list shows them."
  }
}

variable "name" {
  description = "Prefix of the names of all resources. A second hubrelay in the same project needs another one."
  type        = string
  default     = "hubrelay"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{2,20}[a-z0-9]$", var.name))
    error_message = "name must have 4 to 22 lower-case letters, digits and hyphens, and start with a letter: service accounts have 30 characters, of which hubrelay needs 8."
  }

  # https://cloud.google.com/pubsub/docs/pubsub-basics#resource_names
  # https://cloud.google.com/storage/docs/buckets#naming
  validation {
    condition     = !can(regex("^goog|google|g00gle", var.name))
    error_message = "name must not begin with goog, nor have google in it: Google keeps such names of topics and buckets to itself."
  }
}

variable "ledger_location" {
  description = "Location of the Firestore database, if it is not the region, or the region has no Firestore: https://cloud.google.com/firestore/docs/locations. It cannot be changed later."
  type        = string
  default     = null

  validation {
    condition     = var.ledger_location == null ? true : can(regex("^(?:[a-z]+-[a-z]+[0-9]+|nam[0-9]+|eur[0-9]+)$", var.ledger_location))
    error_message = "ledger_location must be a location of Firestore, such as europe-west1, eur3 or nam5, or null for the region."
  }
}

variable "secret_locations" {
  description = "Regions where Secret Manager stores the secrets, such as `[\"europe-west1\"]`; `null` is automatic replication, which an organisation with `constraints/gcp.resourceLocations` does not allow. It cannot be changed later."
  type        = list(string)
  default     = null

  validation {
    condition     = var.secret_locations == null ? true : length(var.secret_locations) > 0 && alltrue([for location in var.secret_locations : can(regex("^[a-z]+-[a-z]+[0-9]+$", location))]) && length(distinct(var.secret_locations)) == length(var.secret_locations)
    error_message = "secret_locations must be regions, such as [\"europe-west1\"], each of them once, or null for wherever Google likes."
  }
}

variable "kms_key" {
  description = "A Cloud KMS key that encrypts everything that is stored: queue, ledger, secrets, source and images. It must be in `region`, and Google's service agents must be allowed to use it before the first apply: docs/operations.md names them. It cannot be changed later."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key == null ? true : can(regex("^projects/[^/]+/locations/${var.region}/keyRings/[A-Za-z0-9_-]+/cryptoKeys/[A-Za-z0-9_-]+$", var.kms_key))
    error_message = "kms_key must be named in full and be in the region, projects/P/locations/${var.region}/keyRings/R/cryptoKeys/K, or null for Google's own keys."
  }

  validation {
    condition     = var.kms_key == null ? true : coalesce(var.ledger_location, var.region) == var.region && try(var.secret_locations == null || var.secret_locations == tolist([var.region]), false)
    error_message = "With kms_key all is in its region, ${var.region}: leave ledger_location and secret_locations out."
  }
}

variable "deletion_protection" {
  description = "Protects the ledger, the queue and the dead letters from deletion. Set it to false and apply before terraform destroy."
  type        = bool
  default     = true
  nullable    = false
}

# What hubrelay does.

variable "routes" {
  description = <<-EOT
    Which repository gets which pipeline and channel, by its name (`acme/api`; `nginx` is `library/nginx`) or glob (`acme/*`; `*` alone is every repository). An exact key wins, then the longest glob.

    - `gitlab.project`: a path, in which `{namespace}` and `{name}` may stand, or an ID
    - `gitlab.ref`: the branch that the pipeline runs on, `main` by default
    - `gitlab.pass`: whether the pipeline gets `inputs` (the default) or `variables`
    - `slack.channel`: the ID of the channel for its messages
    - `slack.mention`: who is pinged about failures: the ID of a user (`U…`, `W…`) or of a user group (`S…`), `@here` or `@channel`; nobody by default
    - `slack.tell`: `all` (the default), or `failures` for a channel without successes
    - `tags.include`, `tags.exclude`: globs over the whole tag, or `semver:` and a constraint; without `include` every tag
    - `latest`: the moving tag, `latest` by default
    - `once_per`: `digest` (the default) starts one pipeline for each image under a tag, `delivery` one for every webhook
    - `inputs`: additional inputs of the pipeline

    Terraform silently drops an unknown field. So look at `ROUTES` in the plan: a field that is missing there was misspelt.
  EOT
  type = map(object({
    gitlab = object({
      project = string
      ref     = optional(string, "")
      pass    = optional(string, "")
    })
    slack = object({
      channel = string
      mention = optional(string, "")
      tell    = optional(string, "")
    })
    tags = optional(object({
      include = optional(list(string), [])
      exclude = optional(list(string), [])
    }), {})
    latest   = optional(string, "")
    once_per = optional(string, "")
    inputs   = optional(map(string), {})
  }))
  nullable = false

  # Each rule stands twice below, to be checked and to name who breaks it: a
  # validation cannot use a local value that is made of its own variable.

  validation {
    condition     = alltrue([for route in var.routes : try(route.gitlab, null) != null && try(route.slack, null) != null])
    error_message = "Every route needs gitlab and slack. Fix ${join(", ", [for key, route in var.routes : key if try(route.gitlab, null) == null || try(route.slack, null) == null])}."
  }

  validation {
    condition     = alltrue([for key in keys(var.routes) : can(regex(local.grammar.key, key))])
    error_message = "The keys of routes must be repositories, such as acme/api, globs, such as acme/*, or * for every repository. Fix ${join(", ", [for key in keys(var.routes) : key if !can(regex(local.grammar.key, key))])}."
  }

  validation {
    condition     = alltrue([for key in keys(var.routes) : key == "*" || !can(regex(local.grammar.wild, key)) || length(split("/", key)) == 2])
    error_message = "A glob over repositories must have one slash, because a * stops there: write acme/*, or * for every repository. Fix ${join(", ", [for key in keys(var.routes) : key if can(regex(local.grammar.wild, key)) && length(split("/", key)) != 2])}."
  }

  validation {
    condition     = alltrue([for key in keys(var.routes) : length(strcontains(key, "/") ? key : "library/${key}") <= 255 || can(regex(local.grammar.wild, key))])
    error_message = "The name of a repository has 255 characters at most, with library/ where it has no slash. Fix ${join(", ", [for key in keys(var.routes) : key if length(strcontains(key, "/") ? key : "library/${key}") > 255])}."
  }

  validation {
    condition     = alltrue([for key in keys(var.routes) : key == "*" || strcontains(key, "/") || !contains(keys(var.routes), "library/${key}")])
    error_message = "A name without a slash is one of library, so each of these is in routes twice: ${join(", ", [for key in keys(var.routes) : key if key != "*" && !strcontains(key, "/") && contains(keys(var.routes), "library/${key}")])}."
  }

  validation {
    condition     = alltrue([for route in var.routes : can(regex(local.grammar.project, replace(route.gitlab.project, "/\\{(?:namespace|name)\\}/", "n")))])
    error_message = "gitlab.project must be the path of a project, such as acme/images/api or acme/images/{name} (only {namespace} and {name} may stand there), or its ID. Fix ${join(", ", [for key, route in var.routes : key if !can(regex(local.grammar.project, replace(route.gitlab.project, "/\\{(?:namespace|name)\\}/", "n")))])}."
  }

  validation {
    condition     = alltrue([for route in var.routes : can(regex(local.grammar.ref, route.gitlab.ref))])
    error_message = "gitlab.ref must be the name of a branch or tag, such as main. Fix ${join(", ", [for key, route in var.routes : key if !can(regex(local.grammar.ref, route.gitlab.ref))])}."
  }

  validation {
    condition     = alltrue([for route in var.routes : try(contains(["", "inputs", "variables"], route.gitlab.pass), false)])
    error_message = "gitlab.pass must be inputs or variables. Fix ${join(", ", [for key, route in var.routes : key if !try(contains(["", "inputs", "variables"], route.gitlab.pass), false)])}."
  }

  validation {
    condition     = alltrue([for route in var.routes : try(contains(["", "digest", "delivery"], route.once_per), false)])
    error_message = "once_per must be digest or delivery. Fix ${join(", ", [for key, route in var.routes : key if !try(contains(["", "digest", "delivery"], route.once_per), false)])}."
  }

  validation {
    condition     = alltrue([for route in var.routes : can(regex(local.grammar.tag, route.latest))])
    error_message = "latest must be a tag: letters, digits, '_', '.' and '-', 128 at most. Fix ${join(", ", [for key, route in var.routes : key if !can(regex(local.grammar.tag, route.latest))])}."
  }

  # 107 characters of base64 without padding are 80 bytes, which is what the
  # functions allow.
  validation {
    condition     = alltrue([for route in var.routes : can(regex(local.grammar.channel, route.slack.channel)) && try(length(trim(base64encode(route.slack.channel), "=")) <= 107, false)])
    error_message = "slack.channel must be the ID of a channel, such as C0123456789, which Slack shows at the end of the channel's details. Look at ${join(", ", [for key, route in var.routes : "${key} (${try(coalesce(route.slack.channel), "none")})"])}."
  }

  validation {
    condition     = alltrue([for route in var.routes : can(regex(local.grammar.mention, route.slack.mention))])
    error_message = "slack.mention must be the ID of a user, such as U0123456789, or of a user group, such as S0123456789, which Slack shows in their profile, or @here or @channel. Look at ${join(", ", [for key, route in var.routes : "${key} (${try(coalesce(route.slack.mention), "none")})" if !can(regex(local.grammar.mention, route.slack.mention))])}."
  }

  validation {
    condition     = alltrue([for route in var.routes : try(contains(["", "all", "failures"], route.slack.tell), false)])
    error_message = "slack.tell must be all or failures. Fix ${join(", ", [for key, route in var.routes : key if !try(contains(["", "all", "failures"], route.slack.tell), false)])}."
  }

  validation {
    condition     = alltrue([for pattern in flatten([for route in var.routes : try([route.tags.include, route.tags.exclude], [])]) : can(regex(startswith(pattern, "semver:") ? local.grammar.constraint : local.grammar.glob, pattern))])
    error_message = "tags.include and tags.exclude must hold globs, such as v*, or semver: and a constraint, such as semver:>=1.2. Fix ${join(", ", [for pattern in flatten([for route in var.routes : try([route.tags.include, route.tags.exclude], [])]) : jsonencode(pattern) if !can(regex(startswith(pattern, "semver:") ? local.grammar.constraint : local.grammar.glob, pattern))])}."
  }

  validation {
    condition     = alltrue([for pattern in flatten([for route in var.routes : try([route.tags.include, route.tags.exclude], [])]) : try(!startswith(pattern, "semver:") || length(replace(pattern, "/\\s/", " ")) <= 512 + length("semver:") && length(split("||", pattern)) <= 32, true)])
    error_message = "A version constraint in tags.include or tags.exclude must have 512 characters and 32 alternatives at most: make several of it."
  }

  validation {
    condition     = alltrue([for route in var.routes : try(length(route.inputs) <= 15, true)])
    error_message = "inputs must be 15 at most, because GitLab accepts 20 and hubrelay adds five. Fix ${join(", ", [for key, route in var.routes : key if try(length(route.inputs) > 15, false)])}."
  }

  # 1364 characters of base64 are 1023 bytes.
  validation {
    condition     = alltrue([for value in flatten([for route in var.routes : try(values(route.inputs), [])]) : try(length(base64encode(value)) <= 1364, true)])
    error_message = "inputs must have values of 1023 bytes at most, because GitLab refuses one of 1 KB. Look at the inputs of ${join(", ", [for key, route in var.routes : key if try(length(route.inputs) > 0, false)])}."
  }

  validation {
    condition     = alltrue([for name in flatten([for route in var.routes : try(keys(route.inputs), [])]) : can(regex(local.grammar.input, name)) && !contains(local.grammar.reserved, lower(name))])
    error_message = "inputs must have names of letters, digits, '_' and '-', and none that hubrelay itself sends (${join(", ", local.grammar.reserved)}). Fix ${join(", ", [for name in flatten([for route in var.routes : try(keys(route.inputs), [])]) : name if !can(regex(local.grammar.input, name)) || contains(local.grammar.reserved, lower(name))])}."
  }

  validation {
    condition     = alltrue([for name in flatten([for route in var.routes : try(keys(route.inputs), []) if try(route.gitlab.pass, "") == "variables"]) : !strcontains(name, "-")])
    error_message = "The name of a variable has no '-': with gitlab.pass = \"variables\", rename ${join(", ", [for name in flatten([for route in var.routes : try(keys(route.inputs), []) if try(route.gitlab.pass, "") == "variables"]) : name if strcontains(name, "-")])}."
  }

  validation {
    condition     = alltrue([for route in var.routes : try(length(distinct([for name in keys(route.inputs) : lower(name)])) == length(route.inputs), true)])
    error_message = "inputs must have names that differ in more than case. Fix ${join(", ", [for key, route in var.routes : key if try(length(distinct([for name in keys(route.inputs) : lower(name)])) < length(route.inputs), false)])}."
  }
}

variable "gitlab_url" {
  description = "Base URL of GitLab. Its id tokens must name the same URL as their issuer."
  type        = string
  default     = "https://gitlab.com"
  nullable    = false

  validation {
    condition     = can(regex(local.base_url, var.gitlab_url))
    error_message = "gitlab_url must start with https://, or trigger tokens would travel in the clear, and have no user, query or fragment: https://gitlab.example.com."
  }
}

variable "gitlab_ca" {
  description = "PEM certificates of the CA that signed your GitLab's certificate, if it is not publicly trusted: `file(\"ca.pem\")`. They are trusted in addition to the public ones."
  type        = string
  default     = null

  validation {
    condition     = var.gitlab_ca == null ? true : can(regex("(?s)-----BEGIN CERTIFICATE-----\\r?\\n[A-Za-z0-9+/=\\s]+-----END CERTIFICATE-----", var.gitlab_ca)) && !strcontains(var.gitlab_ca, "PRIVATE KEY")
    error_message = "gitlab_ca must hold certificates in PEM, -----BEGIN CERTIFICATE----- and so on, and no private key."
  }

  # Secret Manager takes 64 KiB, which are 87384 characters of base64.
  validation {
    condition     = var.gitlab_ca == null ? true : length(base64encode(var.gitlab_ca)) <= 87384
    error_message = "gitlab_ca is over 64 KiB: give the certificate of your CA alone."
  }
}

variable "registry" {
  description = "Base URL of the registry where tags are resolved to digests. Its answers must be current: a cache does not work. With another registry than Docker Hub, missed pushes are not looked for."
  type        = string
  default     = "https://registry-1.docker.io"
  nullable    = false

  validation {
    condition     = can(regex("^https://${local.host}/?$", var.registry))
    error_message = "registry must be a base URL such as https://registry-1.docker.io, without path, user or query."
  }

  # Docker has other hosts, which are no registry, or another one than pushes go to.
  validation {
    condition     = can(regex("^https://registry-1\\.docker\\.io(?:[:/]|$)", lower(var.registry))) || !can(regex("^https://(?:[^/]*\\.)?docker\\.(?:io|com)(?:[:/]|$)", lower(var.registry)))
    error_message = "registry must be https://registry-1.docker.io for Docker Hub."
  }
}

variable "reconcile" {
  description = "Asks Docker Hub every five minutes for pushes whose webhook was lost. Private repositories and long lists need `registry_auth`."
  type        = bool
  default     = true
  nullable    = false
}

variable "language" {
  description = "Language of the Slack messages: `en` or `ja`."
  type        = string
  default     = "en"
  nullable    = false

  validation {
    condition     = contains(["en", "ja"], var.language)
    error_message = "language must be en or ja."
  }
}

variable "default_channel" {
  description = "ID of the Slack channel for messages without a route, such as dead letters of a route that was removed."
  type        = string
  nullable    = false

  # 107 characters of base64 without padding are 80 bytes, as with a route's.
  validation {
    condition     = can(regex(local.grammar.channel, var.default_channel)) && length(trim(base64encode(var.default_channel), "=")) <= 107
    error_message = "default_channel must be the ID of a channel, such as C0123456789, which Slack shows at the end of the channel's details."
  }
}

# Secrets. Each value is ephemeral: it has to be given to every plan and apply,
# and is kept by neither.

variable "webhook_tokens" {
  description = "Tokens for Docker Hub's webhook URL. All of them are valid, so a token can be rotated. Create one with `openssl rand -hex 24`."
  type        = list(string)
  default     = null
  ephemeral   = true
  sensitive   = true

  validation {
    condition     = (var.webhook_tokens == null) == (var.existing_secrets.webhook_tokens != null)
    error_message = "Set webhook_tokens, for instance by export TF_VAR_webhook_tokens='[\"'$(openssl rand -hex 24)'\"]', or name a secret of yours in existing_secrets.webhook_tokens; one of the two."
  }

  validation {
    condition     = var.webhook_tokens == null ? true : length(var.webhook_tokens) > 0
    error_message = "webhook_tokens must hold a token, or nobody could call the webhook: make one by openssl rand -hex 24."
  }

  validation {
    condition = alltrue([for token in coalesce(var.webhook_tokens, []) :
      try(length(token), 0) >= 20 && try(length(token), 0) <= local.longest_token
      && can(regex("^[A-Za-z0-9._~-]+$", token)) && !can(regex(local.placeholder, token)) && length(distinct(split("", token))) > 1
    ])
    error_message = "Each of webhook_tokens must have 20 to 128 characters that may stand in a URL (letters, digits, '.', '_', '~', '-') and be no placeholder: make one by openssl rand -hex 24."
  }
}

variable "gitlab_trigger_tokens" {
  description = "Pipeline trigger tokens of GitLab (Settings, CI/CD), by the key of a route; `*` is for all other routes."
  type        = map(string)
  default     = null
  ephemeral   = true
  sensitive   = true

  validation {
    condition     = (var.gitlab_trigger_tokens == null) == (var.existing_secrets.gitlab_trigger_tokens != null)
    error_message = "Set gitlab_trigger_tokens, for instance by export TF_VAR_gitlab_trigger_tokens='{\"*\" = \"glptt-…\"}', or name a secret of yours in existing_secrets.gitlab_trigger_tokens; one of the two."
  }

  validation {
    condition     = alltrue([for token in try(values(var.gitlab_trigger_tokens), []) : can(regex(local.token, token)) && !can(regex(local.placeholder, token))])
    error_message = "gitlab_trigger_tokens must hold real tokens, without spaces and line breaks: make one in the GitLab project, under Settings, CI/CD, Pipeline trigger tokens."
  }

  validation {
    condition = var.gitlab_trigger_tokens == null ? true : (
      alltrue([for key in keys(var.routes) : contains(keys(var.gitlab_trigger_tokens), key) || contains(keys(var.gitlab_trigger_tokens), "*")])
      && alltrue([for key in keys(var.gitlab_trigger_tokens) : key == "*" || contains(keys(var.routes), key)])
    )
    error_message = "gitlab_trigger_tokens must have a token for each of the routes ${join(", ", keys(var.routes))}, or one for \"*\", and none for anything else."
  }
}

variable "gitlab_api_tokens" {
  description = "Access tokens with the scope `read_api`, by the key of a route, or `\"*\"` for the others. With them GitLab is asked about pipelines that do not report. To use them, set `secret_versions.gitlab_api_tokens` to 1."
  type        = map(string)
  default     = null
  ephemeral   = true
  sensitive   = true

  validation {
    condition     = (var.gitlab_api_tokens != null) == (var.existing_secrets.gitlab_api_tokens == null && var.secret_versions.gitlab_api_tokens > 0)
    error_message = "Set gitlab_api_tokens and secret_versions.gitlab_api_tokens together: a version of 1 or more says that there are tokens, 0 that there are none. With a secret of yours in existing_secrets.gitlab_api_tokens, leave gitlab_api_tokens out."
  }

  validation {
    condition = var.gitlab_api_tokens == null ? true : length(var.gitlab_api_tokens) > 0 && alltrue([for key, token in var.gitlab_api_tokens :
      can(regex(local.token, token)) && (key == "*" || contains(keys(var.routes), key))
    ])
    error_message = "Each of gitlab_api_tokens must belong to one of the routes ${join(", ", keys(var.routes))}, or to \"*\", and none may be empty or have a space or line break."
  }
}

variable "slack_bot_token" {
  description = "Bot token of the Slack app, with the scope `chat:write`. If `alert_slack_channel` is set, Google's alerts use it, too."
  type        = string
  default     = null
  ephemeral   = true
  sensitive   = true

  validation {
    condition     = (var.slack_bot_token == null) == (var.existing_secrets.slack_bot_token != null && var.alert_slack_channel == null)
    error_message = "Set slack_bot_token, for instance by export TF_VAR_slack_bot_token=xoxb-…, or name a secret of yours in existing_secrets.slack_bot_token; one of the two, unless alert_slack_channel is set, which needs the token itself."
  }

  validation {
    condition     = var.slack_bot_token == null ? true : can(regex("^xoxb-[A-Za-z0-9-]{8,}$", var.slack_bot_token)) && !can(regex(local.placeholder, var.slack_bot_token))
    error_message = "slack_bot_token must be a bot token, which starts with xoxb-: the Slack app shows it under OAuth & Permissions."
  }
}

variable "notify_tokens" {
  description = "Tokens for pipelines that cannot have an id token. All of them are valid, and each may report for every route. To use them, set `secret_versions.notify_tokens` to 1."
  type        = list(string)
  default     = null
  ephemeral   = true
  sensitive   = true

  validation {
    condition     = (var.notify_tokens != null) == (var.existing_secrets.notify_tokens == null && var.secret_versions.notify_tokens > 0)
    error_message = "Set notify_tokens and secret_versions.notify_tokens together: a version of 1 or more says that there are tokens, 0 that there are none. With a secret of yours in existing_secrets.notify_tokens, leave notify_tokens out."
  }

  validation {
    condition = var.notify_tokens == null ? true : length(var.notify_tokens) > 0 && alltrue([for token in var.notify_tokens :
      try(length(token), 0) >= 20 && can(regex("^[A-Za-z0-9._~-]+$", token)) && !can(regex(local.placeholder, token)) && length(distinct(split("", token))) > 1
    ])
    error_message = "Each of notify_tokens must have 20 characters or more (letters, digits, '.', '_', '~', '-'), and be no placeholder: make one by openssl rand -hex 24."
  }
}

variable "registry_auth" {
  description = "A Docker `config.json` with the credentials for private repositories. To use it, set `secret_versions.registry_auth` to 1."
  type        = string
  default     = null
  ephemeral   = true
  sensitive   = true

  validation {
    condition     = (var.registry_auth != null) == (var.existing_secrets.registry_auth == null && var.secret_versions.registry_auth > 0)
    error_message = "Set registry_auth and secret_versions.registry_auth together: a version of 1 or more says that there are credentials, 0 that there are none. With a secret of yours in existing_secrets.registry_auth, leave registry_auth out."
  }

  # As internal/env reads it. What a credential helper keeps has an entry without
  # fields, or none. Base64 may come without its padding.
  validation {
    condition = var.registry_auth == null ? true : try(toset([
      for name, entry in jsondecode(var.registry_auth).auths :
      try(entry.identitytoken, "") == "" && try(entry.registrytoken, "") == "" && can(regex(
        local.account,
        try(entry.auth, "") == "" ? "${entry.username}:${entry.password}" : try(
          base64decode(trimspace(entry.auth)), base64decode("${trimspace(entry.auth)}="), base64decode("${trimspace(entry.auth)}==")
        )
      ))
      if contains(concat(local.docker_hub, [trimprefix(trimsuffix(lower(var.registry), "/"), "https://")]), replace(lower(name), "/^https?://|(?:/v[12])?/?$/", ""))
      && anytrue([for field in ["auth", "username", "password", "identitytoken", "registrytoken"] : try(entry[field], "") != ""])
    ]) == toset([true]), false)
    error_message = "registry_auth must be a Docker config.json that holds an account for Docker Hub, or for registry, such as {\"auths\": {\"https://index.docker.io/v1/\": {\"auth\": \"BASE64 OF USER:TOKEN\"}}}: a user and an access token, without a line break (echo adds one, printf %s does not), and neither with a credential helper nor an identitytoken."
  }
}

variable "secret_versions" {
  description = "Version of each secret: add one whenever you change its value, or the new value is not used. 0 means that there is no such secret."
  type = object({
    webhook_tokens        = optional(number, 1)
    gitlab_trigger_tokens = optional(number, 1)
    slack_bot_token       = optional(number, 1)
    gitlab_api_tokens     = optional(number, 0)
    notify_tokens         = optional(number, 0)
    registry_auth         = optional(number, 0)
  })
  default  = {}
  nullable = false

  validation {
    condition     = alltrue([for version in values(var.secret_versions) : version >= 0 && floor(version) == version])
    error_message = "secret_versions must be whole numbers: add one whenever you change a secret."
  }

  validation {
    condition     = alltrue([for name in ["webhook_tokens", "gitlab_trigger_tokens", "slack_bot_token"] : var.secret_versions[name] >= 1])
    error_message = "secret_versions of webhook_tokens, gitlab_trigger_tokens and slack_bot_token must be 1 or more: hubrelay does not run without them."
  }
}

variable "existing_secrets" {
  description = "Your own secrets in Secret Manager, instead of those that Terraform creates, each as `projects/P/secrets/S/versions/N`. Their values have the form of the functions' settings: one token per line, or JSON. To rotate one, name its next version."
  type = object({
    webhook_tokens        = optional(string)
    gitlab_trigger_tokens = optional(string)
    slack_bot_token       = optional(string)
    gitlab_api_tokens     = optional(string)
    notify_tokens         = optional(string)
    registry_auth         = optional(string)
  })
  default  = {}
  nullable = false

  validation {
    condition     = alltrue([for secret in values(var.existing_secrets) : secret == null ? true : can(regex("^projects/[a-z0-9-]+/secrets/[A-Za-z0-9_-]+/versions/[1-9][0-9]*$", secret))])
    error_message = "existing_secrets must be named in full, projects/P/secrets/S/versions/N, with the number of a version and not latest: so a rotation is a deploy that can be taken back."
  }
}

# How it is reached, how large it is, and who hears when it fails.

variable "public_access" {
  description = "Allows everyone to call Webhook and Notify, which check tokens themselves. If Domain Restricted Sharing forbids this, set it to false and follow docs/operations.md: until then only Google can call them."
  type        = bool
  default     = true
  nullable    = false
}

variable "max_delivery_attempts" {
  description = "How often a push is delivered to Trigger before it becomes a dead letter. With waits of 10 to 600 s in between, 50 deliveries take about seven hours."
  type        = number
  default     = 50
  nullable    = false

  validation {
    condition     = var.max_delivery_attempts >= 5 && var.max_delivery_attempts <= 100 && floor(var.max_delivery_attempts) == var.max_delivery_attempts
    error_message = "max_delivery_attempts must be a whole number from 5 to 100, which is what Pub/Sub takes."
  }
}

variable "silent_after" {
  description = "How long a pipeline may report nothing before Slack says so, such as `1h` or `90m`."
  type        = string
  default     = "1h"
  nullable    = false

  validation {
    condition     = can(regex("^(?:[1-9][0-9]{0,4}h)?(?:[1-9][0-9]{0,4}m)?$", var.silent_after)) && var.silent_after != ""
    error_message = "silent_after must be a time in hours and minutes, such as 1h, 90m or 1h30m."
  }
}

variable "sizes" {
  description = "Size of each function: cpu, memory, concurrent requests per instance, time-out in seconds, and maximum number of instances. Few instances of Trigger limit the load on GitLab: each creates five pipelines at a time and lets some pushes wait, and the queue holds the rest."
  type = object({
    webhook = optional(object({
      cpu         = optional(number, 1)
      memory      = optional(string, "256Mi")
      concurrency = optional(number, 80)
      timeout     = optional(number, 30)
      instances   = optional(number, 5)
    }), {})
    trigger = optional(object({
      cpu         = optional(number, 1)
      memory      = optional(string, "256Mi")
      concurrency = optional(number, 80)
      timeout     = optional(number, 240)
      instances   = optional(number, 2)
    }), {})
    notify = optional(object({
      cpu         = optional(number, 1)
      memory      = optional(string, "256Mi")
      concurrency = optional(number, 80)
      timeout     = optional(number, 90)
      instances   = optional(number, 3)
    }), {})
  })
  default  = {}
  nullable = false

  validation {
    condition     = alltrue([for size in values(var.sizes) : size.cpu >= 0.08 && size.cpu < 1 || contains([1, 2, 4, 6, 8], size.cpu)])
    error_message = "cpu in sizes must be 1, 2, 4, 6 or 8, or from 0.08 to 1: https://cloud.google.com/run/docs/configuring/services/cpu."
  }

  validation {
    condition     = alltrue([for size in values(var.sizes) : can(regex("^[1-9][0-9]*(?:Mi|Gi)$", size.memory))])
    error_message = "memory in sizes must be a number of Mi or Gi, such as 256Mi."
  }

  # The two tables of Cloud Run: the memory that a number of CPUs needs, and the
  # CPUs that an amount of memory needs.
  validation {
    condition = alltrue([
      for size in [for size in values(var.sizes) : {
        cpu = size.cpu
        mib = try(tonumber(regex("^[0-9]+", size.memory)), 0) * (endswith(size.memory, "Gi") ? 1024 : 1)
      }] :
      size.mib >= (size.cpu >= 6 ? 4096 : size.cpu >= 4 ? 2048 : 128) && size.mib <= (
        size.cpu >= 8 ? 32768 : size.cpu >= 6 ? 24576 : size.cpu >= 4 ? 16384 : size.cpu >= 2 ? 8192 : size.cpu >= 1 ? 4096 : size.cpu >= 0.5 ? 1024 : 512
      )
    ])
    error_message = "memory in sizes must be what Cloud Run gives to that many cpu: 128Mi to 512Mi below 0.5 cpu, to 1Gi below 1, to 4Gi with 1, to 8Gi with 2, 2Gi to 16Gi with 4, 4Gi to 24Gi with 6, 4Gi to 32Gi with 8: https://cloud.google.com/run/docs/configuring/services/memory-limits."
  }

  # Google's provider does not survive half an instance.
  validation {
    condition     = alltrue(flatten([for size in values(var.sizes) : [for number in [size.concurrency, size.timeout, size.instances] : floor(number) == number]]))
    error_message = "concurrency, timeout and instances in sizes must be whole numbers."
  }

  validation {
    condition     = alltrue([for size in values(var.sizes) : size.concurrency >= 1 && size.concurrency <= 1000])
    error_message = "concurrency in sizes must be from 1 to 1000."
  }

  validation {
    condition     = alltrue([for size in values(var.sizes) : size.timeout >= 1 && size.timeout <= 3600]) && var.sizes.webhook.timeout >= 15 && var.sizes.trigger.timeout >= 215 && var.sizes.notify.timeout >= 75
    error_message = "timeout in sizes must leave the functions time to answer, which bound what they do themselves: webhook 15 s, trigger 215 s and notify 75 s at least, 3600 s at most."
  }

  validation {
    condition     = alltrue([for size in values(var.sizes) : size.instances >= 1 && size.instances <= 1000])
    error_message = "instances in sizes must be from 1 to 1000."
  }
}

variable "alerts" {
  description = "Creates the alerts: dead letters, backlog, errors, rejected callers, lost webhooks, a stopped clock, refusals by Slack, bursts of invalid tokens. docs/operations.md explains each."
  type        = bool
  default     = true
  nullable    = false
}

variable "alert_channels" {
  description = "Notification channels of Cloud Monitoring for the alerts, each as `projects/P/notificationChannels/N`. Without any, incidents are visible in the console only."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for channel in var.alert_channels : can(regex("^projects/[^/]+/notificationChannels/[0-9]+$", channel))])
    error_message = "alert_channels must be named in full, projects/P/notificationChannels/N: gcloud beta monitoring channels list shows them."
  }
}

variable "alert_slack_channel" {
  description = "Name of a Slack channel for the alerts, such as `#ops`. They use `slack_bot_token`; invite the bot. Google sends them, so they also arrive when hubrelay does not work."
  type        = string
  default     = null

  validation {
    condition     = var.alert_slack_channel == null ? true : can(regex("^#[^\\s#]{1,79}$", var.alert_slack_channel))
    error_message = "alert_slack_channel must be the name of a channel with its #, such as #ops, or null."
  }
}
