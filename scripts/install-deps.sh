#!/usr/bin/env bash
# Installs what the tests need beside Go and is not there yet. Says nothing when
# nothing is missing. No service is started: the tests start their own servers.
#
# Exits with 0 also when it could not install something, since the tests that
# need it skip then; with CI set, with 1.
set -euo pipefail

have() { command -v "$1" >/dev/null 2>&1; }
any() { for program; do if have "$program"; then return 0; fi; done; return 1; }
have_postgres() {
	compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || have initdb || have "${POSTGRES_BIN_DIR:-/nowhere}/initdb"
}
have_mariadb() { # the same place
	if [ -n "${MARIADBD_BIN:-}" ]; then have "$MARIADBD_BIN"; else any mariadbd /usr/sbin/mariadbd; fi
}
have_pgbouncer() { # Debian puts it where the PATH of users does not lead
	if [ -n "${PGBOUNCER_BIN:-}" ]; then have "$PGBOUNCER_BIN"; else any pgbouncer /usr/sbin/pgbouncer; fi
}

missing=()
what=()
need() { missing+=("$1"); what+=("  $1 ($2)"); }

have make || need make "runs the targets of the Makefile"
have "$(go env CC)" || need "gcc libc6-dev" "the race detector is linked with it"
have "${REDIS_SERVER_BIN:-redis-server}" || need redis-server "the tests of the shared tier"
have_postgres || need postgresql "the tests of storage and invalidation"
have_mariadb || need mariadb-server "the tests of the outbox in MariaDB"
have_pgbouncer || need pgbouncer "the tests behind a connection pooler"
have promtool || need prometheus "the tests of the alerts"
any chromium chromium-browser google-chrome || need chromium "the tests of the dashboard"

[ "${#missing[@]}" -gt 0 ] || exit 0

echo "Missing for the tests:"
printf '%s\n' "${what[@]}"

give_up() {
	echo "$1"
	echo "The tests that need what is missing skip (with CI set they fail)."
	[ -z "${CI:-}" ] || exit 1
	exit 0
}

have apt-get || give_up "There is no apt-get here. Install these with this system's own package manager."
[ "$(id -u)" -eq 0 ] || give_up "Installing them needs root: sudo $0"

echo "Installing them with apt-get. No service is started."

# Debian's packages start their services unless this file says no. It has to be
# put back as it was however this script ends.
policy=/usr/sbin/policy-rc.d
restore() {
	rm -f "$policy"
	if [ -e "$policy.before-install-deps" ]; then mv "$policy.before-install-deps" "$policy"; fi
}
trap restore EXIT
if [ -e "$policy" ]; then mv "$policy" "$policy.before-install-deps"; fi
printf '#!/bin/sh\nexit 101\n' >"$policy"
chmod 755 "$policy"

export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2206 # an entry may name two packages
packages=(${missing[@]})
install() { apt-get install -y -q --no-install-recommends "${packages[@]}" </dev/null 2>&1; }
# The package lists of a machine may be fresh, or missing, or too old.
if ! said=$(install || { apt-get update -q 2>&1 && install; }); then
	echo "$said"
	give_up "apt-get failed, see above."
fi
echo "Installed."

# Nor may they start with the next boot, where they were not asked for.
if [ -d /run/systemd/system ]; then
	for package in "${packages[@]}"; do
		case $package in redis-server | postgresql | pgbouncer | mariadb-server | prometheus) systemctl disable --quiet "$package" || true ;; esac
	done
fi
