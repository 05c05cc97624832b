# The record: promotions, what is known of each tag, since when a repository is
# looked at, and how far Docker Hub was asked. A named database of its own, so that
# hubrelay may read and write this one and no other of the project. Its queries are
# by one field each, which Firestore indexes by itself.
resource "google_firestore_database" "ledger" {
  project     = local.project
  name        = var.name
  location_id = coalesce(var.ledger_location, var.region)
  type        = "FIRESTORE_NATIVE"

  # The provider's own default would leave the database behind, out of sight.
  deletion_policy         = "DELETE"
  delete_protection_state = var.deletion_protection ? "DELETE_PROTECTION_ENABLED" : "DELETE_PROTECTION_DISABLED"

  dynamic "cmek_config" {
    for_each = var.kms_key[*]
    content {
      kms_key_name = cmek_config.value
    }
  }
}

# Firestore deletes a record some time after the moment in its field expires_at.
# What must stay has none: a promotion that is current or unfinished, and a tag,
# but for what once_per = "delivery" keeps of each webhook. No index on that
# field: writes that come in the order of an index all hit one server.
# https://cloud.google.com/firestore/docs/ttl
resource "google_firestore_field" "expires_at" {
  for_each = toset(["promotions", "tags"])

  project    = local.project
  database   = google_firestore_database.ledger.name
  collection = each.key
  field      = "expires_at"

  ttl_config {}
  index_config {}
}
