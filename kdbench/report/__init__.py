"""What people read: console tables, CSV, Markdown and figures, as pure functions of the records.

`build.build_report` writes a folder, `terminal.print_report` prints. Two runs give identical bytes: nothing
here reads the clock, the host or an unordered set. Neither torch nor timm is imported.
"""
