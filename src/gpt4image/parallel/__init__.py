"""Where jobs run, and how processes share one."""
