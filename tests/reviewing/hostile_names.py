"""Names of files that no page, table or shell may take for anything but text."""

HOSTILE = ("=HYPERLINK(1).png", "<img src=x onerror=alert(1)>.png", "a,b\"c'.png", "\u202egnp.exe.png")
