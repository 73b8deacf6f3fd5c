#!/bin/sh
# Checks what the build needs (cargo, a C compiler) and installs what the database needs: the
# PostgreSQL server binaries. Never prompts, and does nothing where everything is there.
#
# No database is set up and no service is started or stopped: the programs start private servers
# from the binaries (crates/embedded-postgres).
set -eu

MINIMUM=15 # also in crates/embedded-postgres/src/install.rs

say() { printf 'setup: %s\n' "$*" >&2; }
fail() {
    say "$@"
    exit 1
}

# Succeeds if $1 holds server binaries that are new enough.
usable() {
    [ -x "$1/postgres" ] && [ -x "$1/initdb" ] || return 1
    major=$("$1/postgres" --version 2>/dev/null | sed -n 's/^.*(PostgreSQL) \([0-9]*\).*$/\1/p')
    [ -n "$major" ] && [ "$major" -ge "$MINIMUM" ]
}

# The places are those of crates/embedded-postgres/src/install.rs.
find_postgres() {
    old_ifs=$IFS
    IFS=:
    for directory in $PATH; do
        if usable "$directory"; then
            IFS=$old_ifs
            return 0
        fi
    done
    IFS=$old_ifs
    if directory=$(pg_config --bindir 2>/dev/null) && usable "$directory"; then
        return 0
    fi
    for directory in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /usr/lib/postgresql*/bin \
        /usr/libexec/postgresql* /opt/homebrew/opt/postgresql@*/bin \
        /usr/local/opt/postgresql@*/bin /home/linuxbrew/.linuxbrew/opt/postgresql@*/bin \
        /Applications/Postgres.app/Contents/Versions/*/bin /usr/local/pgsql*/bin; do
        if usable "$directory"; then
            return 0
        fi
    done
    return 1
}

# Runs a command as root: directly, or by a sudo that does not ask.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo -n "$@"
    fi
}

may_be_root() {
    [ "$(id -u)" -eq 0 ] && return 0
    command -v sudo >/dev/null 2>&1 && sudo -n true >/dev/null 2>&1
}

apt() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 "$@" >&2
}

# Debian's package makes and starts a cluster of its own unless told otherwise beforehand. The
# administrator's configuration is put back afterwards.
install_with_apt() {
    apt update || say 'apt-get update failed; trying with the package lists that are there'
    newest=$(apt-cache pkgnames postgresql- | sed -n 's/^postgresql-\([0-9][0-9]*\)$/\1/p' |
        sort -n | tail -n 1)
    if [ "${newest:-0}" -lt "$MINIMUM" ]; then
        fail "this distribution has PostgreSQL ${newest:-none}, and $MINIMUM or newer is needed;" \
            'add the packages of https://www.postgresql.org/download/linux/'
    fi
    apt install --no-install-recommends postgresql-common
    configuration=/etc/postgresql-common/createcluster.conf
    saved=$configuration.before-setup
    if [ -e "$configuration" ] && [ ! -e "$saved" ]; then
        as_root cp -p "$configuration" "$saved"
    fi
    trap restore EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    as_root sh -c "sed -e '/^[# ]*create_main_cluster/d' '$saved' >'$configuration' 2>/dev/null || :
        echo 'create_main_cluster = false' >>'$configuration'"
    apt install --no-install-recommends "postgresql-$newest"
}

restore() {
    if [ -e "$saved" ]; then
        as_root mv "$saved" "$configuration"
    else
        as_root rm -f "$configuration"
    fi
}

install_postgres() {
    wanted="PostgreSQL $MINIMUM or newer (the server: initdb, postgres, pgbench)"
    if command -v apt-get >/dev/null 2>&1; then
        may_be_root || fail "$wanted is missing; as root: apt-get install postgresql"
        say 'installing PostgreSQL with apt-get'
        install_with_apt
    elif command -v dnf >/dev/null 2>&1; then
        may_be_root || fail "$wanted is missing; as root: dnf install postgresql-server"
        say 'installing PostgreSQL with dnf'
        as_root dnf install -y postgresql-server postgresql-contrib >&2
    elif command -v brew >/dev/null 2>&1; then
        say 'installing PostgreSQL with brew'
        NONINTERACTIVE=1 brew install postgresql@17 >&2
    else
        fail "$wanted is missing; install it with your system's package manager"
    fi
    find_postgres || fail "the installed packages hold no $wanted"
}

command -v cargo >/dev/null 2>&1 ||
    fail 'cargo is missing; install the stable Rust toolchain: https://rustup.rs'
command -v cc >/dev/null 2>&1 ||
    fail 'a C compiler, cc, is missing (for linking and for ring): apt-get install gcc libc6-dev, dnf install gcc,' \
        'or xcode-select --install'
find_postgres || install_postgres

# The tests of the printable page need a browser. Without one they say that they are skipped; in CI they fail.
if [ "${CI:-}" = true ] && ! command -v chromedriver >/dev/null 2>&1 && command -v apt-get >/dev/null 2>&1; then
    say 'installing Chromium with apt-get'
    apt update || say 'apt-get update failed; trying with the package lists that are there'
    apt install --no-install-recommends chromium chromium-driver fonts-dejavu-core
fi
