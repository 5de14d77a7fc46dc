"""How many GPUs a promise needs: measured step times, a roofline where there are none, and queueing theory."""
