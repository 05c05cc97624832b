mock_data "archive_file" {
  defaults = {
    output_sha256 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
  }
}
