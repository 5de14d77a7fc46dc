"""What the HTTP routes take and answer, as an OpenAPI document."""
