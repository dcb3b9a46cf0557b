# Starts a cluster in $DIR/data with the programs in $BIN on port $PORT, says "ready", and stops and removes it
# when standard input closes. $AS, if not empty, goes before a command to run it as the user who owns $DIR. $FSYNC is on or off.
# $FROM, if not empty, is the URL of a server of which it becomes a standby that follows nobody: it has what that one had.
set -eu

# Outlive a Ctrl-C, to clean up. Not '': the server would inherit that.
trap : HUP INT TERM PIPE
stop() {
  $AS "$BIN/pg_ctl" stop -w -D "$DIR/data" -m immediate >/dev/null 2>&1 || true
  rm -rf "$DIR"
}
trap stop EXIT
exec 2>&1
cd "$DIR"

if [ -n "$FROM" ]; then
  $AS "$BIN/pg_basebackup" -D "$DIR/data" -d "$FROM" --checkpoint=fast --no-sync >/dev/null
  $AS touch data/standby.signal
else
  $AS "$BIN/initdb" -D "$DIR/data" -U postgres -A trust -E UTF8 --locale=C --no-sync >/dev/null
fi
cat >>data/postgresql.conf <<CONF
listen_addresses = '127.0.0.1'
port = $PORT
unix_socket_directories = '$DIR'
max_connections = 300
fsync = $FSYNC
full_page_writes = $FSYNC
CONF
$AS "$BIN/pg_ctl" start -w -t 60 -D "$DIR/data" -l log >/dev/null || { cat log; exit 1; }

echo ready
exec >/dev/null 2>&1
cat
