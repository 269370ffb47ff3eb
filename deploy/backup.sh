#!/bin/sh
# A backup of the gateway's database, as one file that `restore.sh` takes: backup.sh DIRECTORY
#
# DATABASE_URL names the database; keep its password in a passfile. Needs pg_dump of the server's version or newer, and
# runs beside the gateway at work. What is in it is encrypted by the master keys, which are not: keep these elsewhere.
set -eu
umask 077
: "${DATABASE_URL:?name the database}"
directory=${1:?usage: backup.sh DIRECTORY}
mkdir -p "$directory"
file=$directory/webhook-gateway-$(date -u +%Y%m%dT%H%M%SZ).dump
trap 'rm -f "$file.part"' EXIT

# Roles and grants are those of the server that it is restored to. A copy is as after a crash: what waits in its outbox
# may have been sent since, and its ledger says so.
"${PG_DUMP:-pg_dump}" --format=custom --no-owner --no-privileges --no-unlogged-table-data --file="$file.part" \
    --dbname="$DATABASE_URL"
"${PG_RESTORE:-pg_restore}" --list "$file.part" > /dev/null  # its end is there, too
sync "$file.part"
mv "$file.part" "$file"
(cd "$directory" && sha256sum "${file##*/}" > "${file##*/}.sha256")
echo "$file"
