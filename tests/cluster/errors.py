"""What can go wrong with the test cluster; every message says what was found, what was expected and what to do."""


class ClusterError(Exception):
    """The test cluster cannot be brought up, used or taken down as asked."""


class NotSupported(ClusterError):
    """This kind of cluster has no such operation (a kind node cannot be rebooted, for example)."""
