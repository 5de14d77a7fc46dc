"""Mimi: codes to speech as it is made, and a reference clip to codes."""
