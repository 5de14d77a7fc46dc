"""Speech that says what it is: signed statements about replies, in answers and inside files."""
