"""report.html: one file that needs neither network nor files beside it."""
