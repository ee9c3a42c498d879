#!/bin/sh
# Starts the Redis of the Debian tree beside this file with that tree's own libraries; see `make redis`.
tree=$(dirname "$(readlink -f "$0")")/tree
exec "$tree"/lib*/ld-linux-*.so.* --library-path "$tree/usr/lib/$(uname -m)-linux-gnu" "$tree/usr/bin/redis-server" "$@"
