"""The way to a Redis server or cluster: commands go to where their partition lies, and its errors become ours.

Everything that is sent may be sent again: what a lost answer leaves open is settled by repeating it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeAlias, final

from binsight.errors import CannotBeDone, MissingExtra, StoreDamaged, StoreHeld, StoreUnavailable, StoreWriteFailed
from binsight.patience import is_given_up
from binsight.store.redis_url import RedisUrl

try:
    import redis
    from redis import exceptions
    from redis.backoff import NoBackoff
    from redis.cluster import RedisCluster
    from redis.retry import Retry
except ImportError as error:
    raise MissingExtra("redis", extra="redis") from error

Command: TypeAlias = tuple[Any, ...]  # name and arguments: text, bytes, numbers
Reply: TypeAlias = Any  # whatever Redis answers
FIRST_VERSION = (8, 0)
NEEDED = "VSIM"  # of the commands, the one that no older server has
_NEXT = "see that a Redis 8 server runs there, or correct the host and port of the store's URL"
_PASSING = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ClusterDownError,
    exceptions.TryAgainError,
    exceptions.MovedError,
    exceptions.AskError,
    exceptions.ReadOnlyError,
    exceptions.MasterDownError,
)


class AskAliases(Exception):
    """A write that a store takes unless an alias left it. left: which may have, between commas, and since which hold."""

    def __init__(self, left: str) -> None:
        super().__init__(left)
        self.left = left


@final
class RedisLink:
    """Connections to one server, or to each node of a cluster. Safe to use from several threads."""

    def __init__(self, url: RedisUrl) -> None:
        self._url = url
        self._options: dict[str, Any] = {
            "socket_timeout": url.timeout_s,
            "socket_connect_timeout": min(url.timeout_s, 5.0),
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
        }
        if url.ca:
            self._options["ssl_ca_certs"] = url.ca
        self._cluster: RedisCluster | None = None
        self._server: redis.Redis | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._retried(self._connect)

    def _connect(self) -> None:
        if self._url.is_cluster:
            self._cluster = RedisCluster.from_url(self._url.server, require_full_coverage=True, **self._options)
            self._threads = ThreadPoolExecutor(16, thread_name_prefix="binsight-redis")
        else:
            self._server = redis.Redis.from_url(self._url.server, **self._options)
            self._server.ping()

    # ---- asking

    def ask(self, calls: Mapping[str, Sequence[Command]], *, last: Command | None = None) -> dict[str, list[Reply]]:
        """What the server answers to the commands of each key, in order; keys of one node go together in one pipeline.

        last: sent after them on the same connection of each node, and its answer added to each key's. Raises StoreUnavailable
        when the server cannot be reached in time, StoreWriteFailed when it refuses a write, CannotBeDone for other refusals.
        """
        wanted = {key: list(commands) for key, commands in calls.items()}
        return self._retried(lambda: self._asked(wanted, last)) if wanted else {}

    def _asked(self, calls: Mapping[str, Sequence[Command]], last: Command | None) -> dict[str, list[Reply]]:
        by_node: dict[str, tuple[redis.Redis, list[str]]] = {}
        for key in calls:
            name, node = self._node_of(key)
            by_node.setdefault(name, (node, []))[1].append(key)

        def run(node: redis.Redis, keys: Sequence[str]) -> dict[str, list[Reply]]:
            return self._piped(node, {key: calls[key] for key in keys}, last)

        if len(by_node) == 1 or self._threads is None:
            parts = [run(node, keys) for node, keys in by_node.values()]
        else:
            parts = list(self._threads.map(lambda one: run(*one), by_node.values()))
        return {key: replies for part in parts for key, replies in part.items()}

    def _node_of(self, key: str) -> tuple[str, redis.Redis]:
        if self._server is not None:
            return "", self._server
        assert self._cluster is not None
        node = self._cluster.get_node_from_key(key)  # type: ignore[no-untyped-call]
        if node is None:
            raise exceptions.ClusterDownError(f"no node serves the slot of {key}")
        return str(node.name), self._cluster.get_redis_connection(node)

    @staticmethod
    def _piped(node: redis.Redis, calls: Mapping[str, Sequence[Command]], last: Command | None) -> dict[str, list[Reply]]:
        pipe = node.pipeline(transaction=False)
        for commands in calls.values():
            for command in commands:
                pipe.execute_command(*command)  # type: ignore[no-untyped-call]
        if last is not None:
            pipe.execute_command(*last)  # type: ignore[no-untyped-call]
        replies = pipe.execute(raise_on_error=False)
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        found: dict[str, list[Reply]] = {}
        at = 0
        for key, commands in calls.items():
            found[key] = replies[at : at + len(commands)] + ([replies[-1]] if last is not None else [])
            at += len(commands)
        return found

    def _retried(self, action: Callable[[], Any]) -> Any:
        """The action's answer, tried again while the server is away, for as long as the URL says."""
        deadline, pause = time.monotonic() + self._url.retry_s, 0.0
        while True:
            if is_given_up():  # done later, it might undo what somebody else has been told since
                raise StoreUnavailable(f"{self._url.shown}: nobody waits for the answer any more")
            try:
                return action()
            except (exceptions.AuthenticationError, exceptions.AuthorizationError, exceptions.NoPermissionError) as error:
                raise CannotBeDone(f"{self._url.shown} lets this user not do it: {error}") from error
            except (exceptions.RedisClusterException, *_PASSING) as error:
                if (
                    pause and time.monotonic() + pause > deadline
                ):  # once at least: the server may have closed an idle connection
                    raise StoreUnavailable(f"{self._url.shown} cannot be reached: {_told(error)}; {_NEXT}") from error
                time.sleep(pause)
                pause = min(max(2 * pause, 0.02), 1.0)
                self._look_again()
            except (exceptions.OutOfMemoryError, exceptions.ResponseError) as error:
                raise self._refusal(error) from error
            except exceptions.InvalidResponse as error:
                raise CannotBeDone(f"{self._url.shown} does not speak as Redis does: {_told(error)[:100]}") from error

    def _look_again(self) -> None:
        """Let idle connections go and learn anew which node serves what, after an error that may come of a change."""
        if self._server is not None:
            self._server.connection_pool.disconnect(inuse_connections=False)
        if self._cluster is not None:
            try:
                self._cluster.nodes_manager.initialize()
            except exceptions.RedisError:
                return  # the cluster is away as a whole: the next try tells

    def _refusal(self, error: Exception) -> CannotBeDone | AskAliases:
        text = str(error)
        if text.startswith("LEFT "):
            return AskAliases(text.removeprefix("LEFT "))
        if text.startswith(("OOM", "MISCONF")) or "used memory" in text:
            why = "its memory is full" if "memory" in text else "it cannot write to its disk"
            return StoreWriteFailed(f"{self._url.shown} refused the write: {why} ({text})")
        if text.startswith("HELD "):
            return StoreHeld(f"{self._url.shown} takes no writes now: {text.removeprefix('HELD ')}")
        if "NOSTORE" in text:
            return StoreDamaged(
                f"{self._url.shown} has lost a part of the store; restore the server from a backup, or index anew"
            )
        if "unknown command" in text.lower():
            return CannotBeDone(
                f"{self._url.shown} lacks a command: {text}; binsight needs Redis 8 or newer, such as the image redis:8"
            )
        return CannotBeDone(f"{self._url.shown} refused: {text}")

    # ---- about the server

    def nodes(self) -> list[redis.Redis]:
        """Every node that takes writes."""
        if self._server is not None:
            return [self._server]
        assert self._cluster is not None
        return [self._cluster.get_redis_connection(node) for node in self._cluster.get_primaries()]  # type: ignore[no-untyped-call]

    def check_server(self) -> tuple[str, str]:
        """Version, and "always", "everysec", "no", "aof" (which is not told) or "none": how it keeps writes on disk.

        Raises CannotBeDone, naming version and command, for a server without vector sets.
        """
        versions, kept = [], []
        for node in self.nodes():
            version = str(self._retried(partial(node.info, "server"))["redis_version"])
            if tuple(int(part) for part in version.split(".")[:2]) < FIRST_VERSION:
                raise CannotBeDone(
                    f"{self._url.shown} is Redis {version} and lacks {NEEDED} (vector sets); binsight needs Redis 8 or newer, "
                    "such as the image redis:8"
                )
            versions.append(version)
            kept.append(self._durability(node))
        worst = min(kept, key=("none", "no", "aof", "everysec", "always").index)
        return min(versions), worst

    def _durability(self, node: redis.Redis) -> str:
        if not self._retried(lambda: node.info("persistence")).get("aof_enabled"):
            return "none"
        try:
            return str(self._retried(partial(node.config_get, "appendfsync")).get("appendfsync", "aof"))
        except CannotBeDone as error:
            if isinstance(error.__cause__, exceptions.NoPermissionError):
                return "aof"
            raise

    def close(self) -> None:
        """Let go of all connections."""
        for client in (self._cluster, self._server):
            if client is not None:
                client.close()
        if self._threads is not None:
            self._threads.shutdown()


def _told(error: Exception) -> str:
    return str(error).strip().rstrip(".") or type(error).__name__
