# Terraform accepts and refuses the same credentials as Trigger does. The tables in
# tests/registry_auth are read by both: here, and by a test beside terraform/.

variables {
  registry        = "https://registry.example:5000"
  secret_versions = { registry_auth = 1 }
}

run "as_the_cli_writes_it" {
  command = plan
  module { source = "./tests/variables" }
  variables { registry_auth = jsonencode(jsondecode(file("tests/registry_auth/accepted.json"))["as_the_cli_writes_it"]) }
}

run "by_the_name_of_the_registry" {
  command = plan
  module { source = "./tests/variables" }
  variables { registry_auth = jsonencode(jsondecode(file("tests/registry_auth/accepted.json"))["by_the_name_of_the_registry"]) }
}

run "for_another_registry" {
  command = plan
  module { source = "./tests/variables" }
  variables { registry_auth = jsonencode(jsondecode(file("tests/registry_auth/accepted.json"))["for_another_registry"]) }
}

run "user_and_password" {
  command = plan
  module { source = "./tests/variables" }
  variables { registry_auth = jsonencode(jsondecode(file("tests/registry_auth/accepted.json"))["user_and_password"]) }
}

run "without_padding" {
  command = plan
  module { source = "./tests/variables" }
  variables { registry_auth = jsonencode(jsondecode(file("tests/registry_auth/accepted.json"))["without_padding"]) }
}

run "with_space_around" {
  command = plan
  module { source = "./tests/variables" }
  variables { registry_auth = jsonencode(jsondecode(file("tests/registry_auth/accepted.json"))["with_space_around"]) }
}

run "with_a_helper_for_others" {
  command = plan
  module { source = "./tests/variables" }
  variables { registry_auth = jsonencode(jsondecode(file("tests/registry_auth/accepted.json"))["with_a_helper_for_others"]) }
}

run "with_others" {
  command = plan
  module { source = "./tests/variables" }
  variables { registry_auth = jsonencode(jsondecode(file("tests/registry_auth/accepted.json"))["with_others"]) }
}

run "no_account" {
  command = plan
  module { source = "./tests/variables" }
  variables { registry_auth = jsonencode(jsondecode(file("tests/registry_auth/refused.json"))["no_account"]) }
  expect_failures = [var.registry_auth]
}

run "no_auths" {
  command = plan
  module { source = "./tests/variables" }
  variables { registry_auth = jsonencode(jsondecode(file("tests/registry_auth/refused.json"))["no_auths"]) }
  expect_failures = [var.registry_auth]
}

run "with_a_helper" {
  command = plan
  module { source = "./tests/variables" }
  variables { registry_auth = jsonencode(jsondecode(file("tests/registry_auth/refused.json"))["with_a_helper"]) }
  expect_failures = [var.registry_auth]
}

run "with_a_helper_alone" {
  command = plan
  module { source = "./tests/variables" }
  variables { registry_auth = jsonencode(jsondecode(file("tests/registry_auth/refused.json"))["with_a_helper_alone"]) }
  expect_failures = [var.registry_auth]
}

run "for_others" {
  command = plan
  module { source = "./tests/variables" }
  variables { registry_auth = jsonencode(jsondecode(file("tests/registry_auth/refused.json"))["for_others"]) }
  expect_failures = [var.registry_auth]
}

run "for_another_port" {
  command = plan
  module { source = "./tests/variables" }
  variables { registry_auth = jsonencode(jsondecode(file("tests/registry_auth/refused.json"))["for_another_port"]) }
  expect_failures = [var.registry_auth]
}

run "for_nobody" {
  command = plan
  module { source = "./tests/variables" }
  variables { registry_auth = jsonencode(jsondecode(file("tests/registry_auth/refused.json"))["for_nobody"]) }
  expect_failures = [var.registry_auth]
}

run "tokens_of_the_cli" {
  command = plan
  module { source = "./tests/variables" }
  variables { registry_auth = jsonencode(jsondecode(file("tests/registry_auth/refused.json"))["tokens_of_the_cli"]) }
  expect_failures = [var.registry_auth]
}

run "no_base64" {
  command = plan
  module { source = "./tests/variables" }
  variables { registry_auth = jsonencode(jsondecode(file("tests/registry_auth/refused.json"))["no_base64"]) }
  expect_failures = [var.registry_auth]
}

run "no_token" {
  command = plan
  module { source = "./tests/variables" }
  variables { registry_auth = jsonencode(jsondecode(file("tests/registry_auth/refused.json"))["no_token"]) }
  expect_failures = [var.registry_auth]
}

run "no_user" {
  command = plan
  module { source = "./tests/variables" }
  variables { registry_auth = jsonencode(jsondecode(file("tests/registry_auth/refused.json"))["no_user"]) }
  expect_failures = [var.registry_auth]
}

run "no_colon" {
  command = plan
  module { source = "./tests/variables" }
  variables { registry_auth = jsonencode(jsondecode(file("tests/registry_auth/refused.json"))["no_colon"]) }
  expect_failures = [var.registry_auth]
}

run "no_password" {
  command = plan
  module { source = "./tests/variables" }
  variables { registry_auth = jsonencode(jsondecode(file("tests/registry_auth/refused.json"))["no_password"]) }
  expect_failures = [var.registry_auth]
}

run "with_a_line_break" {
  command = plan
  module { source = "./tests/variables" }
  variables { registry_auth = jsonencode(jsondecode(file("tests/registry_auth/refused.json"))["with_a_line_break"]) }
  expect_failures = [var.registry_auth]
}

run "with_a_space_in_the_user" {
  command = plan
  module { source = "./tests/variables" }
  variables { registry_auth = jsonencode(jsondecode(file("tests/registry_auth/refused.json"))["with_a_space_in_the_user"]) }
  expect_failures = [var.registry_auth]
}

run "with_a_space_before_the_token" {
  command = plan
  module { source = "./tests/variables" }
  variables { registry_auth = jsonencode(jsondecode(file("tests/registry_auth/refused.json"))["with_a_space_before_the_token"]) }
  expect_failures = [var.registry_auth]
}

run "with_an_identitytoken" {
  command = plan
  module { source = "./tests/variables" }
  variables { registry_auth = jsonencode(jsondecode(file("tests/registry_auth/refused.json"))["with_an_identitytoken"]) }
  expect_failures = [var.registry_auth]
}

run "with_a_registrytoken" {
  command = plan
  module { source = "./tests/variables" }
  variables { registry_auth = jsonencode(jsondecode(file("tests/registry_auth/refused.json"))["with_a_registrytoken"]) }
  expect_failures = [var.registry_auth]
}

run "wrong_for_one_of_two" {
  command = plan
  module { source = "./tests/variables" }
  variables { registry_auth = jsonencode(jsondecode(file("tests/registry_auth/refused.json"))["wrong_for_one_of_two"]) }
  expect_failures = [var.registry_auth]
}

run "of_another_type" {
  command = plan
  module { source = "./tests/variables" }
  variables { registry_auth = jsonencode(jsondecode(file("tests/registry_auth/refused.json"))["of_another_type"]) }
  expect_failures = [var.registry_auth]
}

run "in_another_form" {
  command = plan
  module { source = "./tests/variables" }
  variables { registry_auth = jsonencode(jsondecode(file("tests/registry_auth/refused.json"))["in_another_form"]) }
  expect_failures = [var.registry_auth]
}
