"""The web page: one file a tab. Importing this imports nothing.

`page.build` needs the extra `explorer`.
"""
