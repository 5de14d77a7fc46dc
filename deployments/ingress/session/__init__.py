"""A live conversation, whatever the protocol: what was said, who speaks, what is being answered."""
