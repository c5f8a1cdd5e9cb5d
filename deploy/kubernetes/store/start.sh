#!/bin/sh
# Gives the users of the store their passwords, of which it keeps only hashes, and starts the store.
set -eu
hash_of() {
	printf %s "$(cat "$PASSWORDS/$1")" | sha256sum | cut -d ' ' -f 1
}
umask 077
users=${TMPDIR:-/tmp}/users.acl
sed -e '/^#/d' -e "s/SERVER_PASSWORD/$(hash_of server-password)/" -e "s/OPERATOR_PASSWORD/$(hash_of operator-password)/" \
	"$CONFIGURATION/users.acl" >"$users"
exec valkey-server "$CONFIGURATION/valkey.conf" --aclfile "$users" "$@"
