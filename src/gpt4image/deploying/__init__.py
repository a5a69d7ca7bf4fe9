"""Models that leave their run: the formats they are deployed in, and how pictures become their inputs."""
