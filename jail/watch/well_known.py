"""Projects that very many others depend on.

Their modules are imported by those that need them, and not once more by themselves: a report would
take long, and tell of each package the same. The report names those that were passed over.
"""

WELL_KNOWN_NAMES = """
aiohappyeyeballs aiohttp aiosignal annotated-types anyio asgiref async-timeout attrs babel
beautifulsoup4 blinker boto3 botocore cachetools certifi cffi charset-normalizer click colorama
cryptography decorator docutils exceptiongroup executing filelock frozenlist fsspec
google-api-core google-auth googleapis-common-protos grpcio h11 httpcore httpx idna
importlib-metadata importlib-resources iniconfig itsdangerous jaraco-classes jaraco-context
jaraco-functools jedi jinja2 jmespath jsonschema jsonschema-specifications lxml mako
markdown-it-py markupsafe matplotlib-inline mdurl more-itertools msgpack multidict mypy-extensions
networkx numpy oauthlib packaging pandas parso pathspec pexpect pillow platformdirs pluggy
prompt-toolkit propcache proto-plus protobuf psutil ptyprocess pure-eval pyasn1 pyasn1-modules
pycparser pydantic pydantic-core pygments pyjwt pyparsing python-dateutil pytz pyyaml referencing
regex requests requests-oauthlib rich rpds-py rsa s3transfer scipy setuptools six sniffio
soupsieve sqlalchemy stack-data starlette tomli tornado tqdm traitlets typing-extensions
typing-inspection tzdata urllib3 virtualenv wcwidth websockets werkzeug wheel wrapt yarl zipp
"""
WELL_KNOWN = frozenset(WELL_KNOWN_NAMES.split())
