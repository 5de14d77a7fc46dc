"""OpenAI's Realtime API over WebSocket: a thin spelling of session.Session."""
