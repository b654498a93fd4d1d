"""What each kind of stage computes, a file a kind. A stage reads artifacts, writes files into its folder, and returns
facts for the manifest.
"""
