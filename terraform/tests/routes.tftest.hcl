# Terraform accepts and refuses the same routes as the functions do. The tables
# in tests/routes are read by both: here, and by a test of internal/route.

mock_provider "google" {
  source          = "./tests/mocks"
  override_during = plan
}

mock_provider "archive" {
  source          = "./tests/mocks"
  override_during = plan
}

run "what_the_functions_accept" {
  command = plan

  variables {
    routes = jsondecode(file("tests/routes/accepted.json"))
  }

  assert {
    condition     = toset(keys(jsondecode(google_cloudfunctions2_function.this["trigger"].service_config[0].environment_variables["ROUTES"]))) == toset(keys(var.routes))
    error_message = "A route is lost on its way."
  }
}

run "key_upper_case" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["key_upper_case"] }
  expect_failures = [var.routes]
}

run "key_empty" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["key_empty"] }
  expect_failures = [var.routes]
}

run "key_with_a_tag" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["key_with_a_tag"] }
  expect_failures = [var.routes]
}

run "key_with_a_trailing_slash" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["key_with_a_trailing_slash"] }
  expect_failures = [var.routes]
}

run "key_with_an_open_bracket" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["key_with_an_open_bracket"] }
  expect_failures = [var.routes]
}

run "key_with_an_empty_bracket" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["key_with_an_empty_bracket"] }
  expect_failures = [var.routes]
}

run "key_with_a_trailing_backslash" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["key_with_a_trailing_backslash"] }
  expect_failures = [var.routes]
}

run "key_is_a_glob_without_a_slash" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["key_is_a_glob_without_a_slash"] }
  expect_failures = [var.routes]
}

run "key_is_a_glob_with_two_slashes" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["key_is_a_glob_with_two_slashes"] }
  expect_failures = [var.routes]
}

run "key_too_long" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["key_too_long"] }
  expect_failures = [var.routes]
}

run "project_empty" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["project_empty"] }
  expect_failures = [var.routes]
}

run "project_without_a_group" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["project_without_a_group"] }
  expect_failures = [var.routes]
}

run "project_with_another_placeholder" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["project_with_another_placeholder"] }
  expect_failures = [var.routes]
}

run "project_with_a_nested_placeholder" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["project_with_a_nested_placeholder"] }
  expect_failures = [var.routes]
}

run "project_with_an_open_placeholder" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["project_with_an_open_placeholder"] }
  expect_failures = [var.routes]
}

run "project_zero" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["project_zero"] }
  expect_failures = [var.routes]
}

run "project_is_a_url" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["project_is_a_url"] }
  expect_failures = [var.routes]
}

run "ref_with_a_space" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["ref_with_a_space"] }
  expect_failures = [var.routes]
}

run "ref_with_a_colon" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["ref_with_a_colon"] }
  expect_failures = [var.routes]
}

run "pass_unknown" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["pass_unknown"] }
  expect_failures = [var.routes]
}

run "once_per_unknown" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["once_per_unknown"] }
  expect_failures = [var.routes]
}

run "latest_with_a_space" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["latest_with_a_space"] }
  expect_failures = [var.routes]
}

run "latest_too_long" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["latest_too_long"] }
  expect_failures = [var.routes]
}

run "channel_empty" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["channel_empty"] }
  expect_failures = [var.routes]
}

run "channel_with_a_space" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["channel_with_a_space"] }
  expect_failures = [var.routes]
}

run "channel_with_an_ideographic_space" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["channel_with_an_ideographic_space"] }
  expect_failures = [var.routes]
}

run "channel_too_long" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["channel_too_long"] }
  expect_failures = [var.routes]
}

run "channel_too_long_in_bytes" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["channel_too_long_in_bytes"] }
  expect_failures = [var.routes]
}

run "tag_empty" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["tag_empty"] }
  expect_failures = [var.routes]
}

run "tag_with_an_open_bracket" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["tag_with_an_open_bracket"] }
  expect_failures = [var.routes]
}

run "tag_with_a_trailing_backslash" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["tag_with_a_trailing_backslash"] }
  expect_failures = [var.routes]
}

run "tag_range_without_an_end" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["tag_range_without_an_end"] }
  expect_failures = [var.routes]
}

run "constraint_empty" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["constraint_empty"] }
  expect_failures = [var.routes]
}

run "constraint_is_no_version" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["constraint_is_no_version"] }
  expect_failures = [var.routes]
}

run "constraint_with_an_empty_alternative" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["constraint_with_an_empty_alternative"] }
  expect_failures = [var.routes]
}

run "constraint_with_a_wrong_operator" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["constraint_with_a_wrong_operator"] }
  expect_failures = [var.routes]
}

run "constraint_range_without_a_comma" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["constraint_range_without_a_comma"] }
  expect_failures = [var.routes]
}

run "constraint_too_long" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["constraint_too_long"] }
  expect_failures = [var.routes]
}

run "constraint_too_long_by_line_breaks" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["constraint_too_long_by_line_breaks"] }
  expect_failures = [var.routes]
}

run "constraint_with_too_many_alternatives" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["constraint_with_too_many_alternatives"] }
  expect_failures = [var.routes]
}

run "inputs_too_many" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["inputs_too_many"] }
  expect_failures = [var.routes]
}

run "input_too_large" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["input_too_large"] }
  expect_failures = [var.routes]
}

run "input_with_a_space" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["input_with_a_space"] }
  expect_failures = [var.routes]
}

run "input_that_hubrelay_sends" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["input_that_hubrelay_sends"] }
  expect_failures = [var.routes]
}

run "inputs_that_differ_in_case" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["inputs_that_differ_in_case"] }
  expect_failures = [var.routes]
}

run "variable_with_a_hyphen" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["variable_with_a_hyphen"] }
  expect_failures = [var.routes]
}

run "key_too_long_with_library" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["key_too_long_with_library"] }
  expect_failures = [var.routes]
}

run "mention_too_short" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["mention_too_short"] }
  expect_failures = [var.routes]
}

run "mention_too_long" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["mention_too_long"] }
  expect_failures = [var.routes]
}

run "mention_unknown" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["mention_unknown"] }
  expect_failures = [var.routes]
}

run "mention_in_lower_case" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["mention_in_lower_case"] }
  expect_failures = [var.routes]
}

run "mention_is_a_channel" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["mention_is_a_channel"] }
  expect_failures = [var.routes]
}

run "mention_with_a_space" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["mention_with_a_space"] }
  expect_failures = [var.routes]
}

run "tell_unknown" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["tell_unknown"] }
  expect_failures = [var.routes]
}

run "key_stands_twice_without_library" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["key_stands_twice_without_library"] }
  expect_failures = [var.routes]
}

run "input_when_the_promotion_began" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["input_when_the_promotion_began"] }
  expect_failures = [var.routes]
}

run "input_of_the_promotion" {
  command = plan
  module { source = "./tests/variables" }
  variables { routes = jsondecode(file("tests/routes/refused.json"))["input_of_the_promotion"] }
  expect_failures = [var.routes]
}

run "no_routes" {
  command = plan

  variables {
    routes = {}
  }

  assert {
    condition     = alltrue([for name in ["trigger", "notify"] : google_cloudfunctions2_function.this[name].service_config[0].environment_variables["ROUTES"] == "{}"])
    error_message = "No routes are not an empty table."
  }
}

run "one_route" {
  command = plan

  variables {
    routes = {
      "acme/api" = {
        gitlab = { project = "acme/images/api" }
        slack  = { channel = "C0123456789" }
      }
    }
  }

  assert {
    condition     = google_cloudfunctions2_function.this["trigger"].service_config[0].environment_variables["ROUTES"] == "{\"acme/api\":{\"gitlab\":{\"project\":\"acme/images/api\"},\"slack\":{\"channel\":\"C0123456789\"}}}"
    error_message = "What nobody wrote is not left to the functions."
  }
}

run "a_route_with_everything" {
  command = plan

  variables {
    routes = {
      "acme/api" = {
        gitlab   = { project = "acme/images/api", ref = "trunk", pass = "variables" }
        slack    = { channel = "C0123456789", mention = "@here", tell = "failures" }
        tags     = { include = ["v*"], exclude = ["*-rc*"] }
        latest   = "stable"
        once_per = "delivery"
        inputs   = { severity = "low" }
      }
    }
  }

  assert {
    condition = jsondecode(google_cloudfunctions2_function.this["trigger"].service_config[0].environment_variables["ROUTES"])["acme/api"] == {
      gitlab   = { project = "acme/images/api", ref = "trunk", pass = "variables" }
      slack    = { channel = "C0123456789", mention = "@here", tell = "failures" }
      tags     = { include = ["v*"], exclude = ["*-rc*"] }
      latest   = "stable"
      once_per = "delivery"
      inputs   = { severity = "low" }
    }
    error_message = "A field is lost on its way."
  }
}

run "a_hundred_routes" {
  command = plan

  variables {
    routes = { for n in range(100) : "acme/service-number-${n}" => {
      gitlab = { project = "acme/images/service-number-${n}" }
      tags   = { include = ["v*", "semver:>=1.2"], exclude = ["*-rc*"] }
      slack  = { channel = "C0123456789" }
    } }
  }

  assert {
    condition     = length(jsondecode(google_cloudfunctions2_function.this["notify"].service_config[0].environment_variables["ROUTES"])) == 100
    error_message = "A route is lost on its way."
  }
}

# Some 12,000 characters of three bytes each.
run "more_bytes_than_an_environment_holds" {
  command = plan

  variables {
    routes = { for n in range(3) : "acme/service-number-${n}" => {
      gitlab = { project = "acme/images/service-number-${n}" }
      slack  = { channel = "C0123456789" }
      inputs = { for m in range(13) : "words_${m}" => join("", [for o in range(300) : "あ"]) }
    } }
  }

  expect_failures = [google_cloudfunctions2_function.this["trigger"], google_cloudfunctions2_function.this["notify"]]
}

run "more_routes_than_an_environment_holds" {
  command = plan

  variables {
    routes = { for n in range(400) : "acme/service-number-${n}" => {
      gitlab = { project = "acme/images/service-number-${n}" }
      slack  = { channel = "C0123456789" }
    } }
  }

  expect_failures = [google_cloudfunctions2_function.this["trigger"], google_cloudfunctions2_function.this["notify"]]
}
