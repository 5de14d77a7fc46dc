"""How many replicas a stage has, by what listeners feel; and a day of traffic to look at it with."""
