# The record of promotions. A named database of its own, so that hubrelay may
# read and write this one and no other of the project.
resource "google_firestore_database" "ledger" {
  project     = local.project
  name        = var.name
  location_id = coalesce(var.ledger_location, var.region)
  type        = "FIRESTORE_NATIVE"

  # The provider's own default would leave the database behind, out of sight.
  deletion_policy         = "DELETE"
  delete_protection_state = var.deletion_protection ? "DELETE_PROTECTION_ENABLED" : "DELETE_PROTECTION_DISABLED"
}

# Firestore deletes a record some time after the moment in its field expires_at,
# which the functions set to 90 days ahead. No index on that field: writes that
# come in the order of an index all hit one server.
# https://cloud.google.com/firestore/docs/ttl
resource "google_firestore_field" "expires_at" {
  for_each = toset(["promotions", "current"])

  project    = local.project
  database   = google_firestore_database.ledger.name
  collection = each.key
  field      = "expires_at"

  ttl_config {}
  index_config {}
}
