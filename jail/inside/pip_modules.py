"""The modules that pip has loaded when it has installed something: pack.py, which sees it do that,
puts them here. So nothing of ours knows how pip is made.
"""

NAMES: tuple[str, ...] = ()
