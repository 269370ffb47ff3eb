#!/bin/sh
# Restores a backup into an empty database, in which nothing is sent until somebody says so: restore.sh FILE
#
# DATABASE_URL names that database. Start no worker before this has ended; one that was started all the same would see
# that the database is another one, and send nothing either. Needs the master keys, as every command does.
set -eu
: "${DATABASE_URL:?name the empty database}"
file=${1:?usage: restore.sh FILE}
(cd "$(dirname "$file")" && sha256sum --check --quiet "$(basename "$file").sha256")

"${PG_RESTORE:-pg_restore}" --exit-on-error --single-transaction --no-owner --no-privileges \
  --dbname="$DATABASE_URL" "$file"
gateway=${WEBHOOK_GATEWAY:-webhook-gateway}
$gateway migrate
$gateway pause-all --reason "restored from $(basename "$file")"
$gateway check
echo "Nothing is sent from here until: webhook-gateway resume-all"
