"""The only place that knows HTTP, OpenAI shapes and audio formats."""
