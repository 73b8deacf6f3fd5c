# The keeper of one PostgreSQL server. It is started before the server, in a process group of its
# own, and holds the reading end of a pipe (the lifeline) whose writing end only the owner has. However
# the owner ends, SIGKILL included, the pipe closes, and the keeper stops the server and cleans up.
#
# Arguments: directory, PostgreSQL's bin directory, `yes` if the directory is thrown away at the
# end, a socket directory to remove at the end (or nothing).
# Standard input: the lifeline; its first line is the superuser's password.
# Standard output: `failed initdb`, `started PID`, `exited STATUS`.
# Standard error: the log, which is also the lock of the directory: it stays locked while the owner,
# the keeper or the server has it open.
set -u
# A terminal or a supervisor that signals everybody must not end the keeper before the server.
trap '' HUP INT TERM QUIT PIPE
umask 077
PATH=${PATH:-}:/usr/bin:/bin # for rm, mv and sleep, whatever the owner's is
export PATH
base=$1 bin=$2 throw_away=$3 socket=$4
data=$base/data
exec 3<&0 </dev/null

say() {
    echo "$*" 2>/dev/null || :
}

# Into another name first: an initdb that is cut short leaves nothing that looks like a database.
initialize() {
    [ ! -e "$data" ] || return 0
    sync=
    [ "$throw_away" = no ] || sync=--no-sync
    for locale in C.UTF-8 C; do # not every system has C.UTF-8
        rm -rf "$data.new"
        if printf '%s\n' "$password" | "$bin/initdb" --pgdata="$data.new" --username=postgres \
            --pwfile=/dev/stdin --auth=scram-sha-256 --encoding=UTF8 --locale="$locale" \
            --data-checksums --no-instructions $sync >&2 3<&-; then
            mv "$data.new" "$data"
            return
        fi
    done
    return 1
}

# Repeats each signal, because a server that has only just been started does not hear it yet.
stop_server() {
    signals='INT QUIT KILL' # fast: with a checkpoint
    [ "$throw_away" = no ] || signals='QUIT KILL' # immediate: nothing is kept
    for signal in $signals; do
        tries=0
        while [ "$tries" -lt 60 ]; do
            kill -s "$signal" "$server" 2>/dev/null || return 0
            sleep 1 >/dev/null 2>&1 3<&-
            tries=$((tries + 1))
        done
    done
}

run_server() {
    "$bin/postgres" -D "$data" -c "config_file=$base/postgresql.conf" >&2 3<&- &
    server=$!
    say "started $server"
    { read -r rest <&3 || :; stop_server; } &
    guard=$!
    wait "$server"
    status=$?
    kill -s KILL "$guard" 2>/dev/null
    wait "$guard" 2>/dev/null
    say "exited $status"
}

if IFS= read -r password <&3; then
    if initialize; then
        password=
        run_server
    else
        say "failed initdb"
    fi
    read -r rest <&3 || : # a server that ended by itself: its files stay while the owner lives
fi
[ -z "$socket" ] || rm -rf "$socket"
[ "$throw_away" = no ] || rm -rf "$base"
