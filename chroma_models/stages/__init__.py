"""One class per stage: engine plus the stage before it. No Ray; deployments/ puts these on a cluster."""
