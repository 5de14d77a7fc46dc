"""Tables and plots from loadtest/results/*.json."""
