#!/bin/sh
# Gives the users of the store their passwords, of which it keeps only hashes, and starts the store.
set -eu
hash_of() {
	printf %s "$(cat "$PASSWORDS/$1")" | sha256sum | cut -d ' ' -f 1
}
umask 077
users=${TMPDIR:-/tmp}/users.acl
# Not every deployment follows WorkOS. Without a password there is no such user.
source=/SOURCE_PASSWORD/d
if [ -e "$PASSWORDS/source-password" ]; then
	source=s/SOURCE_PASSWORD/$(hash_of source-password)/
fi
sed -e '/^#/d' -e "$source" -e "s/SERVER_PASSWORD/$(hash_of server-password)/" -e "s/OPERATOR_PASSWORD/$(hash_of operator-password)/" \
	"$CONFIGURATION/users.acl" >"$users"
exec valkey-server "$CONFIGURATION/valkey.conf" --aclfile "$users" "$@"
